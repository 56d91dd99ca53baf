"""The act of a conversion: writes what a plan says, and reads it again where that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from estimator_ckpt import files
from estimator_ckpt.bundle.index import read_index, same_tensor, shard_path
from estimator_ckpt.bundle.slices import key_text
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.already_converted import is_result
from estimator_ckpt.conversion.companions import (
    carry_input,
    carry_meta,
    keep_input,
    keep_meta,
    write_own_state,
)
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import claimed
from estimator_ckpt.conversion.plan import Content, Conversion
from estimator_ckpt.conversion.request import request_of
from estimator_ckpt.conversion.transfer import Transfer, Written
from estimator_ckpt.errors import CorruptCheckpointError, WriteError
from estimator_ckpt.files import Progress


def changes(checkpoint: Checkpoint, tensors: Mapping[str, Content]) -> bool:
    """Whether a result in place would be another checkpoint."""
    if any(not content.source or content.computed for content in tensors.values()):
        return True
    index = checkpoint.index
    if {key_text(key) for key in index.entries if key[:1] != b"\0"} != tensors.keys():
        return True
    return any(
        key != content.source and not same_tensor(index, key, content.source)
        for key, content in tensors.items()
    )


def carry_out(
    checkpoint: Checkpoint,
    conversion: Conversion,
    tensors: Mapping[str, Content],
    options: ConvertOptions,
    progress: Progress = None,
    *,
    with_state: bool = False,
    wait: float = 0.0,
) -> Conversion:
    """Writes the result of a plan.

    Args:
      with_state: also a state file, where the directory has no other.
      wait: how long to wait for another conversion to the same place, in seconds.

    Raises:
      CorruptCheckpointError, WriteError: as convert_checkpoint() does.
    """
    if options.verify:
        _check_data(conversion.source, progress)
    # A file in the V1 format is no data file: there is nothing that could be linked.
    compact = options.compact or options.dtype is not None or checkpoint.index.v1 is not None
    with contextlib.closing(
        Transfer(conversion.source, checkpoint.index, tensors, progress, checkpoint.stamp)
    ) as transfer:
        if options.in_place:
            done = transfer.write_in_place(prove=options.verify, request=request_of(options))
            if done is None:
                return replace(conversion, rows=(), already=True)
            written = done
            companions = keep_meta(checkpoint.index, conversion.source, tensors)
            companions += keep_input(conversion.source)
        else:
            with claimed(conversion.destination, wait=wait) as site:
                if files.exists(f"{site.destination}.index"):
                    written = _finished(checkpoint, tensors, site.destination, copy=options.copy)
                else:
                    written = transfer.write_new(
                        site,
                        copy=options.copy,
                        compact=compact,
                        prove=options.verify,
                    )
                companions = carry_meta(checkpoint.index, conversion.source, tensors, site)
                companions += carry_input(conversion.source, site, take=options.with_input)
                if with_state:
                    write_own_state(conversion.source, site)
    return replace(
        conversion,
        written=True,
        data_files=tuple(written.data_files),
        companions=companions,
        verified=written.compared,
        underflows=tuple(written.underflows.items()),
    )


def _finished(
    checkpoint: Checkpoint, tensors: Mapping[str, Content], destination: str, *, copy: bool
) -> Written:
    """What a conversion that was killed just before its end has written.

    Raises:
      WriteError: it is not what is to be written now.
    """
    index = read_index(destination)
    paths = [shard_path(destination, shard, index.num_shards) for shard in range(index.num_shards)]
    if not is_result(checkpoint, tensors, destination) or (
        copy and any(map(files.is_linked, paths))
    ):
        raise WriteError(
            "the checkpoint that is there already was written by a conversion that was killed, and "
            "is not what is to be written now; remove it, or name another place",
            path=destination,
        )
    return Written([(path, "same") for path in paths], None, {})


def _check_data(prefix: str, progress: Progress) -> None:
    from estimator_ckpt.verify import verify_tensors

    for fault in verify_tensors(prefix, progress=progress).faults:
        raise CorruptCheckpointError(fault.message, path=fault.file, key=fault.key)

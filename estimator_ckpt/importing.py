"""Back from a safetensors or npz file to a checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.bundle.checksum import Checksum
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.carry_out import carry_out
from estimator_ckpt.conversion.casting import Casts
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import check_destination, claimed, refuse_name
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.errors import CheckpointError, NotACheckpointError, SettingsError
from estimator_ckpt.exchange import npz, safetensors
from estimator_ckpt.exchange.tensors import FileTensor, check_variables
from estimator_ckpt.files import Progress
from estimator_ckpt.files.lookalikes import name_file
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.matching.rules import Pairs

_Source = tuple[FileTensor, Callable[[], Iterator[bytes]]]


def import_checkpoint(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    checkpoint_format: CheckpointFormat,
    *,
    layout: str | None = None,
    like: Any = None,
    match_by: str | None = None,
    rename: Pairs = (),
    assignment_map: Pairs = (),
    exclude: Sequence[str] = (),
    dtype: Casts = None,
    progress: Progress = None,
) -> Conversion:
    """Makes a checkpoint of a file of another library: each tensor becomes a variable of its name.

    The values are streamed, and not turned: a kernel that PyTorch has as [out, in] stays so.
    Arguments that are not explained here are those of convert_checkpoint().

    Args:
      path: a `.safetensors` or `.npz` file.
      destination: the prefix of the result; or a directory, one that is there or ends in "/", in
        which it is called as the file is.
      checkpoint_format: "saver", "checkpoint" or "both".
      progress: called with the bytes done and those in all.

    Returns:
      The result, as convert_checkpoint() returns it; its source is the file.

    Raises:
      SettingsError: an argument is wrong, a rule matches nothing, or the file has no tensors.
      ConflictError, MismatchError: as convert_checkpoint() does.
      NotACheckpointError, CorruptCheckpointError: the file is none of these, or is broken.
      UnsupportedCheckpointError: an array of objects, or a dtype, a name or a shape that
        checkpoints have not.
      WriteError: the result cannot be written; nothing of it is left behind.
    """
    path, target = os.fspath(path), os.fspath(destination)
    options = ConvertOptions(
        checkpoint_format,
        layout=layout,
        like=like,
        match_by=match_by,
        rename=rename,
        assignment_map=assignment_map,
        exclude=exclude,
        dtype=dtype,
    )
    stem, ending = os.path.splitext(os.path.basename(path))
    if not target:
        raise SettingsError("expected a prefix or a directory, found none", key="destination")
    refuse_name(target)
    if target.endswith("/") or files.is_dir(target):
        target = os.path.join(target, stem)
    with contextlib.ExitStack() as stack:
        sources = _sources(path, ending.lower(), stack)
        if not sources:
            raise SettingsError("the file has no tensors", key=path)
        check_variables((tensor for tensor, _ in sources), path)
        check_destination(target)
        done = _import(path, target, sources, options, progress)
    return replace(done, source=path, source_format=ending.lower().lstrip("."))


def _import(
    path: str,
    target: str,
    sources: Sequence[_Source],
    options: ConvertOptions,
    progress: Progress,
) -> Conversion:
    staged = f"{target}.importing"  # never has an index, so nobody takes it for a checkpoint
    try:
        with claimed(staged):  # what a killed run has left is removed
            try:
                index = _write(staged, sources, progress)
                with Checkpoint(path, staged, index, None) as checkpoint:
                    conversion, tensors = make_plan(checkpoint, target, options)
                    done = carry_out(checkpoint, conversion, tensors, options, with_state=True)
            finally:
                files.remove(shard_path(staged, 0, 1))
    except CheckpointError as error:
        if error.path == staged:
            error.path = path
        raise
    return done


def _sources(path: str, ending: str, stack: contextlib.ExitStack) -> list[_Source]:
    """The tensors of a file, in its order, each with what reads its bytes.

    Args:
      path: the file.
      ending: of its name.
      stack: closes what stays open for that.
    """
    found: list[_Source] = []
    if ending == ".safetensors":
        for tensor, start in safetensors.read_header(path)[0].values():
            read = partial(safetensors.read_chunks, path, start, tensor.nbytes)
            found.append((tensor, read))
    elif ending == ".npz":
        members = npz.read_header(path)[0].values()
        archive = stack.enter_context(npz.open_archive(path))
        for member in members:
            found.append((member.tensor, partial(npz.read_chunks, archive, path, member)))
    else:
        what = name_file(path) if files.exists(path) and not files.is_dir(path) else None
        if what is not None:
            raise NotACheckpointError(f"this is {what}", path=path)
        raise SettingsError(
            f"expected a file's name that ends in .safetensors or .npz, found {path!r}", key="path"
        )
    return found


def _write(prefix: str, sources: Sequence[_Source], progress: Progress) -> Index:
    """Writes the data file of a name-based checkpoint; returns what its index would be."""
    entries: dict[bytes, Entry] = {}
    total = sum(tensor.nbytes for tensor, _ in sources)
    offset = 0
    with files.open_write(shard_path(prefix, 0, 1)) as file:
        for tensor, read in sources:
            checksum = Checksum()
            for chunk in read():
                file.write(chunk)
                checksum.add(chunk)
                if progress:
                    progress(offset + checksum.size, total)
            entries[key_bytes(tensor.name)] = Entry(
                tensor.dtype, tensor.shape, 0, offset, checksum.size, checksum.masked
            )
            offset += checksum.size
    return Index(1, entries)

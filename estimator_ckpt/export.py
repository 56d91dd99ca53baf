"""Variables for programs without TensorFlow: a checkpoint's as a safetensors or npz file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.casting import Casts
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import make_new_dirs
from estimator_ckpt.conversion.plan import Content, Conversion, ConversionRow
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.conversion.result_bytes import ResultBytes
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError, WriteError
from estimator_ckpt.exchange import npz, safetensors
from estimator_ckpt.exchange.dtypes import NAMES
from estimator_ckpt.exchange.tensors import FileTensor
from estimator_ckpt.files import Progress
from estimator_ckpt.formats import RESETS_KEY
from estimator_ckpt.matching.rules import Pairs
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY
from estimator_ckpt.text.names import some_of

_FORMATS: dict[str, ModuleType] = {".safetensors": safetensors, ".npz": npz}
_MOST_SHOWN = 5


class LeftOut(NamedTuple):
    """A variable of the checkpoint that the file does not have, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Export:
    """What an export does, or has done.

    Attributes:
      source: the prefix of the checkpoint.
      path: the file.
      tensors: what it has, in its order: name, dtype (TensorFlow's number), shape, bytes.
      left_out: what it has not; by name, or by key where there is no name.
      metadata: what it says of itself: `source`, `step`, `object_paths` (JSON).
      written: False for a dry run.
      warning: what is to be said of the result; empty where there is nothing.
    """

    source: str
    path: str
    tensors: tuple[FileTensor, ...]
    left_out: tuple[LeftOut, ...]
    metadata: Mapping[str, str]
    written: bool = False
    warning: str = ""


def export_checkpoint(
    source: str | os.PathLike[str] | Checkpoint,
    path: str | os.PathLike[str],
    *,
    rename: Pairs = (),
    assignment_map: Pairs = (),
    exclude: Sequence[str] = (),
    drop_slots: bool = False,
    use_averages: str | bool = False,
    dtype: Casts = None,
    skip_unsupported: bool = False,
    dry_run: bool = False,
    progress: Progress = None,
) -> Export:
    """Writes the variables of a checkpoint, by name, to a file that needs no TensorFlow.

    One tensor after the other goes through memory, a few megabytes at a time, its checksum
    verified. docs/exchange.md has the table of dtypes. Arguments that are not explained here are
    those of convert_checkpoint().

    Args:
      source: whatever open_checkpoint() takes, or what it returns.
      path: the new file; its name ends in `.safetensors` or `.npz`.
      skip_unsupported: leave out what the format cannot hold (strings, complex128 in safetensors,
        bfloat16 in npz, ...), instead of an error.
      dry_run: only say what would be written.
      progress: called with the bytes done and those in all.

    Returns:
      What the file has, and what it has not.

    Raises:
      SettingsError: an argument is wrong, a rule matches nothing, or nothing would be left.
      ConflictError: two variables would have one name.
      UnsupportedCheckpointError: the format cannot hold a dtype or a name; says which.
      MismatchError: values do not fit the new dtype.
      NotACheckpointError, CorruptCheckpointError: the source is none, or is broken.
      WriteError: the file exists, or cannot be written. Nothing is left behind.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending not in _FORMATS:
        raise SettingsError(
            f"expected a file's name that ends in {' or '.join(_FORMATS)}, found {path!r}",
            key="path",
        )
    options = ConvertOptions(
        "saver",
        rename=rename,
        assignment_map=assignment_map,
        exclude=exclude,
        drop_slots=drop_slots,
        use_averages=use_averages,
        dtype=dtype,
    )
    with contextlib.ExitStack() as stack:
        if not isinstance(source, Checkpoint):
            source = stack.enter_context(open_checkpoint(source))
        return _export(
            source,
            path,
            ending,
            options,
            skip_unsupported=skip_unsupported,
            dry_run=dry_run,
            progress=progress,
        )


@collector_paused()
def _export(
    checkpoint: Checkpoint,
    path: str,
    ending: str,
    options: ConvertOptions,
    *,
    skip_unsupported: bool,
    dry_run: bool,
    progress: Progress,
) -> Export:
    _check_free(path)
    conversion, contents = make_plan(checkpoint, path, options)
    contents = {name: one for name, one in contents.items() if name != RESETS_KEY}
    kept, unfit = _sort_out(contents, ending)
    if unfit and not skip_unsupported:
        shown = some_of([f"{one.name}: {one.why}" for one in unfit], _MOST_SHOWN, "; ")
        raise UnsupportedCheckpointError(
            f"a {ending} file cannot hold {len(unfit)} of the {len(contents)} variables: {shown}"
            ". Leave them out (skip_unsupported, or exclude), or cast them (dtype)",
            path=checkpoint.prefix,
        )
    if not kept:
        raise SettingsError("nothing would be left of the checkpoint", key="exclude")
    left_out = tuple(
        LeftOut(row.source, row.why)
        for row in conversion.rows
        if not row.targets and row.source != OBJECT_GRAPH_KEY
    )
    tensors = _FORMATS[ending].in_order(kept)
    metadata = _metadata(checkpoint, conversion.rows, {tensor.name for tensor in kept})
    export = Export(checkpoint.prefix, path, tuple(tensors), (*left_out, *unfit), metadata)
    if dry_run:
        return export
    underflows = _write(checkpoint, path, ending, export, contents, progress)
    warning = Conversion(
        checkpoint.prefix,
        path,
        checkpoint.format,
        "saver",
        (),
        underflows=underflows,
        notes=conversion.notes,
    ).warning
    return Export(
        export.source,
        path,
        export.tensors,
        export.left_out,
        metadata,
        written=True,
        warning=warning,
    )


def _check_free(path: str) -> None:
    if files.exists(path):
        raise WriteError("the file exists; name another one, or remove it", path=path)


def _sort_out(
    contents: Mapping[str, Content], ending: str
) -> tuple[list[FileTensor], list[LeftOut]]:
    """What a file of this kind can hold, and what it cannot."""
    kept, unfit = [], []
    for name, content in contents.items():
        why = _FORMATS[ending].unfit(name)
        try:
            name.encode()
        except UnicodeEncodeError:
            why = "the name is no UTF-8"
        if content.dtype not in NAMES[ending]:
            why = f"{ending} files have no {dtype_name(content.dtype)}"
        if why:
            unfit.append(LeftOut(name, why))
        else:
            kept.append(FileTensor(name, content.dtype, content.shape, content.nbytes))
    return kept, unfit


def _metadata(
    checkpoint: Checkpoint, rows: Sequence[ConversionRow], names: set[str]
) -> dict[str, str]:
    """What the file says of itself; all values are text, as safetensors has them."""
    metadata = {"format": "tf", "source": os.path.basename(checkpoint.prefix)}
    if checkpoint.global_step is not None:
        metadata["step"] = str(checkpoint.global_step)
    if checkpoint.object_graph is not None:
        columns = checkpoint.columns
        by_key = {
            **dict(zip(columns.last_key, columns.object_path)),
            **dict(zip(columns.key, columns.object_path)),
        }
        paths = {
            target: by_key[row.source]
            for row in rows
            for target in row.targets
            if target in names and by_key.get(row.source)
        }
        if paths:
            metadata["object_paths"] = json.dumps(paths, sort_keys=True)
    return metadata


def _write(
    checkpoint: Checkpoint,
    path: str,
    ending: str,
    export: Export,
    contents: Mapping[str, Content],
    progress: Progress,
) -> tuple[tuple[str, int], ...]:
    """Writes under another name, and gives the whole file its own; returns the underflows."""
    tensors = {tensor.name: contents[tensor.name] for tensor in export.tensors}
    source = ResultBytes(checkpoint.prefix, checkpoint.index)
    total = sum(tensor.nbytes for tensor in export.tensors)
    done = 0

    def chunks(name: str) -> Iterator[bytes]:
        nonlocal done
        for chunk in source.values(tensors[name]):
            yield chunk
            done += len(chunk)
            if progress:
                progress(done, total)

    temporary = f"{path}.part{int.from_bytes(os.urandom(8), 'big')}"
    with contextlib.ExitStack() as made:
        make_new_dirs(os.path.dirname(path), made)
        try:
            with contextlib.closing(source), files.open_write(temporary) as file:
                source.expect_values(tensors.values())
                streams = {name: chunks(name) for name in tensors}
                _FORMATS[ending].write(file, export.tensors, streams, export.metadata)
            _check_free(path)  # another may have come meanwhile
            files.rename(temporary, path)
        except BaseException:
            files.remove(temporary)
            raise
        made.pop_all()
    return tuple(source.underflows.items())

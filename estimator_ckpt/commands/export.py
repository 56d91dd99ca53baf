"""usage: estimator-ckpt export [flags] CHECKPOINT FILE.safetensors
       estimator-ckpt export [flags] CHECKPOINT FILE.npz

Writes the variables of a checkpoint of any format, by name, to a file that programs without
TensorFlow read: with the safetensors library, or np.load. The rules are those of convert.

Examples:
  estimator-ckpt export run weights.safetensors --drop_slots
  estimator-ckpt export run/model.ckpt-1000 weights.npz --exclude=global_step --dtype=float16
"""

from __future__ import annotations

import json
import sys
from typing import Any

from absl import flags

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.commands.convert_flags import define_options, option_values
from estimator_ckpt.errors import printable
from estimator_ckpt.export import Export, export_checkpoint
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.quantities import counted, size_text, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import print_table

EXIT_CODES = {
    0: "written, or with --dry_run, shown",
    2: "an error; nothing is written",
}
_OPTIONS = ("drop_slots", "use_averages", "exclude", "rename", "assignment_map", "dtype")
GROUPS = {
    "What is written": " ".join(_OPTIONS),
    "How": "skip_unsupported dry_run json",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_boolean(name, False, text, flag_values=flag_values)

    define_options(flag_values, _OPTIONS)
    boolean(
        "skip_unsupported",
        "Leave out, with a line each, what the format cannot hold (strings; complex128 in"
        " safetensors; bfloat16 in npz), instead of an error.",
    )
    boolean("dry_run", "Print what would be written and touch nothing.")
    boolean("json", "Print JSON.")


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Exports one checkpoint."""
    if len(arguments) != 2:
        raise UsageError(f"export: expected two paths, CHECKPOINT and FILE, found {len(arguments)}")
    options = option_values(flag_values)
    with progress_bar(f"exporting {arguments[0]}") as progress:
        export = export_checkpoint(
            arguments[0],
            arguments[1],
            **options,
            skip_unsupported=flag_values.skip_unsupported,
            dry_run=flag_values.dry_run,
            progress=progress,
        )
    if flag_values.json:
        print(json.dumps(_json(export), indent=2))
        return EXIT_OK
    if flag_values.dry_run:
        rows = [
            [one.name, tensor_text(dtype_name(one.dtype), one.shape), f"{one.nbytes:,}"]
            for one in export.tensors
        ]
        print_table(["name", "tensor", "bytes"], rows, _total(export), right=["bytes"])
    for row in fold(Row("left out", one.name, note=one.why) for one in export.left_out):
        print(printable(f"left out: {row.name} ({row.note})"))
    if export.written:
        print(printable(f"{export.path}: {_total(export)}"))
    if export.warning:
        print(f"estimator-ckpt: {printable(export.warning)}", file=sys.stderr)
    return EXIT_OK


def _total(export: Export) -> str:
    size = size_text(sum(one.nbytes for one in export.tensors))
    left = len(export.left_out)
    kept = counted(len(export.tensors), "tensor")
    return f"{kept}, {size}" + (f"; {left:,} left out" if left else "")


def _json(export: Export) -> dict[str, Any]:
    return {
        "source": export.source,
        "path": export.path,
        "written": export.written,
        "warning": export.warning,
        "metadata": dict(export.metadata),
        "tensors": [{**one._asdict(), "dtype": dtype_name(one.dtype)} for one in export.tensors],
        "left_out": [one._asdict() for one in export.left_out],
    }

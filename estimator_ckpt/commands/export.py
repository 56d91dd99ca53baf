"""usage: estimator-ckpt export [flags] CHECKPOINT FILE.safetensors
       estimator-ckpt export [flags] CHECKPOINT FILE.npz

Writes the variables of a checkpoint of any format, by name, to a file that programs without
TensorFlow read: with the safetensors library, or np.load. The rules are those of convert.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from absl import flags

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.commands.convert_flags import AveragesParser, parse_dtype, parse_rule
from estimator_ckpt.export import Export, export_checkpoint
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.quantities import size_text, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import print_table


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def rules(name: str, text: str) -> None:
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_boolean(name, False, text, flag_values=flag_values)

    rules("rename", r"REGEX:REPLACEMENT, as in 'old/(.*):new/\1'. The first that matches decides.")
    rules(
        "assignment_map",
        "FROM:TO, two names, or two scopes that end in '/', as init_from_checkpoint takes them.",
    )
    rules("exclude", "REGEX of names, or of object paths, to leave out.")
    boolean("drop_slots", "Leave out the optimizers' variables.")
    flags.DEFINE_flag(
        flags.Flag(
            AveragesParser(),
            None,
            "use_averages",
            False,
            "Write the averages (tf.train.ExponentialMovingAverage) as their variables, without the"
            " optimizers' variables; --use_averages=NAME for those of another name.",
            boolean=True,
        ),
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "dtype",
        [],
        "DTYPE to cast all floating-point variables to, or FROM:TO,...",
        flag_values=flag_values,
    )
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
    with progress_bar(f"exporting {arguments[0]}") as progress:
        export = export_checkpoint(
            arguments[0],
            arguments[1],
            rename=[parse_rule("export", "rename", text) for text in flag_values.rename],
            assignment_map=[
                parse_rule("export", "assignment_map", text) for text in flag_values.assignment_map
            ],
            exclude=flag_values.exclude,
            drop_slots=flag_values.drop_slots,
            use_averages=flag_values.use_averages,
            dtype=parse_dtype("export", flag_values.dtype),
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
        print(f"left out: {row.name} ({row.note})")
    if export.written:
        print(f"{export.path}: {_total(export)}")
    if export.warning:
        print(f"estimator-ckpt: {export.warning}", file=sys.stderr)
    return EXIT_OK


def _total(export: Export) -> str:
    size = size_text(sum(one.nbytes for one in export.tensors))
    left = len(export.left_out)
    return f"{len(export.tensors):,} tensors, {size}" + (f"; {left:,} left out" if left else "")


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

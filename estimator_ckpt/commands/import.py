"""usage: estimator-ckpt import --checkpoint_format=FORMAT [flags] FILE DESTINATION

Makes a checkpoint of a .safetensors or .npz file: each tensor becomes a variable of its name, its
values as they are. DESTINATION is a new prefix or a directory. The rules are those of convert.
"""

from __future__ import annotations

import json
import sys

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.commands.convert import conversion_json, summary
from estimator_ckpt.commands.convert_flags import parse_dtype, parse_rule
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.importing import import_checkpoint
from estimator_ckpt.text.progress import progress_bar


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def rules(name: str, text: str) -> None:
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)

    flags.DEFINE_enum(
        "checkpoint_format",
        None,
        list(CHECKPOINT_FORMATS),
        "What the result is. Required.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "layout",
        None,
        list(LAYOUTS),
        "The objects for names: one child of var_list for each, or an object for each scope.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "like",
        None,
        "An object-based checkpoint whose objects the result is to have.",
        flag_values=flag_values,
    )
    rules("rename", r"REGEX:REPLACEMENT, as in 'old/(.*):new/\1'. The first that matches decides.")
    rules(
        "assignment_map",
        "FROM:TO, two names, or two scopes that end in '/', as init_from_checkpoint takes them.",
    )
    rules("exclude", "REGEX of names to leave out.")
    flags.DEFINE_list(
        "dtype",
        [],
        "DTYPE to cast all floating-point variables to, or FROM:TO,...",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Imports one file."""
    if len(arguments) != 2:
        raise UsageError(
            f"import: expected two paths, FILE and DESTINATION, found {len(arguments)}"
        )
    if flag_values.checkpoint_format is None:
        raise UsageError("import: --checkpoint_format is missing: saver, checkpoint or both")
    with progress_bar(f"importing {arguments[0]}") as progress:
        conversion = import_checkpoint(
            arguments[0],
            arguments[1],
            flag_values.checkpoint_format,
            layout=flag_values.layout,
            like=flag_values.like,
            rename=[parse_rule("import", "rename", text) for text in flag_values.rename],
            assignment_map=[
                parse_rule("import", "assignment_map", text) for text in flag_values.assignment_map
            ],
            exclude=flag_values.exclude,
            dtype=parse_dtype("import", flag_values.dtype),
            progress=progress,
        )
    if flag_values.json:
        print(json.dumps(conversion_json(conversion), indent=2))
    else:
        print(summary(conversion))
        if conversion.warning:
            print(f"estimator-ckpt: {conversion.warning}", file=sys.stderr)
    return EXIT_OK

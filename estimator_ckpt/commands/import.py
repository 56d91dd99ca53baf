"""usage: estimator-ckpt import --checkpoint_format=FORMAT [flags] FILE DESTINATION

Makes a checkpoint of a .safetensors or .npz file: each tensor becomes a variable of its name, its
values as they are. DESTINATION is a new prefix or a directory. The rules are those of convert.

Examples:
  estimator-ckpt import --checkpoint_format=saver weights.safetensors imported/model.ckpt
  estimator-ckpt import --checkpoint_format=checkpoint weights.npz imported/
"""

from __future__ import annotations

import json
import sys

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.commands.convert import conversion_json, summary
from estimator_ckpt.commands.convert_flags import define_options, option_values
from estimator_ckpt.errors import printable
from estimator_ckpt.importing import import_checkpoint
from estimator_ckpt.text.progress import progress_bar

EXIT_CODES = {
    0: "written",
    2: "an error; nothing is written",
}
_OPTIONS = (
    "checkpoint_format",
    "rename",
    "assignment_map",
    "exclude",
    "dtype",
    "layout",
    "like",
    "match_by",
)
GROUPS = {
    "The result": " ".join(_OPTIONS),
    "How": "json",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    define_options(flag_values, _OPTIONS)
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Imports one file."""
    if len(arguments) != 2:
        raise UsageError(
            f"import: expected two paths, FILE and DESTINATION, found {len(arguments)}"
        )
    options = option_values(flag_values)
    with progress_bar(f"importing {arguments[0]}") as progress:
        conversion = import_checkpoint(arguments[0], arguments[1], **options, progress=progress)
    if flag_values.json:
        print(json.dumps(conversion_json(conversion), indent=2))
    else:
        print(printable(summary(conversion)))
        if conversion.warning:
            print(f"estimator-ckpt: {printable(conversion.warning)}", file=sys.stderr)
    return EXIT_OK

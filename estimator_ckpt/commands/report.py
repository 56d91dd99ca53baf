"""usage: estimator-ckpt report [flags] --output=report.html PATH

Writes a page to be looked at in a browser: what a checkpoint is, its bytes by scope, its variables,
its objects, what a warm start took from where; of a model_dir its checkpoints over time. One file
that loads nothing else. PATH is as for inspect.

Examples:
  estimator-ckpt report run --output=report.html
  estimator-ckpt report run --output=report.html --values --compare=run/model.ckpt-1000
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.errors import printable
from estimator_ckpt.report import write_report
from estimator_ckpt.text.progress import progress_bar

EXIT_CODES = {
    0: "written",
    2: "an error: a wrong flag, a path that cannot be read; nothing is written",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""
    flags.DEFINE_string(
        "output",
        None,
        "The page. One that is there is replaced; any other file is not.",
        short_name="o",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "compare",
        None,
        "Another checkpoint, the one before: shows how much each variable has changed since.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "values",
        False,
        "Read all values: a histogram of each variable, its norm, zeros, NaN and infinities.",
        flag_values=flag_values,
    )


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Writes one page."""
    if len(arguments) != 1:
        raise UsageError(f"report: expected one path, found {len(arguments)}")
    if not flag_values.output:
        raise UsageError("report: --output=FILE.html says where the page goes")
    with progress_bar("reading") as progress:
        write_report(
            arguments[0],
            flag_values.output,
            compare_with=flag_values.compare,
            values=flag_values.values,
            progress=progress,
        )
    print(printable(flag_values.output))
    return EXIT_OK

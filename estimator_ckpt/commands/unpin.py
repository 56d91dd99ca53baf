"""usage: estimator-ckpt unpin RUN@NAME...

Lets pinned checkpoints go: their names are removed, and their data, unless the run still has them.

Examples:
  estimator-ckpt unpin run@release-7
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.errors import printable
from estimator_ckpt.pins import unpin_checkpoint

EXIT_CODES = {0: "gone", 2: "an error; this one and those behind it stay"}


def define(flag_values: flags.FlagValues) -> None:
    """The verb has no flags."""


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Lets each go."""
    del flag_values
    if not arguments:
        raise UsageError("unpin: expected RUN@NAME, found nothing")
    for one in arguments:
        unpin_checkpoint(one)
        print(f"no longer pinned: {printable(one)}")
    return EXIT_OK

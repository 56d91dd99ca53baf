"""usage: estimator-ckpt pin --name=NAME CHECKPOINT

Pins a checkpoint: it stays, whatever the trainer deletes, and RUN@NAME names it. It is linked to
RUN/pinned/NAME, which takes no room while the run has it as well; remote ones are copied. A job may
be running. `estimator-ckpt unpin RUN@NAME` lets it go.

Examples:
  estimator-ckpt pin run@step=1000 --name=release-7
  estimator-ckpt pin run --name=before_the_new_data
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.errors import printable
from estimator_ckpt.pins import pin_checkpoint

EXIT_CODES = {0: "pinned", 2: "an error; nothing is pinned"}


def define(flag_values: flags.FlagValues) -> None:
    """The flag of the verb."""
    flags.DEFINE_string("name", None, "What RUN@NAME will name it by.", flag_values=flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Pins one checkpoint."""
    if len(arguments) != 1:
        raise UsageError(f"pin: expected one checkpoint, found {len(arguments)}")
    if not flag_values.name:
        raise UsageError("pin: --name=NAME is missing: RUN@NAME then stands for this checkpoint")
    prefix = pin_checkpoint(arguments[0], flag_values.name)
    print(f"pinned as {flag_values.name}: {printable(prefix)}")
    return EXIT_OK

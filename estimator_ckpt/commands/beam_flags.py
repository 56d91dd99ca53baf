"""The flag that has a verb run on many machines."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator

from absl import flags

from estimator_ckpt.cli import UsageError


def define_beam(flag_values: flags.FlagValues) -> None:
    """--beam, for a verb that has --log."""
    flags.DEFINE_string(
        "beam",
        None,
        "For a directory, with --log: has Apache Beam do it on many machines, with these flags of"
        " Beam, as in --beam='--runner=DataflowRunner --region=europe-west1'.",
        flag_values=flag_values,
    )


def beam_arguments(verb: str, text: str) -> list[str]:
    """The flags of Beam in one text, as a shell takes it apart.

    Raises:
      UsageError: a quotation without its end, or what is no flag.
    """
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{verb}: --beam: {error}") from None
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"{verb}: --beam: expected flags of Beam, found {arguments[0]!r}")
    return arguments


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Says what is so when a run on many machines is interrupted here."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            "estimator-ckpt: interrupted; a remote runner may still be at work; the same command "
            "goes on from what the log has",
            file=sys.stderr,
        )
        raise

"""usage: estimator-ckpt manpage

Prints the manual page, with all verbs and flags, for `man`.

Examples:
  estimator-ckpt manpage > ~/.local/share/man/man1/estimator-ckpt.1
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.cli import EXIT_OK, UsageError, version
from estimator_ckpt.commands.parsers import SUMMARY, command_parser, needs_package

EXIT_CODES = {
    0: "printed",
    2: "an error: argparse-manpage is not installed",
}


def define(flag_values: flags.FlagValues) -> None:
    """The verb has no flags."""


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Prints the page."""
    if arguments:
        raise UsageError(f"manpage: expected no argument, found {' '.join(arguments)}")
    try:
        from argparse_manpage.manpage import Manpage
    except ModuleNotFoundError as error:
        raise needs_package("manpage", error) from error
    data = {
        "project_name": "estimator-ckpt",
        "version": version(),
        "description": SUMMARY,
        "manual_title": "estimator-ckpt",
    }
    print(Manpage(command_parser(whole=True), _data=data))
    return EXIT_OK

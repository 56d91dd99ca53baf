"""The command as an argparse parser, for what reads such parsers: completions and manual pages."""

from __future__ import annotations

import argparse
from typing import Any

from estimator_ckpt.cli import VERBS, command, flag_groups, flag_text, flags_of, metavar
from estimator_ckpt.errors import MissingPackageError

_PATH_FLAGS = {"file_name", "flagfile", "like", "log", "model_dir", "warm_start_config"}


SUMMARY = "inspect, verify, compare and convert TensorFlow checkpoints; train in a chosen format"


def command_parser(*, whole: bool = False, file: Any = None) -> argparse.ArgumentParser:
    """A parser of all verbs and flags; it parses nothing itself.

    Args:
      whole: whether a verb's description is all that its help says, or a line.
      file: what shtab has as the completion of a path, `shtab.FILE`.
    """
    parser = argparse.ArgumentParser("estimator-ckpt", description=SUMMARY)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for verb, summary in VERBS.items():
        module, values = command(verb), flags_of(verb)
        one = verbs.add_parser(
            verb,
            help=summary,
            description=_description(module) if whole else summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for heading, names in flag_groups(module, values):
            group = one.add_argument_group(heading)
            for name in names:
                _add(group, name, values[name], file)
        choices = getattr(module, "CHOICES", None)
        paths = one.add_argument("PATH" if choices is None else "SHELL", nargs="*", choices=choices)
        if choices is None:
            paths.complete = file  # type: ignore[attr-defined]
    return parser


def _add(group: Any, name: str, flag: Any, file: Any) -> None:
    text = _escaped(flag_text(flag))
    if flag.boolean:
        group.add_argument(f"--{name}", f"--no{name}", action="store_true", help=text)
        return
    choices = getattr(flag.parser, "enum_values", None)
    shown = None if choices else metavar(flag)
    added = group.add_argument(f"--{name}", choices=choices, metavar=shown, help=text)
    if name in _PATH_FLAGS:
        added.complete = file


def _description(module: Any) -> str:
    codes = (f"  {code:<5} {meaning}" for code, meaning in module.EXIT_CODES.items())
    return _escaped("\n".join([module.__doc__.partition("\n\n")[2], "Exit codes:", *codes]))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def needs_package(what: str, error: ModuleNotFoundError) -> MissingPackageError:
    """The error for a verb whose package is not installed.

    Raises:
      ModuleNotFoundError: `error` itself, if it is another one that is missing.
    """
    package = (error.name or "").partition(".")[0]
    if package not in ("shtab", "argparse_manpage"):
        raise error
    return MissingPackageError(
        f"estimator-ckpt {what} needs the package {package.replace('_', '-')}, which is not "
        "installed: pip install 'estimator-ckpt[completion]'"
    )

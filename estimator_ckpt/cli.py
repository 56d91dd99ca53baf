"""The command: estimator-ckpt VERB ..., also python -m estimator_ckpt VERB ...

Each verb is a module of estimator_ckpt.commands, imported when it is asked for, with

  - a docstring: the usage line and what the verb does, as --help prints it;
  - define(flag_values): its flags, in a FlagValues of its own;
  - run(arguments, flag_values) -> int: does it; returns the exit code; raises CheckpointError.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.configs import find_flagfiles
from estimator_ckpt.errors import CheckpointError, needs_tensorflow, printable
from estimator_ckpt.text.logs import plain_logs
from estimator_ckpt.text.names import did_you_mean

VERBS = {
    "inspect": "list the variables, the objects or the values of a checkpoint",
    "verify": "read all of a checkpoint and check every checksum and offset",
    "compare": "compare two checkpoints of any formats, value by value",
    "convert": "convert checkpoints between names and objects, without moving the data",
    "export": "write the variables to a safetensors or npz file",
    "import": "make a checkpoint of a safetensors or npz file",
    "check": "tell whether a model will restore or warm-start from a checkpoint",
    "train": "train a model_fn in a chosen checkpoint format, driven by flags",
}

EXIT_OK = 0
EXIT_NO = 1
EXIT_ERROR = 2
_EXIT_PIPE = 141  # what a shell reports of a process that SIGPIPE ended
EXIT_INTERRUPT = 130
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_EXIT_CODES = (
    "Exit codes: 0 done, and nothing is wrong; 1 the answer is no (faults, differences, a misfit); "
    "2 an error (a wrong flag, an unreadable path)."
)
_WIDTH = 90
_ADDED_BY_ABSL = re.compile(r"^<[^>]*>: |;\s+repeat this option to specify a list of values$")


class _FlagValues(flags.FlagValues):
    """Flags whose flagfiles are regular files of text: absl waits for a pipe, reads a device."""

    def _get_flag_file_lines(self, filename: str, parsed_file_stack: Any = None) -> Any:
        if filename:
            try:
                text = files.read_bytes(filename).decode("utf-8")
            except UnicodeDecodeError as error:
                raise flags.Error(f"--flagfile={filename}: no text: {error.reason}") from None
            except CheckpointError as error:
                raise flags.Error(f"--flagfile={filename}: {error.message}") from None
            if "\0" in text:
                raise flags.Error(f"--flagfile={filename}: no text: a NUL character")
        return super()._get_flag_file_lines(filename, parsed_file_stack)  # type: ignore[no-untyped-call]


class UsageError(Exception):
    """Wrong arguments; the command prints the message and how to get help, and exits with 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: the arguments after the program's name; None means those of the process.

    Returns:
      The exit code: 0 done, 1 the answer is no, 2 an error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _stay_quiet_when_interrupted()
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names in files can be any bytes
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `... | head` has read enough
        _close_output()
        return _EXIT_PIPE
    except OSError as error:
        if error.errno not in _NO_SPACE or error.filename is not None:
            raise
        _close_output()
        print(f"estimator-ckpt: the output cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    except UsageError as error:
        verb = arguments[0] + " " if arguments and arguments[0] in VERBS else ""
        message = "\n".join(map(printable, str(error).split("\n")))
        print(f"estimator-ckpt: {message}\nTry: estimator-ckpt {verb}--help", file=sys.stderr)
        return EXIT_ERROR
    except CheckpointError as error:
        print(f"estimator-ckpt: {error}", file=sys.stderr)
        return EXIT_ERROR


def _stay_quiet_when_interrupted() -> None:
    """A second SIGINT may come anywhere, while the first is handled or as Python ends."""

    def show(kind: Any, value: Any, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, value, trace)

    def show_unraisable(error: Any) -> None:
        if not issubclass(error.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(error)

    sys.excepthook = show
    sys.unraisablehook = show_unraisable


def _close_output() -> None:
    """Has what is left of the output go nowhere: at exit Python flushes it, and fails aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return EXIT_ERROR
    verb, *rest = arguments
    if verb in ("help", "--help", "-h", "-help"):
        if not rest:
            print(_overview())
            return EXIT_OK
        verb, rest = rest[0], ["--help"]
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb!r}{did_you_mean(_alike(verb, VERBS))}")
    values: Any = _FlagValues()  # type: ignore[no-untyped-call]
    values.set_gnu_getopt(True)  # flags may stand behind paths
    module = command(verb)
    module.define(values)
    if any(one in ("--help", "-h", "-help") for one in _before_dashes(rest)):
        print(_help(module, values))
        return EXIT_OK
    try:
        remaining = values([verb, *find_flagfiles(rest)])[1:]
    except flags.Error as error:
        raise UsageError(_flag_message(error, values)) from None
    if verb != "train":  # whose arguments are the model's own
        remaining = list(map(os.path.expanduser, remaining))
    try:
        with plain_logs(trains=verb == "train", verbose="verbose" in values and values.verbose):
            code: int = module.run(remaining, values)
    except ModuleNotFoundError as error:
        raise needs_tensorflow(f"estimator-ckpt {verb}, as it was asked,", error) from error
    return code


def command(verb: str) -> Any:
    """The module of a verb."""
    return importlib.import_module(f"{__package__}.commands.{verb}")


def _before_dashes(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _flag_message(error: flags.Error, values: Any) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        near = [f"--{name}" for name in _alike(error.flagname, list(values))]
        return f"there is no flag --{error.flagname}{did_you_mean(near)}"
    return str(error)


def _alike(word: str, choices: Sequence[str] | dict[str, str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(word, list(choices), n=2)


def _overview() -> str:
    lines = ["usage: estimator-ckpt VERB ...", "", "Verbs:"]
    lines += [f"  {verb:<10} {summary}" for verb, summary in VERBS.items()]
    lines += ["", "estimator-ckpt VERB --help says what a verb does and which flags it has.", ""]
    return "\n".join([*lines, *textwrap.wrap(_EXIT_CODES, _WIDTH)])


def _help(module: Any, values: Any) -> str:
    lines = [(module.__doc__ or "").strip(), "", "Flags:"]
    for name in sorted(values):
        flag = values[name]
        if flag.name != name:  # the short name of another one
            continue
        given = f"--[no]{name}" if flag.boolean else f"--{name}={_metavar(flag)}"
        text = _ADDED_BY_ABSL.sub("", flag.help or "")
        if flag.default not in (None, False, []):
            text += f" (default: {flag.default})"
        wrapped = textwrap.wrap(text, _WIDTH - 30)
        lines.append(f"  {given:<27} {wrapped[0]}" if len(given) < 27 else f"  {given}")
        lines += [" " * 30 + line for line in wrapped[len(given) < 27 :]]
    return "\n".join([*lines, "", *textwrap.wrap(_EXIT_CODES, _WIDTH)])


def _metavar(flag: Any) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    return "|".join(choices) if choices else flag.flag_type().split()[-1].upper()


if __name__ == "__main__":
    sys.exit(main())

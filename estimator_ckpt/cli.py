"""The command: estimator-ckpt VERB ..., also python -m estimator_ckpt VERB ...

Each verb is a module of estimator_ckpt.commands, imported when it is asked for, with

  - a docstring: the usage line, what the verb does and examples, as --help prints it;
  - EXIT_CODES: what each exit code of it means;
  - GROUPS: heading -> names of flags, as --help shows them, the common ones first; without it, or
    for flags that it does not name, in the order in which they are defined;
  - define(flag_values): its flags, in a FlagValues of its own;
  - run(arguments, flag_values) -> int: does it; returns the exit code; raises CheckpointError.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.configs import find_flagfiles
from estimator_ckpt.errors import CheckpointError, needs_tensorflow, printable
from estimator_ckpt.text.logs import import_tensorflow, plain_logs
from estimator_ckpt.text.names import did_you_mean

VERBS = {
    "inspect": "list the variables, the objects or the values of a checkpoint",
    "verify": "read all of a checkpoint and check every checksum and offset",
    "compare": "compare two checkpoints of any formats, value by value",
    "convert": "convert checkpoints between names and objects, without moving the data",
    "export": "write the variables to a safetensors or npz file",
    "import": "make a checkpoint of a safetensors or npz file",
    "check": "tell whether a model will restore or warm-start from a checkpoint",
    "report": "write a page about a checkpoint, to be looked at in a browser",
    "pin": "have a checkpoint stay, under a name, whatever the trainer deletes",
    "unpin": "let a pinned checkpoint go",
    "retention": "show what the next save of a job would delete, and why",
    "train": "train a model_fn in a chosen checkpoint format, driven by flags",
    "completion": "print what lets a shell complete verbs and flags",
    "manpage": "print the manual page",
}
# What other programs call it.
_OTHER_WORDS = {
    "inspect": "ls list show print cat info dump summary tree",
    "verify": "fsck validate audit checksum",
    "compare": "diff cmp",
    "convert": "migrate rename upgrade rewrite cast cp copy mv",
    "export": "save to_safetensors to_npz",
    "import": "load from_safetensors from_npz",
    "check": "test dry_run dry-run",
    "report": "html page plot draw view visualize visualise",
    "pin": "keep tag protect hold",
    "unpin": "release untag",
    "retention": "prune gc clean cleanup rotate",
    "train": "run fit train_and_evaluate",
    "completion": "complete",
    "manpage": "man",
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
_COLUMN = 30  # where the text of a flag begins
_CHOICE = "NAME"
_HELP = ("--help", "-h", "-help")
_VERSION = ("--version", "-V", "version")
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
    """Wrong arguments; the command prints the message and what to try, and exits with 2.

    Args:
      message: what is wrong.
      instead: the arguments that are probably meant; unless given, the verb's help.
    """

    def __init__(self, message: str, instead: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.instead = instead


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
        verb = arguments[:1] if arguments and arguments[0] in VERBS else []
        message = "\n".join(map(printable, str(error).split("\n")))
        instead = printable(shlex.join(error.instead or [*verb, "--help"]))
        print(f"estimator-ckpt: {message}\nTry: estimator-ckpt {instead}", file=sys.stderr)
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
    """Sends what is left of the output nowhere: Python flushes it at exit, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return EXIT_ERROR
    verb, *rest = arguments
    if verb in _VERSION:
        print(f"estimator-ckpt {version()}")
        return EXIT_OK
    if verb in ("help", *_HELP):
        if not rest or rest[0] in ("help", *_HELP):
            print(_overview())
            return EXIT_OK
        verb, rest = rest[0], ["--help"]
    if verb not in VERBS:
        raise _no_verb(verb, rest)
    module, values = command(verb), flags_of(verb)
    if any(one in _HELP for one in _before_dashes(rest)):
        print(_help(module, values))
        return EXIT_OK
    try:
        remaining = values([verb, *find_flagfiles(rest)])[1:]
    except flags.Error as error:
        raise UsageError(_flag_message(error, values)) from None
    if verb != "train":  # whose arguments are the model's own
        remaining = list(map(os.path.expanduser, remaining))
    if any("://" in one for one in rest):
        with contextlib.suppress(ModuleNotFoundError):  # fsspec reads these, too
            import_tensorflow()
    try:
        with plain_logs(trains=verb == "train", verbose="verbose" in values and values.verbose):
            code: int = module.run(remaining, values)
    except ModuleNotFoundError as error:
        raise needs_tensorflow(f"estimator-ckpt {verb}, as it was asked,", error) from error
    return code


def command(verb: str) -> Any:
    """The module of a verb."""
    return importlib.import_module(f"{__package__}.commands.{verb}")


def flags_of(verb: str) -> Any:
    """The flags of a verb, with their defaults."""
    values: Any = _FlagValues()  # type: ignore[no-untyped-call]
    values.set_gnu_getopt(True)  # flags may stand behind paths
    command(verb).define(values)
    return values


def version() -> str:
    """The version of the package, as it is installed."""
    from importlib import metadata

    try:
        return metadata.version("estimator-ckpt")
    except metadata.PackageNotFoundError:
        return "of a source tree that is not installed"


def _no_verb(word: str, rest: list[str]) -> UsageError:
    """The error for a word that stands where a verb is expected, before the other arguments."""
    if word.startswith("-"):
        return UsageError(f"expected a verb before the flags, found {word!r}")
    if os.path.exists(word) or os.path.exists(f"{word}.index"):
        return UsageError(
            f"expected a verb before the path, found {word!r}", ["inspect", word, *rest]
        )
    lower = word.lower()
    near = [verb for verb in VERBS if lower == verb or lower in _OTHER_WORDS[verb].split()]
    near = near or _alike(lower, VERBS)
    meant = [near[0], *(rest or ["--help"])] if len(near) == 1 else ()
    return UsageError(f"there is no verb {word!r}{did_you_mean(near)}", meant)


def _before_dashes(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _flag_message(error: flags.Error, values: Any) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        near = [f"--{name}" for name in _alike(error.flagname, list(values))]
        dashes = "-" if len(error.flagname) == 1 else "--"
        return f"there is no flag {dashes}{error.flagname}{did_you_mean(near)}"
    return str(error)


def _alike(word: str, choices: Sequence[str] | dict[str, str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(word, list(choices), n=2)


def _overview() -> str:
    lines = ["usage: estimator-ckpt VERB [flags] PATH ...", "", "Verbs:"]
    lines += [f"  {verb:<10} {summary}" for verb, summary in VERBS.items()]
    lines += ["", "First of all: estimator-ckpt inspect MODEL_DIR", ""]
    lines += ["estimator-ckpt VERB --help says what a verb does and which flags it has;"]
    lines += ["estimator-ckpt --version prints the version.", ""]
    return "\n".join([*lines, *textwrap.wrap(_EXIT_CODES, _width())])


def _help(module: Any, values: Any) -> str:
    lines = _fitting(module.__doc__.strip())
    for heading, names in flag_groups(module, values):
        lines += ["", f"{heading}:"]
        for name in names:
            lines += _flag_lines(name, values[name])
    lines += ["", "Exit codes:"]
    for code, meaning in module.EXIT_CODES.items():
        first, *more = textwrap.wrap(meaning, _width() - 8)
        lines += [f"  {code:<5} {first}", *(" " * 8 + line for line in more)]
    return "\n".join(lines)


def _width() -> int:
    """The columns that help takes: a terminal's, if it has fewer than in a pipe."""
    return min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns) if _on_terminal() else _WIDTH


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _fitting(text: str) -> list[str]:
    """The lines of a docstring; its paragraphs anew, where a terminal is too narrow for them."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        if max(map(len, paragraph.split("\n"))) > _width() and "\n  " not in f"\n{paragraph}":
            lines += textwrap.wrap(paragraph, _width(), break_on_hyphens=False)
        else:
            lines += paragraph.split("\n")
        lines.append("")
    return lines[:-1]


def flag_groups(module: Any, values: Any) -> list[tuple[str, list[str]]]:
    """The flags of a verb, by the headings of its GROUPS; short names of others are left out."""
    left = {name: None for name in values if values[name].name == name}
    groups = []
    for heading, names in getattr(module, "GROUPS", {}).items():
        groups.append((heading, [name for name in names.split() if name in left]))
        for name in groups[-1][1]:
            del left[name]
    return [*groups, *([("Further flags" if groups else "Flags", list(left))] if left else [])]


def _flag_lines(name: str, flag: Any) -> list[str]:
    given = f"--[no]{name}" if flag.boolean else f"--{name}={metavar(flag)}"
    wrapped = textwrap.wrap(flag_text(flag), _width() - _COLUMN, break_on_hyphens=False)
    fits = len(given) < _COLUMN - 3
    lines = [f"  {given:<{_COLUMN - 3}} {wrapped[0]}" if fits else f"  {given}"]
    return lines + [" " * _COLUMN + line for line in wrapped[fits:]]


def flag_text(flag: Any) -> str:
    """What a flag says of itself, with its default."""
    text = _ADDED_BY_ABSL.sub("", flag.help or "")
    choices = getattr(flag.parser, "enum_values", None)
    if choices and metavar(flag) == _CHOICE:
        text += f" One of {', '.join(choices)}."
    return text if flag.default in (None, False, []) else f"{text} (default: {flag.default})"


def metavar(flag: Any) -> str:
    """What stands for a flag's value: its choices, where they fit, or a word."""
    choices = getattr(flag.parser, "enum_values", None)
    if not choices:
        return str(flag.flag_type().split()[-1].upper())
    shown = "|".join(choices)
    return shown if len(shown) <= _WIDTH - _COLUMN else _CHOICE


if __name__ == "__main__":
    sys.exit(main())

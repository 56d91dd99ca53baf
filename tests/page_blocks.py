"""Runs the blocks of a page of the docs, in their order, in the current directory.

    python tests/page_blocks.py docs/converting.md [--terminal]

With --terminal what a shell runs has a terminal, and may print more than the page says, but no
traceback, and none of TensorFlow's own lines.

All python blocks of a page share one namespace, and each page has a process of its own. Sybil reads
the page; what a block means is this:

  ```python                      runs; a ```text block right behind it is what it prints
  ```python title="my_job.py"    is written to that file, and so with any other language
  ```sh                          runs in a shell; ```text: what it prints, errors too
  ```text, ```console, ```yaml   anywhere else: nothing to run

In the text that is to be printed, `...` stands for anything. Further:

  *Not run here: REASON*                    above a block, for the reader too
  <!--- exits: 2 -->                        above a ```sh block that is meant to fail
  <!--- skip: next if(not has_estimator, reason="needs tf.estimator") -->
  <!--- skip: next if(not has_keras_2, reason="needs Keras 2") -->
  <!--- invisible-code-block: python        needed, and not shown; ```text checks it, too
  ...
  -->
"""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib.metadata
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import SkipTest

from command_process import on_terminal
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

ROOT = Path(__file__).resolve().parents[1]
_NOT_RUN = re.compile(r"^[ >]*\*Not run here: (?P<reason>[^*]+)\*[ ]*\n+", re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')
_OUTPUT = "text"
_NOT_FOR_A_PERSON = re.compile(
    r"^Traceback|^(INFO|WARNING):|^[IWE]\d{4} |^\d{4}-\d\d-\d\d .*: [IWE] ", re.MULTILINE
)


class PageError(AssertionError):
    """A block failed, or printed something else than the page says."""


def pages() -> list[Path]:
    """The README and the pages of the docs that have anything to run."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if any(_is_block(region) for region in _regions(path))]


def parse(path: Path) -> Document:
    """The page, with a region for each block and directive."""
    return Document.parse(str(path), _blocks, _directives, _not_run, SkipParser())


def run(path: Path, *, terminal: bool = False) -> tuple[int, list[str]]:
    """Runs a page.

    Args:
      path: of the page.
      terminal: whether the commands of its shell blocks have a terminal.

    Returns:
      How many blocks have run, and why the others have not.

    Raises:
      PageError: see there; the message has the line.
    """
    document = parse(path)
    document.namespace.update(
        __name__="__main__",
        has_estimator=has_estimator(),
        has_keras_2=_version("keras").startswith("2."),
        _exits=0,
        _terminal=terminal,
    )
    count, skipped = 0, []
    sys.path.insert(0, os.getcwd())
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest as reason:
            skipped.append(f"line {example.line}: {reason}")
        except PageError:
            raise
        except (Exception, SystemExit) as error:
            raise PageError(
                f"{path}, line {example.line}: {type(error).__name__}: {error}"
            ) from error
        else:
            count += _is_block(example.region)
    return count, skipped


def _version(package: str) -> str:
    """Of an installed package; "" of one that is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def has_estimator() -> bool:
    """Whether this environment has tf.estimator."""
    return bool(_version("tensorflow-estimator"))


def _regions(path: Path) -> Iterable[Region]:
    return (region for _, region in parse(path).regions)


def _is_block(region: Region) -> bool:
    return region.evaluator in (_run_python, _run_shell, _write_file)


# --- the parsers: what is a block ---


def _blocks(document: Document) -> Iterable[Region]:
    fences = list(FencedCodeBlockLexer(r"[^\n]+")(document))
    invisible = DirectiveInHTMLCommentLexer(r"invisible-code-block", arguments="python")(document)
    for region in [*fences, *invisible]:
        language, _, options = region.lexemes.get("language", "python").partition(" ")
        title = _TITLE.search(options)
        if 'exec="' in options:
            continue  # for the build of the site
        if title:
            region.evaluator = _write_file
        elif language == "python":
            region.evaluator = _run_python
        elif language in ("sh", "bash", "shell"):
            region.evaluator = _run_shell
        else:
            continue
        output = _output(region, fences, document)
        region.parsed = (region.lexemes["source"], title and title[1], output)
        yield region


def _output(region: Region, fences: list[Region], document: Document) -> str | None:
    """The text of the block right behind another, if there is one."""
    behind = [fence for fence in fences if fence.start >= region.end]
    if not behind or document.text[region.end : behind[0].start].strip():
        return None
    is_output = behind[0].lexemes["language"].split()[0] == _OUTPUT
    return behind[0].lexemes["source"] if is_output else None


def _directives(document: Document) -> Iterable[Region]:
    for region in DirectiveInHTMLCommentLexer("exits", arguments=r"\d+")(document):
        region.parsed = int(region.lexemes["arguments"])
        region.evaluator = _expect_exit
        yield region


def _not_run(document: Document) -> Iterable[Region]:
    for match in _NOT_RUN.finditer(document.text):
        yield Region(match.start(), match.end(), match["reason"], _skip_next)


# --- the evaluators: what is done with it ---


def _run_python(example: Example) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        PythonEvaluator()(_with_source(example))
    _compare(example, printed.getvalue())


def _with_source(example: Example) -> Example:
    """The example as Sybil's evaluator takes it: the source alone is what is parsed."""
    region = Region(
        example.region.start, example.region.end, example.parsed[0], None, example.region.lexemes
    )
    return Example(example.document, example.line, example.column, region, example.namespace)


def _run_shell(example: Example) -> None:
    expected, example.namespace["_exits"] = example.namespace["_exits"], 0
    command = ["bash", "-euo", "pipefail", "-c", str(example.parsed[0])]
    if example.namespace["_terminal"]:
        code, printed = on_terminal(functools.partial(subprocess.Popen, command))
        if leaked := _NOT_FOR_A_PERSON.search(printed):
            raise PageError(f"{example.path}, line {example.line}: {leaked[0]!r}\n{printed}")
    else:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        code, printed = done.returncode, done.stdout
    if code != expected:
        place = f"{example.path}, line {example.line}"
        raise PageError(f"{place}: exit code {code}, expected {expected}\n{printed}")
    if not example.namespace["_terminal"]:
        _compare(example, printed)


def _write_file(example: Example) -> None:
    source, name, _ = example.parsed
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(source, encoding="utf-8")


def _expect_exit(example: Example) -> None:
    example.namespace["_exits"] = example.parsed


def _skip_next(example: Example) -> None:
    def skip(other: Example) -> None:
        other.document.pop_evaluator(skip)
        raise SkipTest(example.parsed)

    example.document.push_evaluator(skip)


def _compare(example: Example, printed: str) -> None:
    expected = example.parsed[2]
    if expected is None:
        return
    expected, printed = map(_without_trailing_spaces, (expected, printed))
    checker, options = doctest.OutputChecker(), doctest.ELLIPSIS
    if not checker.check_output(expected, printed, options):
        shown = doctest.Example("", expected)
        difference = checker.output_difference(shown, printed, options)
        raise PageError(f"{example.path}, line {example.line}:\n{difference}")


def _without_trailing_spaces(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n")) + "\n"


if __name__ == "__main__":
    try:
        ran, why_not = run(Path(sys.argv[1]).resolve(), terminal="--terminal" in sys.argv[2:])
    except PageError as error:
        cause = error.__cause__
        if cause is not None:
            import traceback

            traceback.print_exception(type(cause), cause, cause.__traceback__)
        sys.exit(str(error))
    print(f"{ran} blocks have run")
    print("\n".join(why_not))

"""The pages of the docs: each of their blocks runs, and prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from page_blocks import ROOT, PageError, pages, run


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command_directory(directory: Path) -> Path:
    """A directory with the commands that a page calls: those of the interpreter of the tests."""
    directory.mkdir()
    for name, arguments in {"estimator-ckpt": "-m estimator_ckpt", "python": ""}.items():
        command = directory / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        command.chmod(0o755)
    return directory


# Pages of commands that a person types, for which the command draws tables and bars.
TYPED = [ROOT / "README.md", *(ROOT / "docs" / f"{n}.md" for n in ("exchange", "many_checkpoints"))]


@pytest.mark.docs
@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_block_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path
) -> None:
    run_page(page, tmp_path)


@pytest.mark.docs
@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_the_commands_of_a_page_run_on_a_terminal(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, "--terminal")


def run_page(page: Path, tmp_path: Path, *flags: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = f"{command_directory(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    python_path = f"{ROOT}{os.pathsep}{place}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": python_path, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "page_blocks.py"), str(page), *flags],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    print(done.stdout)


# --- what a page may say, and that a wrong one fails ---

RUNS_ON_2_15 = {
    'if(not has_estimator, reason="needs tf.estimator")',
    'if(not has_keras_2, reason="needs Keras 2")',
}


def fence(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```\n"


SHELL = fence("sh", "echo one; echo two")
JOB = fence('python title="a/job.py"', "x = 7") + fence("sh", "cat a/job.py")
SETTINGS = fence('yaml title="s.yaml"', "a: 1") + fence("sh", "cat s.yaml")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (fence("python", "print(1)") + "\n" + fence("text", "1"), 1),
        (
            fence("python", "x = 1")
            + "\nthen\n"
            + fence("python", "print(x)")
            + fence("text", "1"),
            2,
        ),
        (SHELL + fence("text", "one\ntwo"), 1),
        (SHELL + fence("text", "o..."), 1),
        ("1. In a list:\n\n" + textwrap.indent(SHELL, "   "), 1),
        ("<!--- exits: 3 -->\n" + fence("sh", "exit 3"), 1),
        (JOB + fence("text", "x = 7"), 2),
        (SETTINGS + fence("text", "a: 1"), 2),
        ("<!--- invisible-code-block: python\nprint(5)\n-->\n" + fence("text", "5"), 1),
        ("*Not run here: no such machine*\n\n" + fence("sh", "exit 3") + fence("python", "1"), 1),
        (fence("text", "anything") + fence("yaml", "a: 1"), 0),
    ],
)
def test_a_page_that_is_right(
    text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(text)
    assert run(tmp_path / "page.md")[0] == count


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            fence("python", "print(1)") + "\n" + fence("text", "2"),
            "line 1:\nExpected:\n    2\nGot:\n    1\n",
        ),
        (
            "\n\n" + SHELL + fence("text", "one"),
            "line 3:\nExpected:\n    one\nGot:\n    one\n    two\n",
        ),
        (fence("sh", "false; true"), "line 1: exit code 1, expected 0"),
        (fence("sh", "false | true"), "line 1: exit code 1, expected 0"),
        ("<!--- exits: 2 -->\n" + fence("sh", "true"), "exit code 0, expected 2"),
        ("<!--- exits: 2 -->\n" + 2 * fence("sh", "exit 2"), "line 5: exit code 2, expected 0"),
        ("a\n\n" + fence("python", "1 / 0"), "line 3: ZeroDivisionError: division by zero"),
        (fence("python", "import sys; sys.exit(0)"), "line 1: SystemExit: 0"),
    ],
)
def test_a_page_that_is_wrong(
    text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(PageError) as raised:
        run(tmp_path / "page.md")
    assert error in str(raised.value)


def test_what_does_not_run_says_why_to_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text("*Not run here: no TPU*\n\n" + fence("sh", "exit 3"))
    assert run(tmp_path / "page.md") == (0, ["line 3: no TPU"])


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_what_is_left_out_without_a_word_to_the_reader_runs_elsewhere(page: Path) -> None:
    directives = re.findall(r"<!-+ *skip: *(\w+) *(.*?) *-->", page.read_text(encoding="utf-8"))
    for action, why in directives:
        if action != "end" and why not in RUNS_ON_2_15:
            (runs,) = re.findall(r'^"run by (\S+)"$', why)
            assert (ROOT / runs).exists()

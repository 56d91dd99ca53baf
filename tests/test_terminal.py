"""What a person sees on a terminal, and what programs get through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import model
from command_process import run_on_terminal, start
from own_files import save


def widths(shown: str) -> set[int]:
    """The columns of the lines of tables."""
    from rich.cells import cell_len

    lines = shown.replace("\r", "").split("\n")
    return {cell_len(line) for line in lines if "float32" in line}


def test_a_table_fits_the_terminal_and_its_columns_stay_straight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = np.float32([1])
    names = ["层/权重", "e\u0301te\u0301/x", "emoji/🎉", "plain", f"long/{'字' * 60}/kernel"]
    prefix = save(tmp_path / "m", dict.fromkeys(names, one))
    monkeypatch.setenv("COLUMNS", "60")
    code, shown = run_on_terminal("inspect", prefix, "--all")
    assert code == 0
    (width,) = widths(shown)
    assert 40 < width <= 60
    assert "long/" in shown
    assert "字/kernel" in shown
    assert "字" * 60 not in shown


def test_a_tensor_has_a_histogram_on_a_terminal_alone(tmp_path: Path) -> None:
    values = np.repeat(np.float32([0, 31, 62]), [8, 1, 4])  # the first, the middle, the last part
    prefix = save(tmp_path / "m", {"w": values})
    _, shown = run_on_terminal("inspect", prefix, "--tensor=w")
    assert f"histogram: █{' ' * 15}▁{' ' * 14}▄" in shown.replace("\r", "")
    process = start("inspect", prefix, "--tensor=w", stdout=subprocess.PIPE)
    assert b"histogram" not in process.communicate()[0]


@pytest.mark.parametrize(
    ("variable", "term", "has", "lacks"),
    [
        ("", "xterm", "\x1b[1mname", "\x1b[3"),  # bold headers; 30 to 37 are colors
        ("NO_COLOR", "xterm", "dense/kernel", "\x1b[3"),
        ("", "dumb", "dense/kernel", "\x1b"),
    ],
)
def test_a_table_has_bold_headers_where_a_terminal_has_them(
    variable: str,
    term: str,
    has: str,
    lacks: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    code, shown = run_on_terminal("inspect", model(tmp_path), term=term, colors=True)
    assert code == 0
    assert has in shown
    assert lacks not in shown


def test_columns_that_a_narrow_terminal_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = save(tmp_path / "m", {"global_step": np.int64(7), "w": np.float32([1, 2])})
    for columns, missing in ((60, []), (42, ["value"])):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, shown = run_on_terminal("inspect", prefix)
        assert ("no room for value: make the terminal wider" in shown) == bool(missing)
        assert max(map(len, shown.replace("\r", "").split("\n")[1:])) <= columns
    process = start("inspect", prefix, stdout=subprocess.PIPE)
    assert b"value" in process.communicate()[0]


def test_sentences_are_wrapped_and_names_are_cut() -> None:
    from estimator_ckpt.text.terminal import cut_to_fit

    cells = {"name": ["scope/a_long_name/kernel"], "note": ["one word and another"], "n": ["1"]}
    expected = {"name": ["scope…rnel"], "note": ["one word\nand\nanother"], "n": ["1"]}
    assert cut_to_fit(cells, ["n"], 10 + 10 + 1 + 6) == expected
    assert cut_to_fit(cells, ["n"], 27, wraps=False)["note"] == ["one w…ther"]


@pytest.mark.parametrize("command", ["inspect {0}", "verify {0} {0} {0}", "--help", "inspect -h"])
def test_a_reader_that_leaves_at_once_sees_no_traceback(command: str, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    arguments = command.format(prefix).split()
    process = start(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, error = process.communicate()
    assert (process.returncode, error) == (141, b"")


def test_lines_and_errors_in_one_pipe_that_closes(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("verify", tmp_path / "nothing", stdout=writing, stderr=writing)
    os.close(writing)
    assert process.wait() == 141


def test_an_interpreter_that_a_person_uses_hears_nothing_of_tensorflow(tmp_path: Path) -> None:
    import tensorflow  # noqa: F401, the program checked imports it

    (tmp_path / "my_model.py").write_text(
        "import tensorflow as tf\n"
        "def build():\n"
        "    tf.constant(1.0)\n"
        "    tf.compat.v1.logging.info('a line of info')\n"
        "    tf.compat.v1.get_variable('dense/kernel', [2, 3])\n"
    )
    prefix = model(tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = f"check --model=my_model:build {prefix}"
    result = subprocess.run(
        [sys.executable, "-m", "estimator_ckpt", *command.split()],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["dense/kernel", "matched"] in lines
    assert ["2", "slots"] in lines  # Adam's, which the model does not use
    assert lines.index(["dense/kernel", "matched"]) < lines.index(["dense/bias", "unused"])

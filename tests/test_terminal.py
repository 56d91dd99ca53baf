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


def test_no_color_means_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    monkeypatch.setenv("NO_COLOR", "1")
    terminal, inner = pty.openpty()
    process = start("inspect", model(tmp_path), stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1 << 16)
        except OSError:
            break
    os.close(terminal)
    assert process.wait() == 0
    assert b"dense/kernel" in shown
    assert b"\x1b[3" not in shown  # 30 to 37 are colors


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

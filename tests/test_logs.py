"""What a command shows of log messages, of this package, of the program's own, of TensorFlow."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import logging as absl_logging
from own_files import save

from estimator_ckpt.text.logs import plain_logs

ROOT = Path(__file__).resolve().parents[1]


def log(package, level, text):
    """Logs as a module of an installed package does."""
    record = absl_logging.get_absl_logger().makeRecord(
        "absl", level, f"/lib/site-packages/{package}/module.py", 1, text, (), None
    )
    if absl_logging.get_absl_logger().isEnabledFor(level):
        absl_logging.get_absl_logger().handle(record)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["warning: own", "error: keras", "error: own"]),
        ({"trains": True}, ["own", "warning: own", "error: keras", "error: own"]),
        (
            {"verbose": True},
            ["keras", "own", "warning: keras", "warning: own", "error: keras", "error: own"],
        ),
    ],
)
def test_own_messages_are_plain_lines_and_those_of_libraries_are_errors_alone(
    capfd, monkeypatch, options, shown
):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with plain_logs(**options):
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            log("keras", level, "keras")
            log("estimator_ckpt", level, "own")
    assert capfd.readouterr().err.splitlines() == shown


def test_loggers_are_afterwards_what_they_were(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    loggers = [absl_logging.get_absl_logger(), logging.getLogger("tensorflow")]

    def settings():
        return [(one.level, one.propagate, list(one.handlers)) for one in loggers]

    before = settings()
    with pytest.raises(KeyError), plain_logs(trains=True):
        raise KeyError
    assert settings() == before


STUB = """
import os, sys
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written\\n")
os.write(2, b"I0000 00:00:1795908925.403994   32338 port.cc:153] oneDNN custom operations\\n")
os.write(2, b"To enable the following instructions: AVX2 FMA, rebuild TensorFlow\\n")
os.write(2, b"F0000 00:00:1795908925.403994   32338 cpu.cc:7] compiled to use AVX\\n")
if os.environ.get("CRASHES"):
    os.abort()
"""


@pytest.mark.parametrize(
    ("environment", "lines"),
    [({}, 1), ({"CRASHES": "1"}, 1), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, 4)],
    ids=["plain", "crash", "wanted"],
)
def test_what_tensorflow_writes_while_it_is_imported_is_dropped_and_its_last_words_are_not(
    tmp_path, environment, lines
):
    (tmp_path / "tensorflow.py").write_text(STUB)
    code = (
        "import sys; from estimator_ckpt.text.logs import import_tensorflow; import_tensorflow(); "
        "print('I0000 of the program', file=sys.stderr)"
    )
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    crashed = "CRASHES" in environment
    assert (done.returncode == 0) != crashed
    said = done.stderr.splitlines()
    assert said[lines - 1].endswith("compiled to use AVX")
    assert said[lines:] == ([] if crashed else ["I0000 of the program"])


def test_a_warning_of_what_needs_no_tensorflow_is_a_plain_line(tmp_path):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "model.ckpt-7", {"w": np.float32(1)})
    done = subprocess.run(
        [sys.executable, "-m", "estimator_ckpt", "inspect", tmp_path / "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    run = tmp_path / "run"
    line = f"warning: {run}: there is no `checkpoint` file; reading {run}/model.ckpt-7\n"
    assert (done.returncode, done.stderr) == (0, line)


@pytest.mark.parametrize("verb", ["check", "train"])
def test_a_command_without_settings_of_tensorflow_shows_its_own_lines_alone(tmp_path, verb):
    (tmp_path / "job.py").write_text(
        "import tensorflow as tf\n\n\n"
        "def model():\n    return tf.compat.v1.get_variable('w', [])\n\n\n"
        "def model_fn(features, labels, mode):\n    raise ZeroDivisionError\n"
    )
    arguments = {
        "check": ["--model=job:model", "no_checkpoint"],
        "train": ["--model_fn=job:model_fm", "--train_input_fn=job:model", "--model_dir=run"],
    }
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "estimator_ckpt", verb, *arguments[verb]],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("estimator-ckpt: ")

"""The examples that people copy from: each runs by one command, checks itself, and can fail.

The digits have tests of their own, in test_digits.py.
"""

from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path

import pytest
from tensorflow_party import tf

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "estimator_ckpt" / "examples"
HAS_CALLBACKS = hasattr(tf.train.CheckpointOptions(), "experimental_write_callbacks")
since_2_15 = pytest.mark.skipif(not HAS_CALLBACKS, reason="TensorFlow is older than 2.15")

# What each prints last.
LAST_LINES = {
    "cluster": "read by names and by objects: the mean squared error is 0.",
    "eager_both": "steps 5 to 25: ckpt-2 read by names and by objects",
    "keras_port": "Keras goes on as the Estimator does.",
    "new_head": "dense/kernel goes on; head/kernel, of 3 classes now, begins anew",
    "tpu_estimator": "an eager program reads: [3.0, -2.0]",
}
MARKS = {
    "cluster": [pytest.mark.estimator, pytest.mark.faults],
    "eager_both": [since_2_15],
    "keras_port": [pytest.mark.estimator],
    "tpu_estimator": [pytest.mark.estimator],
}


@pytest.fixture(autouse=True)
def _what_a_process_of_its_own_would_keep_to_itself(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["example"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes that an example starts
    level = tf.get_logger().level
    with warnings.catch_warnings():
        yield
    tf.get_logger().setLevel(level)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, [])) for name in LAST_LINES]
)
def test_an_example_runs_and_finds_what_it_expects(name, capfd):
    runpy.run_module(f"estimator_ckpt.examples.{name}", run_name="__main__")  # as python -m does
    assert capfd.readouterr().out.splitlines()[-1].startswith(LAST_LINES[name])


def test_every_example_is_here():
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__", "digits"}
    assert names == LAST_LINES.keys()


@since_2_15
def test_an_example_without_its_one_line_fails(tmp_path):
    source = (EXAMPLES / "eager_both.py").read_text()
    without = source.replace("self.manager = save_both(manager)", "self.manager = manager")
    assert without != source
    (tmp_path / "eager_both.py").write_text(without)
    with pytest.raises(RuntimeError, match="Graph is finalized"):
        runpy.run_path(str(tmp_path / "eager_both.py"), run_name="__main__")

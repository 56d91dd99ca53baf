"""Errors of what is not found offer what helps, and only what was applied in thought: when pasted,
it does what they say. Shown on files of TensorFlow's guide and of other writers."""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import run_job, v1

from estimator_ckpt import WarmStart, make_scaffold
from estimator_ckpt.cli import main
from estimator_ckpt.errors import MismatchError

VALUES = {"dense/kernel": [[1.0, 2.0]], "dense/bias": [3.0, 4.0], "scale": [5.0]}


def variables(scope=""):
    return {scope + name: tf.Variable(value) for name, value in VALUES.items()}


# What the guide's converter writes; what others write without `var_list`.
WRITERS = {
    "vars": lambda: tf.train.Checkpoint(vars=variables()),
    "vars below a model": lambda: tf.train.Checkpoint(model=tf.train.Checkpoint(vars=variables())),
    "a dictionary with a scope": lambda: tf.train.Checkpoint(params=variables("net/")),
    "the root itself": lambda: tf.train.Checkpoint(**variables()),
}
SCOPES = ("", "tower/")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    return {
        kind: make().write(str(directory / kind.replace(" ", "_")))
        for kind, make in WRITERS.items()
    }


def job(scope):
    def build():
        for name, value in VALUES.items():
            v1.get_variable(scope + name, initializer=np.zeros_like(value, np.float32))
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    return build


def assert_started(values, scope):
    for name, value in VALUES.items():
        np.testing.assert_array_equal(values[scope + name], value)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_warm_start_names_the_setting_that_finds_all(files, tmp_path, kind, scope):
    def start(directory, **settings):
        settings = WarmStart(files[kind], **settings)
        return run_job(
            tmp_path / directory,
            lambda: make_scaffold("saver", warm_start=settings),
            build=job(scope),
        )

    with pytest.raises(MismatchError, match="This rule would find 3 of 3") as caught:
        start("refused")
    (name, text) = re.fullmatch(r"(\w+): (.*)", caught.value.message.splitlines()[-1]).groups()
    values, _ = start("pasted", **{name: json.loads(text)})
    assert_started(values, scope)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_restore_names_the_conversion_that_makes_it_fit(files, tmp_path, capsys, kind, scope):
    with tf.Graph().as_default(), v1.Session() as session:
        job(scope)()
        session.run(v1.global_variables_initializer())
        saver = make_scaffold("saver", on_missing={"global_step": "init"}).finalize().saver
        with pytest.raises(MismatchError, match="A copy under the names") as caught:
            saver.restore(session, files[kind])
        command = shlex.split(caught.value.message.splitlines()[-1])
        copy = str(tmp_path / "copy")
        assert main([copy if word == "COPY" else word for word in command[1:]]) == 0
        saver.restore(session, copy)
        values = {v.op.name: session.run(v) for v in v1.global_variables()}
    assert_started(values, scope)


def test_a_pasted_rule_leaves_alone_what_was_found_before(tmp_path):
    """An assignment_map alone would leave out what its scopes do not name."""
    made = {"head/k": tf.Variable([1.0]), "old/a": tf.Variable([2.0]), "old/b": tf.Variable([3.0])}
    path = tf.train.Checkpoint(var_list=made).write(str(tmp_path / "ckpt"))
    names = {name: tf.Variable([0.0]) for name in ("head/k", "new/a", "new/b")}
    with pytest.raises(MismatchError, match="would find 2 of 2") as caught:
        WarmStart(path).apply(names)
    assert caught.value.message.splitlines()[-1] == r'rename: [["old/(.*)", "new/\\1"]]'
    WarmStart(path, rename=[("old/(.*)", r"new/\1")]).apply(names)
    assert {name: float(v[0]) for name, v in names.items()} == {
        "head/k": 1.0,
        "new/a": 2.0,
        "new/b": 3.0,
    }


PROGRAM = """
import sys
import tensorflow as tf
from estimator_ckpt import WarmStart
from estimator_ckpt.errors import MismatchError

layers = [tf.keras.layers.Dense(2) for _ in range(3)]
model = tf.keras.Sequential(layers[:2])
model.build((None, 2))
other = tf.keras.Sequential([layers[2], tf.keras.layers.Dense(2)])
other.build((None, 2))
names = {f"net/{layer.name}/{n}": v for layer in model.layers for n, v in
         zip(("kernel", "bias"), layer.weights)}
path = tf.train.Checkpoint(var_list=names).write(sys.argv[1])
given = {f"net/{layer.name}/{n}": v for layer in other.layers for n, v in
         zip(("kernel", "bias"), layer.weights)}
try:
    WarmStart(path).apply(given)
except MismatchError as error:
    print(error.message)
"""


def test_counts_are_no_hints_and_every_process_says_the_same(tmp_path):
    """The file has dense and dense_1, the model dense_2 and dense_3: nobody knows which is it."""
    texts = set()
    for seed in "01":
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "ckpt")],
            env={**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        texts.add(done.stdout)
    (text,) = texts
    assert "a count alone tells it from net/dense" in text
    assert "did you mean" not in text
    assert "This rule" not in text

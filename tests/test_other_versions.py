"""What a job of this package saved under each TensorFlow, read by the one that runs here.

These checkpoints are the goldens `own_saver`, `own_checkpoint` and `own_both`, whose files
test_goldens.py looks at. The readers are stock TensorFlow's two, and a job of this package.
"""

from __future__ import annotations

import shutil

import pytest
import tensorflow as tf
from golden_files import GoldenCase, golden_cases, texts

from estimator_ckpt import make_scaffold

v1 = tf.compat.v1
OTHER_FORMAT = {"saver": "checkpoint", "checkpoint": "both", "both": "saver"}


def cases(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", golden_cases(*kinds), ids=str)


def values(case: GoldenCase) -> dict:
    return {v.name: v.value for v in case.variables if v.name != "save_counter"}


def zeros(value) -> tf.Tensor:
    return tf.fill(value.shape, "") if value.dtype == object else tf.zeros(value.shape, value.dtype)


def make_variables(case: GoldenCase) -> dict:
    """What the variables hold, in a graph that has them; the partitioned one in three slices."""
    found = {"global_step": v1.train.create_global_step()}
    for name, value in values(case).items():
        if name == "embedding":
            found[name] = v1.get_variable(
                name,
                value.shape,
                initializer=v1.zeros_initializer(),
                partitioner=v1.fixed_size_partitioner(3),
            )
        elif name != "global_step":
            found[name] = v1.get_variable(name, initializer=zeros(value))
    return {name: tf.convert_to_tensor(variable) for name, variable in found.items()}


def assert_values(case: GoldenCase, found: dict) -> None:
    assert {n: texts(v) for n, v in found.items()} == {n: texts(v) for n, v in values(case).items()}


@cases("own_saver", "own_both")
def test_a_stock_saver_reads_it(case, graph):
    variables = make_variables(case)
    with v1.Session() as session:
        v1.train.Saver().restore(session, case.prefix)
        assert_values(case, session.run(variables))


@cases("own_checkpoint", "own_both")
def test_a_stock_checkpoint_reads_it_whole(case):
    variables = {name: tf.Variable(zeros(value)) for name, value in values(case).items()}
    checkpoint = tf.train.Checkpoint(var_list=variables, step=variables["global_step"])
    checkpoint.restore(case.prefix).assert_consumed()
    assert_values(case, {name: variable.numpy() for name, variable in variables.items()})


@cases("own_saver", "own_checkpoint", "own_both")
def test_a_job_of_another_format_goes_on_from_it(case, tmp_path, graph):
    directory = tmp_path / "job"
    shutil.copytree(case.directory, directory)
    variables = make_variables(case)
    scaffold = make_scaffold(OTHER_FORMAT[case.format])
    with v1.train.MonitoredTrainingSession(
        checkpoint_dir=str(directory), scaffold=scaffold, save_summaries_steps=None
    ) as session:
        assert_values(case, session.run(variables))

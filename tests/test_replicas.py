"""Two replicas of a strategy: what is new is initialized, what is restored is left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from saver_sessions import make_saver, restore, variable

from estimator_ckpt import open_checkpoint

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the jobs of mirrored_job.py have in the end."""
    # In a process of its own: devices are configured before TensorFlow does anything else.
    job = Path(__file__).parent / "mirrored_job.py"
    done = subprocess.run(
        [sys.executable, str(job), str(tmp_path_factory.mktemp("jobs"))],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.estimator
@pytest.mark.parametrize("how", ["resumed", "resumed again", "warm start"])
def test_a_new_variable_copies_the_restored_one_in_every_replica(found, how):
    values = found[f"copy, {how}"]
    assert (values["w"], values["b"]) == ([7.0, 7.0], [8.0, 8.0])
    values = found[f"average, {how}"]
    assert (values["w"], values["w/b"]) == ([7.0, 7.0], [7.0, 7.0])


@pytest.mark.estimator
@pytest.mark.parametrize(("copy", "name", "value"), [("copy", "b", 8.0), ("average", "w/b", 7.0)])
def test_the_first_checkpoint_has_what_was_warm_started(found, copy, name, value):
    values = found[f"{copy}, on disk"]
    assert values["w"] == 7.0
    assert values[name] == value


@pytest.mark.estimator
def test_the_slots_of_keras_go_to_every_replica(found):
    job, objects = found["optimizers"]["job"], found["optimizers"]["objects"]
    m, v = pytest.approx([0.2, 0.4]), pytest.approx([0.004, 0.016])
    assert [job["w/Adam"], job["w/Adam_1"]] == [[m, m], [v, v]]
    assert [objects["m/w"], objects["v/w"]] == [[m, m], [v, v]]
    assert job["w"] == objects["w"] == [pytest.approx([6.9, 6.9])] * 2
    assert job["global_step"] == objects["iteration"] == [1, 1]
    assert job["beta1_power"] == [pytest.approx(0.9**2)] * 2


@pytest.mark.estimator
def test_an_evaluation_in_replicas_initializes_what_the_checkpoint_lacks(found):
    assert found["evaluated"] == 7.0 + 8.0


@pytest.mark.estimator
@pytest.mark.parametrize("pieces", ["counting", "counting_objects"])
def test_what_replicas_sum_is_one_variable_saved_and_restored_as_in_stock(found, pieces):
    stock = found[f"{pieces}, None"]
    # Two replicas, two steps; of the sum after one step each starts with a half.
    assert stock == {"replicas": [1.0, 1.0], "on disk": [4.0]}
    assert found[f"{pieces}, checkpoint"] == stock
    assert found[f"{pieces}, both"] == {**stock, "on disk": [4.0, 4.0]}  # under its two keys


@pytest.mark.parametrize("synchronization", ["ON_READ", "ON_WRITE"])
@pytest.mark.parametrize("collection", [v1.GraphKeys.GLOBAL_VARIABLES, None])
def test_a_variable_of_a_strategy_has_one_key_and_is_restored(
    tmp_path, synchronization, collection
):
    def build(initial):
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            seen = v1.get_variable(
                "seen",
                initializer=[initial],
                trainable=False,
                synchronization=getattr(tf.VariableSynchronization, synchronization),
                aggregation=tf.VariableAggregation.SUM,
                collections=[collection] if collection else [v1.GraphKeys.LOCAL_VARIABLES],
            )
        return seen, make_saver("checkpoint", {"seen": seen}, on_missing="init")

    with tf.Graph().as_default(), v1.Session() as session:
        seen, saver = build(3.0)
        session.run(seen.initializer)
        prefix = saver.save(session, str(tmp_path / "model"))
    with open_checkpoint(prefix) as checkpoint:
        assert [v.key for v in checkpoint.variables.values() if "seen" in v.key] == [
            "seen/.ATTRIBUTES/VARIABLE_VALUE"
        ]
        assert checkpoint.variables["seen"].shape == (1,)
    with tf.Graph().as_default():
        seen, saver = build(1.0)
        assert restore(saver, prefix, seen.values[0]) == [3.0]


def test_a_new_variable_of_a_strategy_is_initialized_in_a_finalized_graph(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        w = variable("w", 7.0)
        session.run(w.initializer)
        prefix = make_saver().save(session, str(tmp_path / "model"))
    with tf.Graph().as_default(), tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        w = variable("w", 1.0)
        with tf.control_dependencies([w.initializer]):
            b = v1.get_variable("b", initializer=w.read_value() + 1)
        saver = make_saver(on_missing="init")
        assert restore(saver, prefix, w.values[0], b.values[0]) == [7.0, 8.0]

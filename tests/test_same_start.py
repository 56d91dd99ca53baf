"""A start gives variables the values that stock gives them, bit for bit, and the same errors."""

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS

from estimator_ckpt import make_scaffold, saver_scaffold

v1 = tf.compat.v1


def many_kinds(*, with_late=False):
    """Variables of every kind, and tables; returns a train op, and what to read, by names."""
    v1.set_random_seed(17)
    normal = v1.random_normal_initializer
    with v1.variable_scope("scope"):
        by_graph_seed = v1.get_variable("resource", [3, 2], initializer=normal())
        by_own_seed = v1.get_variable(
            "reference", [3], initializer=normal(seed=5), use_resource=False
        )
    v1.get_variable(
        "parts", [10, 2], initializer=normal(), partitioner=v1.fixed_size_partitioner(3)
    )
    with tf.control_dependencies([by_graph_seed.initializer]):
        v1.get_variable("waits", initializer=by_graph_seed.read_value() * 3.0)
    v1.get_variable("depends", initializer=_initialized(by_graph_seed) * 2.0)
    v1.get_variable("zeros", initializer=[-0.0, 0.0])
    v1.get_variable("word", initializer="a")
    local = v1.get_local_variable("local", [2], initializer=normal())
    reference = v1.get_local_variable("also_local", [2], initializer=normal(), use_resource=False)
    static = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [7]), -1)
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="table")
    step = v1.train.get_or_create_global_step()
    updates = [
        by_graph_seed.assign_add(v1.random_normal([3, 2])),
        by_own_seed.assign_add(tf.ones([3])),
        local.assign_add([1.0, 1.0]),
        reference.assign_add([1.0, 1.0]),
        table.insert(tf.as_string([step]), [3]),
    ]
    if with_late:
        v1.get_variable("late", [2], initializer=normal())
        v1.get_variable("late_copy", initializer=_initialized(by_own_seed) + 0.5)
    with tf.control_dependencies(updates):
        train = v1.assign_add(step, 1)
    reads = {v.op.name: v for v in (*v1.global_variables(), *v1.local_variables())}
    reads["static"] = static.lookup(tf.constant(["a", "b"]))
    reads["table"] = table.lookup(tf.constant(["0", "1", "2"]))
    return train, reads


def _initialized(variable):
    is_there = v1.is_variable_initialized(variable)
    return tf.cond(is_there, variable.read_value, lambda: variable.initial_value)


def start(model_dir, way, *, with_late=False):
    """What a session has when it is there, and after a step, as the bytes of each value."""
    with tf.Graph().as_default():
        train, reads = many_kinds(with_late=with_late)
        if way != "stock":
            scaffold = make_scaffold(way, on_missing={"late.*": "init"})
        elif with_late:
            *others, late, late_copy = v1.global_variables()
            others += v1.get_collection(v1.GraphKeys.SAVEABLE_OBJECTS)
            local = v1.train.Scaffold.default_local_init_op()
            scaffold = v1.train.Scaffold(
                saver=v1.train.Saver(others, sharded=True),
                ready_for_local_init_op=tf.constant([], tf.string),
                local_init_op=tf.group(local, late.initializer, late_copy.initializer),
            )
        else:
            scaffold = v1.train.Scaffold(saver=v1.train.Saver(sharded=True))
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir), scaffold=scaffold, log_step_count_steps=None
        ) as session:
            raw = session._tf_sess()
            found = [raw.run(reads)]
            session.run(train)
            found.append(raw.run(reads))
    return [
        {name: (np.asarray(v).dtype, np.asarray(v).tobytes()) for name, v in one.items()}
        for one in found
    ]


@pytest.fixture(scope="module")
def of_stock(tmp_path_factory):
    """What stock has at a first start, at a resume, and at one with new variables."""
    model_dir = tmp_path_factory.mktemp("stock")
    return [start(model_dir, "stock", with_late=late) for late in (False, False, True)]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_values_are_those_of_stock(tmp_path, of_stock, checkpoint_format):
    first, resumed, with_late = of_stock
    assert first[0] != first[1]
    assert start(tmp_path, checkpoint_format) == first
    assert start(tmp_path, checkpoint_format) == resumed
    assert start(tmp_path, checkpoint_format, with_late=True) == with_late


def without_an_init():
    _, *others = v1.global_variables()
    return {"init_op": v1.variables_initializer(others, name="others")}


def without_a_local_init():
    return {"local_init_op": tf.no_op("nothing")}


def error_of_start(scaffold_of, pieces_of, prefix=None):
    """What a session says that does not start, of `forgotten`, `other` and `local`."""
    with tf.Graph().as_default():
        v1.get_variable("forgotten", initializer=1.0)
        v1.get_variable("other", initializer=1.0)
        v1.get_local_variable("local", initializer=1.0)
        step = v1.train.get_or_create_global_step()
        scaffold = scaffold_of(v1.train.Scaffold(**pieces_of()), [step])
        creator = v1.train.ChiefSessionCreator(scaffold, checkpoint_filename_with_path=prefix)
        with pytest.raises(RuntimeError) as caught:
            v1.train.MonitoredSession(creator)
        return str(caught.value)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize(
    ("pieces_of", "named"),
    [(without_an_init, "forgotten"), (without_a_local_init, "local")],
)
def test_an_error_of_a_start_is_that_of_stock(pieces_of, named, checkpoint_format):
    stock = error_of_start(lambda base, _: base, pieces_of)
    ours = error_of_start(lambda base, _: make_scaffold(checkpoint_format, base=base), pieces_of)
    assert stock.endswith(f"error: Variables not initialized: {named}")
    assert ours == stock


def test_an_error_of_a_resume_is_that_of_stock(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.train.get_or_create_global_step()
        session.run(step.initializer)
        prefix = v1.train.Saver([step]).save(session, str(tmp_path / "model.ckpt"))
    stock, ours = (
        error_of_start(scaffold_of, dict, prefix)
        for scaffold_of in (
            lambda _, saved: v1.train.Scaffold(saver=v1.train.Saver(saved)),
            lambda _, saved: saver_scaffold(saved),
        )
    )
    assert stock.endswith("error: Variables not initialized: forgotten, other")
    assert ours == stock

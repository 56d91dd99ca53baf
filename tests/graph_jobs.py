"""Small training jobs in the style of TensorFlow 1, and what stock TensorFlow reads of them."""

import numpy as np
from tensorflow_party import tf, v1

FORMATS = ("saver", "checkpoint", "both")


def build_model():
    """A weight, a partitioned weight, their Adam slots and a global step; returns the train op."""
    weight = v1.get_variable("scope/w", initializer=np.arange(6, dtype=np.float32).reshape(2, 3))
    parts = v1.get_variable(
        "scope/parts",
        shape=[10, 2],
        initializer=v1.random_uniform_initializer(),
        partitioner=v1.fixed_size_partitioner(3),
    )
    return minimize(tf.reduce_sum(weight**2) + tf.reduce_sum(tf.convert_to_tensor(parts) ** 2))


def build_plain_model():
    """A weight, its Adam slots and a global step; returns the train op."""
    weight = v1.get_variable("scope/w", initializer=np.arange(6, dtype=np.float32).reshape(2, 3))
    return minimize(tf.reduce_sum(weight**2))


def minimize(loss):
    step = v1.train.get_or_create_global_step()
    return v1.train.AdamOptimizer(0.1).minimize(loss, global_step=step)


def value_of(session, name):
    """The value of one global variable."""
    (variable,) = (v for v in v1.global_variables() if v.op.name == name)
    return session.run(variable)


def global_values(session):
    """The value of every global variable by its full name; a partitioned one as a whole."""
    values = {}
    for variable in v1.global_variables():
        info = variable._save_slice_info
        if info is None:
            values[variable.op.name] = session.run(variable)
        else:
            whole = values.setdefault(info.full_name, np.zeros(info.full_shape, np.float32))
            place = tuple(slice(o, o + n) for o, n in zip(info.var_offset, info.var_shape))
            whole[place] = session.run(variable)
    return values


def run_job(model_dir, scaffold=None, *, build=build_model, steps=2, **session_options):
    """Trains in a MonitoredTrainingSession; returns the values it started from and ended with.

    `scaffold` is called in the graph when the model is there; None is the stock saver.
    """
    with tf.Graph().as_default():
        train = build()
        options = {"save_checkpoint_steps": 1000, "save_checkpoint_secs": None, **session_options}
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir),
            scaffold=scaffold() if scaffold else None,
            log_step_count_steps=None,
            **options,
        ) as session:
            raw = session._tf_sess()
            start = global_values(raw)
            for _ in range(steps):
                session.run(train)
            return start, global_values(raw)


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def read_with_stock_saver(prefix, build=build_model):
    """What a stock tf.compat.v1.train.Saver restores into a graph of the same model."""
    with tf.Graph().as_default():
        build()
        saver = v1.train.Saver()
        with v1.Session() as session:
            saver.restore(session, prefix)
            return global_values(session)


def read_with_checkpoint(prefix, expected):
    """What an eager tf.train.Checkpoint restores, every value of the file being asked for."""
    variables = {name: tf.Variable(np.zeros_like(value)) for name, value in expected.items()}
    reader = tf.train.Checkpoint(var_list=variables, step=variables["global_step"])
    reader.restore(prefix).assert_consumed()
    return {name: variable.numpy() for name, variable in variables.items()}


def latest(model_dir):
    return tf.train.latest_checkpoint(str(model_dir))

"""Savers in plain sessions: what they write, and what they restore into a finalized graph."""

import re

import numpy as np
import pytest
import tensorflow as tf

from estimator_ckpt.errors import CheckpointError, MismatchError
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.saving.saver import Saver

v1 = tf.compat.v1

# What partitioned() has in the shape that it has by default.
COUNT = np.arange(24, dtype=np.float32).reshape(12, 2)
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def make_saver(checkpoint_format="both", objects=None, *, var_list=None, **options):
    """A saver of the default graph, built."""
    saver = Saver(checkpoint_format, var_list, objects, SaverOptions(**options))
    saver.build()
    return saver


def save(saver, directory, *ops, session_options=None):
    """Initializes all variables, runs `ops`, saves; returns the prefix."""
    with v1.Session(**(session_options or {})) as session:
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        for op in ops:
            session.run(op)
        return saver.save(session, str(directory / "model"), write_meta_graph=False)


def restore(saver, prefix, *fetches, initialize=False, session_options=None):
    """Restores into a finalized graph, where no op can be added; returns `fetches` thereafter.

    Without `initialize` a variable that the restore forgets has no value, and reading it fails.
    """
    graph = v1.get_default_graph()
    init = v1.global_variables_initializer()
    graph.finalize()
    with v1.Session(graph=graph, **(session_options or {})) as session:
        if initialize:
            session.run(init)
        saver.restore(session, prefix)
        return session.run(fetches[0] if len(fetches) == 1 else list(fetches))


def variable(name, value, dtype=tf.float32, **options):
    """A variable with an initial value, a list or a number."""
    initial = tf.constant(value, dtype)
    return v1.get_variable(name, initializer=initial, **options)


def partitioned(name, slices, shape=(12, 2), axis=0):
    """A partitioned variable that counts its elements: 0, 1, 2, ..."""
    count = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    def part(shape, partition_info=None, **_):
        place = tuple(slice(o, o + n) for o, n in zip(partition_info.var_offset, shape))
        return tf.constant(count[place])

    partitioner = v1.fixed_size_partitioner(slices, axis) if slices else None
    if partitioner is None:
        return v1.get_variable(name, initializer=count)
    return v1.get_variable(name, shape, initializer=part, partitioner=partitioner, dtype=tf.float32)


def whole(value):
    """A partitioned variable as one tensor; any other as it is."""
    return tf.convert_to_tensor(value)


def eager_values(prefix):
    """The values of all keys, read by a stock reader."""
    reader = tf.train.load_checkpoint(prefix)
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def written(directory, build, checkpoint_format="both", **options):
    """A checkpoint of the graph that `build` makes; if it returns a dict, of these objects."""
    with tf.Graph().as_default():
        built = build()
        objects = built if isinstance(built, dict) else None
        return save(make_saver(checkpoint_format, objects, **options), directory)


def eager(directory, **children):
    """A checkpoint of a stock eager tf.train.Checkpoint."""
    return tf.train.Checkpoint(**children).save(directory / "eager")


def restored(prefix, build, checkpoint_format="both", **options):
    """What a graph has after a restore alone; `build` returns the variables and the objects."""
    with tf.Graph().as_default():
        variables, objects = build()
        saver = make_saver(checkpoint_format, objects, **options)
        return restore(saver, prefix, [whole(v) for v in variables])


def refused(prefix, build, **options):
    """The error of a restore that must fail, and leave every variable as it was."""
    with tf.Graph().as_default() as graph:
        variables, objects = build()
        values = [whole(v) for v in variables]
        saver = make_saver("both", objects, **options)
        init = v1.global_variables_initializer()
        graph.finalize()
        with v1.Session() as session:
            session.run(init)
            before = session.run(values)
            with pytest.raises(CheckpointError) as caught:
                saver.restore(session, prefix)
            for value, old in zip(session.run(values), before):
                np.testing.assert_array_equal(value, old)
    return caught.value


def rows_of(error):
    """The lines of the table, words separated by one space."""
    assert isinstance(error, MismatchError)
    lines = [re.sub(" +", " ", line).strip() for line in str(error).splitlines()]
    return [line for line in lines[3:] if line and not line.startswith("on_missing=")]


def stock_restore(prefix, fetch):
    """What a stock Saver of the default graph restores."""
    saver = v1.train.Saver()
    with v1.Session() as session:
        saver.restore(session, prefix)
        return session.run(fetch)

"""Partitioned variables and several devices: written, read by stock ones, restored."""

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS
from saver_sessions import (
    COUNT,
    make_saver,
    partitioned,
    restore,
    save,
    stock_restore,
    variable,
    whole,
)

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import MismatchError

v1 = tf.compat.v1

TWO_DEVICES = {"config": v1.ConfigProto(device_count={"CPU": 2})}


def stock_save(directory):
    """What a stock Saver writes of the default graph."""
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, str(directory / "stock"), write_meta_graph=False)


# --- partitioned variables ---

LAYOUTS = [(3, 0), (2, 0), (2, 1), (None, 0)]  # slices, axis


@pytest.mark.parametrize(
    ("checkpoint_format", "slices", "axis"),
    [*((one, 3, 0) for one in FORMATS), *(("both", *layout) for layout in LAYOUTS[1:])],
)
def test_a_partitioned_variable_restores_under_any_other_partitioning(
    tmp_path, checkpoint_format, slices, axis
):
    with tf.Graph().as_default():
        partitioned("scope/w", slices, axis=axis)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    for other_slices, other_axis in LAYOUTS:
        with tf.Graph().as_default():
            w = partitioned("scope/w", other_slices, axis=other_axis)
            found = restore(make_saver("saver"), prefix, whole(w))
        np.testing.assert_array_equal(found, COUNT)


@pytest.mark.parametrize(("slices", "axis"), LAYOUTS)
def test_a_partitioned_variable_restores_from_a_stock_saver(tmp_path, slices, axis):
    with tf.Graph().as_default():
        partitioned("scope/w", 3)
        prefix = stock_save(tmp_path)
    with tf.Graph().as_default():
        w = partitioned("scope/w", slices, axis=axis)
        np.testing.assert_array_equal(restore(make_saver(), prefix, whole(w)), COUNT)


@pytest.mark.parametrize(("slices", "axis"), LAYOUTS)
def test_a_whole_variable_of_an_eager_checkpoint_restores_into_slices(tmp_path, slices, axis):
    prefix = tf.train.Checkpoint(var_list={"scope/w": tf.Variable(COUNT)}).save(tmp_path / "eager")
    with tf.Graph().as_default():
        w = partitioned("scope/w", slices, axis=axis)
        np.testing.assert_array_equal(restore(make_saver(), prefix, whole(w)), COUNT)


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_an_eager_checkpoint_reads_a_partitioned_variable_as_one(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        partitioned("scope/w", 3)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    w = tf.Variable(tf.zeros([12, 2]))
    tf.train.Checkpoint(var_list={"scope/w": w}).restore(prefix).assert_consumed()
    np.testing.assert_array_equal(w, COUNT)


@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_a_stock_saver_reads_a_partitioned_variable_under_another_partitioning(
    tmp_path, checkpoint_format
):
    with tf.Graph().as_default():
        partitioned("scope/w", 3)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    with tf.Graph().as_default():
        w = partitioned("scope/w", 2, axis=1)
        np.testing.assert_array_equal(stock_restore(prefix, whole(w)), COUNT)


def test_a_partitioned_variable_of_another_shape_is_refused(tmp_path):
    with tf.Graph().as_default():
        partitioned("scope/w", 3)
        prefix = save(make_saver(), tmp_path)
    with tf.Graph().as_default():
        w = partitioned("scope/w", 3, shape=(6, 2))
        with pytest.raises(MismatchError, match=r"scope/w .*float32\[6,2\] .*float32\[12,2\]"):
            restore(make_saver(), prefix, whole(w))


def test_some_slices_alone_are_saved_and_restored(tmp_path):
    with tf.Graph().as_default():
        first, *_ = partitioned("scope/w", 3)
        prefix = save(make_saver(var_list=[first]), tmp_path)
    with tf.Graph().as_default():
        first, *_ = partitioned("scope/w", 3)
        found = restore(make_saver(var_list=[first]), prefix, first)
        np.testing.assert_array_equal(found, COUNT[:4])
    with tf.Graph().as_default():
        w = partitioned("scope/w", 2)
        with pytest.raises(MismatchError, match="sufficient slices"):
            restore(make_saver(), prefix, whole(w))


def test_a_mapping_renames_a_partitioned_variable(tmp_path):
    with tf.Graph().as_default():
        w = partitioned("scope/w", 3)
        prefix = save(make_saver(var_list={"other": w}), tmp_path)
    with tf.Graph().as_default():
        other = partitioned("other", 2, axis=1)
        np.testing.assert_array_equal(restore(make_saver(), prefix, whole(other)), COUNT)
    with tf.Graph().as_default():
        other = partitioned("other", 2)
        np.testing.assert_array_equal(stock_restore(prefix, whole(other)), COUNT)


def test_the_slots_of_a_partitioned_variable_are_partitioned_with_it(tmp_path):
    def build(slices):
        w = partitioned("w", slices)
        loss = tf.reduce_sum(whole(w) ** 2)
        optimizer = v1.train.AdamOptimizer(0.1)
        train = optimizer.minimize(loss, var_list=list(w) if slices else [w])
        parts = list(w) if slices else [w]
        return train, tf.concat([optimizer.get_slot(part, "m") for part in parts], 0)

    with tf.Graph().as_default():
        train, _ = build(3)
        prefix = save(make_saver(), tmp_path, train)
    with tf.Graph().as_default():
        _, slot = build(2)
        np.testing.assert_allclose(restore(make_saver(), prefix, slot), 0.1 * 2 * COUNT, rtol=1e-6)
    m = tf.Variable(tf.zeros([12, 2]))
    reader = tf.train.Checkpoint(var_list={"w/Adam": m})
    reader.restore(prefix).assert_existing_objects_matched()
    np.testing.assert_allclose(m, 0.1 * 2 * COUNT, rtol=1e-6)


# --- devices ---


def build_on_two_devices():
    with tf.device("/cpu:0"):
        a = variable("a", [1.0, 2.0])
    with tf.device("/cpu:1"):
        b = variable("b", [3.0])
    w = partitioned_on_two_devices()
    return a, b, w


def partitioned_on_two_devices():
    chosen = iter(["/cpu:0", "/cpu:1"])
    with v1.device(lambda op: next(chosen) if op.type == "VarHandleOp" else ""):
        return partitioned("w", 2)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_each_device_writes_a_shard_of_its_own(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        build_on_two_devices()
        saver = make_saver(checkpoint_format)
        prefix = save(saver, tmp_path, session_options=TWO_DEVICES)
    with open_checkpoint(prefix) as checkpoint:
        assert checkpoint.index.num_shards == 2
        shards = {n: v.entry.shard for n, v in checkpoint.variables.items() if n in "ab"}
        assert shards["a"] != shards["b"]
    with tf.Graph().as_default():
        a, b, w = build_on_two_devices()
        saver = make_saver("saver")
        found = restore(saver, prefix, a, b, whole(w), session_options=TWO_DEVICES)
    for value, expected in zip(found, ([1.0, 2.0], [3.0], COUNT)):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("kind", ["stock", *FORMATS])
def test_a_partitioned_variable_may_be_in_later_data_files_alone(tmp_path, kind):
    """Its entry then has the number of one (MergeV2Checkpoints), but no bytes there."""
    with tf.Graph().as_default():
        with tf.device("/cpu:0"):
            variable("a", [1.0, 2.0])
        with tf.device("/cpu:1"):
            w = partitioned("w", 2)
        saver = v1.train.Saver(sharded=True) if kind == "stock" else make_saver(kind)
        prefix = save(saver, tmp_path, session_options=TWO_DEVICES)
        with open_checkpoint(prefix) as checkpoint:
            np.testing.assert_array_equal(checkpoint["w"], COUNT)
        found = restore(make_saver("saver"), prefix, whole(w), session_options=TWO_DEVICES)
    np.testing.assert_array_equal(found, COUNT)


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_the_object_graph_is_written_once_for_all_devices(tmp_path, checkpoint_format):
    with tf.Graph().as_default() as graph:
        build_on_two_devices()
        saver = make_saver(checkpoint_format)
        writers = [op for op in graph.get_operations() if op.type == "SaveV2"]
        names = [list(tf.make_ndarray(w.inputs[1].op.get_attr("value"))) for w in writers]
        assert [n.count(b"_CHECKPOINTABLE_OBJECT_GRAPH") for n in names] == [1, 0]
        prefix = save(saver, tmp_path, session_options=TWO_DEVICES)
    a, b, w = (tf.Variable(tf.zeros(shape)) for shape in ([2], [1], [12, 2]))
    reader = tf.train.Checkpoint(var_list={"a": a, "b": b, "w": w})
    reader.restore(prefix).assert_consumed()
    np.testing.assert_array_equal(b, [3.0])
    np.testing.assert_array_equal(w, COUNT)

"""The `ema` option: averages are read in place of the variables, where the checkpoint has them."""

import numpy as np
import pytest
import tensorflow as tf
from jobs import FORMATS
from sessions import COUNT, make_saver, partitioned, restore, save, variable, whole

v1 = tf.compat.v1


def build_with_averages(shadows):
    """A variable that is averaged and one that is not; with their averages if `shadows`."""
    a, b = variable("a", [1.0]), variable("b", [2.0])
    average = tf.train.ExponentialMovingAverage(0.5)
    if not shadows:
        return a, b, average
    apply = average.apply([a])
    with tf.control_dependencies([a.assign([5.0])]):
        changed = tf.identity(a)
    return changed, apply, average


@pytest.mark.parametrize("by", ["name", "object"])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_averages_are_read_where_the_checkpoint_has_them(tmp_path, checkpoint_format, by):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        prefix = save(make_saver(checkpoint_format), tmp_path, change, apply)
    with tf.Graph().as_default():
        a, b, average = build_with_averages(shadows=False)
        ema = average if by == "object" else "ExponentialMovingAverage"
        assert [v.tolist() for v in restore(make_saver(ema=ema), prefix, a, b)] == [[3.0], [2.0]]
    with tf.Graph().as_default():
        a, _, _ = build_with_averages(shadows=False)
        assert restore(make_saver(), prefix, a).tolist() == [5.0]


def test_averages_of_partitioned_variables(tmp_path):
    with tf.Graph().as_default():
        w = partitioned("w", 3)
        average = tf.train.ExponentialMovingAverage(0.5)
        apply = average.apply(list(w))
        doubled = tf.group(*[part.assign(part * 3) for part in w])
        prefix = save(make_saver(), tmp_path, doubled, apply)
    with tf.Graph().as_default():
        w = partitioned("w", 2)
        found = restore(make_saver(ema="ExponentialMovingAverage"), prefix, whole(w))
        np.testing.assert_array_equal(found, 2 * COUNT)


def test_a_checkpoint_without_averages_serves_the_variables_themselves(tmp_path):
    with tf.Graph().as_default():
        variable("a", [1.0])
        prefix = save(make_saver("checkpoint"), tmp_path)
    with tf.Graph().as_default():
        a = variable("a", [0.0])
        found = restore(make_saver(ema="ExponentialMovingAverage"), prefix, a)
        assert found.tolist() == [1.0]


def test_averages_are_read_by_name_where_the_objects_lead_to_the_variable_itself(tmp_path):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        (a,) = (v for v in v1.global_variables() if v.op.name == "a")
        prefix = save(make_saver("checkpoint", {"net": a}), tmp_path, change, apply)
    with tf.Graph().as_default():
        a, _, _ = build_with_averages(shadows=False)
        saver = make_saver("checkpoint", {"net": a}, ema="ExponentialMovingAverage")
        assert restore(saver, prefix, a).tolist() == [3.0]


def test_a_graph_that_has_the_averages_too_reads_them_twice(tmp_path):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        prefix = save(make_saver(), tmp_path, change, apply)
    with tf.Graph().as_default():
        build_with_averages(shadows=True)
        values = {v.op.name: v for v in v1.global_variables()}
        found = restore(make_saver(ema="ExponentialMovingAverage"), prefix, values)
        assert found["a"].tolist() == found["a/ExponentialMovingAverage"].tolist() == [3.0]

"""Objects that are no global variables, a var_list of the user's own, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS
from saver_sessions import (
    COUNT,
    eager_values,
    make_saver,
    partitioned,
    restore,
    save,
    variable,
    whole,
)
from tensorflow.python.saved_model.registration import register_tf_checkpoint_saver

from estimator_ckpt import checkpoint_scaffold, dual_scaffold, saver_scaffold
from estimator_ckpt.errors import ConflictError, SettingsError

v1 = tf.compat.v1


# --- beyond global variables ---


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_local_variables_that_the_objects_reach(tmp_path, checkpoint_format):
    def build(value):
        seen = v1.get_local_variable("metrics/seen", initializer=value)
        return seen, make_saver(checkpoint_format, {"seen": seen})

    with tf.Graph().as_default():
        _, saver = build(5)
        prefix = save(saver, tmp_path)
    with tf.Graph().as_default():
        seen, saver = build(0)
        assert restore(saver, prefix, seen) == 5
    if checkpoint_format != "checkpoint":
        assert eager_values(prefix)["metrics/seen"] == 5
    if checkpoint_format != "saver":
        seen = tf.Variable(0)
        tf.train.Checkpoint(seen=seen).restore(prefix).assert_consumed()
        assert seen.numpy() == 5


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_object_with_several_values(tmp_path, checkpoint_format):
    class Range(tf.__internal__.tracking.AutoTrackable):
        """Two values under attributes of their own."""

        def __init__(self, low, high):
            self._bounds = (self._untracked(low), self._untracked(high))

        @tf.__internal__.tracking.no_automatic_dependency_tracking
        def _untracked(self, value):
            return tf.Variable(value, trainable=False)

        def _serialize_to_tensors(self):
            return {"low": self._bounds[0].read_value(), "high": self._bounds[1].read_value()}

        def _restore_from_tensors(self, restored):
            low, high = self._bounds
            return tf.group(low.assign(restored["low"]), high.assign(restored["high"]))

        @property
        def bounds(self):
            return [self._bounds[0], self._bounds[1]]

        def _trackable_children(self, save_type=None, **kwargs):
            return {}

    def build(low, high):
        limits = Range(low, high)
        return limits, make_saver(checkpoint_format, {"limits": limits}, var_list=[])

    with tf.Graph().as_default():
        _, saver = build(1.0, 2.0)
        prefix = save(saver, tmp_path)
    with tf.Graph().as_default():
        limits, saver = build(0.0, 0.0)
        assert restore(saver, prefix, limits.bounds) == [1.0, 2.0]
    if checkpoint_format != "saver":
        limits = Range(0.0, 0.0)
        tf.train.Checkpoint(limits=limits).restore(prefix).assert_consumed()
        assert [v.numpy() for v in limits.bounds] == [1.0, 2.0]


def test_python_state_is_written_as_it_is_when_the_graph_is_built(tmp_path):
    class Words(tf.train.experimental.PythonState):
        def __init__(self, text):
            self.text = text

        def serialize(self):
            return self.text

        def deserialize(self, string_value):
            self.text = tf.compat.as_str(string_value)

    with tf.Graph().as_default():
        a = variable("a", 1.0)
        prefix = save(make_saver("both", {"a": a, "words": Words("hello")}), tmp_path)
    words = Words("")
    reader = tf.train.Checkpoint(a=tf.Variable(0.0), words=words)
    reader.restore(prefix).assert_consumed()
    assert words.text == "hello"
    with tf.Graph().as_default():
        words = Words("kept")
        a = variable("a", 0.0)
        assert restore(make_saver("both", {"a": a, "words": words}), prefix, a) == 1.0
        assert words.text == "kept"


def test_slices_that_are_tracked_one_by_one_are_written_as_such_too(tmp_path):
    with tf.Graph().as_default():
        w = partitioned("w", 3)
        saver = make_saver("both", {"parts": list(w)})
        prefix = save(saver, tmp_path)
    parts = [tf.Variable(tf.zeros([4, 2])) for _ in range(3)]
    table = tf.Variable(tf.zeros([12, 2]))
    tf.train.Checkpoint(parts=parts, var_list={"w": table}).restore(prefix).assert_consumed()
    np.testing.assert_array_equal(tf.concat(parts, 0), COUNT)
    np.testing.assert_array_equal(table, COUNT)
    with tf.Graph().as_default():
        w = partitioned("w", 2)
        saver = make_saver("both", {"parts": list(w)})
        np.testing.assert_array_equal(restore(saver, prefix, whole(w)), COUNT)
    with tf.Graph().as_default():
        new = partitioned("new", 2)
        saver = make_saver("both", {"parts": list(new)}, on_missing="init")
        np.testing.assert_array_equal(restore(saver, prefix, whole(new)), COUNT)


def test_a_checkpoint_object_with_a_save_counter_of_its_own(tmp_path):
    with tf.Graph().as_default():
        checkpoint = tf.train.Checkpoint(a=variable("a", 1.0))
        counter = checkpoint.save_counter
        prefix = save(make_saver("both", checkpoint), tmp_path, counter.assign(3))
    reader = tf.train.Checkpoint(a=tf.Variable(0.0))
    reader.restore(prefix).assert_consumed()
    assert reader.a.numpy() == 1.0
    assert reader.save_counter.numpy() == 3


# --- a var_list of the user's own ---


def test_the_users_var_list_and_ours_are_one(tmp_path):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        variable("b", 2.0)
        prefix = save(make_saver("both", {"var_list": {"mine": a}}), tmp_path)
    values = {"mine": tf.Variable(0.0), "b": tf.Variable(0.0)}
    tf.train.Checkpoint(var_list=values).restore(prefix).assert_consumed()
    assert [v.numpy() for v in values.values()] == [1.0, 2.0]
    values = {"a": tf.Variable(0.0), "b": tf.Variable(0.0)}
    tf.train.Checkpoint(var_list=values).restore(prefix).assert_consumed()
    assert [v.numpy() for v in values.values()] == [1.0, 2.0]
    with tf.Graph().as_default():
        a, b = variable("a", 0.0), variable("b", 0.0)
        found = restore(make_saver("both", {"var_list": {"mine": a}}), prefix, a, b)
        assert found == [1.0, 2.0]


def test_a_name_in_the_users_var_list_that_is_another_variables_is_refused(graph):
    a = variable("a", 1.0)
    variable("b", 2.0)
    with pytest.raises(ConflictError, match="var_list/b"):
        make_saver("checkpoint", {"var_list": {"b": a}})


def test_two_objects_that_would_have_one_name_are_refused(graph):
    a, b = variable("a", 1.0), variable("b", 2.0)
    with pytest.raises(ConflictError, match="'a'"):
        make_saver("checkpoint", {"first": a}, var_list={"a": b})


# --- what cannot be saved ---


@pytest.mark.parametrize(
    "create",
    [
        lambda: variable("late", 1.0),
        lambda: v1.get_local_variable("late", initializer=1.0),
        lambda: v1.Variable(1.0, name="late", use_resource=False, collections=[]),
    ],
    ids=["global", "local", "reference variable in no collection"],
)
def test_a_callable_must_not_create_variables(graph, create):
    with pytest.raises(SettingsError, match=r"created \['late'\]; create them in the model_fn"):
        make_saver("checkpoint", lambda: {"a": create()})


class Registered(tf.__internal__.tracking.AutoTrackable):
    pass


register_tf_checkpoint_saver(
    name="OfThisTest",
    predicate=lambda x: isinstance(x, Registered),
    save_fn=lambda trackables, file_prefix: [],
    restore_fn=lambda trackables, merged_prefix: None,
)


def test_registered_savers_are_refused(graph):
    with pytest.raises(SettingsError, match="OfThisTest"):
        make_saver("checkpoint", {"object": Registered()})


@pytest.mark.parametrize(
    "wrong", [5, "text", [5], {"a": 5}, {5: "a"}, lambda: None, lambda: print, {"a": None}]
)
def test_what_is_no_trackable_is_refused(graph, wrong):
    with pytest.raises(SettingsError, match="checkpoint"):
        make_saver("checkpoint", wrong)


def test_an_object_by_itself_is_refused(graph):
    # Its own call would be taken for the callable's.
    class Model(tf.Module):
        def __call__(self):
            raise AssertionError

    with pytest.raises(SettingsError, match=r"dict of trackables .*found Model"):
        make_saver("checkpoint", Model())


def of_another_graph():
    with tf.Graph().as_default():
        return {"net": {"w": variable("w", 1.0)}}


def eager_table():
    return tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)


STRANGERS = {
    "module": (lambda: {"net": tf.Module(), "w": tf.Variable(1.0)}, "'w' of eager execution"),
    "Checkpoint": (lambda: tf.train.Checkpoint(w=tf.Variable(1.0)), "'w' of eager execution"),
    "generator": (lambda: {"a": tf.random.Generator.from_seed(1)}, "_state_var' of eager"),
    "table": (lambda: {"table": eager_table()}, "Eager"),
    "iterator": (lambda: {"data": iter(tf.data.Dataset.range(3))}, "Eager"),
    "other graph": (of_another_graph, "'net/w' of another graph"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_objects_that_are_not_the_graphs_are_refused(kind):
    make, told = STRANGERS[kind]
    objects = make()
    for given in (objects, lambda: objects):
        with tf.Graph().as_default():
            variable("w", 1.0)
            with pytest.raises(SettingsError, match=f"make them in the model_fn.*found.*{told}"):
                make_saver("checkpoint", given)


@pytest.mark.parametrize("as_mapping", [True, False])
def test_a_var_list_that_is_not_the_graphs_is_refused(as_mapping):
    w = tf.Variable(1.0, name="w")
    with tf.Graph().as_default(), pytest.raises(SettingsError, match="'w' of eager") as caught:
        make_saver("checkpoint", var_list={"w": w} if as_mapping else [w])
    assert caught.value.key == "var_list"


@pytest.mark.parametrize("factory", [saver_scaffold, checkpoint_scaffold, dual_scaffold])
def test_a_scaffold_without_a_graph_is_refused(factory):
    with pytest.raises(SettingsError, match=r"expected a graph, found eager execution; make the"):
        factory()


def test_a_partitioned_variable_cannot_be_an_object(graph):
    with pytest.raises(SettingsError, match="dict of trackables"):
        make_saver("checkpoint", {"w": partitioned("w", 3)})

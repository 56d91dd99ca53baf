"""Everything that a stock Saver saves, in each format: written, read by stock ones, restored."""

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
    stock_restore,
    variable,
    whole,
)

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.saving.tf_internals import BulkSaverBuilder

v1 = tf.compat.v1


# --- lookup tables ---


def build_table(name="words"):
    """A table, and the op that fills it."""
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name=name)
    fill = table.insert(tf.constant(["a", "b"]), tf.constant([7, 8], tf.int64))
    return table, fill


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_lookup_table_restores_from_each_format(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        _, fill = build_table()
        prefix = save(make_saver(checkpoint_format), tmp_path, fill)
    with tf.Graph().as_default():
        table, _ = build_table()
        found = table.lookup(tf.constant(["a", "b", "c"]))
        assert restore(make_saver("saver"), prefix, found).tolist() == [7, 8, -1]


@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_a_stock_saver_reads_a_lookup_table(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        _, fill = build_table()
        prefix = save(make_saver(checkpoint_format), tmp_path, fill)
    with tf.Graph().as_default():
        table, _ = build_table()
        found = stock_restore(prefix, table.lookup(tf.constant(["a", "c"])))
        assert found.tolist() == [7, -1]


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
@pytest.mark.parametrize("tracked", [False, True], ids=["var_list", "own object"])
def test_an_eager_checkpoint_reads_a_lookup_table(tmp_path, checkpoint_format, tracked):
    with tf.Graph().as_default():
        table, fill = build_table()
        saver = make_saver(checkpoint_format, {"vocabulary": table} if tracked else None)
        prefix = save(saver, tmp_path, fill)
    structures = [{"var_list": {"words": None}}]
    if tracked:
        structures.append({"vocabulary": None})
    for structure in structures:
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        children = {
            key: table if value is None else dict.fromkeys(value, table)
            for key, value in structure.items()
        }
        tf.train.Checkpoint(**children).restore(prefix).assert_consumed()
        assert table.lookup(tf.constant(["a", "b"])).numpy().tolist() == [7, 8]


def test_a_lookup_table_of_an_eager_checkpoint_restores_into_a_graph(tmp_path):
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["x"]), tf.constant([5], tf.int64))
    prefix = tf.train.Checkpoint(vocabulary=table).save(tmp_path / "eager")
    with tf.Graph().as_default():
        table, _ = build_table()
        saver = make_saver("both", {"vocabulary": table})
        assert restore(saver, prefix, table.lookup(tf.constant(["x"]))).tolist() == [5]


def test_a_table_that_only_the_objects_reach_is_saved_under_its_path(tmp_path):
    def build():
        table = tf.lookup.experimental.DenseHashTable(
            tf.int64, tf.float32, 0.0, empty_key=-1, deleted_key=-2, name="dense"
        )
        v1.get_default_graph().clear_collection(v1.GraphKeys.SAVEABLE_OBJECTS)
        fill = table.insert(tf.constant([1, 2], tf.int64), tf.constant([0.5, 1.5]))
        return table, fill, make_saver("both", {"prices": table})

    with tf.Graph().as_default():
        _, fill, saver = build()
        prefix = save(saver, tmp_path, fill)
    assert {"prices-keys", "prices-values"} <= eager_values(prefix).keys()
    with tf.Graph().as_default():
        table, _, saver = build()
        found = restore(saver, prefix, table.lookup(tf.constant([1, 2], tf.int64)))
        assert found.tolist() == [0.5, 1.5]


def test_two_tables_of_one_name_are_refused(graph):
    # A stock Saver saves the one and forgets the other.
    build_table()
    build_table()
    with pytest.raises(ConflictError, match="words"):
        make_saver()


def test_a_variable_named_as_a_part_of_a_table_is_refused(graph):
    build_table("words")
    variable("words-keys", [1.0])
    with pytest.raises(ConflictError, match="words-keys"):
        make_saver()


# --- iterators ---


def build_iterator():
    dataset = tf.data.Dataset.range(10)
    iterator = v1.data.make_initializable_iterator(dataset, shared_name="numbers")
    saveable = v1.data.experimental.make_saveable_from_iterator(iterator)
    v1.add_to_collection(v1.GraphKeys.SAVEABLE_OBJECTS, saveable)
    return iterator


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_iterator_goes_on_where_it_was(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        iterator = build_iterator()
        following = iterator.get_next()
        saver = make_saver(checkpoint_format)
        with v1.Session() as session:
            session.run(iterator.initializer)
            assert [session.run(following) for _ in range(3)] == [0, 1, 2]
            prefix = saver.save(session, str(tmp_path / "model"), write_meta_graph=False)
    with tf.Graph().as_default() as graph:
        iterator = build_iterator()
        following = iterator.get_next()
        saver = make_saver("saver")
        graph.finalize()
        with v1.Session() as session:
            session.run(iterator.initializer)
            saver.restore(session, prefix)
            assert session.run(following) == 3


def test_an_eager_iterator_goes_on_where_the_one_of_the_graph_was(tmp_path):
    with tf.Graph().as_default():
        iterator = build_iterator()
        following = iterator.get_next()
        saver = make_saver("both")
        with v1.Session() as session:
            session.run(iterator.initializer)
            session.run(following)
            prefix = saver.save(session, str(tmp_path / "model"), write_meta_graph=False)
    iterator = iter(tf.data.Dataset.range(10))
    name = next(name for name in open_checkpoint(prefix).object_graph.names())
    reader = tf.train.Checkpoint(var_list={name: iterator})
    reader.restore(prefix).assert_consumed()
    assert next(iterator) == 1


# --- kinds of variables ---


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_reference_variables(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        variable("a", [1.0, 2.0], use_resource=False)
        with v1.variable_scope("", use_resource=False):
            partitioned("w", 3)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    with tf.Graph().as_default():
        a = variable("a", [0.0, 0.0], use_resource=False)
        with v1.variable_scope("", use_resource=False):
            w = partitioned("w", 2)
        found = restore(make_saver(), prefix, a, whole(w))
    np.testing.assert_array_equal(found[0], [1.0, 2.0])
    np.testing.assert_array_equal(found[1], COUNT)


DTYPES = [
    (tf.bfloat16, np.array([1.5, -2], tf.bfloat16.as_numpy_dtype)),
    (tf.half, np.array([1.5, -2], np.float16)),
    (tf.float64, np.array(1 / 3)),
    (tf.string, np.array([b"a", b"", b"\xff"], object)),
    (tf.bool, np.array([True, False])),
    (tf.int64, np.array(2**60)),
    (tf.uint8, np.array([255], np.uint8)),
    (tf.complex64, np.array([1 + 2j], np.complex64)),
    (tf.float32, np.zeros([0, 3], np.float32)),
    (tf.float32, np.array(7, np.float32)),
]


def another(value):
    """Another value of the same dtype and shape."""
    return np.full_like(value, b"") if value.dtype == object else np.zeros_like(value)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_every_dtype_and_shape(tmp_path, checkpoint_format):
    def build(of):
        return [
            v1.get_variable(f"v{number}", initializer=tf.constant(of(value), dtype))
            for number, (dtype, value) in enumerate(DTYPES)
        ]

    with tf.Graph().as_default():
        build(lambda value: value)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    with tf.Graph().as_default():
        variables = build(another)
        found = restore(make_saver("both"), prefix, variables)
    for (_, expected), value in zip(DTYPES, found):
        assert np.asarray(value).dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_variable_whose_shape_is_not_known_takes_any(tmp_path, checkpoint_format):
    def build(value):
        unknown = v1.placeholder_with_default(value, None)
        return v1.get_variable("a", initializer=unknown, validate_shape=False)

    with tf.Graph().as_default():
        build([1.0, 2.0])
        prefix = save(make_saver(checkpoint_format), tmp_path)
    with tf.Graph().as_default():
        a = build(0.0)
        assert restore(make_saver(), prefix, a).tolist() == [1.0, 2.0]


NAMES = ["a.b", "a.Sb", "a..b", "deep/er/name", ".S", "x/.ATTRIBUTES/y", "A-b_c>d"]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_names_of_every_kind(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        for number, name in enumerate(NAMES):
            variable(name, number)
        prefix = save(make_saver(checkpoint_format), tmp_path)
    with tf.Graph().as_default():
        variables = [variable(name, -1) for name in NAMES]
        assert restore(make_saver("both"), prefix, variables) == list(range(len(NAMES)))
    if checkpoint_format != "saver":
        readers = {name: tf.Variable(0.0) for name in NAMES}
        tf.train.Checkpoint(var_list=readers).restore(prefix).assert_consumed()
        assert [reader.numpy() for reader in readers.values()] == list(range(len(NAMES)))


def test_a_saveable_object_of_the_users_own_that_packs_two_variables(tmp_path):
    class Packed(BulkSaverBuilder.SaveableObject):
        """Two variables as one tensor, as cuDNN's weights were."""

        def __init__(self, first, second):
            self._variables = (first, second)
            tensor = tf.stack([first, second])
            super().__init__(tensor, [BulkSaverBuilder.SaveSpec(tensor, "", "packed")], "packed")

        def restore(self, restored_tensors, restored_shapes):
            values = tf.unstack(restored_tensors[0], num=2)
            return tf.group(*[v.assign(x) for v, x in zip(self._variables, values)])

    def build(first, second):
        variables = variable("a", first), variable("b", second)
        return variables, [Packed(*variables)]

    with tf.Graph().as_default():
        _, saveables = build(1.0, 2.0)
        prefix = save(make_saver("both", var_list=saveables), tmp_path)
    assert eager_values(prefix)["packed"].tolist() == [1.0, 2.0]
    for options in ({}, {"on_missing": "init"}):
        with tf.Graph().as_default():
            variables, saveables = build(-1.0, -1.0)
            saver = make_saver("both", var_list=saveables, **options)
            assert restore(saver, prefix, list(variables)) == [1.0, 2.0]


# --- a custom mapping of names ---


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_mapping_renames_variables_in_every_format(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        a, b = variable("a", 1.0), variable("b", 2.0)
        saver = make_saver(checkpoint_format, var_list={"b": a, "other": b})
        prefix = save(saver, tmp_path)
    with tf.Graph().as_default():
        b, other = variable("b", 0.0), variable("other", 0.0)
        assert restore(make_saver(), prefix, b, other) == [1.0, 2.0]
    if checkpoint_format != "saver":
        values = {"b": tf.Variable(0.0), "other": tf.Variable(0.0)}
        tf.train.Checkpoint(var_list=values).restore(prefix).assert_consumed()
        assert [v.numpy() for v in values.values()] == [1.0, 2.0]


def test_a_mapping_that_swaps_names_agrees_with_itself_and_with_stock_readers(tmp_path):
    # The names in a checkpoint are the mapping's, also where the objects' own say otherwise.
    with tf.Graph().as_default():
        a, b = variable("a", 1.0), variable("b", 2.0)
        objects = {"first": a, "second": b}
        prefix = save(make_saver("both", objects, var_list={"b": a, "a": b}), tmp_path)
    with tf.Graph().as_default():
        a, b = variable("a", 0.0), variable("b", 0.0)
        saver = make_saver("both", {"first": a, "second": b}, var_list={"b": a, "a": b})
        assert restore(saver, prefix, a, b) == [1.0, 2.0]
    with tf.Graph().as_default():
        a, b = variable("a", 0.0), variable("b", 0.0)
        assert restore(make_saver(), prefix, a, b) == [2.0, 1.0]
    with tf.Graph().as_default():
        a, b = variable("a", 0.0), variable("b", 0.0)
        assert stock_restore(prefix, [a, b]) == [2.0, 1.0]


def test_a_part_of_the_variables_alone(tmp_path):
    with tf.Graph().as_default():
        a, _ = variable("a", 1.0), variable("b", 2.0)
        prefix = save(make_saver("both", var_list=[a]), tmp_path)
    assert "b" not in eager_values(prefix)
    with tf.Graph().as_default():
        a, b = variable("a", 0.0), variable("b", 5.0)
        saver = make_saver("saver", var_list=[a])
        assert restore(saver, prefix, a, b, initialize=True) == [1.0, 5.0]


# --- conflicts ---


def test_two_variables_of_one_name_are_refused(graph):
    w = partitioned("w", 2)
    other = v1.get_variable("w_1", [12, 2])
    parts = [*w]
    for part in parts:
        part._save_slice_info.full_name = "w_1"
    with pytest.raises(ConflictError, match="w_1"):
        make_saver(var_list=[other, *parts])


def test_one_variable_under_two_names_is_refused(graph):
    a = variable("a", 1.0)
    with pytest.raises(ConflictError, match="two names"):
        make_saver(var_list={"a": a, "b": a})


def test_a_name_that_equals_anothers_object_key_is_refused(graph):
    variable("a", 1.0)
    variable("var_list/a/.ATTRIBUTES/VARIABLE_VALUE", 2.0)
    with pytest.raises(ConflictError, match="'a' is saved under it as a key"):
        make_saver()


@pytest.mark.parametrize(
    "name", ["_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE"]
)
def test_names_that_the_format_needs_are_refused(graph, name):
    with pytest.raises(ConflictError, match=name):
        make_saver(var_list={name: variable("a", 1.0)})


@pytest.mark.parametrize("wrong", [5, ["a"], {"a": 5}], ids=str)
def test_what_is_no_variable_is_refused(graph, wrong):
    with pytest.raises(SettingsError, match="var_list"):
        make_saver(var_list=wrong)


# --- size ---


def test_a_graph_of_500_variables(tmp_path):
    with tf.Graph().as_default():
        for number in range(500):
            variable(f"layer_{number}/w", number)
        prefix = save(make_saver("both"), tmp_path)
    values = eager_values(prefix)
    assert [values[f"layer_{n}/w"] for n in range(500)] == list(range(500))
    assert values["var_list/layer_499.Sw/.ATTRIBUTES/VARIABLE_VALUE"] == 499

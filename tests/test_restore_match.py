"""A restore matches by object path and by name; where the two disagree nothing is loaded."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from saver_sessions import (
    COUNT,
    VALUE,
    eager,
    make_saver,
    partitioned,
    refused,
    restore,
    restored,
    rows_of,
    save,
    variable,
    whole,
    written,
)

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MismatchError
from estimator_ckpt.matching.restoring import Wanted, resolve
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import (
    OBJECT_GRAPH_KEY,
    ObjectGraph,
    flat_graph,
    flat_key,
    object_key,
)

v1 = tf.compat.v1

OBJECT_FORMATS = ["checkpoint", "both"]


def two_layers(first, second, names=("a", "b")):
    """A function that builds two variables in a list."""

    def build():
        layers = [variable(name, value) for name, value in zip(names, (first, second))]
        return layers, {"layers": layers}

    return build


def swapped():
    """The same two variables, the list in the other order."""
    a, b = variable("a", -1.0), variable("b", -1.0)
    return (a, b), {"layers": [b, a]}


def swapped_checkpoint(directory, kind):
    """Written with the list [a, b]: by our saver, or by a stock eager checkpoint."""
    if kind == "eager":
        layers = [tf.Variable(1.0, name="a"), tf.Variable(2.0, name="b")]
        return eager(directory, layers=layers)
    return written(directory, lambda: two_layers(1.0, 2.0)()[1], kind)


@pytest.mark.parametrize("kind", [*OBJECT_FORMATS, "eager"])
def test_a_swapped_list_is_an_error_that_shows_both_keys(tmp_path, kind):
    error = refused(swapped_checkpoint(tmp_path, kind), swapped)
    (a, b) = rows_of(error)
    by_name = "layers/0" + VALUE
    assert a.startswith(f"ambiguous a by path: layers/1{VALUE} by name: {by_name}")
    assert b.startswith(f"ambiguous b by path: layers/0{VALUE} by name: layers/1{VALUE}")
    assert "match_by='path' or 'name' decides" in a


@pytest.mark.parametrize("kind", [*OBJECT_FORMATS, "eager"])
@pytest.mark.parametrize(("match_by", "values"), [("path", [2.0, 1.0]), ("name", [1.0, 2.0])])
def test_match_by_decides_for_a_swapped_list(tmp_path, kind, match_by, values):
    prefix = swapped_checkpoint(tmp_path, kind)
    assert restored(prefix, swapped, match_by=match_by) == values


@pytest.mark.parametrize("match_by", [None, "path", "name"])
def test_a_name_based_checkpoint_knows_no_paths(tmp_path, match_by):
    prefix = swapped_checkpoint(tmp_path, "saver")
    assert restored(prefix, swapped, match_by=match_by) == [1.0, 2.0]


SHIFTED = two_layers(-1.0, -1.0, names=("dense_1", "dense_2"))


@pytest.mark.parametrize("checkpoint_format", OBJECT_FORMATS)
def test_names_shifted_by_one_are_an_error_that_shows_both_keys(tmp_path, checkpoint_format):
    build = two_layers(1.0, 2.0, names=("dense", "dense_1"))
    prefix = written(tmp_path, lambda: build()[1], checkpoint_format)
    (row,) = rows_of(refused(prefix, SHIFTED))
    assert row.startswith("ambiguous dense_1 ")
    assert f"by path: layers/0{VALUE}" in row
    assert f"by name: layers/1{VALUE}" in row
    assert restored(prefix, SHIFTED, match_by="path") == [1.0, 2.0]


def test_by_name_the_shifted_names_leave_one_without_a_value(tmp_path):
    build = two_layers(1.0, 2.0, names=("dense", "dense_1"))
    prefix = written(tmp_path, lambda: build()[1])
    # The path of dense_2 leads to the tensor that has the name dense_1: it is not read twice.
    rows = rows_of(refused(prefix, SHIFTED, match_by="name"))
    assert rows == ["missing dense_2 float32[] dense_1 belongs to dense_1"]
    assert restored(prefix, SHIFTED, match_by="name", on_missing="init") == [2.0, -1.0]


class Dense(tf.Module):
    """An object whose class a counter would have named its variable for."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel


def dense_layers(*names):
    """A function that builds a Dense around a variable of each name."""

    def build():
        variables = [variable(f"{name}/kernel", -1.0) for name in names]
        return variables, {"layers": [Dense(one) for one in variables]}

    return build


def saved_layers(directory, *names):
    layers = [
        Dense(tf.Variable(float(number), name=f"{name}/kernel"))
        for number, name in enumerate(names, 1)
    ]
    return eager(directory, layers=layers)


def test_names_that_a_counter_made_say_nothing_against_the_objects(tmp_path):
    prefix = saved_layers(tmp_path, "dense", "dense_1")
    assert restored(prefix, dense_layers("dense_1", "dense_2")) == [1.0, 2.0]


def test_a_name_that_was_given_does(tmp_path):
    prefix = saved_layers(tmp_path, "one", "two")
    rows = rows_of(refused(prefix, dense_layers("two", "one")))
    assert [row.split()[0] for row in rows] == ["ambiguous", "ambiguous"]


def test_a_name_that_a_counter_made_finds_nothing_where_objects_do(tmp_path):
    layers = {
        child: Dense(tf.Variable(0.0, name=f"{name}/kernel"))
        for child, name in [("first", "dense"), ("second", "dense_1")]
    }
    prefix = eager(tmp_path, **layers)

    def build():
        variables = [variable(f"{name}/kernel", -1.0) for name in ("dense", "dense_1")]
        return variables, {"first": Dense(variables[0]), "third": Dense(variables[1])}

    rows = rows_of(refused(prefix, build))
    assert [row.split()[:2] for row in rows] == [["missing", "dense_1/kernel"]]
    assert "match_by='name' takes it" in rows[0]


def test_one_layer_more_in_a_list_moves_positions_and_is_refused(tmp_path):
    prefix = saved_layers(tmp_path, "dense", "dense_1")
    build = dense_layers("dense", "dense_1", "dense_2")
    rows = rows_of(refused(prefix, build, on_missing="init"))
    assert [row.split()[:2] for row in rows] == [
        ["ambiguous", "dense/kernel"],
        ["ambiguous", "dense_1/kernel"],
    ]
    assert "3 alike there in the model, 2 in the checkpoint" in rows[0]
    assert restored(prefix, build, match_by="path", on_missing="init") == [1.0, 2.0, -1.0]


def test_a_name_that_a_counter_made_is_refused_where_no_object_fits(tmp_path):
    prefix = eager(tmp_path, other=Dense(tf.Variable(1.0, name="dense/kernel")))
    (row,) = rows_of(refused(prefix, dense_layers("dense")))
    assert row.startswith("ambiguous dense/kernel")
    assert restored(prefix, dense_layers("dense"), match_by="name") == [1.0]


def misleading():
    """A var_list that calls two variables by each other's names."""
    return {"a": tf.Variable(1.0, name="b"), "b": tf.Variable(2.0, name="a")}


def flat():
    return (variable("a", -1.0), variable("b", -1.0)), None


def test_a_var_list_against_the_full_names_is_an_error(tmp_path):
    rows = rows_of(refused(eager(tmp_path, var_list=misleading()), flat))
    assert [row.split()[:2] for row in rows] == [["ambiguous", "a"], ["ambiguous", "b"]]
    assert f"by path: var_list/a{VALUE}" in rows[0]
    assert f"var_list/b{VALUE}" in rows[0].partition("by name")[2]


@pytest.mark.parametrize(("match_by", "values"), [("path", [1.0, 2.0]), ("name", [2.0, 1.0])])
def test_match_by_decides_between_var_list_and_full_names(tmp_path, match_by, values):
    prefix = eager(tmp_path, var_list=misleading())
    assert restored(prefix, flat, match_by=match_by) == values


def test_a_misleading_var_list_does_not_serve_one_tensor_to_two_variables(tmp_path):
    # By var_list it is `a`, by its full name `b`: one of the two is not in the checkpoint.
    prefix = eager(tmp_path, var_list={"a": tf.Variable(1.0, name="b")})
    rows = rows_of(refused(prefix, flat))
    assert [row.split()[:2] for row in rows] == [["ambiguous", "a"], ["ambiguous", "b"]]
    assert "this is also the one for b" in rows[0]
    assert restored(prefix, flat, match_by="path", on_missing="init") == [1.0, -1.0]
    assert restored(prefix, flat, match_by="name", on_missing="init") == [-1.0, 1.0]


def test_a_step_of_the_root_that_is_not_the_global_step_is_an_error(tmp_path):
    epoch = tf.Variable(3, dtype=tf.int64, name="epoch")
    step = tf.Variable(700, dtype=tf.int64, name="global_step")
    prefix = eager(tmp_path, step=epoch, other=step)

    def build():
        return [v1.train.get_or_create_global_step()], None

    (row,) = rows_of(refused(prefix, build))
    assert f"by path: step{VALUE}" in row
    assert f"by name: other{VALUE}" in row
    assert restored(prefix, build, match_by="name") == [700]


def test_a_new_layer_at_an_old_path_does_not_get_the_old_layers_tensor_too(tmp_path):
    def old():
        return {"first": variable("dense", 1.0)}

    def new():
        variables = variable("new", -1.0), variable("dense", -1.0)
        return variables, {"first": variables[0], "second": variables[1]}

    prefix = written(tmp_path, old, "checkpoint")
    rows = rows_of(refused(prefix, new))
    assert [row.split()[:2] for row in rows] == [["ambiguous", "dense"], ["ambiguous", "new"]]
    assert restored(prefix, new, match_by="name", on_missing="init") == [-1.0, 1.0]
    assert restored(prefix, new, match_by="path", on_missing="init") == [1.0, -1.0]


def test_a_renamed_variable_is_found_by_its_path(tmp_path):
    prefix = written(tmp_path, lambda: {"net": [variable("old", 5.0)]})

    def renamed():
        new = variable("new", -1.0)
        return [new], {"net": [new]}

    assert restored(prefix, renamed) == [5.0]


def test_a_moved_variable_is_found_by_its_name(tmp_path):
    prefix = written(tmp_path, lambda: {"net": [variable("a", 5.0)]}, "checkpoint")

    def moved():
        a = variable("a", -1.0)
        return [a], {"other": {"place": a}}

    assert restored(prefix, moved) == [5.0]


def test_a_full_name_that_two_variables_share_is_refused(tmp_path):
    both = {"one": tf.Variable(1.0, name="a"), "two": tf.Variable(2.0, name="a")}
    prefix = eager(tmp_path, **both)

    def build():
        a = variable("a", -1.0)
        return [a], None

    (row,) = rows_of(refused(prefix, build))
    assert f"by name: one{VALUE} and two{VALUE}" in row
    assert "one name for several variables" in row


def test_a_full_name_that_two_variables_share_is_told_apart_by_the_path(tmp_path):
    both = {"one": tf.Variable(1.0, name="a"), "two": tf.Variable(2.0, name="a")}
    prefix = eager(tmp_path, **both)

    def build():
        a = variable("a", -1.0)
        return [a], {"two": a}

    assert restored(prefix, build) == [2.0]


@pytest.mark.parametrize("match_by", [None, "name"])
def test_a_path_to_another_variable_does_not_tell_a_shared_full_name_apart(tmp_path, match_by):
    one, two = tf.Variable(1.0, name="a"), tf.Variable(2.0, name="a")
    prefix = eager(tmp_path, one=one, two=two, three=tf.Variable(3.0, name="b"))

    def build():
        a = variable("a", -1.0)
        return [a], {"three": a}

    (row,) = rows_of(refused(prefix, build, match_by=match_by))
    assert f"by path: three{VALUE}" in row
    assert f"by name: one{VALUE} and two{VALUE}" in row
    assert restored(prefix, build, match_by="path") == [3.0]


def two_keys(directory, by_name, by_object):
    """A checkpoint whose two keys for `a` have bytes of their own."""
    prefix = str(directory / "two")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=["a", flat_key("a"), OBJECT_GRAPH_KEY],
        shape_and_slices=[""] * 3,
        tensors=[
            tf.constant(by_name),
            tf.constant(by_object),
            tf.constant(flat_graph({"a": "VARIABLE_VALUE"}).serialize()),
        ],
    )
    return prefix


def one_variable():
    a = variable("a", -1.0)
    return [a], None


def test_two_copies_of_one_value_are_no_contradiction(tmp_path):
    assert restored(two_keys(tmp_path, 3.0, 3.0), one_variable) == [3.0]


def test_a_name_and_an_object_of_different_values_are_an_error(tmp_path):
    prefix = two_keys(tmp_path, 3.0, 4.0)
    (row,) = rows_of(refused(prefix, one_variable))
    assert f"by path: {flat_key('a')}" in row
    assert restored(prefix, one_variable, match_by="name") == [3.0]
    assert restored(prefix, one_variable, match_by="path") == [4.0]


# --- names that the user gives on purpose ---


def named(prefix, build, mapping, **options):
    """What a restore reads where a Saver's mapping names the variables; or the error."""
    with tf.Graph().as_default():
        variables, objects = build()
        names = mapping(*variables)
        saver = make_saver("both", objects, var_list=names, **options)
        return restore(saver, prefix, list(variables))


@pytest.mark.parametrize("match_by", [None, "path", "name"])
@pytest.mark.parametrize("kind", ["saver", *OBJECT_FORMATS, "eager"])
def test_a_name_that_a_mapping_gives_decides_before_the_path(tmp_path, kind, match_by):
    # The objects lead `a` to the first of the list, the mapping names the second for it.
    prefix = swapped_checkpoint(tmp_path, kind)
    build = two_layers(-1.0, -1.0)
    found = named(prefix, build, lambda a, b: {"b": a, "a": b}, match_by=match_by)
    assert found == [2.0, 1.0]


@pytest.mark.parametrize("match_by", [None, "path", "name"])
def test_a_name_that_a_mapping_gives_and_nobody_has_is_missing_whatever_the_path_finds(
    tmp_path, match_by
):
    prefix = swapped_checkpoint(tmp_path, "both")

    with tf.Graph().as_default():
        (a, b), objects = two_layers(-1.0, -1.0)()
        saver = make_saver("both", objects, var_list={"c": a, "b": b}, match_by=match_by)
        with pytest.raises(MismatchError) as caught, v1.Session() as session:
            saver.restore(session, prefix)
    (row,) = rows_of(caught.value)
    assert row.startswith("missing c float32[]")
    assert "the Saver's mapping gives this name" in row


@pytest.mark.parametrize("name", ["a", "a:0"])
def test_a_variables_own_name_is_no_purpose(tmp_path, name):
    prefix = written(tmp_path, lambda: {"net": variable("old", 5.0)})

    def build():
        a = variable("a", -1.0)
        return [a], {"net": a}

    assert named(prefix, build, lambda a: {name: a}) == [5.0]


@pytest.mark.parametrize("give", [list, tuple, lambda w: w], ids=["list", "tuple", "whole"])
def test_a_partitioned_variables_own_name_is_no_purpose_and_another_is(tmp_path, give):
    def build(name, key, slices):
        w = partitioned(name, slices)
        return w, {key: give(w)}

    with tf.Graph().as_default():
        _, mapping = build("w", "w", 2)
        prefix = save(make_saver("both", var_list=mapping), tmp_path)
    for name, key, on_purpose in [("w", "w", False), ("new", "w", True)]:
        with tf.Graph().as_default():
            w, mapping = build(name, key, 3)
            saver = make_saver("both", var_list=mapping)
            assert [want.is_named for want in saver.built.wanted] == [on_purpose]
            np.testing.assert_array_equal(restore(saver, prefix, whole(w)), COUNT)


@pytest.mark.parametrize("match_by", [None, "path", "name"])
def test_a_name_that_a_mapping_gives_keeps_another_variable_from_its_tensor(tmp_path, match_by):
    # By its object `b` would be the tensor that is named `a` and wanted by name for `c`.
    prefix = written(tmp_path, lambda: {"net": variable("a", 5.0)}, "checkpoint")

    def build():
        c, b = variable("c", -1.0), variable("b", -1.0)
        return (c, b), {"net": b}

    found = named(
        prefix, build, lambda c, b: {"a": c, "b": b}, match_by=match_by, on_missing="init"
    )
    assert found == [5.0, -1.0]


# --- whatever the names and the paths ---

NAMES = st.sampled_from(["a", "b", "c", "d"])
PATHS = st.sampled_from(["0", "1", "2", "3"])


@st.composite
def checkpoints(draw):
    """(name, path) of each tensor, and the checkpoint: foreign, ours, or of both formats."""
    kind = draw(st.sampled_from(["foreign", "checkpoint", "both"]))
    unique = (lambda p: p[1],) if kind == "foreign" else (lambda p: p[0], lambda p: p[1])
    pairs = draw(st.lists(st.tuples(NAMES, PATHS), unique_by=unique))
    saved, entries = ObjectGraph(), {}
    nodes = {}
    for number, (name, path) in enumerate(pairs):
        key = object_key(path)
        nodes[name] = saved.add(0, path, Attribute("VARIABLE_VALUE", name, key))
        entry = Entry(1, (), 0, 4 * number, 4, number)
        entries |= {key.encode(): entry} | ({name.encode(): entry} if kind == "both" else {})
    if kind != "foreign":
        flat_graph(nodes, base=saved)
    return pairs, Checkpoint("model", "model", Index(1, entries), saved)


@settings(max_examples=500)
@given(
    checkpoints(),
    st.lists(st.tuples(NAMES, PATHS), unique_by=(lambda p: p[0], lambda p: p[1])),
    st.sampled_from([None, "path", "name"]),
)
def test_no_variable_gets_a_tensor_that_its_path_or_its_name_denies(saved, model, match_by):
    pairs, checkpoint = saved
    structure = ObjectGraph()
    wanted = [
        Wanted(name, "", structure.add(0, path), "VARIABLE_VALUE", (), "float32")
        for name, path in model
    ]
    found = resolve(checkpoint, wanted, structure, match_by=match_by)
    tensors = {
        name: checkpoint.index.entries[key.encode()].offset // 4 for name, key in found.keys.items()
    }
    missing = {want.tensor for want in found.missing}
    refused_ = {row.name for row in found.problems}
    assert {name for name, _ in model} == tensors.keys() | missing | refused_
    assert len(set(tensors.values())) == len(tensors)
    for name, path in model:
        by_path = {n for n, pair in enumerate(pairs) if pair[1] == path}
        by_name = {n for n, pair in enumerate(pairs) if pair[0] == name}
        fits = {"path": by_path or by_name, "name": by_name or by_path}.get(
            match_by, by_path & by_name if by_path and by_name else by_path | by_name
        )
        if name in tensors:
            assert tensors[name] in fits
        elif name in refused_:
            assert match_by is None or len(fits) > 1
        elif match_by is None:
            assert not by_path | by_name

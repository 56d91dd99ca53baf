"""What a checkpoint lacks, or has in another shape, is listed at once or initialized on demand."""

import random
import re

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS
from saver_sessions import (
    COUNT,
    VALUE,
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

from estimator_ckpt.errors import MismatchError

v1 = tf.compat.v1


def a_few():
    return variable("dense/kernel", [1.0]), variable("count", 3, tf.int64)


def test_all_that_is_missing_is_listed_at_once_folded_with_near_names(tmp_path):
    prefix = written(tmp_path, a_few)

    def build():
        layers = [variable(f"block_{n}/scale", [0.0]) for n in range(12)]
        return [variable("dense/kernal", [0.0]), *layers, variable("flag", True, tf.bool)], None

    error = refused(prefix, build)
    assert rows_of(error) == [
        "missing block_{0…11}/scale float32[1]",
        "missing dense/kernal float32[1] did you mean dense/kernel?",
        "missing flag bool[]",
    ]
    assert "14 variables do not fit this checkpoint of both formats" in str(error)
    assert "on_missing='warn' or 'init'" in str(error)
    assert prefix in str(error)


def grown():
    """A graph that has `dense/kernel` of a_few() and more, of every kind."""
    kernel = variable("dense/kernel", [-1.0])
    more = [
        variable("more/w", [7.0]),
        variable("more/text", "x", tf.string),
        variable("more/empty", np.zeros([0, 2], np.float32)),
        partitioned("more/parts", 3),
    ]
    return [kernel, *more], None


GROWN = [[1.0], [7.0], b"x", np.zeros([0, 2]), COUNT]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("policy", ["init", "warn", {"more/.*": "init"}], ids=str)
def test_what_is_missing_gets_its_initial_value(tmp_path, checkpoint_format, policy):
    prefix = written(tmp_path, a_few, checkpoint_format)
    for value, expected in zip(restored(prefix, grown, on_missing=policy), GROWN):
        np.testing.assert_array_equal(value, expected)


def test_a_pattern_must_match_the_whole_name_and_the_first_decides(tmp_path):
    prefix = written(tmp_path, a_few)
    policy = {"more/w": "error", "more/": "init", "more/(text|w)": "init"}
    rows = rows_of(refused(prefix, grown, on_missing=policy))
    assert sorted(row.split()[1] for row in rows) == ["more/empty", "more/parts", "more/w"]


def test_warn_names_what_is_initialized(tmp_path, caplog):
    prefix = written(tmp_path, a_few)
    restored(prefix, grown, on_missing={"more/w": "warn", ".*": "init"})
    (message,) = (r.getMessage() for r in caplog.records if "not fit" in r.getMessage())
    assert re.search(r"initialized +more/w", message)
    assert "more/text" not in message


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_nothing_at_all_may_be_there(tmp_path, checkpoint_format):
    prefix = written(tmp_path, a_few, checkpoint_format)

    def build():
        return [variable("other", [7.0])], None

    assert restored(prefix, build, on_missing="init") == [[7.0]]


def test_a_missing_variable_borrows_a_part_of_a_partitioned_one(tmp_path):
    # All that is left of its dtype has slices; what is borrowed must not end up in it.
    prefix = written(tmp_path, lambda: partitioned("w", 3))

    def build():
        return [partitioned("w", 2), variable("new", [7.0]), partitioned("parts", 3)], None

    for value, expected in zip(restored(prefix, build, on_missing="init"), [COUNT, [7.0], COUNT]):
        np.testing.assert_array_equal(value, expected)


def a_mixture(rng, add):
    """Nine variables of three dtypes, in up to three slices, that hold their number + `add`."""
    values = {}
    for number, dtype in enumerate([tf.float32, tf.string, tf.int32] * 3):
        value = np.full([6, 2], number + add)
        value = value.astype(str).astype(object) if dtype == tf.string else value
        # TensorFlow does not read slices of strings.
        slices = None if dtype == tf.string else rng.choice([None, 2, 3])
        values[f"v{number}"] = v1.get_variable(
            f"v{number}",
            [6, 2],
            dtype,
            lambda shape, dtype, value=value, **_: tf.constant(value[: shape[0]], dtype),
            partitioner=v1.fixed_size_partitioner(slices) if slices else None,
        )
    return values


@pytest.mark.parametrize("seed", range(6))
def test_of_any_mixture_each_gets_its_own_value_or_its_initial_one(tmp_path, seed):
    rng = random.Random(seed)
    with tf.Graph().as_default():
        values = a_mixture(rng, 0)
        kept = {name: values[name] for name in rng.sample(sorted(values), rng.randint(1, 8))}
        prefix = save(make_saver(rng.choice(FORMATS), var_list=kept), tmp_path)
    with tf.Graph().as_default():
        values = a_mixture(rng, 100)
        saver = make_saver(rng.choice(FORMATS), on_missing="init")
        found = restore(saver, prefix, {name: whole(value) for name, value in values.items()})
    for number, (name, value) in enumerate(sorted(found.items())):
        expected = number if name in kept else number + 100
        assert set(map(int, value.ravel())) == {expected}, name
        assert value.shape == (6, 2)


def test_an_initial_value_that_depends_on_a_restored_variable_follows_it(tmp_path):
    prefix = written(tmp_path, a_few)

    def build():
        kernel = variable("dense/kernel", [-1.0])
        doubled = v1.get_variable("doubled", initializer=kernel.read_value() * 2)
        return [kernel, doubled], None

    assert restored(prefix, build, on_missing="init") == [[1.0], [2.0]]


def test_missing_slots_are_initialized_and_the_rest_resumes(tmp_path):
    def build():
        w = variable("w", [3.0])
        v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(w**2))
        return w

    with tf.Graph().as_default():
        variable("w", [5.0])
        prefix = save(make_saver("checkpoint"), tmp_path)
    with tf.Graph().as_default():
        build()
        saver = make_saver(on_missing={"(w/Adam|beta).*": "init"})
        found = restore(saver, prefix, {v.op.name: v for v in v1.global_variables()})
    assert found["w"] == [5.0]
    assert found["w/Adam"] == [0.0]
    assert found["beta1_power"] == np.float32(0.9)


def test_variables_outside_the_saver_are_initialized_where_the_policy_says_so(tmp_path):
    prefix = written(tmp_path, a_few)
    with tf.Graph().as_default():
        kernel, outside = variable("dense/kernel", [-1.0]), variable("outside", [7.0])
        saver = make_saver(var_list=[kernel], on_missing={"outside": "init"})
        found = restore(saver, prefix, kernel, outside)
    assert found == [[1.0], [7.0]]


def test_a_missing_table_stays_as_it_is(tmp_path):
    prefix = written(tmp_path, a_few)

    def build():
        kernel = variable("dense/kernel", [-1.0])
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0, name="words")
        return table, kernel

    with tf.Graph().as_default():
        build()
        with (
            pytest.raises(MismatchError, match=r"words-keys +string\[\?\]"),
            v1.Session() as session,
        ):
            make_saver().restore(session, prefix)
    with tf.Graph().as_default():
        table, kernel = build()
        found = restore(make_saver(on_missing="init"), prefix, kernel, table.size())
        assert found == [[1.0], 0]


# --- what does not fit ---


def test_shapes_and_dtypes_that_differ_are_listed_with_what_is_missing(tmp_path):
    def old():
        for n in range(3):
            variable(f"layer_{n}/w", np.zeros([2, 3]))
        variable("count", 1, tf.int32)

    def new():
        layers = [variable(f"layer_{n}/w", np.zeros([3, 2])) for n in range(3)]
        return [*layers, variable("count", 1, tf.int64), variable("new", 1.0)], None

    prefix = written(tmp_path, old)
    rows = rows_of(refused(prefix, new))
    assert rows == [
        f"dtype count int64[] int32[] key var_list/count{VALUE}",
        f"shape layer_{{0…2}}/w float32[3,2] float32[2,3] key var_list/layer_{{0…2}}.Sw{VALUE}",
        "missing new float32[]",
    ]


def test_a_policy_for_what_is_missing_is_none_for_what_does_not_fit(tmp_path):
    prefix = written(tmp_path, lambda: variable("a", [1.0]))

    def build():
        return [variable("a", [1.0, 2.0])], None

    (row,) = rows_of(refused(prefix, build, on_missing="init"))
    assert row.startswith("shape a float32[2] float32[1]")


def test_a_path_to_another_shape_is_no_reason_to_take_the_name(tmp_path):
    prefix = written(tmp_path, lambda: {"head": variable("old", [1.0, 2.0])})

    def build():
        new = variable("new", [1.0])
        return [new], {"head": new}

    (row,) = rows_of(refused(prefix, build))
    assert row.startswith("shape new float32[1] float32[2]")


@pytest.mark.parametrize(
    ("written_by", "kind"),
    [
        ("saver", "name-based checkpoint"),
        ("checkpoint", "object-based checkpoint"),
        ("both", "checkpoint of both formats"),
    ],
)
def test_the_error_calls_the_checkpoint_as_a_person_would(tmp_path, written_by, kind):
    prefix = written(tmp_path, lambda: [variable("a", 1.0)], written_by)

    def build(names):
        return lambda: ([variable(name, 0.0) for name in names], None)

    for names, count in (("ab", "1 variable does"), ("abc", "2 variables do")):
        assert f"{count} not fit this {kind}:" in str(refused(prefix, build(names)))

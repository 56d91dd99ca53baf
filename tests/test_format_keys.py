"""Which keys a format has: the same whether a job saves it or a conversion writes it."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import contents, stock_values, v1, write_bundle
from estimator_jobs import estimator, input_fn, train
from golden_files import golden_cases
from graph_jobs import FORMATS, latest
from hypothesis import given
from hypothesis import strategies as st
from saver_sessions import make_saver
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.conversion.batch import convert_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.formats import CHECKPOINT_FORMATS, GLOBAL_STEP, keys_in
from estimator_ckpt.objects.object_graph import SAVE_COUNTER, flat_key

STEP_KEY = "step/.ATTRIBUTES/VARIABLE_VALUE"

# Without those that no variable of a session can hold: an iterator, dtypes that have no kernels.
UNLIKE_VARIABLES = ("iterator", "dtypes", "dtypes_new")
# Each kind once: what the versions of TensorFlow wrote has the same keys, as test_goldens.py shows.
# Of kinds that differ in their objects alone one does: a session has no objects of theirs.
LIKE_OTHERS = ("estimator_guide", "guide", "optimizer_keras", "snappy", "layer_configs")
LIKE_OTHERS += ("saved_model", "keras_tuner", "partitioned_object", "slots_keras_legacy")
CASES = {
    case.kind: case for case in golden_cases() if case.kind not in (*UNLIKE_VARIABLES, *LIKE_OTHERS)
}


# --- What a job saves, and what a conversion writes ------------------------------------------


def build(variables, step):
    """A graph of these variables and lookup tables, none of them with a value."""
    tables = {}
    for one in variables:
        table, _, end = one.name.rpartition("-")
        if one.name.endswith(("-keys", "-values")):
            tables.setdefault(table, {})[end] = tf.as_dtype(one.dtype), one.shape[1:]
            continue
        shape, dtype = list(one.shape), tf.as_dtype(one.dtype)
        axis = 1 if one.name == "columns/kernel" else 0
        partitioner = v1.fixed_size_partitioner(one.slices, axis) if one.slices else None

        def empty(shape, dtype, partition_info=None):
            return v1.placeholder(dtype, shape)

        variable = v1.get_variable(
            one.name, shape, dtype, empty, partitioner=partitioner, use_resource=True
        )
        if one.name == step:
            v1.add_to_collection(v1.GraphKeys.GLOBAL_STEP, variable)
    for name, ends in tables.items():
        (keys, _), (values, shape) = ends["keys"], ends["values"]
        default = tf.zeros(shape, values)
        tf.lookup.experimental.MutableHashTable(keys, values, default, name=name)


def without_counter(prefix):
    found = contents(prefix)
    return {key: value for key, value in found.items() if not key.startswith(SAVE_COUNTER)}


def assert_a_job_saves_the_same(source, directory, step=GLOBAL_STEP, exclude=()):
    for checkpoint_format in CHECKPOINT_FORMATS:
        converted = directory / checkpoint_format
        layout = None if checkpoint_format == "saver" else "var_list"
        convert_checkpoint(source, converted, checkpoint_format, layout=layout, exclude=exclude)
        with tf.Graph().as_default() as graph, open_checkpoint(converted) as checkpoint:
            variables = checkpoint.variables.values()
            build([one for one in variables if one.name != SAVE_COUNTER], step)
            saver = make_saver(checkpoint_format)
            graph.finalize()
            with v1.Session() as session:
                saver.restore(session, str(converted))
                saved = saver.save(
                    session, str(directory / f"saved_{checkpoint_format}"), write_meta_graph=False
                )
        assert without_counter(saved).keys() == without_counter(converted).keys()
        if "table" not in str(source):  # whose rows have no order
            assert_same_bytes(saved, converted)


def assert_same_bytes(saved, converted):
    """Partitioned variables may be cut otherwise, so that only what is whole is compared."""
    one, other = without_counter(saved), without_counter(converted)
    whole = [key for key, (_, _, slices, *_) in other.items() if not slices and key[0] != "\0"]
    assert {key: one[key] for key in whole} == {key: other[key] for key in whole}


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_a_job_saves_under_the_keys_that_a_conversion_writes(case, tmp_path):
    python_state = ["words"] if case.kind == "object_based" else []
    assert_a_job_saves_the_same(case.prefix, tmp_path, exclude=python_state)


@pytest.mark.parametrize("name", ["step", "my/step", GLOBAL_STEP])
def test_so_it_does_where_the_step_has_a_name_of_its_own(name, tmp_path):
    step = tf.Variable(7, dtype=tf.int64, name=name)
    weight = tf.Variable(3.0, name="weight")
    source = tf.train.Checkpoint(step=step, net={"weight": weight}).save(str(tmp_path / "m"))
    assert_a_job_saves_the_same(source, tmp_path, name)


# --- The global step -------------------------------------------------------------------------


def step_only(directory):
    """A checkpoint of TensorFlow 2 whose step is called so by its object alone."""
    step, weight = tf.Variable(7, dtype=tf.int64), tf.Variable(3.0, name="weight")
    return tf.train.Checkpoint(step=step, weight=weight).save(str(directory / "model.ckpt"))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_a_step_by_another_name_is_found_as_the_global_step_too(
    checkpoint_format, in_place, tmp_path
):
    source = step_only(tmp_path)
    target = None if in_place else tmp_path / "out"
    before = open_checkpoint(source).variables
    convert_checkpoint(source, target, checkpoint_format, in_place=in_place)
    found = open_checkpoint(target or source)
    assert tf.train.load_variable(found.prefix, GLOBAL_STEP) == 7
    assert found.format == checkpoint_format
    # It is one variable, by the name that it had.
    assert found.variables.keys() == before.keys()
    step = found.variable(GLOBAL_STEP)
    assert step.name in before
    assert {GLOBAL_STEP, STEP_KEY} <= set(step.keys)
    reader = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64), weight=tf.Variable(0.0))
    reader.restore(found.prefix).assert_consumed()
    assert reader.step.numpy() == 7
    # And a second time there is nothing to do.
    assert not convert_checkpoint(found.prefix, None, checkpoint_format, in_place=True).written


def test_names_alone_keep_the_name_of_the_step(tmp_path):
    convert_checkpoint(step_only(tmp_path), tmp_path / "out", "saver")
    assert stock_values(tmp_path / "out") == {"Variable": 7, "weight": 3.0, SAVE_COUNTER: 1}


def test_what_was_both_keeps_the_step_for_estimator_as_objects_alone(tmp_path):
    source = write_bundle(tmp_path / "m", {GLOBAL_STEP: np.int64(7), "w": np.float32(1)})
    convert_checkpoint(source, tmp_path / "both", "both")
    convert_checkpoint(tmp_path / "both", tmp_path / "out", "checkpoint")
    assert stock_values(tmp_path / "out").keys() == {
        GLOBAL_STEP,
        flat_key(GLOBAL_STEP),
        flat_key("w"),
        f"{SAVE_COUNTER}/.ATTRIBUTES/VARIABLE_VALUE",
    }


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_the_global_step_alone_makes_no_second_format(checkpoint_format, tmp_path, graph):
    v1.train.create_global_step()
    saver = make_saver(checkpoint_format)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        prefix = saver.save(session, str(tmp_path / "m"), write_meta_graph=False)
    assert open_checkpoint(prefix).format == "checkpoint"


def model_fn(features, labels, mode):
    weight = v1.get_variable("w", initializer=1.0)
    step = v1.train.get_or_create_global_step()
    train_op = tf.group(weight.assign_add(1.0), step.assign_add(1))
    return tf.estimator.EstimatorSpec(mode, loss=weight, train_op=train_op)


def in_place(run):
    convert_checkpoint(latest(run), None, "checkpoint", in_place=True)
    return run


def to_a_new_place(run):
    convert_checkpoint(latest(run), f"{run}_new/", "checkpoint")
    return f"{run}_new"


def by_way_of_both(run):
    convert_checkpoint(latest(run), f"{run}_both/", "both")
    convert_checkpoint(latest(f"{run}_both"), f"{run}_new/", "checkpoint")
    return f"{run}_new"


def the_whole_directory(run):
    convert_directory(run, f"{run}_new", ConvertOptions("checkpoint"))
    return f"{run}_new"


@pytest.mark.estimator
@pytest.mark.parametrize("way", [in_place, to_a_new_place, by_way_of_both, the_whole_directory])
def test_a_job_that_had_finished_does_not_go_on_after_a_conversion(way, tmp_path):
    train(estimator(tmp_path / "run", None, model_fn), None, max_steps=3)
    run = way(str(tmp_path / "run"))
    assert open_checkpoint(run).format == "checkpoint"
    job = estimator(run, "checkpoint", model_fn)
    job.train(input_fn, max_steps=3)
    assert open_checkpoint(run).global_step == 3


# --- The function itself ---------------------------------------------------------------------

NAMES = ["a", "b", "step", GLOBAL_STEP, ""]


@given(
    st.sampled_from(FORMATS),
    st.lists(st.sampled_from(NAMES), max_size=4, unique=True),
    st.data(),
)
def test_every_tensor_has_the_keys_of_its_format_and_none_twice(checkpoint_format, names, data):
    keys = [
        data.draw(st.sampled_from([None, name or None, flat_key(name or "x")])) for name in names
    ]
    step = data.draw(st.none() | st.integers(0, len(names) - 1) if names else st.none())
    found = keys_in(checkpoint_format, names, keys, step)
    everything = [key for one in found for key in one]
    assert len(everything) == len(set(everything))
    for name, key, one in zip(names, keys, found):
        expected = {
            "saver": {name},
            "checkpoint": {key},
            "both": {name, key},
        }[checkpoint_format] - {"", None}
        assert expected <= set(one) <= expected | {GLOBAL_STEP}
        if key is not None and checkpoint_format != "saver":
            assert one[-1] == key
    if GLOBAL_STEP in names:
        step = names.index(GLOBAL_STEP)
    if checkpoint_format != "saver" and step is not None and found[step]:
        assert [n for n, one in enumerate(found) if GLOBAL_STEP in one] == [step]

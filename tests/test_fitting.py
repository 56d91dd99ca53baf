"""Warm starts of variables that have another shape in the checkpoint."""

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import run_job
from own_files import save
from saver_sessions import partitioned
from tensorflow_party import v1

from estimator_ckpt import make_scaffold
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.warm_start import WarmStart
from estimator_ckpt.warm_starting import eager

# What the checkpoint has, what the model's initial value is, and how the one becomes the other.
CASES = {
    "embedding": ("pad", [[1, 2], [3, 4]], [[9, 9], [8, 8], [7, 7]], [[1, 2], [3, 4], [7, 7]]),
    "wider": ("pad", [[1], [2]], [[9, 9], [8, 8]], [[1, 9], [2, 8]]),
    "kernel": ("reshape", [[1, 2, 3, 4]], [[9, 9], [9, 9]], [[1, 2], [3, 4]]),
    "bias": ("reshape", [[[5, 6]]], [9, 9], [5, 6]),
    "smaller": ("slice", [[1, 2], [3, 4]], [[9]], [[1]]),
    "same": ("slice", [5, 6], [9, 9], [5, 6]),
}
POLICY = {name: fitting for name, (fitting, *_) in CASES.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint of the cases, and of a matrix of 12 rows that count up."""
    prefix = str(tmp_path_factory.mktemp("source") / "model.ckpt")
    with tf.Graph().as_default(), v1.Session() as session:
        for name, (_, value, _, _) in CASES.items():
            v1.get_variable(name, initializer=tf.constant(value, tf.float32))
        partitioned("parts", None)
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, prefix, write_meta_graph=False)


def build(use_resource=True):
    for name, (_, _, initial, _) in CASES.items():
        v1.get_variable(
            name, initializer=tf.constant(initial, tf.float32), use_resource=use_resource
        )
    v1.get_variable(
        "parts",
        [15, 2],
        initializer=v1.constant_initializer(-1.0),
        partitioner=v1.fixed_size_partitioner(4),
        use_resource=use_resource,
    )
    # An average, say, begins with what its variable has.
    embedding = next(v for v in v1.global_variables() if v.op.name == "embedding")
    with tf.control_dependencies([embedding.initializer]):
        copied = tf.identity(embedding)
    v1.get_variable("follows", initializer=copied, trainable=False)
    return v1.assign_add(v1.train.get_or_create_global_step(), 1)


@pytest.mark.parametrize("use_resource", [True, False])
def test_a_graph_starts_with_what_fits(source, tmp_path, use_resource, caplog):
    settings = WarmStart(source, on_shape_mismatch={**POLICY, "parts": "pad"})
    start, _ = run_job(
        tmp_path,
        lambda: make_scaffold("both", warm_start=settings),
        build=lambda: build(use_resource),
        steps=1,
    )
    for name, (_, _, _, expected) in CASES.items():
        np.testing.assert_array_equal(start[name], expected, name)
    parts = np.concatenate([np.arange(24).reshape(12, 2), np.full((3, 2), -1)])
    np.testing.assert_array_equal(start["parts"], parts)
    np.testing.assert_array_equal(start["follows"], CASES["embedding"][3])


def test_apply_starts_with_what_fits_and_says_how(source):
    variables = {
        name: tf.Variable(initial, dtype=tf.float32) for name, (_, _, initial, _) in CASES.items()
    }
    report = WarmStart(source, on_shape_mismatch=POLICY).apply(variables)
    for name, (_, _, _, expected) in CASES.items():
        np.testing.assert_array_equal(variables[name], expected, name)
    rules = {value.target: value.rule.rpartition("; ")[2] for value in report.values}
    assert rules["embedding"] == "pad: [2, 2] from the checkpoint, the rest by its initializer"
    assert rules["kernel"] == "reshape of [1, 4]"
    assert rules["smaller"] == "slice: the first [1, 1] of [2, 2]"
    assert "slice" not in rules["same"]
    assert all(value.starts for value in report.values)


class Grown(tf.Module):
    """Makes its variables in its first call."""

    def __init__(self):
        super().__init__()
        self.made = None

    def __call__(self):
        if self.made is None:
            self.made = {
                name: tf.Variable(initial, dtype=tf.float32, name=name)
                for name, (_, _, initial, _) in CASES.items()
            }
        return {name: tf.identity(variable) for name, variable in self.made.items()}


@pytest.mark.parametrize("is_made", [False, True])
def test_what_fits_starts_before_it_is_used_and_may_be_trained_in_the_block(source, is_made):
    model = Grown()
    if is_made:  # as the first layer of a Sequential of Keras 2 may be
        model()
    with WarmStart(source, on_shape_mismatch=POLICY).deferred(model) as start:
        used = model()
        model.made["embedding"].assign_add(tf.ones([3, 2]))
    for name, (_, _, _, expected) in CASES.items():
        np.testing.assert_array_equal(used[name], expected, name)
    np.testing.assert_array_equal(model.made["embedding"], used["embedding"] + 1)
    assert "the rest by its initializer" in str(start.report)


@pytest.mark.parametrize("is_remote", [False, True])
def test_what_fits_is_put_into_the_value_that_a_variable_has_then(source, is_remote, monkeypatch):
    """As deferred() does, which first takes back what has started from another tensor."""
    monkeypatch.setattr(eager, "is_remote", lambda path: is_remote)
    variable = tf.Variable(tf.fill([3, 2], 9.0), name="embedding")
    settings = WarmStart(source, on_shape_mismatch="pad")
    found = eager.model_to_start(settings, [variable])
    with eager.checked_values(settings, found) as (_, values):
        variable.assign(tf.fill([3, 2], 7.0))
        assert values["embedding"].tolist() == [[1, 2], [3, 4], [7, 7]]


def test_parts_of_partitioned_variables_are_expected_in_their_order(tmp_path, monkeypatch):
    values = {"parts": np.float32([[1, 2], [3, 4], [5, 6]]), "same": np.float32([7, 8])}
    prefix = save(tmp_path / "model.ckpt", values, slices={"parts": 3})
    asked, expected = [], []
    monkeypatch.setattr(eager, "is_remote", lambda path: True)
    monkeypatch.setattr(TensorReader, "expect", lambda reader, ones: expected.extend(ones))
    raw = TensorReader.raw
    monkeypatch.setattr(
        TensorReader, "raw", lambda reader, one: asked.append(one) or raw(reader, one)
    )
    variables = {name: tf.Variable(tf.zeros_like(value)) for name, value in values.items()}
    WarmStart(prefix).apply(variables)
    assert {name: v.numpy().tolist() for name, v in variables.items()} == {
        name: value.tolist() for name, value in values.items()
    }
    assert len(asked) == 4
    assert asked == expected


@pytest.mark.parametrize(
    ("fitting", "shape", "note"),
    [
        ("reshape", [3, 1], "reshape: 4 elements for 3"),
        ("pad", [1, 2], "pad: the variable is the smaller one; slice leaves out"),
        ("pad", [4], "pad: 2 dimensions for 1"),
        ("slice", [3, 2], "slice: the variable is the larger one; pad initializes"),
    ],
)
def test_what_does_not_fit_is_an_error(source, fitting, shape, note):
    variable = tf.Variable(tf.fill(shape, 9.0))
    with pytest.raises(MismatchError, match=f"shape +embedding .*{note}"):
        WarmStart(source, on_shape_mismatch=fitting).apply({"embedding": variable})
    assert np.all(variable.numpy() == 9.0)


def test_another_word_is_refused():
    with pytest.raises(SettingsError, match=r"expected one of .*'reshape', 'pad', 'slice'"):
        WarmStart("model.ckpt", on_shape_mismatch={".*": "crop"})

"""Optimizer state from TF1 to Keras' optimizers since 2.11, and back: training goes on as it would.

On TensorFlow 2.15 they are those of Keras 2, on later ones those of Keras 3.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from conversion_files import write_bundle
from optimizer_jobs import BETAS, IS_KERAS_3, KERAS, SHAPES, STEPS, TF1, KerasJob, Tf1Job

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    MismatchError,
    SettingsError,
    UnsupportedCheckpointError,
)

WORD = "keras3" if IS_KERAS_3 else "keras2"

K = tf.keras.optimizers
HAS_LION = hasattr(K, "Lion")
NUMBERS = {"Adam": BETAS, "AdaMax": {"beta_1": 0.8}}
FROM = {"Momentum": "SGD", "Nesterov": "SGD"}  # in Keras 2 Lion has the same list
BY_NAMES = {**FROM, "Adam": "Adam"}  # Nadam calls its slots the same
kinds = pytest.mark.parametrize("kind", TF1)


def in_tf1(kind, directory, **options):
    """A checkpoint after some steps, and the losses of the steps that follow."""
    job = Tf1Job(kind, **options)
    job.train()
    return job.save(directory / "tf1"), job.train()


def in_keras(kind, directory, **options):
    job = KerasJob(KERAS[kind](K), **options)
    job.train()
    return job.save(directory / "keras"), job.train()


@kinds
@pytest.mark.parametrize("source_format", ["saver", "checkpoint", "both"])
def test_training_goes_on_in_keras_with_the_losses_of_tf1(kind, source_format, tmp_path):
    prefix, expected = in_tf1(kind, tmp_path)
    if source_format != "saver":
        convert_checkpoint(prefix, tmp_path / "source", source_format)
        prefix = tmp_path / "source"
    job = KerasJob(KERAS[kind](K), order=tuple(reversed(SHAPES)))
    like = job.save(tmp_path / "like")
    convert_checkpoint(
        prefix,
        tmp_path / "out",
        "checkpoint",
        like=like,
        optimizer=WORD,
        hyperparameters=NUMBERS.get(kind, {}),
    )
    assert verify_checkpoint(tmp_path / "out").faults == ()
    status = job.objects.read(str(tmp_path / "out"))
    status.assert_existing_objects_matched()
    assert int(job.optimizer.iterations) == STEPS
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


def train_in_tf1(kind, prefix, destination, from_optimizer):
    """The losses of a TF1 job that goes on from what a checkpoint is converted to."""
    convert_checkpoint(
        prefix,
        destination,
        "saver",
        optimizer="tf1",
        from_optimizer=from_optimizer,
        hyperparameters=NUMBERS.get(kind, {}),
    )
    job = Tf1Job(kind)
    job.restore(destination)
    return job.train()


@kinds
def test_training_goes_on_in_tf1_with_the_losses_of_keras(kind, tmp_path):
    prefix, expected = in_keras(kind, tmp_path, order=tuple(reversed(SHAPES)))
    losses = train_in_tf1(kind, prefix, tmp_path / "out", FROM.get(kind))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@kinds
def test_names_alone_tell_the_state_of_a_keras_optimizer(kind, tmp_path):
    prefix, expected = in_keras(kind, tmp_path)
    convert_checkpoint(prefix, tmp_path / "names", "saver")
    losses = train_in_tf1(kind, tmp_path / "names", tmp_path / "out", BY_NAMES.get(kind))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


KERAS_2_NAMES = {"w": 2, "v": 2, "m/w": 2, "v/w": 2, "m/v": 2, "v/v": 2, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {}, "is Adam or AdamW or Nadam; say it"),
        ({}, {"from_optimizer": "Nadam"}, "not all that Nadam keeps has a name"),
        (
            {},
            {"from_optimizer": "SGD"},
            "expected Adam or .*, by its slots m, v, found",
        ),
        ({"v/v": None}, {"from_optimizer": "Adam"}, "not all that Adam keeps has a name"),
        ({"Adam/m/w": 2}, {"from_optimizer": "Adam"}, "'w' has several slots m"),
        ({"b/iteration": 1}, {"from_optimizer": "Adam"}, "several: 'b/iteration' and 'iteration'"),
        ({"o/_momentums/0": 2}, {"from_optimizer": "Adam"}, "tell it: whose 'o/_momentums/0' is"),
    ],
)
def test_names_that_do_not_tell_all_of_the_state_are_refused(changes, options, message, tmp_path):
    shapes = {name: value for name, value in {**KERAS_2_NAMES, **changes}.items() if value}
    values = {name: np.ones([n] if n == 2 else [], np.float32) for name, n in shapes.items()}
    values["iteration"] = np.array(5, np.int64)
    if "b/iteration" in values:
        values["b/iteration"] = np.array(5, np.int64)
    source = write_bundle(tmp_path / "names", values)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(source, tmp_path / "out", "saver", optimizer="tf1", **options)
    assert not (tmp_path / "out.index").exists()


def test_where_names_repeat_the_lists_tell_or_it_is_refused(tmp_path):
    variables = [tf.Variable(np.float32([n, n]), name="w") for n in (1, 2)]
    optimizer = K.SGD(0.1, 0.9)
    optimizer.build(variables[::-1])
    optimizer.apply_gradients([(tf.ones(2), variables[1]), (tf.zeros(2), variables[0])])
    objects = tf.train.Checkpoint(model=variables, optimizer=optimizer)
    source = objects.write(str(tmp_path / "keras"))
    options = {"optimizer": "tf1", "from_optimizer": "SGD"}
    if not IS_KERAS_3:
        with pytest.raises(UnsupportedCheckpointError, match="nothing says whose the slot 0 of"):
            convert_checkpoint(source, tmp_path / "out", "saver", **options)
        return
    convert_checkpoint(source, tmp_path / "out", "saver", **options)
    with open_checkpoint(tmp_path / "out") as found:
        slots = [found.get_tensor(f"model/{n}/Momentum").tolist() for n in (0, 1)]
    assert slots == [[0, 0], [pytest.approx(1)] * 2]


def test_slots_of_a_partitioned_variable_go_along_whole(tmp_path):
    prefix, expected = in_tf1("Adam", tmp_path, slices=2)
    job = KerasJob(KERAS["Adam"](K))
    like = job.save(tmp_path / "like")
    convert_checkpoint(
        prefix,
        tmp_path / "out",
        "checkpoint",
        like=like,
        optimizer=WORD,
        hyperparameters=BETAS,
    )
    job.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: K.Adamax(0.05, 0.8, 0.95),
        *([lambda: K.Lion(0.01, 0.8, 0.95)] if HAS_LION else []),
        lambda: K.AdamW(0.05, 0.1, 0.8),
        lambda: K.Adam(0.05, amsgrad=True),
        # Keras 3's takes no tf.Variable whose name has a scope.
        *([lambda: K.Lamb(0.05)] if IS_KERAS_3 else [lambda: K.Adafactor(0.05)]),
    ],
)
def test_a_program_with_another_order_goes_on_as_one_with_the_same_order_does(make, tmp_path):
    job = KerasJob(make())
    job.train()
    source = job.save(tmp_path / "source")
    same = KerasJob(make())
    same.objects.read(source).assert_existing_objects_matched()
    other = KerasJob(make(), order=tuple(reversed(SHAPES)))
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=other.save(tmp_path / "like"),
        optimizer=WORD,
        from_optimizer="Lion" if type(job.optimizer).__name__ == "Lion" else None,
    )
    other.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    np.testing.assert_array_equal(other.train(), same.train())


def test_nadam_has_its_slots_in_the_other_order_and_its_product(tmp_path):
    # Its next losses are no measure: Keras 2 counts uses of the product in Python, unsaved.
    job = KerasJob(K.Nadam(0.05, 0.8, 0.95))
    job.train()
    other = KerasJob(K.Nadam(0.05, 0.8, 0.95), order=tuple(reversed(SHAPES)))
    convert_checkpoint(
        job.save(tmp_path / "source"),
        tmp_path / "out",
        "checkpoint",
        like=other.save(tmp_path / "like"),
        optimizer=WORD,
    )
    other.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert float(other.optimizer._u_product) == float(job.optimizer._u_product) != 1.0
    for lists in ("_momentums", "_velocities"):
        ours, theirs = getattr(other.optimizer, lists), getattr(job.optimizer, lists)
        for one, two in zip(reversed(ours), theirs):
            np.testing.assert_array_equal(np.array(one), np.array(two))


def test_the_result_has_the_lists_of_slots_and_not_the_list_of_all_variables(tmp_path):
    prefix, _ = in_tf1("Adam", tmp_path)
    like = KerasJob(KERAS["Adam"](K)).save(tmp_path / "like")
    convert_checkpoint(
        prefix,
        tmp_path / "out",
        "checkpoint",
        like=like,
        optimizer=WORD,
        hyperparameters=BETAS,
    )
    with open_checkpoint(tmp_path / "out") as found:
        graph = found.object_graph
        optimizer = graph.nodes[graph.nodes[0].children["optimizer"]]
        assert {"_iterations", "_learning_rate", "_momentums", "_velocities"} <= (
            optimizer.children.keys()
        )
        assert "_variables" not in optimizer.children
        assert optimizer.slots == ()
        assert float(found.get_tensor("optimizer/_learning_rate")) == np.float32(0.05)


def test_without_a_template_the_order_is_asked_for(tmp_path):
    prefix, _ = in_tf1("Adam", tmp_path)
    with pytest.raises(SettingsError, match=r"let it write a template, after optimizer\.build"):
        convert_checkpoint(prefix, tmp_path / "out", "checkpoint", optimizer=WORD)


def test_a_template_of_another_keras_or_class_is_refused(tmp_path):
    prefix, _ = in_tf1("Adam", tmp_path)
    like = KerasJob(K.Adagrad(0.1)).save(tmp_path / "like")
    other = "keras2" if IS_KERAS_3 else "keras3"
    with pytest.raises(
        SettingsError, match=f"expected an optimizer of {other} in {like}, found {WORD}"
    ):
        convert_checkpoint(prefix, tmp_path / "out", "checkpoint", like=like, optimizer=other)
    with pytest.raises(MismatchError, match="of Adagrad; there is Adam"):
        convert_checkpoint(
            prefix,
            tmp_path / "out",
            "checkpoint",
            like=like,
            optimizer=WORD,
            hyperparameters=BETAS,
        )
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda: K.Nadam(0.1), {}, UnsupportedCheckpointError, "Keras' Nadam cannot be turned"),
        (lambda: K.Adam(0.1, amsgrad=True), {}, UnsupportedCheckpointError, "without amsgrad"),
        (
            lambda: K.Adam(0.1),
            {"from_optimizer": "SGD"},
            SettingsError,
            "expected Adam.*, found 'SGD'",
        ),
        (lambda: K.Adam(0.1), {}, SettingsError, "takes beta_1 and iter; .* give beta_1"),
    ],
)
def test_what_tf1_has_no_state_for_is_refused(make, options, error, message, tmp_path):
    source = KerasJob(make()).save(tmp_path / "keras")
    with pytest.raises(error, match=message):
        convert_checkpoint(source, tmp_path / "out", "saver", optimizer="tf1", **options)
    assert not (tmp_path / "out.index").exists()


@pytest.mark.skipif(not HAS_LION, reason="Keras has Lion since TensorFlow 2.13")
def test_a_lion_is_never_taken_for_sgd_whose_list_it_has_in_keras_2(tmp_path):
    source = KerasJob(K.Lion(0.1)).save(tmp_path / "keras")
    message = "Keras' Lion cannot" if IS_KERAS_3 else "whether the optimizer is SGD or Lion; say it"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(source, tmp_path / "out", "saver", optimizer="tf1")

"""What Keras of TensorFlow 2.0 saved of layers beside their variables: their classes, as JSON."""

from __future__ import annotations

import functools
import json

import pytest
from command_line import command_runner
from tensorflow_party import tf

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    open_checkpoint,
    verify_checkpoint,
)

CONFIG = "OBJECT_CONFIG_JSON"


@functools.cache
def layer_class():
    """A class that saves what a Keras layer of TensorFlow 2.0 saved."""

    class Layer(tf.Module):
        def __init__(self, name):
            super().__init__(name)
            self.kernel = tf.Variable([1.0, 2.0], name=f"{name}/kernel")

        def _serialize_to_tensors(self):
            content = json.dumps({"class_name": type(self).__name__, "config": {"name": self.name}})
            return {CONFIG: tf.constant(content)}

        def _restore_from_tensors(self, restored_tensors):
            return tf.no_op()

    return Layer


def model():
    outer = layer_class()("dense")
    outer.layer = layer_class()("dense_1")
    return outer


def later_model():
    """The same for a program that knows nothing of what is saved beside the variables."""
    outer, inner = tf.Module(), tf.Module()
    outer.kernel, inner.kernel = tf.Variable([0.0, 0.0]), tf.Variable([0.0, 0.0])
    outer.layer = inner
    return outer


@pytest.fixture
def source(tmp_path):
    return tf.train.Checkpoint(model=model()).write(str(tmp_path / "ckpt"))


def config_keys(path):
    return [key for key, _ in tf.train.list_variables(path) if key.endswith(CONFIG)]


def test_they_are_no_variables(source):
    assert len(config_keys(source)) == 2
    with open_checkpoint(source) as checkpoint:
        assert list(checkpoint.variables) == ["dense/kernel", "dense_1/kernel"]
        assert checkpoint.format == "checkpoint"
    assert verify_checkpoint(source).ok
    assert verify_checkpoint(source).notes == ()


@pytest.mark.parametrize(
    ("checkpoint_format", "options", "kept"),
    [
        ("saver", {}, 0),
        ("both", {}, 2),
        ("checkpoint", {}, 2),
        ("checkpoint", {"drop_configs": True}, 0),
        ("both", {"layout": "var_list"}, 0),
        ("checkpoint", {"exclude": ["dense_1/.*"]}, 2),
    ],
    ids=str,
)
def test_they_stay_where_their_objects_stay(tmp_path, source, checkpoint_format, options, kept):
    done = convert_checkpoint(source, tmp_path / "new", checkpoint_format, **options)
    assert len(config_keys(done.destination)) == kept
    left_out = [row for row in done.rows if row.action == "left out" and CONFIG in row.source]
    assert len(left_out) == 2 - kept
    assert verify_checkpoint(done.destination).ok
    if "exclude" not in options:
        assert compare_checkpoints(source, done.destination).equal


def test_in_place_they_stay_where_they_are(source):
    convert_checkpoint(source, None, "both", in_place=True)
    assert len(config_keys(source)) == 2
    assert open_checkpoint(source).format == "both"


def test_without_them_a_later_program_restores_every_value(tmp_path, source):
    later = tf.train.Checkpoint(model=later_model())
    with pytest.raises(AssertionError, match=CONFIG):
        later.read(source).assert_consumed()
    done = convert_checkpoint(source, tmp_path / "new", "checkpoint", drop_configs=True)
    later = tf.train.Checkpoint(model=later_model())
    later.read(done.destination).assert_consumed()
    assert later.model.layer.kernel.numpy().tolist() == [1.0, 2.0]


def test_the_tree_shows_the_classes(source, capsys):
    run = command_runner(capsys)
    assert "model  Layer\n" in run("inspect", "--tree", source).out
    assert CONFIG not in run("inspect", "--tree", source).out
    objects = json.loads(run("inspect", "--tree", "--json", source).out)["objects"]
    classes = {one["object_path"]: one["class"] for one in objects}
    assert (classes["model"], classes["model/layer"]) == ("Layer", "Layer")
    assert classes["model/kernel"] is None

"""Checkpoints of other programs, damaged ones, and those of TensorFlow's first file format."""

import os

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS
from saver_sessions import (
    COUNT,
    VALUE,
    eager,
    partitioned,
    refused,
    restored,
    rows_of,
    variable,
    written,
)

from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError

v1 = tf.compat.v1


def one_variable():
    a = variable("a", -1.0)
    return [a], None


# --- foreign checkpoints ---


class Dense(tf.Module):
    def __init__(self, value, name):
        super().__init__(name)
        with self.name_scope:
            self.kernel = tf.Variable([value, value], name="kernel")


def test_a_module_of_an_eager_program_restores_by_full_names(tmp_path):
    prefix = eager(tmp_path, net=[Dense(1.0, "first"), Dense(2.0, "second")])

    def build():
        return [variable("first/kernel", [0.0, 0.0]), variable("second/kernel", [0.0, 0.0])], None

    np.testing.assert_array_equal(restored(prefix, build), [[1.0, 1.0], [2.0, 2.0]])


def test_a_module_of_an_eager_program_restores_by_its_path(tmp_path):
    prefix = eager(tmp_path, net=[Dense(1.0, "first"), Dense(2.0, "second")])

    def build():
        layers = [Dense(0.0, "encoder"), Dense(0.0, "decoder")]
        return [layer.kernel for layer in layers], {"net": layers}

    np.testing.assert_array_equal(restored(prefix, build), [[1.0, 1.0], [2.0, 2.0]])


def test_the_guides_var_list_and_step(tmp_path):
    # All of these have the full name "Variable".
    values = {"dense/kernel": tf.Variable([1.0]), "b.c": tf.Variable([2.0])}
    prefix = eager(tmp_path, var_list=values, step=tf.Variable(7, dtype=tf.int64))

    def build():
        step = v1.train.get_or_create_global_step()
        return [variable("dense/kernel", [0.0]), variable("b.c", [0.0]), step], None

    assert restored(prefix, build) == [[1.0], [2.0], 7]


def test_a_step_of_another_dtype_is_refused(tmp_path):
    prefix = eager(tmp_path, step=tf.Variable(7.0))
    (row,) = rows_of(refused(prefix, lambda: ([v1.train.get_or_create_global_step()], None)))
    assert row == f"dtype global_step int64[] float32[] key step{VALUE}"


def test_weights_of_an_object_that_is_itself_the_root(tmp_path):
    prefix = tf.train.Checkpoint(root=Dense(1.0, "first")).save(tmp_path / "root")

    def build():
        return [variable("first/kernel", [0.0, 0.0])], None

    np.testing.assert_array_equal(restored(prefix, build), [[1.0, 1.0]])


# --- checkpoints that are none ---


def test_a_missing_checkpoint_is_a_value_error_as_stock(tmp_path):
    error = refused(str(tmp_path / "none"), one_variable)
    assert isinstance(error, NotACheckpointError)
    assert isinstance(error, ValueError)


def cut_index(prefix):
    _cut(f"{prefix}.index", 20)


def cut_data(prefix):
    _cut(f"{prefix}.data-00000-of-00001", 1)


def remove_data(prefix):
    os.remove(f"{prefix}.data-00000-of-00001")


def flip_index(prefix):
    _flip(f"{prefix}.index")


def flip_data(prefix):
    _flip(f"{prefix}.data-00000-of-00001")


def _cut(path, count):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - count)


def _flip(path):
    with open(path, "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


@pytest.mark.parametrize("damage", [cut_data, remove_data, flip_index, flip_data])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage, checkpoint_format):
    prefix = written(tmp_path, lambda: variable("a", 3.0), checkpoint_format)
    damage(prefix)
    assert isinstance(refused(prefix, one_variable), CorruptCheckpointError)


def test_an_index_that_is_cut_off_is_refused(tmp_path):
    prefix = written(tmp_path, lambda: variable("a", 3.0))
    cut_index(prefix)
    assert isinstance(refused(prefix, one_variable), (CorruptCheckpointError, NotACheckpointError))


# --- TensorFlow's first file format ---


def save_v1(directory, sharded=False):
    with tf.Graph().as_default():
        variable("a", 3.0)
        partitioned("w", 3)
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=sharded)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            return saver.save(session, str(directory / "old"), write_meta_graph=False)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_v1_format_still_restores(tmp_path, checkpoint_format, sharded):
    prefix = save_v1(tmp_path, sharded)

    def build():
        return [variable("a", 0.0), partitioned("w", 2, axis=1)], None

    a, w = restored(prefix, build, checkpoint_format)
    assert a == 3.0
    np.testing.assert_array_equal(w, COUNT)


def test_the_v1_format_is_checked_before_anything_is_restored(tmp_path):
    prefix = save_v1(tmp_path)

    def build():
        return [variable("a", [0.0, 0.0]), partitioned("w", 2), variable("new", 7.0)], None

    assert rows_of(refused(prefix, build)) == [
        "shape a float32[2] float32[] key a",
        "missing new float32[]",
    ]

    def grown():
        return [variable("a", 0.0), variable("new", 7.0)], None

    assert restored(prefix, grown, on_missing="init") == [3.0, 7.0]

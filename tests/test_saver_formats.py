"""What a job writes in each format, and what resumes from it; for its readers see test_readme."""

import os

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import (
    FORMATS,
    assert_same,
    build_model,
    latest,
    run_job,
    value_of,
)

from estimator_ckpt import checkpoint_scaffold, dual_scaffold, make_scaffold, saver_scaffold

v1 = tf.compat.v1

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def scaffold_of(checkpoint_format, **options):
    return lambda: make_scaffold(checkpoint_format, **options)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("written_by", ["stock", *FORMATS])
def test_a_job_resumes_from_every_format_with_the_same_values(
    tmp_path, written_by, checkpoint_format
):
    _, end = run_job(tmp_path, None if written_by == "stock" else scaffold_of(written_by))
    start, _ = run_job(tmp_path, scaffold_of(checkpoint_format))
    assert start["global_step"] == 2
    assert_same(start, end)


@pytest.mark.parametrize(
    ("checkpoint_format", "has_names", "has_objects"),
    [("saver", True, False), ("checkpoint", False, True), ("both", True, True)],
)
def test_the_keys_are_those_of_the_format(tmp_path, checkpoint_format, has_names, has_objects):
    _, end = run_job(tmp_path, scaffold_of(checkpoint_format))
    keys = {name for name, _ in tf.train.list_variables(str(tmp_path))}
    names = set(end)
    objects = {f"var_list/{n.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE" for n in end}
    objects |= {GRAPH_KEY, "save_counter/.ATTRIBUTES/VARIABLE_VALUE"}
    # Estimator looks for the global step by name, whatever the format.
    names = names if has_names else {"global_step"}
    assert keys == names | (objects if has_objects else set())


def test_both_adds_keys_but_no_data(tmp_path):
    sizes = {}
    for checkpoint_format in ("checkpoint", "both"):
        model_dir = tmp_path / checkpoint_format
        run_job(model_dir, scaffold_of(checkpoint_format))
        sizes[checkpoint_format] = os.path.getsize(f"{latest(model_dir)}.data-00000-of-00001")
    assert sizes["both"] == sizes["checkpoint"]


def test_both_is_read_by_init_from_checkpoint_in_all_its_syntaxes(tmp_path):
    _, end = run_job(tmp_path, dual_scaffold)
    with tf.Graph().as_default():
        whole = v1.get_variable("a/w", [2, 3])
        renamed = v1.get_variable("b", [2, 3])
        listed = v1.get_variable("c/parts", [10, 2], partitioner=v1.fixed_size_partitioner(2))
        v1.train.init_from_checkpoint(str(tmp_path), {"scope/": "a/"})
        v1.train.init_from_checkpoint(str(tmp_path), {"scope/w": renamed})
        v1.train.init_from_checkpoint(str(tmp_path), {"scope/parts": list(listed)})
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            np.testing.assert_array_equal(session.run(whole), end["scope/w"])
            np.testing.assert_array_equal(session.run(renamed), end["scope/w"])
            found = session.run(tf.convert_to_tensor(listed))
            np.testing.assert_array_equal(found, end["scope/parts"])
    with tf.Graph().as_default():
        build_model()
        v1.train.init_from_checkpoint(str(tmp_path), {"scope/w": "scope/w", "/": "/"})
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            np.testing.assert_array_equal(value_of(session, "scope/w"), end["scope/w"])


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_model_dir_can_be_moved(tmp_path, checkpoint_format):
    _, end = run_job(tmp_path / "here", scaffold_of(checkpoint_format))
    os.rename(tmp_path / "here", tmp_path / "there")
    start, _ = run_job(tmp_path / "there", scaffold_of(checkpoint_format))
    assert_same(start, end)


def test_a_model_without_variables_runs_and_saves_nothing(tmp_path, graph):
    three = tf.constant(3)
    scaffold = checkpoint_scaffold()
    with v1.train.MonitoredSession(v1.train.ChiefSessionCreator(scaffold)) as session:
        assert session.run(three) == 3
        assert scaffold.saver.save(session._tf_sess(), str(tmp_path / "model")) is None
    assert os.listdir(tmp_path) == ["model.meta"]


def test_local_variables_are_left_out(tmp_path):
    def build():
        train = build_model()
        v1.get_local_variable("seen", initializer=0)
        return train

    run_job(tmp_path, saver_scaffold, build=build)
    assert "seen" not in {name for name, _ in tf.train.list_variables(str(tmp_path))}


@pytest.mark.parametrize("device", ["", "/device:CPU:1"])
def test_a_variable_is_assigned_on_its_device_what_is_read_beside_it(graph, device):
    with tf.device(device):
        v1.get_variable("w", initializer=1.0)
    dual_scaffold().finalize()
    (restore,) = (op for op in graph.get_operations() if op.type == "RestoreV2")
    ((assign,),) = (tensor.consumers() for tensor in restore.outputs)
    assert (assign.type, assign.inputs[0].op.name, assign.device) == (
        "AssignVariableOp",
        "w",
        device,
    )

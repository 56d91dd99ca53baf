"""The .meta file beside a checkpoint: the keys it restores, and where a conversion takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversion_files import v1
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint
from estimator_ckpt.conversion.meta_graph import restored_keys, updates_beside


def written(checkpoint_format: str, model_dir: Path) -> str:
    with tf.Graph().as_default():
        w = v1.get_variable("w", initializer=1.0)
        step = v1.train.get_or_create_global_step()
        train_op = v1.train.MomentumOptimizer(0.1, 0.9).minimize(w * w, step)
        from estimator_ckpt import make_scaffold

        scaffold = make_scaffold(checkpoint_format)
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir), scaffold=scaffold
        ) as session:
            session.run(train_op)
    return tf.train.latest_checkpoint(str(model_dir))


@pytest.mark.parametrize(
    ("source_format", "result_format", "is_there"),
    [
        ("saver", "both", True),
        ("saver", "checkpoint", False),
        ("both", "saver", False),
        ("both", "checkpoint", True),
        ("checkpoint", "both", True),
        ("checkpoint", "saver", False),
    ],
)
def test_it_goes_along_exactly_where_its_keys_do_and_restores_there(
    source_format, result_format, is_there, tmp_path
):
    source = written(source_format, tmp_path / "run")
    result = str(tmp_path / "result")
    convert_checkpoint(source, result, result_format)
    assert Path(f"{result}.meta").exists() == is_there
    if is_there:
        with tf.Graph().as_default() as graph, v1.Session() as session:
            v1.train.import_meta_graph(f"{result}.meta").restore(session, result)
            assert session.run(graph.get_tensor_by_name("w/Read/ReadVariableOp:0")) == (
                pytest.approx(0.8)
            )


@pytest.mark.parametrize("sharded", [False, True])
def test_the_keys_are_those_of_all_shards_and_partitions(sharded, tmp_path):
    two = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=two) as session:
        for device in range(2):
            with tf.device(f"/device:CPU:{device}"):
                v1.get_variable(f"v{device}", initializer=1.0)
        v1.get_variable("table", [4, 2], partitioner=v1.fixed_size_partitioner(2))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=sharded)
        prefix = saver.save(session, str(tmp_path / "m"))
    assert restored_keys(f"{prefix}.meta") == {"v0", "v1", "table"}


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"no graph"])
def test_what_tells_no_keys_is_none(content, tmp_path):
    path = tmp_path / "m.meta"
    path.write_bytes(content)
    assert restored_keys(str(path)) is None


def test_a_graph_without_a_saver_tells_none(tmp_path):
    with tf.Graph().as_default():
        v1.get_variable("w", initializer=1.0)
        v1.train.export_meta_graph(str(tmp_path / "m.meta"))
    assert restored_keys(str(tmp_path / "m.meta")) is None


@pytest.mark.parametrize("content", [None, b"no message", b""])
def test_a_graph_that_cannot_be_read_tells_of_no_optimizer(content, tmp_path):
    """It is only an aid: a job may delete it meanwhile."""
    if content is not None:
        (tmp_path / "model.ckpt-7.meta").write_bytes(content)
    assert updates_beside(str(tmp_path / "model.ckpt-7"), ["w"]) == []
    (tmp_path / "model.ckpt-8.meta").mkdir()
    assert updates_beside(str(tmp_path / "model.ckpt-8"), ["w"]) == []

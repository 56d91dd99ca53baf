"""A real cluster: chief, workers, parameter servers and an evaluator, as processes on loopback."""

import glob
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import tensorflow as tf
from cluster import Cluster, free_ports
from cluster_job import build_model, expected_metrics
from graph_jobs import (
    FORMATS,
    assert_same,
    latest,
    read_with_checkpoint,
    read_with_stock_saver,
    run_job,
)

from estimator_ckpt import make_scaffold, open_checkpoint
from estimator_ckpt.saving.retention import CheckpointList

v1 = tf.compat.v1


def steps_listed(model_dir):
    """The global steps of the checkpoints in the state file."""
    paths = tf.train.get_checkpoint_state(str(model_dir)).all_model_checkpoint_paths
    return [step_of(path) for path in paths]


def steps_on_disk(model_dir):
    return sorted(step_of(str(path)[: -len(".index")]) for path in model_dir.glob("*.index"))


def step_of(prefix):
    return int(prefix.rpartition("-")[2])


def evaluations(model_dir):
    """What evaluators have written: metrics by global step."""
    found = {}
    for path in sorted(model_dir.glob("eval/events.*")):
        for event in v1.train.summary_iterator(str(path)):
            metrics = {value.tag: value.simple_value for value in event.summary.value}
            if "loss" in metrics:
                found[event.step] = {name: metrics[name] for name in ("loss", "mean")}
    return found


def copied(prefix, directory):
    """The prefix of a copy of a checkpoint."""
    directory.mkdir()
    for path in tf.io.gfile.glob(f"{prefix}.*"):
        shutil.copy(path, directory)
    return str(directory / os.path.basename(prefix))


# One job in two runs, each by a cluster of processes; the second resumes in another format.


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The first run loses a worker, the second, with one server instead of two, its server."""
    directory = tmp_path_factory.mktemp("cluster")
    model_dir = directory / "model"
    options = ["--hold_after=5", "--keep_checkpoint_max=1", "--deletion_grace_secs=3600"]
    evaluation = Cluster(
        directory / "evaluation", model_dir, "both", "--max_steps=90", "--hold_after=0"
    )
    first = Cluster(
        directory / "first", model_dir, "checkpoint", "--max_steps=60", *options, workers=2, ps=2
    )
    second = Cluster(directory / "second", model_dir, "both", "--max_steps=90", *options, ps=1)
    with evaluation:
        with first:
            for index in range(2):
                first.start("ps", index)
            chief, worker = first.start("chief"), first.start("worker", 0)
            lost = first.start("worker", 1)
            first.wait_until_held(chief, worker, lost)
            first.kill(lost)
            restarted = first.start("worker", 1)
            evaluator = evaluation.start("evaluator")
            first.wait_until_held(restarted)
            evaluation.wait_until_held(evaluator)  # It has chosen a checkpoint and not read it.
            first.go()
            first.wait_until_done(chief, worker, restarted)
            evaluation.go()
        processes = {"chief": chief, "worker 0": worker, "lost": lost, "restarted": restarted}
        ended_first = SimpleNamespace(
            # The second run writes this step again, before its first own.
            final=copied(latest(model_dir), directory / "final"),
            exits={name: process.returncode for name, process in processes.items()},
            steps={name: first.steps(process) for name, process in processes.items()},
            listed=steps_listed(model_dir),
            on_disk=steps_on_disk(model_dir),
            start=first.start_values(chief),
        )
        with second:
            lost = second.start("ps")
            chief = second.start("chief")
            second.wait_until_held(chief)
            second.kill(lost)
            second.start("ps")
            second.go()
            second.wait_until_done(chief)
        evaluation.wait_until_done(evaluator)
    ended_second = SimpleNamespace(
        final=latest(model_dir),
        steps=second.steps(chief),
        start=second.start_values(chief),
        recovered=second.start_values(chief, session=1),
    )
    return SimpleNamespace(model_dir=model_dir, first=ended_first, second=ended_second)


@pytest.mark.faults
@pytest.mark.estimator
def test_a_job_completes_though_a_worker_was_killed_and_started_again(job):
    assert job.first.exits == {
        "chief": 0,
        "worker 0": 0,
        "lost": -signal.SIGKILL,
        "restarted": 0,
    }
    # Each of three trainers may make two more steps until it has read that they are enough.
    assert 60 <= step_of(job.first.final) <= 66


@pytest.mark.faults
@pytest.mark.estimator
def test_no_step_is_lost_with_a_worker(job):
    steps = job.first.steps
    assert all(seen == sorted(seen) for seen in steps.values())
    assert len(steps["lost"]) == 5
    assert len(steps["restarted"]) >= 5
    assert steps["restarted"][0] > steps["lost"][-1]


@pytest.mark.faults
@pytest.mark.estimator
def test_each_server_writes_a_data_file_of_its_own(job):
    with open_checkpoint(job.first.final) as checkpoint:
        assert checkpoint.format == "checkpoint"
        assert {entry.shard for entry in checkpoint.index.entries.values()} == {0, 1}
        assert checkpoint.variables["embedding/table"].slices == 3


@pytest.mark.faults
@pytest.mark.estimator
def test_an_eager_checkpoint_consumes_what_a_cluster_has_written(job):
    for run in (job.first, job.second):
        values = read_with_checkpoint(run.final, job.first.start)
        assert values["global_step"] == step_of(run.final)
        assert values["embedding/table"].all()  # zero is what was not read


@pytest.mark.faults
@pytest.mark.estimator
def test_a_stock_saver_reads_what_a_cluster_has_written_in_both(job):
    values = read_with_checkpoint(job.second.final, job.first.start)
    assert_same(read_with_stock_saver(job.second.final, build_model), values)


@pytest.mark.faults
@pytest.mark.estimator
def test_another_cluster_resumes_in_another_format_with_the_same_values(job):
    assert job.second.start["global_step"] == step_of(job.first.final)
    assert_same(job.second.start, read_with_checkpoint(job.first.final, job.first.start))


@pytest.mark.faults
@pytest.mark.estimator
def test_a_session_that_lost_its_server_restores_in_its_finalized_graph(job):
    start = step_of(job.first.final)
    assert_same(job.second.recovered, job.second.start)
    # Five steps, which are lost with the server, and then all of them.
    assert job.second.steps == [*range(start + 1, start + 6), *range(start + 1, 91)]
    assert step_of(job.second.final) == 90


@pytest.mark.faults
@pytest.mark.estimator
def test_an_evaluator_evaluates_the_checkpoints_of_both_runs(job):
    found = evaluations(job.model_dir)
    assert found.keys() >= {0, 90}
    for step, metrics in found.items():
        prefix = str(job.model_dir / f"model.ckpt-{step}")
        values = read_with_checkpoint(prefix, job.first.start)
        assert metrics == pytest.approx(expected_metrics(values), rel=1e-5), step


@pytest.mark.faults
@pytest.mark.estimator
def test_an_evaluator_does_not_lose_the_checkpoint_that_it_is_about_to_read(job):
    assert len(job.first.on_disk) > 1  # keep_checkpoint_max, but within the grace period
    assert job.first.listed == job.first.on_disk
    assert 0 in job.first.on_disk
    assert 0 in evaluations(job.model_dir)  # and this came afterwards


@pytest.mark.faults
@pytest.mark.estimator
def test_a_run_adopts_the_checkpoints_of_the_one_before(job):
    assert set(steps_listed(job.model_dir)) > set(job.first.listed)
    assert steps_listed(job.model_dir) == steps_on_disk(job.model_dir)


def test_a_replaced_checkpoint_stays_and_is_listed_until_the_grace_period_is_over(tmp_path):
    clock = SimpleNamespace(now=1e9)
    with tf.Graph().as_default(), v1.Session() as session:
        build_model()
        scaffold = make_scaffold("both", keep_checkpoint_max=1, deletion_grace_secs=60)
        scaffold.finalize()
        kept = CheckpointList(scaffold.saver.options.retention, now=lambda: clock.now)
        scaffold.saver._lists._make = lambda: kept
        session.run(scaffold.init_op)
        found = []
        for step in range(1, 6):
            scaffold.saver.save(session, str(tmp_path / "model.ckpt"), global_step=step)
            assert steps_on_disk(tmp_path) == steps_listed(tmp_path)
            found.append(steps_on_disk(tmp_path))
            clock.now += 30
    assert found == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


# Devices: servers within this process, as every version of TensorFlow has them.

SERVERS = ["/job:ps/task:0/device:CPU:0", "/job:ps/task:1/device:CPU:0"]


@pytest.fixture(scope="module")
def master():
    """The address of a chief with two parameter servers."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    cluster = tf.train.ClusterSpec({"chief": addresses[:1], "ps": addresses[1:]})
    tasks = [("chief", 0), ("ps", 0), ("ps", 1)]
    servers = [
        tf.distribute.Server(cluster, job_name=job, task_index=index) for job, index in tasks
    ]
    yield servers[0].target
    del servers


def build_on_servers():
    """build_model(), its variables on the two servers in turn."""
    with v1.device(v1.train.replica_device_setter(ps_tasks=2, worker_device="/job:chief")):
        return build_model()


def devices_of(make_saver):
    """Where a saver's ops stand: a sorted list of devices by the type of the op."""
    with tf.Graph().as_default() as graph:
        build_on_servers()
        before = {op.name for op in graph.get_operations()}
        make_saver().build()
        found = {}
        for op in graph.get_operations():
            if op.name not in before:
                device = tf.DeviceSpec.from_string(op.device).to_string()
                found.setdefault(op.type, []).append(device)
    return {kind: sorted(devices) for kind, devices in found.items()}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_ops_stand_where_a_stock_saver_has_them(checkpoint_format):
    found = devices_of(lambda: make_scaffold(checkpoint_format).saver)
    expected = devices_of(lambda: v1.train.Saver(sharded=True, defer_build=True))
    for kind in ("SaveV2", "ShardedFilename", "MergeV2Checkpoints", "AssignVariableOp"):
        assert found[kind] == expected[kind], kind
    # Ours are more: one for each dtype.
    assert set(found["RestoreV2"]) == set(expected["RestoreV2"]) == set(SERVERS)


def scaffold_of(checkpoint_format):
    return lambda: make_scaffold(checkpoint_format)


def test_servers_save_and_restore_in_every_format(tmp_path, master):
    end = None
    for number, checkpoint_format in enumerate(("saver", "checkpoint", "both", "saver")):
        before = end
        start, end = run_job(
            tmp_path, scaffold_of(checkpoint_format), build=build_on_servers, master=master
        )
        assert start["global_step"] == 2 * number
        if before:
            assert_same(start, before)
        assert len(glob.glob(f"{latest(tmp_path)}.data-*")) == 2
        if checkpoint_format != "saver":
            assert_same(read_with_checkpoint(latest(tmp_path), end), end)
        if checkpoint_format != "checkpoint":
            assert_same(read_with_stock_saver(latest(tmp_path), build_model), end)


def test_each_server_reads_for_itself(tmp_path, master):
    """The keys that are fed go to the servers, not the tensors through the chief."""
    run_job(tmp_path, scaffold_of("saver"), build=build_on_servers, master=master)
    with tf.Graph().as_default() as graph:
        build_on_servers()
        saver = make_scaffold("checkpoint").saver
        saver.build()
        graph.finalize()
        with TracedSession(master) as session:
            saver.restore(session, latest(tmp_path))
    assert session.devices("RestoreV2") == session.devices("AssignVariableOp") == set(SERVERS)


class TracedSession(v1.Session):
    """Remembers on which devices the ops of its last run have run."""

    def run(self, *args, **kwargs):
        self._metadata = v1.RunMetadata()
        options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
        return super().run(*args, options=options, run_metadata=self._metadata, **kwargs)

    def devices(self, kind):
        """Where the ops have run whose names say that they are of this kind."""
        return {
            device.device.replace("/replica:0", "")
            for device in self._metadata.step_stats.dev_stats
            if any(f"/{kind}" in node.node_name for node in device.node_stats)
        }

"""async_checkpoint: a save holds the values of its step, and training goes on meanwhile."""

import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import build_model, latest, run_job
from saver_sessions import eager_values, make_saver, partitioned, variable

from estimator_ckpt import compare_checkpoints, make_scaffold
from estimator_ckpt.errors import WriteError
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.images import Image
from estimator_ckpt.saving.snapshots import _DTYPES, Snapshot, may_be

v1 = tf.compat.v1


class Gate:
    """Stands before what a thread writes. It is open, until it is shut.

    Attributes:
      error: what is raised there in place of the next write.
    """

    def __init__(self):
        self._is_open = threading.Event()
        self._is_open.set()
        self.error = None

    def pass_through(self):
        assert self._is_open.wait(60), "nobody has opened the gate"
        error, self.error = self.error, None
        if error is not None:
            raise error

    def shut(self):
        self._is_open.clear()

    @contextlib.contextmanager
    def shutting(self):
        self.shut()
        try:
            yield
        finally:
            self._is_open.set()

    def open_soon(self):
        """Shuts it, until whoever goes on now is sure to wait for what is behind it, if at all."""
        self.shut()
        threading.Timer(0.3, self._is_open.set).start()


@pytest.fixture
def gate(monkeypatch):
    """Between the snapshot and what writes it."""
    gate = Gate()
    for kind in (Image, Snapshot):

        def write_later(snapshot, prefix, write=kind.write):
            gate.pass_through()
            write(snapshot, prefix)

        monkeypatch.setattr(kind, "write", write_later)
    return gate


@pytest.fixture(params=["own", "cluster"])
def target(request):
    """Of a session: of its own, or of a server, which holds snapshots in a staging area."""
    if request.param == "own":
        return ""
    return tf.distribute.Server.create_local_server().target


def updates():
    """The kinds of update: variable by name, and the op that changes it."""
    fives = tf.fill([2, 3], 5.0)
    ops = {
        "assign": lambda v: v1.assign(v, v * 2.0 + 1.0),
        "assign_add": lambda v: v1.assign_add(v, fives[:1] + tf.zeros([4, 3])),
        "assign_sub": lambda v: v1.assign_sub(v, fives[:1] + tf.zeros([4, 3])),
        "scatter_update": lambda v: v1.scatter_update(v, [1, 2], fives + tf.gather(v, [1, 2])),
        "scatter_add": lambda v: v1.scatter_add(v, [0, 3], fives),
        "scatter_nd_add": lambda v: v1.scatter_nd_add(v, [[0], [3]], fives),
        "strided_slice": lambda v: v[1:3].assign(v[1:3] + 1.0),
    }
    for name, update in ops.items():
        yield update(variable(name, [[float(n)] * 3 for n in range(4)]))
    parts = partitioned("parts", 2)
    optimizers = {
        "sgd": v1.train.GradientDescentOptimizer(0.1),
        "momentum": v1.train.MomentumOptimizer(0.1, 0.9),
        "adam": v1.train.AdamOptimizer(0.1),
        "adagrad": v1.train.AdagradOptimizer(0.1),
        "rmsprop": v1.train.RMSPropOptimizer(0.1, centered=True),
    }
    for name, optimizer in optimizers.items():
        dense, sparse = variable(f"{name}/dense", [1.0, 2.0]), variable(f"{name}/sparse", [1.0] * 4)
        loss = tf.reduce_sum(dense**2) + tf.reduce_sum(tf.gather(sparse, [1, 2, 1]) ** 2)
        if name == "adam":
            loss += tf.reduce_sum(tf.nn.embedding_lookup(parts, [0, 5, 11]) ** 2)
        yield optimizer.minimize(loss)


@pytest.mark.parametrize("kind", ["reference", "resource"])
def test_a_checkpoint_has_the_values_of_its_step_whatever_updates_them(
    tmp_path, gate, kind, target
):
    with tf.Graph().as_default(), v1.variable_scope("", use_resource=kind == "resource"):
        step = list(updates())
        variables = {v.op.name: v for v in v1.global_variables() if not v._save_slice_info}
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session(target) as session:
            session.run(v1.global_variables_initializer())
            for number in range(3):  # before a first update, and after it
                # Copies: what is fetched may share the variables' memory.
                values = {n: np.array(v) for n, v in session.run(variables).items()}
                with gate.shutting():
                    prefix = saver.save(session, f"{tmp_path}/model", number)
                    for _ in range(2):
                        session.run(step)
                saver.wait_until_finished()
                found = eager_values(prefix)
                assert found.keys() > values.keys()
                for name, value in values.items():
                    np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, {number}")
                    assert np.any(session.run(variables[name]) != value), f"{name} stands still"


@pytest.mark.parametrize("kind", ["reference", "resource"])
def test_every_dtype_that_is_held_is_held_right(tmp_path, gate, kind, target):
    def of(dtype, numbers):
        if dtype == tf.string:
            return tf.strings.as_string(numbers)
        return tf.cast(numbers, dtype)

    with tf.Graph().as_default(), v1.variable_scope("", use_resource=kind == "resource"):
        dtypes = sorted(_DTYPES)
        ops = []
        for name in dtypes:
            dtype = tf.as_dtype(name)
            v = v1.get_variable(name, initializer=of(dtype, tf.constant([1, 0])))
            ops.append(v1.assign(v, of(dtype, tf.constant([0, 1]))))
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session(target) as session:
            session.run(v1.global_variables_initializer())
            with gate.shutting():
                prefix = saver.save(session, f"{tmp_path}/model")
                session.run(ops)
            saver.wait_until_finished()
        found = eager_values(prefix)
        assert sorted(found) == dtypes
        for name, value in found.items():
            expected = [b"1", b"0"] if name == "string" else [1, 0]
            assert value.astype(object).tolist() == expected, name


def test_tables_and_iterators_are_as_they_were_too(tmp_path, gate):
    """Also where the strings of a table's keys are moved."""
    with tf.Graph().as_default():
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="words")
        dense = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, -1.0, 0, -1, name="ids")
        iterator = v1.data.make_initializable_iterator(tf.data.Dataset.range(10), "numbers")
        saveable = v1.data.experimental.make_saveable_from_iterator(iterator)
        v1.add_to_collection(v1.GraphKeys.SAVEABLE_OBJECTS, saveable)
        following, number = iterator.get_next(), v1.placeholder(tf.int64, [])
        step = [
            table.insert(tf.strings.as_string([number, 0]), [number, number]),
            dense.insert([number, 1], tf.cast([number, number], tf.float32)),
        ]
        look = (
            table.lookup(tf.constant(["0", "1", "2"])),
            dense.lookup(tf.constant([1, 2], tf.int64)),
        )
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session() as session:
            session.run(iterator.initializer)
            session.run([following, *step], {number: 1})
            with gate.shutting():
                prefix = saver.save(session, f"{tmp_path}/model")
                session.run([following, *step], {number: 2})
            saver.wait_until_finished()
            assert [list(v) for v in session.run(look)] == [[2, 1, 2], [2.0, 2.0]]
            saver.restore(session, prefix)
            assert [list(v) for v in session.run(look)] == [[1, 1, -1], [1.0, -1.0]]
            assert session.run(following) == 1


def test_what_no_snapshot_may_hold_is_saved_while_training_waits(tmp_path, caplog):
    with tf.Graph().as_default():
        v1.get_variable(
            "odd", shape=[1], dtype=tf.qint8, initializer=v1.zeros_initializer(), use_resource=True
        )
        variable("w", 1.0)
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session(tf.distribute.Server.create_local_server().target) as session:
            session.run(v1.global_variables_initializer())
            for number in range(2):
                saver.save(session, f"{tmp_path}/model", number)
                assert latest(tmp_path) == f"{tmp_path}/model-{number}"
    (line,) = (r.message for r in caplog.records if "async_checkpoint" in r.message)
    assert "odd is of the dtype qint8" in line


def test_a_variable_on_another_kind_of_device_is_saved_while_training_waits(tmp_path, caplog):
    with tf.Graph().as_default():
        with tf.device("/gpu:0"):
            variable("w", 1.0)
        ops = make_saver("saver", async_checkpoint=True).built.ops
        with v1.Session(tf.distribute.Server.create_local_server().target) as session:
            assert ops.take_snapshot(session, f"{tmp_path}/model") is None
    assert "w is on /device:GPU:0" in caplog.text


@pytest.mark.parametrize(
    ("device", "other", "may"),
    [
        ("", "/job:localhost/replica:0/task:0/device:GPU:0", True),
        ("/job:ps/task:1", "/job:ps/replica:0/task:1/device:GPU:0", True),
        ("/job:ps/task:1", "/job:ps/replica:0/task:0/device:GPU:0", False),
        ("/job:ps/task:0", "/job:chief/replica:0/task:0/device:GPU:0", False),
    ],
)
def test_a_variable_may_be_on_the_devices_of_its_own_process_alone(device, other, may):
    assert may_be(device, other) == may


def test_a_session_with_one_thread_goes_on_training(tmp_path):
    """The thread that saves waits for a snapshot which is not there yet: in a staging area, which
    a session of its own has for what does not leave it, as the state of an iterator."""
    config = v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    with tf.Graph().as_default():
        add = v1.assign_add(variable("w", 1.0), 1.0)
        snapshots = make_saver("saver", async_checkpoint=True).built.ops.snapshots
        with v1.Session(config=config) as session:
            session.run(v1.global_variables_initializer())
            late = snapshots.take(session)
            late.let_go()
            thread = threading.Thread(target=late.write, args=[f"{tmp_path}/model"], daemon=True)
            thread.start()
            thread.join(0.2)
            patience = v1.RunOptions(timeout_in_ms=20_000)
            assert [session.run(add, options=patience) for _ in range(3)] == [2.0, 3.0, 4.0]
            assert thread.is_alive()
            session.run(snapshots.ops.stages, {snapshots.ops.key: late.key})
            thread.join(60)
        assert eager_values(f"{tmp_path}/model")["w"] == 4.0


# --- what is promised of a save ---


class Job:
    """A MonitoredSession on one variable, which has the step in all its elements."""

    def __init__(self, directory, checkpoint_format="both", *, hooks=(), listeners=(), **options):
        self.directory = str(directory)
        with tf.Graph().as_default():
            step = v1.train.get_or_create_global_step()
            w = v1.get_variable("w", initializer=tf.zeros([3]), use_resource=True)
            with tf.control_dependencies([v1.assign_add(w, tf.ones([3]))]):
                self._train = v1.assign_add(step, 1)
            options = {"async_checkpoint": True, "keep_checkpoint_max": 0, **options}
            self.scaffold = make_scaffold(checkpoint_format, **options)
            saves = v1.train.CheckpointSaverHook(
                self.directory, save_steps=1, scaffold=self.scaffold, listeners=listeners
            )
            self.session = v1.train.MonitoredSession(
                v1.train.ChiefSessionCreator(self.scaffold, checkpoint_dir=self.directory),
                [saves, *hooks],
            )

    def __enter__(self):
        self.session.__enter__()
        return self

    def __exit__(self, *error):
        return self.session.__exit__(*error)

    def step(self):
        with self.session.graph.as_default():  # for a session that is made anew
            return self.session.run(self._train)

    def wait(self):
        self.scaffold.saver.wait_until_finished()

    def newest(self):
        """The step of the newest checkpoint that the state file names; its values are of it."""
        prefix = latest(self.directory)
        step = int(prefix.rpartition("-")[2])
        for key, value in eager_values(prefix).items():
            if "OBJECT_GRAPH" not in key and not key.startswith("save_counter"):
                assert np.all(value == step), (prefix, key, value)
        return step


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_nobody_sees_a_checkpoint_before_it_is_complete(tmp_path, gate, checkpoint_format, durable):
    with Job(tmp_path, checkpoint_format, keep_checkpoint_max=1, durable=durable) as job:
        job.wait()
        with gate.shutting():
            job.step()
            assert job.newest() == 0
            assert not (tmp_path / "model.ckpt-1.index").exists()
        job.wait()
        assert job.newest() == 1
    assert read_state(str(tmp_path)).all_model_checkpoint_paths == (f"{tmp_path}/model.ckpt-1",)


def test_no_save_is_skipped_and_each_waits_for_the_one_before(tmp_path, gate):
    with Job(tmp_path) as job:
        job.wait()
        with gate.shutting():
            job.step()
            second = threading.Thread(target=job.step)
            second.start()
            second.join(0.2)
            assert second.is_alive()
        second.join(60)
        for _ in range(3):
            job.step()
    assert job.newest() == 5
    kept = read_state(str(tmp_path)).all_model_checkpoint_paths
    assert kept == tuple(f"{tmp_path}/model.ckpt-{n}" for n in range(6))


def test_listeners_are_called_when_the_checkpoint_is_complete(tmp_path):
    seen = []

    class Listener(v1.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            seen.append((global_step_value, latest(tmp_path)))

    with Job(tmp_path, listeners=[Listener()]) as job:
        job.step()
    assert seen == [(n, f"{tmp_path}/model.ckpt-{n}") for n in range(2)]


def _raises(error):
    def raising(job):
        raise error

    return raising


ENDINGS = {
    "end": lambda job: None,
    "close": lambda job: job.session.close(),
    "ctrl-c": _raises(KeyboardInterrupt()),
    "exit": _raises(SystemExit(143)),
    "error": _raises(RuntimeError("the user's own")),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_training_ends_it_waits_for_the_save_in_flight(tmp_path, gate, ending):
    with contextlib.suppress(KeyboardInterrupt, RuntimeError, SystemExit), Job(tmp_path) as job:
        job.wait()
        gate.open_soon()
        job.step()
        ENDINGS[ending](job)
    assert job.newest() == 1


def _of_an_op(text):
    """The message of TensorFlow's error where an op says this."""
    node = "save/SaveV2"
    before = f"Graph execution error:\n\nDetected at node '{node}' defined at\nNode: '{node}'\n"
    return f"{before}{text}\n\t [[{{{{node {node}}}}}]]"


def test_an_error_is_raised_by_the_next_step_with_its_cause(tmp_path, gate, caplog):
    with Job(tmp_path) as job:
        job.wait()
        gate.error = full = tf.errors.ResourceExhaustedError(
            None, None, _of_an_op("the disk is full")
        )
        job.step()
        job.scaffold.saver._background.join()
        with pytest.raises(WriteError, match=r"model\.ckpt-1: .* the disk is full$") as caught:
            job.step()
        assert caught.value.__cause__ is full
    assert "the disk is full" in caplog.text
    assert job.newest() == 0
    with Job(tmp_path) as job:  # the next start resumes from what is complete
        assert job.step() == 1
    assert job.newest() == 1


def test_an_error_of_the_last_save_is_raised_at_the_end(tmp_path, gate):
    job = Job(tmp_path)
    job.wait()
    gate.error = tf.errors.ResourceExhaustedError(None, None, "the disk is full")
    gate.open_soon()
    job.step()
    with pytest.raises(WriteError, match="the disk is full"):
        job.session.close()
    assert job.newest() == 0


def test_an_error_that_nobody_has_raised_keeps_no_session_alive(tmp_path, gate):
    """The lease of the directory goes with the session."""
    with contextlib.suppress(KeyboardInterrupt), Job(tmp_path) as job:
        job.wait()
        session = weakref.ref(job.session._tf_sess())
        gate.error = tf.errors.ResourceExhaustedError(None, None, "the disk is full")
        gate.open_soon()
        job.step()
        raise KeyboardInterrupt
    gc.collect()
    assert session() is None
    with pytest.raises(WriteError, match="the disk is full"):
        job.wait()


def test_a_save_that_failed_leaves_nothing_for_the_next_one(tmp_path, gate, target):
    with tf.Graph().as_default():
        w = variable("w", 1.0)
        add = v1.assign_add(w, 1.0)
        saver = make_saver("saver", async_checkpoint=True)
        areas = [
            tf.raw_ops.MapSize(dtypes=clear.get_attr("dtypes"), shared_name="snapshot")
            for clear in saver.built.ops.snapshots.ops.clears
        ]
        with v1.Session(target) as session:
            session.run(w.initializer)
            gate.error = tf.errors.UnknownError(None, None, "broken")
            saver.save(session, f"{tmp_path}/model", 1)
            with pytest.raises(WriteError, match="broken"):
                saver.save(session, f"{tmp_path}/model", 2)
            saver.wait_until_finished()
            assert session.run(areas) == [0]
            session.run(add)
            prefix = saver.save(session, f"{tmp_path}/model", 3)
            saver.wait_until_finished()
            assert session.run(areas) == [0]
            assert eager_values(prefix)["w"] == 2.0


@pytest.mark.parametrize("error", [None, tf.errors.AbortedError(None, None, "a worker is gone")])
def test_a_session_that_is_lost_is_closed_when_its_save_has_ended(tmp_path, gate, error):
    """And what it has saved, the next one starts from."""

    class Lost(v1.train.SessionRunHook):
        is_due = False

        def before_run(self, run_context):
            if self.is_due:
                self.is_due = False
                gate.open_soon()
                raise tf.errors.AbortedError(None, None, "a worker is gone")

    lost = Lost()
    with Job(tmp_path, hooks=[lost]) as job:
        job.step()
        job.wait()
        gate.shut()
        gate.error = error
        job.step()
        lost.is_due = True
        assert job.step() == (3 if error is None else 2)
    assert job.newest() == (3 if error is None else 2)


def test_a_save_in_a_graph_that_is_not_final_writes_the_graph_as_it_was(tmp_path, gate):
    with tf.Graph().as_default():
        w = variable("w", 1.0)
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session() as session:
            session.run(w.initializer)
            with gate.shutting():
                prefix = saver.save(session, f"{tmp_path}/model")
                tf.constant(1.0, name="later")
            saver.wait_until_finished()
    with tf.Graph().as_default() as graph, v1.Session() as session:
        imported = v1.train.import_meta_graph(f"{prefix}.meta")
        assert "later" not in [op.name for op in graph.get_operations()]
        # Others save with the ops that a stock Saver has, which wait for no snapshot.
        imported.restore(session, prefix)
        imported.save(session, f"{tmp_path}/again")
    assert eager_values(f"{tmp_path}/again")["w"] == 1.0


def test_two_savers_write_one_directory_each_at_its_time(tmp_path, gate):
    with tf.Graph().as_default():
        a, b = variable("a", 1.0), variable("b", 2.0)
        savers = [make_saver("saver", var_list=[v], async_checkpoint=True) for v in (a, b)]
        with v1.Session() as session:
            session.run([a.initializer, b.initializer])
            with gate.shutting():
                for saver, name in zip(savers, "ab"):
                    saver.save(session, f"{tmp_path}/{name}", 1)
                session.run([v1.assign(a, 0.0), v1.assign(b, 0.0)])
            for saver in savers:
                saver.wait_until_finished()
    assert [eager_values(f"{tmp_path}/{n}-1")[n] for n in "ab"] == [1.0, 2.0]
    listed = read_state(str(tmp_path)).all_model_checkpoint_paths
    assert sorted(listed) == [f"{tmp_path}/a-1", f"{tmp_path}/b-1"]


def test_a_training_comes_to_the_same_bits(tmp_path):
    def build():
        v1.set_random_seed(7)
        noise = v1.get_variable("noise", initializer=v1.random_normal([50]))
        with tf.control_dependencies([v1.assign_add(noise, v1.random_normal([50]))]):
            return build_model()

    ends = []
    for name, options in {"sync": {}, "async": {"async_checkpoint": True}}.items():
        directory = tmp_path / name
        run_job(
            directory,
            lambda options=options: make_scaffold("both", **options),
            build=build,
            steps=3,
            save_checkpoint_steps=1,
        )
        ends.append(latest(directory))
    assert compare_checkpoints(*ends).equal

"""async_checkpoint: a save holds the values of its step, and training goes on meanwhile."""

import contextlib
import threading

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import build_model, latest, run_job
from saver_sessions import eager_values, make_saver, partitioned, variable, whole

from estimator_ckpt import make_scaffold
from estimator_ckpt.errors import BusyError, WriteError
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.snapshots import Snapshot

v1 = tf.compat.v1


class Gate:
    """Stands before what a thread writes. It is open, until it is shut."""

    def __init__(self):
        self._is_open = threading.Event()
        self._is_open.set()
        self.error = None

    def pass_through(self):
        assert self._is_open.wait(60), "nobody has opened the gate"
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def shut(self):
        self._is_open.clear()
        try:
            yield
        finally:
            self._is_open.set()

    def open(self):
        self._is_open.set()


@pytest.fixture
def gate(monkeypatch):
    """Between the snapshot and what writes it."""
    gate, write = Gate(), Snapshot.write

    def write_later(snapshot, prefix):
        gate.pass_through()
        write(snapshot, prefix)

    monkeypatch.setattr(Snapshot, "write", write_later)
    return gate


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
    optimizers = {
        "sgd": v1.train.GradientDescentOptimizer(0.1),
        "momentum": v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
        "adam": v1.train.AdamOptimizer(0.1),
        "adagrad": v1.train.AdagradOptimizer(0.1),
        "adadelta": v1.train.AdadeltaOptimizer(1.0),
        "rmsprop": v1.train.RMSPropOptimizer(0.1, momentum=0.9, centered=True),
        "ftrl": v1.train.FtrlOptimizer(0.1),
    }
    averages = tf.train.ExponentialMovingAverage(0.5)
    for name, optimizer in optimizers.items():
        dense, sparse = variable(f"{name}/dense", [1.0, 2.0]), variable(f"{name}/sparse", [[1.0]] * 4)
        parts = partitioned(f"{name}/parts", 3)
        loss = tf.reduce_sum(dense**2) + tf.reduce_sum(tf.gather(sparse, [1, 2, 1]) ** 2)
        loss += tf.reduce_sum(tf.nn.embedding_lookup(parts, [0, 5, 11]) ** 2)
        with tf.control_dependencies([optimizer.minimize(loss)]):
            yield averages.apply([dense])


@pytest.mark.parametrize("kind", ["reference", "resource"])
def test_a_checkpoint_has_the_values_of_its_step_whatever_updates_them(tmp_path, gate, kind):
    with tf.Graph().as_default(), v1.variable_scope("", use_resource=kind == "resource"):
        step = list(updates())
        variables = {v.op.name: v for v in v1.global_variables() if not v._save_slice_info}
        saver = make_saver("saver", async_checkpoint=True)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for number in range(3):  # before a first update, and after it
                # Copies: what is fetched may share the variables' memory.
                values = {n: np.array(v) for n, v in session.run(variables).items()}
                with gate.shut():
                    prefix = saver.save(session, f"{tmp_path}/model", number)
                    for _ in range(2):
                        session.run(step)
                saver.wait_until_finished()
                found = eager_values(prefix)
                assert found.keys() > values.keys()
                for name, value in values.items():
                    np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, {number}")
                    assert np.any(session.run(variables[name]) != value), f"{name} stands still"

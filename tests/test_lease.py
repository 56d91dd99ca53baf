"""Two trainers in one model_dir by mistake: the second is refused, and told of the first."""

import gc
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from graph_jobs import assert_same, latest, read_with_stock_saver, run_job
from saver_sessions import make_saver, save, variable
from tensorflow_party import tf

from estimator_ckpt import make_scaffold
from estimator_ckpt.errors import BusyError
from estimator_ckpt.files import claims
from estimator_ckpt.saving import keeping, lease

v1 = tf.compat.v1
ROOT = Path(__file__).resolve().parents[1]


def scaffold():
    return make_scaffold("both")


def lease_of(directory):
    return os.path.join(directory, "checkpoint.lease")


@pytest.fixture
def other(tmp_path):
    """Another process that has the lease of a directory."""
    script = f"""
import sys
from estimator_ckpt.files import claims
claims.acquire({lease_of(tmp_path)!r}, "training")
print("taken", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_trainer_is_refused_before_it_writes_anything(tmp_path, monkeypatch, other):
    monkeypatch.setattr(lease, "_WAIT", 0.0)
    before = set(os.listdir(tmp_path))
    with pytest.raises(BusyError) as caught:
        run_job(tmp_path, scaffold)
    assert str(caught.value).startswith(f"{lease_of(tmp_path)}: another is at work here: training")
    assert f"process {other.pid} on {platform.node()}, since 20" in str(caught.value)
    left = {name for name in os.listdir(tmp_path) if not name.startswith("events.")}
    assert left - before <= {"graph.pbtxt"}


def test_a_trainer_that_was_killed_is_followed_at_once(tmp_path, other):
    other.kill()
    other.wait()
    start = time.monotonic()
    _, end = run_job(tmp_path, scaffold)
    assert time.monotonic() - start < lease._WAIT / 2
    assert_same(read_with_stock_saver(latest(tmp_path)), end)


def test_the_lease_goes_with_the_session(tmp_path):
    run_job(tmp_path, scaffold)
    with claims.acquire(lease_of(tmp_path), "another", wait=5.0):
        pass


def test_a_job_that_lost_its_lease_stops_before_the_state_file(tmp_path):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        with v1.Session() as session:
            session.run(a.initializer)
            first = saver.save(session, str(tmp_path / "model"), 1)
            shutil.copy(lease_of(tmp_path), tmp_path / "copy")
            os.remove(lease_of(tmp_path))
            other = claims.acquire(lease_of(tmp_path), "training elsewhere")
            with pytest.raises(BusyError, match=r"taken over this model_dir.*training elsewhere"):
                saver.save(session, str(tmp_path / "model"), 2)
            assert latest(tmp_path) == first
            other.release()


def test_a_remote_directory_has_none_which_a_warning_says_with_who_was_there(tmp_path, caplog):
    with claims.acquire(lease_of(tmp_path), "training"):
        content = Path(lease_of(tmp_path)).read_bytes()
    directory = f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(lease_of(directory), "wb") as file:  # as a copy of the directory has it
        file.write(content)
    session = type("Session", (), {})()
    keeping.keeper_of(directory, "checkpoint").begin(f"{directory}/model-1", session)
    assert re.search(rf"would not be noticed.* training: process {os.getpid()} on", caplog.text)
    assert tf.io.gfile.GFile(lease_of(directory), "rb").read() == content


@pytest.mark.parametrize("write_state", [False, True])
def test_only_what_writes_the_state_file_takes_it(tmp_path, write_state):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        with v1.Session() as session:
            session.run(a.initializer)
            saver.restore(session, save(saver, tmp_path / ".."))
            saver.save(session, str(tmp_path / "model"), write_state=write_state)
            assert os.path.exists(lease_of(tmp_path)) == write_state


def test_two_savers_of_one_process_share_it(tmp_path):
    for _ in range(2):
        with tf.Graph().as_default():
            variable("a", 1.0)
            one, two = make_saver("both"), make_saver("saver")
            with v1.Session() as session, v1.Session() as another:
                session.run(v1.global_variables_initializer())
                another.run(v1.global_variables_initializer())
                one.save(session, str(tmp_path / "model"), 1)
                two.save(another, str(tmp_path / "model"), 2)


def test_a_fork_that_drops_the_session_leaves_the_lease(tmp_path):
    """Nor does it wait for the lock, which another thread may have had when it was forked."""

    class Session:
        pass

    session = Session()
    held = lease.Lease(str(tmp_path), "checkpoint")
    held.take(session)
    content = Path(lease_of(tmp_path)).read_bytes()
    with held._lock:
        child = os.fork()
        if not child:
            threads = threading.active_count()
            del session
            gc.collect()
            os._exit(threading.active_count() - threads)
    assert os.waitpid(child, 0)[1] == 0
    assert Path(lease_of(tmp_path)).read_bytes() == content
    del session
    gc.collect()
    assert not os.path.exists(lease_of(tmp_path))


def test_a_fork_that_saves_is_a_second_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_WAIT", 0.0)
    keeper = keeping.keeper_of(str(tmp_path), "checkpoint")
    session = type("Session", (), {})()
    keeper.begin(str(tmp_path / "model-1"), session)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    child = os.fork()
    if not child:
        code = 1
        try:
            keeping.keeper_of(str(tmp_path), "checkpoint").begin(str(tmp_path / "model-2"), session)
        except BusyError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

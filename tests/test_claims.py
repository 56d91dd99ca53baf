"""Claims: exactly one owner, who is named; never taken from one that may be alive."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tensorflow_party import WITH_TENSORFLOW

import estimator_ckpt
from estimator_ckpt import files
from estimator_ckpt.errors import BusyError, NotACheckpointError, WriteError
from estimator_ckpt.files import claims
from estimator_ckpt.files.claims import acquire, find_owner

ROOT = Path(estimator_ckpt.__file__).parent.parent

HOLD = """
import sys
from estimator_ckpt.files.claims import acquire
claim = acquire(sys.argv[1], "a test")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "job.lease")


@pytest.fixture(params=["nameless", "named", "no links"])
def way(request, monkeypatch):
    """The three ways to make the file, for three kinds of file systems."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no links here")

    if request.param != "nameless":
        monkeypatch.delattr(os, "O_TMPFILE")
    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)
    return request.param


@contextlib.contextmanager
def holder(path):
    """Another process that holds the claim, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def change(path, **fields):
    """Makes a claim say something else."""
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**content, "beat": "0000000000", **fields}))


def names(path):
    return sorted(os.listdir(os.path.dirname(path)))


def test_one_owner_at_a_time_who_is_named(path, way):
    with acquire(path, "a conversion") as claim:
        assert names(path) == ["job.lease"]
        assert claim.holds()
        found = find_owner(path)
        assert (found.work, found.pid) == ("a conversion", os.getpid())
        with pytest.raises(BusyError, match="a conversion: process") as raised:
            acquire(path, "another")
        assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in str(raised.value)
        assert claim.holds()
    assert names(path) == []
    acquire(path, "another").release()


def test_another_process_that_is_alive_keeps_it(path):
    with holder(path) as process:
        with pytest.raises(BusyError, match=f"a test: process {process.pid} on"):
            acquire(path, "a conversion")
        assert find_owner(path).pid == process.pid


def test_a_killed_process_loses_it_at_once_though_nobody_has_waited_for_it(path, way):
    with holder(path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        with acquire(path, "a conversion") as claim:
            assert claim.holds()
            assert names(path) == ["job.lease"]
    assert names(path) == []


@pytest.mark.parametrize("field", ["pid", "began"])
def test_a_process_id_that_was_given_to_another_process_is_no_owner(field, path):
    with holder(path):
        change(path, **{field: 2**30 if field == "pid" else find_owner(path).began + 1})
        acquire(path, "a conversion").release()


def test_a_claim_that_this_process_has_let_go_of_is_no_owner(path):
    acquire(path, "a conversion").abandon()  # as a release on a broken disk, or before an exec()
    assert names(path) == ["job.lease"]
    acquire(path, "a conversion").release()
    assert names(path) == []


@pytest.mark.parametrize(
    "elsewhere", [{"boot": "another"}, {"namespace": "pid:[1]"}, {"boot": "", "namespace": ""}]
)
def test_what_cannot_be_looked_at_is_dead_once_it_stood_still(elsewhere, path, monkeypatch):
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "STALE", 0.3)
    acquire(path, "a job").abandon()
    change(path, pid=2**30, **elsewhere)
    start = time.monotonic()
    with acquire(path, "a conversion") as claim:
        assert 0.3 <= time.monotonic() - start < 30
        assert claim.holds()
        assert names(path) == ["job.lease"]


def test_what_cannot_be_looked_at_but_beats_keeps_it(path, monkeypatch):
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "BEAT", 0.1)
    with acquire(path, "a job") as claim:
        monkeypatch.setattr(claims, "_is_alive", lambda _: None)
        with pytest.raises(BusyError, match="a job: process"):
            acquire(path, "a conversion")
        start = time.monotonic()
        with pytest.raises(BusyError, match="a job: process"):
            acquire(path, "a conversion", wait=0.5)
        assert time.monotonic() - start >= 0.5
        assert claim.holds()


def linked(source, destination):
    shutil.copytree(source, destination, copy_function=os.link)


@pytest.mark.parametrize("copy", [shutil.copytree, linked])
def test_a_copy_of_the_directory_is_free_while_the_owner_works_on(
    copy, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "COPY", 0.2)
    (tmp_path / "run").mkdir()
    path, copied = str(tmp_path / "run" / "job.lease"), str(tmp_path / "copy" / "job.lease")
    with holder(path) as process:
        content = Path(path).read_bytes()
        copy(tmp_path / "run", tmp_path / "copy")
        start = time.monotonic()
        with acquire(copied, "a job in the copy") as claim:
            assert (time.monotonic() - start >= 0.2) == (copy is not linked)
            named = re.search(rf"that this is a copy of: .*process {process.pid} on", caplog.text)
            assert bool(named) == (copy is not linked)
            assert claim.holds()
            assert Path(path).read_bytes() == content
            with pytest.raises(BusyError, match=f"process {process.pid} on"):
                acquire(path, "another job")


def test_a_directory_that_is_renamed_still_has_its_owner(tmp_path):
    (tmp_path / "run").mkdir()
    with holder(str(tmp_path / "run" / "job.lease")) as process:
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(BusyError, match=f"process {process.pid} on"):
            acquire(str(tmp_path / "moved" / "job.lease"), "another job")


def test_what_beats_is_no_copy_though_its_directory_has_another_number(path, monkeypatch):
    """So it is where a directory is mounted twice."""
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims, "COPY", 1.0)
    with acquire(path, "a job") as claim:
        change(path, place="1:1")
        with pytest.raises(BusyError, match="a job: process"):
            acquire(path, "another", wait=0.2)
        assert claim.holds()


def test_who_waits_gets_it_when_the_owner_ends(path, monkeypatch):
    monkeypatch.setattr(claims, "_POLL", 0.01)
    with holder(path) as process:
        monkeypatch.setattr(claims.time, "sleep", lambda _: process.kill())
        acquire(path, "a job", wait=60).release()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 300, b'{"beat": "00', b"host 123", b"[]", b"{}", b"\xff", b"[" * 4096],
    ids=["empty", "zeros", "torn", "other", "list", "object", "binary", "deep"],
)
def test_a_claim_that_says_nothing_is_no_obstacle(content, path):
    Path(path).write_bytes(content)
    with acquire(path, "a conversion") as claim:
        assert claim.holds()
    assert names(path) == []


@pytest.mark.parametrize(
    "wrong", [{"pid": -1}, {"pid": 10**40}, {"since": 1e300}, {"work": 3}, {"began": "1"}], ids=str
)
def test_a_claim_with_wrong_fields_says_nothing(wrong, path):
    acquire(path, "a conversion").abandon()
    change(path, **wrong)
    assert find_owner(path) is None
    acquire(path, "a conversion").release()


def test_where_files_have_names_at_once_an_empty_claim_may_be_one_that_is_written(
    path, monkeypatch
):
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "STALE", 0.2)
    Path(path).write_bytes(b"")
    start = time.monotonic()
    acquire(path, "a conversion").release()
    assert time.monotonic() - start >= 0.2


def test_of_many_that_find_a_dead_claim_one_gets_it(path):
    """Each tells for how long it had the claim; no two of these times meet."""
    code = (
        "import sys, time\n"
        "from estimator_ckpt.files.claims import acquire\n"
        "from estimator_ckpt.errors import BusyError\n"
        "sys.stdin.read()\n"
        "won = 0\n"
        "while won < 10:\n"
        "    try:\n"
        "        claim = acquire(sys.argv[1], 'a test')\n"
        "    except BusyError:\n"
        "        continue\n"
        "    start = time.monotonic()\n"
        "    assert claim.holds()\n"
        "    time.sleep(0.001)\n"
        "    assert claim.holds()\n"
        "    print(start, time.monotonic())\n"
        "    claim.abandon()\n"
        "    won += 1\n"
    )
    acquire(path, "a job").abandon()
    command = [sys.executable, "-c", code, path]
    rivals = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for rival in rivals:
        rival.stdin.close()
    times = []
    for rival in rivals:
        times += [tuple(map(float, line.split())) for line in rival.stdout]
        rival.stdout.close()
        assert rival.wait() == 0
    times.sort()
    assert len(times) == 30
    assert all(end < start for (_, end), (start, _) in zip(times, times[1:]))
    assert names(path) == ["job.lease"]


def test_a_claim_that_was_taken_over_is_neither_changed_nor_removed(path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    lost = acquire(path, "a job")
    os.remove(path)
    monkeypatch.setattr(claims, "BEAT", 100.0)
    with acquire(path, "another") as claim:
        content = Path(path).read_bytes()
        os.sched_yield()
        assert not lost.holds()
        lost.release()
        assert claim.holds()
        assert Path(path).read_bytes() == content


def test_the_last_word_is_written_before_the_file_is_closed(path, monkeypatch):
    """Else it is lost, and others wait for an owner that is none; or it goes to another file."""
    claim = acquire(path, "a job")
    thread = [one for one in threading.enumerate() if one.name == "claim"][-1]
    write = os.pwrite

    def write_late(*args):
        thread.join(0.1)  # which closes the file when it ends
        return write(*args)

    monkeypatch.setattr(os, "pwrite", write_late)
    claim.abandon()
    assert b"abandoned" in Path(path).read_bytes()


def test_a_fork_has_no_part_in_it(path):
    with acquire(path, "a job") as claim:
        child = os.fork()
        if not child:
            held = claim.holds()
            claim.release()
            claim.abandon()
            os._exit(int(held))
        assert os.waitpid(child, 0)[1] == 0
        assert claim.holds()
        with pytest.raises(BusyError):
            acquire(path, "another")


def test_a_full_disk_leaves_nothing(path, way, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(WriteError, match="No space left"):
            acquire(path, "a conversion")
    assert names(path) == []


def test_what_a_kill_left_that_was_about_to_make_it_is_cleared_away(path, way, monkeypatch):
    monkeypatch.setattr(claims, "STALE", 0.1)
    monkeypatch.setattr(claims, "_POLL", 0.01)
    left = f"{path}.{'0' * 16}"
    Path(left).write_bytes(b"")
    Path(f"{path}.old").write_bytes(b"")
    with acquire(path, "a job"):
        cleared = way != "nameless"  # where it leaves nothing
        assert (not os.path.exists(left)) == cleared
        assert os.path.exists(f"{path}.old")
    Path(path).write_text("of a dead process")  # taken over
    with acquire(path, "a job"):
        assert names(path) == ["job.lease", "job.lease.old"]


def test_who_is_about_to_make_it_finds_that_another_was_first(path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    real = os.link

    def late(own_name, target):
        monkeypatch.setattr(os, "link", real)
        acquire(target, "the first")
        assert not os.path.exists(own_name)
        real(own_name, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(BusyError, match="the first: process"):
        acquire(path, "the second")
    assert names(path) == ["job.lease"]


def test_what_is_no_file_is_said(path, tmp_path):
    with pytest.raises(WriteError, match="No such file"):
        acquire(f"{path}/deeper/m", "a conversion")
    os.symlink("nowhere", path)
    with pytest.raises(NotACheckpointError, match="No such file"):
        acquire(path, "a conversion")
    os.remove(path)
    os.mkfifo(path)
    with pytest.raises(NotACheckpointError, match="found a pipe"):
        acquire(path, "a conversion")


# --- remote paths: of TensorFlow's file systems in memory, or fsspec's ---


@pytest.fixture
def remote(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_POLL", 0.01)
    monkeypatch.setattr(claims, "BEAT", 0.05)
    scheme = "ram" if WITH_TENSORFLOW else "memory"
    directory = f"{scheme}://{tmp_path.name}"
    files.make_dirs(directory)
    return f"{directory}/model.ckpt-1.converting"


def test_a_remote_claim_beats_while_its_owner_lives_and_is_gone_with_it(remote, monkeypatch):
    with acquire(remote, "a job") as claim:
        first = files.read_bytes(remote)
        monkeypatch.setattr(claims, "_is_alive", lambda _: None)  # another machine's
        with pytest.raises(BusyError, match="a job: process"):
            acquire(remote, "a conversion", wait=0.3)
        assert files.read_bytes(remote) != first
        assert claim.holds()
    time.sleep(0.2)  # no beat brings it back
    assert not files.exists(remote)


def test_a_remote_claim_that_beats_no_more_is_taken_over_and_its_owner_leaves_it(
    remote, monkeypatch
):
    monkeypatch.setattr(claims, "STALE", 0.5)
    monkeypatch.setattr(claims, "_is_alive", lambda _: None)
    first = acquire(remote, "a worker")
    monkeypatch.setattr(first, "_say", lambda beat: None)  # it is cut off
    second = acquire(remote, "its successor")
    assert second.after_dead
    monkeypatch.undo()
    time.sleep(0.2)
    assert second.holds()
    first.release()
    assert second.holds()
    second.release()
    assert not files.exists(remote)


def test_a_thread_of_the_owners_process_sees_it_alive_from_the_first_moment(path, monkeypatch):
    create, refusals = claims.exclusive.create, []

    def create_and_look(*arguments):
        descriptor = create(*arguments)
        with pytest.raises(BusyError) as refusal:
            acquire(path, "another")
        refusals.append(refusal)
        return descriptor

    def create_once(*arguments):
        monkeypatch.setattr(claims.exclusive, "create", create)
        return create_and_look(*arguments)

    monkeypatch.setattr(claims.exclusive, "create", create_once)
    with acquire(path, "a test") as claim:
        assert claim.holds()
    assert len(refusals) == 1

"""Snapshots in memory: laid out as data files, and written past the page cache."""

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from saver_sessions import eager_values, make_saver, partitioned, variable

from estimator_ckpt import files
from estimator_ckpt.bundle import image as image_module
from estimator_ckpt.bundle.image import BundleImage, Tensor
from estimator_ckpt.errors import WriteError
from estimator_ckpt.saving.snapshots import _DTYPES

v1 = tf.compat.v1
BLOCK = 64 << 10


def all_kinds():
    """Variables of every dtype in several shapes, long strings, slices, several devices."""
    for name in (*sorted(_DTYPES), "qint8", "qint32", "int4", "float8_e5m2"):
        dtype = tf.as_dtype(name)
        for shape in ([], [3], [0], [2, 0, 3]):
            is_text = dtype == tf.string
            ones = np.full(shape, "a\0é") if is_text else np.ones(shape, dtype.as_numpy_dtype)
            value = tf.constant(ones, dtype, shape)
            v1.get_variable(f"{name}/{len(shape)}_{sum(shape)}", initializer=value)
    v1.get_variable("large", initializer=tf.random.uniform([300_007], seed=1))
    v1.get_variable("long", initializer=tf.fill([3], "x" * 200))
    partitioned("only_one", 1)
    with v1.get_default_graph().device(lambda op: "/cpu:1" if "part_1" in op.name else ""):
        partitioned("rows", 3)
    with tf.device("/cpu:1"):
        v1.get_variable("elsewhere", initializer=tf.range(5))
        partitioned("all_elsewhere", 2)


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_the_files_are_byte_for_byte_those_of_savev2(tmp_path, checkpoint_format):
    with tf.Graph().as_default(), v1.variable_scope("", use_resource=True):
        all_kinds()
        saver = make_saver(checkpoint_format)
        ours = make_saver(checkpoint_format, async_checkpoint=True).built.ops
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            session.run(saver.saver_def.save_tensor_name, {"save/filename:0": f"{tmp_path}/stock"})
            for _ in range(2):  # the second one in the memory of the first
                image = ours.take_snapshot(session, f"{tmp_path}/ours")
            image.write(f"{tmp_path}/ours")
    names = [f".{end}" for end in ("index", "data-00000-of-00002", "data-00001-of-00002")]
    for name in names:
        assert (tmp_path / f"ours{name}").read_bytes() == (tmp_path / f"stock{name}").read_bytes()


def test_a_snapshot_of_another_size_has_nothing_of_the_one_before(tmp_path):
    with tf.Graph().as_default():
        v = tf.Variable(tf.zeros([0]), shape=[None], name="v")
        w = variable("w", 1.0)
        saver = make_saver("saver", async_checkpoint=True)
        size = v1.placeholder(tf.int32, [])
        grow = v.assign(tf.cast(tf.range(size), tf.float32))
        with v1.Session() as session:
            session.run([v.initializer, w.initializer])
            for number in (100_000, 3, 200_000):
                session.run(grow, {size: number})
                prefix = saver.save(session, f"{tmp_path}/model", number)
                saver.wait_until_finished()
                found = eager_values(prefix)
                np.testing.assert_array_equal(found["v"], np.arange(number))
                assert found["w"] == 1.0
                assert os.path.getsize(f"{prefix}.data-00000-of-00001") == 4 * number + 4


def test_what_reads_a_session_does_not_keep_it_alive(tmp_path):
    with tf.Graph().as_default():
        w = variable("w", 1.0)
        saver = make_saver("saver", async_checkpoint=True)

        def save():
            with v1.Session() as session:
                session.run(w.initializer)
                saver.save(session, f"{tmp_path}/model")
                saver.wait_until_finished()
                image = saver.built.ops.take_snapshot(session, f"{tmp_path}/model").image
                return weakref.ref(session), weakref.ref(image)

        session, image = save()
        gc.collect()
        assert (session(), image()) == (None, None)


def test_each_session_of_a_saver_has_a_snapshot_of_its_own(tmp_path):
    with tf.Graph().as_default():
        w = variable("w", 1.0)
        ops = make_saver("saver", async_checkpoint=True).built.ops
        with v1.Session() as one, v1.Session() as other:
            one.run(w.initializer)
            other.run(v1.assign(w, 2.0))
            images = [ops.take_snapshot(session, f"{tmp_path}/x") for session in (one, other)]
            for name, image in zip("ab", images):
                image.write(f"{tmp_path}/{name}")
    assert [eager_values(f"{tmp_path}/{name}")["w"] for name in "ab"] == [1.0, 2.0]


def test_a_closed_session_is_refused_as_by_any_other_saver(tmp_path):
    with tf.Graph().as_default():
        w = variable("w", 1.0)
        ops = make_saver("saver", async_checkpoint=True).built.ops
        with v1.Session() as session:
            session.run(w.initializer)
            ops.take_snapshot(session, f"{tmp_path}/model")
        with pytest.raises(RuntimeError, match="Attempted to use a closed Session"):
            ops.take_snapshot(session, f"{tmp_path}/model")


def test_memory_that_is_too_small_goes_before_there_is_larger(monkeypatch):
    made, make = [], mmap.mmap

    def noting(*args, **kwargs):
        assert not [memory for memory in made if memory() is not None]
        memory = make(*args, **kwargs)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(mmap, "mmap", noting)
    image = BundleImage(1)
    for size in (1, 2 << 20, 3 << 20):
        values = np.zeros(size, np.uint8)
        image.fill([[Tensor("w", "", tf.uint8.as_datatype_enum, values)]])
    assert len(made) == 3


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTFORK"), reason="as Linux has it")
def test_a_process_that_is_forked_does_not_have_the_memory_too():
    image = BundleImage(1)
    image.fill([[Tensor("w", "", tf.uint8.as_datatype_enum, np.ones(2 << 20, np.uint8))]])
    address = np.frombuffer(image._data_files[0].memory, np.uint8).ctypes.data

    def has_memory():
        with open("/proc/self/maps") as maps:
            ranges = [line.split()[0].split("-") for line in maps]
        return any(int(start, 16) <= address < int(end, 16) for start, end in ranges)

    assert has_memory()
    child = os.fork()
    if not child:
        os._exit(has_memory())
    assert os.waitpid(child, 0)[1] == 0


def test_memory_that_was_not_filled_to_the_end_is_not_filled_again(monkeypatch):
    """A second Ctrl-C does not wait for the threads that copy."""
    made, make, copy = [], mmap.mmap, image_module._copy

    def noting(*args, **kwargs):
        made.append(make(*args, **kwargs))
        return made[-1]

    def interrupted(copies):
        raise KeyboardInterrupt

    monkeypatch.setattr(mmap, "mmap", noting)
    image = BundleImage(1)
    for copying in (copy, interrupted, copy):
        monkeypatch.setattr(image_module, "_copy", copying)
        with contextlib.suppress(KeyboardInterrupt):
            values = np.zeros(100, np.uint8)
            image.fill([[Tensor("w", "", tf.uint8.as_datatype_enum, values)]])
    assert len(made) == 2


def test_where_no_thread_can_be_started_values_are_copied_all_the_same(tmp_path, monkeypatch):
    """As in what Python calls when it ends."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    values = np.arange(1 << 20, dtype=np.int32)
    image = BundleImage(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        image.fill([[Tensor("w", "", tf.int32.as_datatype_enum, values)]])
    image.write(f"{tmp_path}/model")
    np.testing.assert_array_equal(eager_values(f"{tmp_path}/model")["w"], values)


# --- past the page cache ---


def page_aligned(size):
    """Bytes that begin at a page, each unlike its neighbours."""
    pages = np.empty(size + mmap_page(), np.uint8)
    start = -pages.ctypes.data % mmap_page()
    data = pages[start : start + size]
    data[:] = np.arange(size, dtype=np.uint64) * 2654435761 >> 8
    return data.data


def mmap_page():
    return os.sysconf("SC_PAGE_SIZE")


SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, (16 << 20) + BLOCK, (16 << 20) + 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_aligned", [True, False])
def test_a_file_of_any_size_has_its_bytes(tmp_path, size, is_aligned):
    data = page_aligned(size + 1)[:size] if is_aligned else page_aligned(size + 1)[1:]
    files.write_uncached(str(tmp_path / "file"), data)
    assert (tmp_path / "file").read_bytes() == bytes(data)


def test_whole_blocks_go_past_the_cache_and_the_rest_through_it(tmp_path, monkeypatch):
    seen, write = [], os.write

    def noting(descriptor, data):
        is_past = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        seen.append((is_past, len(data)))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", noting)
    files.write_uncached(str(tmp_path / "file"), page_aligned(3 * BLOCK + 5))
    assert seen == [(True, 3 * BLOCK), (False, 5)]


def test_a_file_system_that_cannot_go_past_its_cache_is_written_through_it(tmp_path, monkeypatch):
    """Whether it says so of the file or of what is written; or cuts that short."""
    set_flags, write = fcntl.fcntl, os.write

    def no_direct(descriptor, command, *flags):
        if command == fcntl.F_SETFL and flags[0] & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no such flag")
        return set_flags(descriptor, command, *flags)

    def no_direct_write(descriptor, data):
        if set_flags(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            if len(data) % BLOCK or no_direct_write.is_refused:
                raise OSError(errno.EINVAL, "not aligned")
            return write(descriptor, data[: len(data) - 1000])  # the rest is not aligned any more
        return write(descriptor, data)

    data = page_aligned(3 * BLOCK)
    for case in ("flag", "write", "short"):
        with monkeypatch.context() as patched:
            if case == "flag":
                patched.setattr(fcntl, "fcntl", no_direct)
            else:
                no_direct_write.is_refused = case == "write"
                patched.setattr(os, "write", no_direct_write)
            files.write_uncached(str(tmp_path / case), data)
        assert (tmp_path / case).read_bytes() == bytes(data), case


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, code):
    def fail(descriptor, data):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(WriteError, match=f"file: cannot write the file: {os.strerror(code)}"):
        files.write_uncached(str(tmp_path / "file"), page_aligned(BLOCK))


def test_a_file_that_is_there_is_left_alone(tmp_path):
    path = Path(tmp_path, "file")
    path.write_text("mine")
    with pytest.raises(WriteError, match="File exists"):
        files.write_uncached(str(path), page_aligned(1))
    assert path.read_text() == "mine"

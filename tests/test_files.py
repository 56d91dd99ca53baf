"""Files, local and remote: read, written in one step, linked or copied, errors with their words."""

import errno
import os
import stat

import pytest

from estimator_ckpt import files
from estimator_ckpt.errors import NotACheckpointError, WriteError
from estimator_ckpt.files import copies

REMOTE = [
    ("gs://bucket/model", True),
    ("s3://b", True),
    ("ram://x", True),
    ("file:///tmp/x", True),
    ("/tmp/model.ckpt-7", False),
    ("model.ckpt-7", False),
    ("a:b", False),
    ("", False),
    ("://x", False),
]


def failing(number):
    """A function of the operating system that fails."""

    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return fail


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(params=["local", "remote"])
def place(request, tmp_path):
    """A directory, as a path of this system and as one for tf.io.gfile."""
    return f"file://{tmp_path}" if request.param == "remote" else str(tmp_path)


@pytest.mark.parametrize(("path", "expected"), REMOTE)
def test_remote_paths_have_a_scheme(path, expected):
    assert files.is_remote(path) == expected


# --- both kinds of paths ---


def test_looking(place, tmp_path):
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "a").mkdir()
    assert files.list_dir(place) == ["a", "b"]
    assert [files.exists(f"{place}/{name}") for name in "abc"] == [True, True, False]
    assert [files.is_dir(f"{place}/{name}") for name in "abc"] == [True, False, False]
    assert files.size(f"{place}/b") == 5


def test_no_directory_is_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert files.list_dir(os.path.dirname("model.ckpt")) == ["a"]


def test_reading(place, tmp_path):
    (tmp_path / "b").write_bytes(b"12345")
    assert files.read_bytes(f"{place}/b") == b"12345"
    assert bytes(files.map_bytes(f"{place}/b")) == b"12345"
    with files.open_read(f"{place}/b") as file:
        assert file.read() == b"12345"


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 5, b"12345"), (1, 2, b"23"), (4, 9, b"5"), (5, 1, b""), (9, 1, b""), (1, 2**62, b"2345")],
)
def test_reading_a_range(place, tmp_path, offset, size, expected):
    (tmp_path / "b").write_bytes(b"12345")
    assert files.read_range(f"{place}/b", offset, size) == expected


def test_reading_an_empty_file(place, tmp_path):
    (tmp_path / "b").touch()
    assert (files.read_bytes(f"{place}/b"), bytes(files.map_bytes(f"{place}/b"))) == (b"", b"")


@pytest.mark.parametrize(
    "read",
    [
        files.read_bytes,
        files.map_bytes,
        files.size,
        files.list_dir,
        lambda path: files.read_range(path, 0, 1),
    ],
)
def test_reading_what_is_not_there(place, read):
    with pytest.raises(NotACheckpointError, match=r"cannot .*[Nn]o(t| such) ") as caught:
        read(f"{place}/missing")
    assert caught.value.path == f"{place}/missing"


def test_writing(place, tmp_path):
    files.write_atomic(f"{place}/b", b"old")
    files.write_atomic(f"{place}/b", b"new")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert names(tmp_path) == ["b"]


def test_writing_where_there_is_no_directory(place, tmp_path):
    with pytest.raises(WriteError, match="cannot write the file: ") as caught:
        files.write_atomic(f"{place}/missing/b", b"new")
    assert caught.value.path == f"{place}/missing/b"


def test_renaming_and_removing(place, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    files.rename(f"{place}/a", f"{place}/b")
    assert (tmp_path / "b").read_bytes() == b"a"
    files.remove(f"{place}/b")
    files.remove(f"{place}/b")  # nothing to do
    assert names(tmp_path) == []
    with pytest.raises(WriteError, match=r"cannot rename .*/a to this: "):
        files.rename(f"{place}/a", f"{place}/b")


def test_a_new_name_holds_the_same_bytes(place, tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    way = files.link_or_copy(f"{place}/a", f"{place}/b")
    assert way == ("copy" if files.is_remote(place) else "link")
    assert (tmp_path / "b").read_bytes() == b"12345"


@pytest.mark.parametrize("copy", [False, True])
def test_a_destination_that_exists_is_never_written(place, tmp_path, copy):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(WriteError, match=r"cannot link or copy .*/a to this: .*exists") as caught:
        files.link_or_copy(f"{place}/a", f"{place}/b", copy=copy)
    assert caught.value.path == f"{place}/b"
    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_remote_copy_reports_its_end(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    seen = []
    files.link_or_copy(
        f"{tmp_path}/a", f"file://{tmp_path}/b", progress=lambda *done: seen.append(done)
    )
    assert seen == [(5, 5)]


def test_a_file_system_of_tensorflow_alone(tmp_path):
    import tensorflow as tf

    files.write_atomic("ram://files/b", b"12345")
    assert tf.io.gfile.listdir("ram://files") == ["b"]
    assert files.read_range("ram://files/b", 1, 2) == b"23"
    files.remove("ram://files/b")
    assert not files.exists("ram://files/b")


# --- local paths ---


@pytest.mark.parametrize("read", [files.read_bytes, files.map_bytes, files.open_read])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotACheckpointError, match="expected a file, found a pipe"):
        read(str(tmp_path / "pipe"))


def test_a_path_that_cannot_be_one():
    with pytest.raises(NotACheckpointError, match=r"cannot read the file: .*embedded null"):
        files.read_bytes("a\0b")
    with pytest.raises(WriteError, match=r"cannot write the file: .*embedded null"):
        files.write_atomic("a\0b", b"")


def test_written_files_have_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "a").touch()
    files.write_atomic(str(tmp_path / "b"), b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, number, function):
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(WriteError, match=f"cannot write the file: {os.strerror(number)}"):
        files.write_atomic(str(tmp_path / "b"), b"new")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_an_interrupted_write_leaves_everything_as_it_was(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(str(tmp_path / "b"), b"new")
    assert names(tmp_path) == []


def test_a_link_shares_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b")) == "link"
    assert (tmp_path / "a").samefile(tmp_path / "b")


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dir").mkdir()
    assert files.link_or_copy(str(tmp_path / "link"), str(tmp_path / "dir" / "b")) == "link"
    assert not (tmp_path / "dir" / "b").is_symlink()
    assert (tmp_path / "a").samefile(tmp_path / "dir" / "b")


@pytest.mark.parametrize("copy", [False, True])
def test_a_source_that_is_missing(tmp_path, copy):
    with pytest.raises(NotACheckpointError, match="No such file") as caught:
        files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b"), copy=copy)
    assert caught.value.path == str(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("copy", [False, True])
def test_a_directory_that_is_missing(tmp_path, copy):
    (tmp_path / "a").touch()
    with pytest.raises(WriteError, match="No such file or directory") as caught:
        files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "missing" / "b"), copy=copy)
    assert caught.value.path == str(tmp_path / "missing" / "b")


def copies_of(tmp_path, monkeypatch, size=100, chunk=40):
    """Copies a file; returns the way and the progress seen."""
    (tmp_path / "a").write_bytes(bytes(range(size)))
    monkeypatch.setattr(copies, "_CHUNK", chunk)
    seen = []
    way = files.link_or_copy(
        str(tmp_path / "a"), str(tmp_path / "b"), progress=lambda *done: seen.append(done)
    )
    assert (tmp_path / "b").read_bytes() == bytes(range(size))
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    return way, seen


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_where_no_link_can_be_made_blocks_are_shared(tmp_path, monkeypatch, number):
    def clone(writing, request, reading):
        assert request == 0x40049409
        os.write(writing, os.pread(reading, 1000, 0))

    monkeypatch.setattr(os, "link", failing(number))
    monkeypatch.setattr("fcntl.ioctl", clone)
    assert copies_of(tmp_path, monkeypatch) == ("reflink", [])


PROGRESS = [(40, 100), (80, 100), (100, 100)]


def test_where_blocks_cannot_be_shared_they_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr("fcntl.ioctl", failing(errno.EOPNOTSUPP))
    assert copies_of(tmp_path, monkeypatch) == ("copy", PROGRESS)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EXDEV, errno.EINVAL])
def test_where_the_kernel_cannot_copy_it_is_done_by_hand(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr("fcntl.ioctl", failing(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "copy_file_range", failing(number), raising=False)
    assert copies_of(tmp_path, monkeypatch) == ("copy", PROGRESS)


def test_where_the_kernel_copies_nothing_it_is_done_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr("fcntl.ioctl", failing(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0, raising=False)
    assert copies_of(tmp_path, monkeypatch) == ("copy", PROGRESS)


def test_a_copy_shares_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    way = files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b"), copy=True)
    (tmp_path / "b").write_bytes(b"other")
    assert way in ("reflink", "copy")
    assert (tmp_path / "a").read_bytes() == b"12345"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_link_that_fails_otherwise_is_an_error(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(WriteError, match=os.strerror(number)):
        files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("function", ["copy_file_range", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_is_removed(tmp_path, monkeypatch, function, number):
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(WriteError, match=os.strerror(number)) as caught:
        files.link_or_copy(str(tmp_path / "a"), str(tmp_path / "b"), copy=True)
    assert caught.value.path == str(tmp_path / "b")
    assert names(tmp_path) == ["a"]


def test_a_full_disk(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    with (
        (tmp_path / "a").open("rb") as reading,
        open("/dev/full", "wb", 0) as full,
        pytest.raises(OSError, match="No space left"),
    ):
        copies._copy_local(reading.fileno(), full.fileno(), None)

"""What is there, and the bytes in it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from typing import IO

from estimator_ckpt.errors import CheckpointError, NotACheckpointError
from estimator_ckpt.files.paths import is_remote, raising
from estimator_ckpt.files.remote import remote_files

_LFS_POINTER = b"version https://git-lfs"
_KINDS = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


def exists(path: str) -> bool:
    """Whether there is a file or directory."""
    with raising(NotACheckpointError, "look for it", path):
        return bool(remote_files().exists(path)) if is_remote(path) else os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether there is a directory."""
    with raising(NotACheckpointError, "look for it", path):
        return bool(remote_files().isdir(path)) if is_remote(path) else os.path.isdir(path)


def list_dir(path: str) -> list[str]:
    """The names in a directory, sorted, without ``path``.

    Raises:
      NotACheckpointError: it is no directory, or cannot be read.
    """
    with raising(NotACheckpointError, "list the directory", path):
        if is_remote(path):
            return sorted(name.rstrip("/") for name in remote_files().listdir(path))
        return sorted(os.listdir(path or os.curdir))  # "": what dirname() says of a bare name


def size(path: str) -> int:
    """The file's size in bytes.

    Raises:
      NotACheckpointError: there is no such file.
    """
    with raising(NotACheckpointError, "read its size", path):
        return int(remote_files().stat(path).length) if is_remote(path) else os.stat(path).st_size


def oddity(path: str) -> str:
    """What stands in the place of a local file's content, for messages; "" for nothing odd."""
    if is_remote(path):
        return ""
    if not os.path.exists(path):
        return "a symbolic link to what is not there" if os.path.islink(path) else ""
    mode = os.stat(path).st_mode
    for is_kind, name in _KINDS.items():
        if is_kind(mode):
            return name
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return lfs_pointer(file.read(len(_LFS_POINTER)))
    return ""


def lfs_pointer(start: bytes) -> str:
    """What a file is that begins so, if it stands for one that Git LFS has not fetched; else ""."""
    found = start.startswith(_LFS_POINTER)
    return "a Git LFS pointer: run `git lfs pull`" if found else ""


def stamp(path: str) -> tuple[int, ...]:
    """What changes when a local file is written again or replaced by another.

    Raises:
      NotACheckpointError: there is no such file.
    """
    with raising(NotACheckpointError, "look for it", path):
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def stamp_or_none(path: str) -> tuple[int, ...]:
    """stamp() of a file; () where there is none, and for remote ones."""
    try:
        return () if is_remote(path) else stamp(path)
    except NotACheckpointError:
        return ()


def open_read(path: str) -> IO[bytes]:
    """Opens a file to read its bytes.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with raising(NotACheckpointError, "read the file", path):
        if is_remote(path):
            return remote_files().GFile(path, "rb")  # type: ignore[no-any-return]
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait for its writer
            raise NotACheckpointError(f"expected a file, found {oddity(path)}", path=path)
        return open(path, "rb")


def read_bytes(path: str) -> bytes:
    """The whole file.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        return file.read()


def read_range(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on; fewer where the file ends before.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        # To read a claimed size allocates it first; the file's own size bounds the claim.
        length = (
            remote_files().stat(path).length if is_remote(path) else os.fstat(file.fileno()).st_size
        )
        if offset >= length:
            return b""
        file.seek(offset)
        return file.read(min(size, length - offset))


def map_bytes(path: str) -> memoryview:
    """The file's bytes, read only where they are looked at; a remote file is read whole.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    if is_remote(path):
        return memoryview(read_bytes(path))
    with raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # which mmap refuses
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_soon(path: str, offset: int, size: int) -> None:
    """Has the kernel read a range of a local file beside us, if it can.

    By itself it reads 128 KiB ahead, which is half as fast where a disk takes several requests at
    once. What is in memory already costs nothing.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError, CheckpointError), open_read(path) as file:
            os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)


def map_range(path: str, offset: int, size: int) -> memoryview:
    """As read_range(), of a local file, but read only where it is looked at.

    It takes memory and a file descriptor until it is let go. Where there are none left, as under a
    limit, it is read.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = min(offset + size, os.fstat(file.fileno()).st_size) - start
        if length <= offset - start:
            return memoryview(b"")
        try:
            data = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start)
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise
            file.seek(offset)
            return memoryview(file.read(length - (offset - start)))
        return memoryview(data)[offset - start :]


def is_linked(path: str) -> bool:
    """Whether other names stand for a local file, so that what is changed shows there, too."""
    with raising(NotACheckpointError, "look for it", path):
        return os.path.islink(path) or os.stat(path).st_nlink > 1

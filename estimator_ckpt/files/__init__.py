"""Files: local ones by the operating system, ``scheme://`` ones by `tf.io.gfile` or fsspec.

Whatever goes wrong comes out as a `CheckpointError` with the path and the system's words for it:
`NotACheckpointError` where a file was to be read, `WriteError` where it was to be written.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import mmap
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import IO, Optional

from estimator_ckpt.errors import (
    CheckpointError,
    NotACheckpointError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files.remote import remote_files

# Called with the bytes done so far and the bytes in all.
Progress = Optional[Callable[[int, int], None]]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FICLONE = 0x40049409  # linux/fs.h: let a file share the blocks of another
_CHUNK = 16 << 20
_LFS_POINTER = b"version https://git-lfs"
_KINDS = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}
# What a file system says that has no hard links, or none to there.
NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def path_text(given: object, key: str = "path") -> str:
    """A path that a user gives, as text, with the home directory in the place of `~`.

    Args:
      given: a str or an os.PathLike of one.
      key: what the argument or the setting is called, for the error.

    Raises:
      SettingsError: it is neither.
    """
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(text, str):
        raise SettingsError(f"expected a path, found {given!r}", key=key)
    return os.path.expanduser(text)


def is_remote(path: str) -> bool:
    """Whether ``path`` is no local one, such as ``gs://bucket/model.ckpt-7``."""
    return _SCHEME.match(path) is not None


@contextlib.contextmanager
def _raising(kind: type[CheckpointError], action: str, path: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or error
        raise kind(f"cannot {action}: {reason}", path=path) from error
    except Exception as error:
        if not is_remote(path):
            raise
        # TensorFlow's file systems raise tf.errors.OpError, which is no OSError.
        raise kind(f"cannot {action}: {getattr(error, 'message', error)}", path=path) from error


# --- looking ---


def exists(path: str) -> bool:
    """Whether there is a file or directory."""
    with _raising(NotACheckpointError, "look for it", path):
        return bool(remote_files().exists(path)) if is_remote(path) else os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether there is a directory."""
    with _raising(NotACheckpointError, "look for it", path):
        return bool(remote_files().isdir(path)) if is_remote(path) else os.path.isdir(path)


def list_dir(path: str) -> list[str]:
    """The names in a directory, sorted, without ``path``.

    Raises:
      NotACheckpointError: it is no directory, or cannot be read.
    """
    with _raising(NotACheckpointError, "list the directory", path):
        if is_remote(path):
            return sorted(name.rstrip("/") for name in remote_files().listdir(path))
        return sorted(os.listdir(path))


def size(path: str) -> int:
    """The file's size in bytes.

    Raises:
      NotACheckpointError: there is no such file.
    """
    with _raising(NotACheckpointError, "read its size", path):
        return int(remote_files().stat(path).length) if is_remote(path) else os.stat(path).st_size


def oddity(path: str) -> str:
    """What stands in the place of a local file's content, for messages; "" for nothing odd."""
    if is_remote(path) or not os.path.exists(path):
        return ""
    mode = os.stat(path).st_mode
    for is_kind, name in _KINDS.items():
        if is_kind(mode):
            return name
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return "a Git LFS pointer: run `git lfs pull`"
    return ""


# --- reading ---


def open_read(path: str) -> IO[bytes]:
    """Opens a file to read its bytes.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with _raising(NotACheckpointError, "read the file", path):
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
    with _raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        return file.read()


def read_range(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on; fewer where the file ends before.

    Raises:
      NotACheckpointError: there is no such file, or it cannot be read.
    """
    with _raising(NotACheckpointError, "read the file", path), open_read(path) as file:
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
    with _raising(NotACheckpointError, "read the file", path), open_read(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # which mmap refuses
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_linked(path: str) -> bool:
    """Whether other names stand for a local file, so that what is changed shows there, too."""
    with _raising(NotACheckpointError, "look for it", path):
        return os.path.islink(path) or os.stat(path).st_nlink > 1


# --- writing ---


def write_atomic(path: str, data: bytes, *, temporary: str | None = None) -> None:
    """Writes a file in one step: a reader finds what was there before, or all of ``data``.

    Args:
      path: the file.
      data: all of it.
      temporary: what it is called until it is whole; None: as TensorFlow calls such files.

    Raises:
      WriteError: the file cannot be written; what was there before is still there.
    """
    if temporary is None:
        temporary = f"{path}.tempstate{int.from_bytes(os.urandom(8), 'big')}"
    with _raising(WriteError, "write the file", path):
        try:
            if is_remote(path):
                with remote_files().GFile(temporary, "wb") as file:
                    file.write(data)
                remote_files().rename(temporary, path, overwrite=True)
            else:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                _sync_directory(path)
        except BaseException:
            with contextlib.suppress(Exception):
                remove(temporary)
            raise


@contextlib.contextmanager
def open_write(path: str, *, append: bool = False, sync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a new file, or the end of one that is there, to write bytes.

    Args:
      path: the file.
      append: whether it is there.
      sync: whether the bytes outlast a power failure once this returns.

    Raises:
      WriteError: the file cannot be written, or is not new. A new one is removed again then, and
        what was appended is cut off.
    """
    with _raising(WriteError, "write the file", path):
        if is_remote(path):
            if not append and exists(path):
                raise WriteError("the file exists", path=path)
            with remote_files().GFile(path, "ab" if append else "wb") as file:
                yield file
            return
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(open(path, "r+b" if append else "xb"))
            descriptor = os.dup(file.fileno())  # as `file` is closed before it is cut off
            undo.callback(os.close, descriptor)
            undo.callback(_undo_write, path, file, descriptor, file.seek(0, os.SEEK_END), append)
            yield file
            file.flush()
            if sync:
                os.fsync(descriptor)
            file.close()
            undo.pop_all()
            os.close(descriptor)


def _undo_write(path: str, file: IO[bytes], descriptor: int, start: int, append: bool) -> None:
    """Takes back what was written, on a full disk, too, where even to close the file may fail."""
    with contextlib.suppress(OSError):
        file.close()
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, start)
    if not append:
        with contextlib.suppress(OSError):
            os.remove(path)


def truncate(path: str, length: int) -> None:
    """Cuts off the end of a local file.

    Raises:
      WriteError: it cannot be written.
    """
    with _raising(WriteError, "cut off the end", path):
        os.truncate(path, length)


def stamp(path: str) -> tuple[int, ...]:
    """What changes when a local file is written again or replaced by another.

    Raises:
      NotACheckpointError: there is no such file.
    """
    with _raising(NotACheckpointError, "look for it", path):
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def make_dirs(path: str) -> None:
    """Makes a directory and those above it, if they are not there.

    Raises:
      WriteError: it cannot be made.
    """
    with _raising(WriteError, "make the directory", path):
        if is_remote(path):
            remote_files().makedirs(path)
        else:
            os.makedirs(path or ".", exist_ok=True)


def _sync_directory(path: str) -> None:
    """Makes a new name of a file last; best effort, as some file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename(source: str, destination: str) -> None:
    """Renames a file, over another one if there is one.

    Raises:
      WriteError: it cannot be renamed.
    """
    with _raising(WriteError, f"rename {source} to this", destination):
        if is_remote(source) or is_remote(destination):
            remote_files().rename(source, destination, overwrite=True)
        else:
            os.replace(source, destination)


def remove(path: str) -> None:
    """Removes a file, if there is one.

    Raises:
      WriteError: it cannot be removed.
    """
    with _raising(WriteError, "remove the file", path):
        if is_remote(path):
            if exists(path):
                remote_files().remove(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def link_or_copy(
    source: str, destination: str, *, copy: bool = False, progress: Progress = None
) -> str:
    """Gives a file a second name: by a hard link, by shared blocks, or by a copy.

    Args:
      source: the file.
      destination: the new name; never a name that exists.
      copy: never by a hard link, so that the two can be changed apart.
      progress: called with the bytes done and the bytes in all while a copy is made.

    Returns:
      "link", "reflink" or "copy", the first that the file system can do.

    Raises:
      WriteError: the destination exists or cannot be written; no part of it is left behind.
      NotACheckpointError: the source cannot be read.
    """
    with _raising(WriteError, f"link or copy {source} to this", destination):
        if is_remote(source) or is_remote(destination):
            total = size(source)
            remote_files().copy(source, destination, overwrite=False)
            if progress:
                progress(total, total)
            return "copy"
        if not copy:
            try:
                os.link(os.path.realpath(source), destination)  # the file, not a symbolic link
                return "link"
            except FileNotFoundError:
                size(source)  # says so if it is the source that is missing
                raise
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
        with open_read(source) as reading, open(destination, "xb") as writing:
            try:
                return _copy(reading.fileno(), writing.fileno(), progress)
            except BaseException:
                os.remove(destination)
                raise


def detach(path: str, own: str, *, check: bool, progress: Progress = None) -> str:
    """Puts a copy of a local file in its place, for which no other name stands.

    Args:
      path: the file, or a symbolic link to it.
      own: what the copy is called until it is whole.
      check: whether to compare the copy with the file before.
      progress: called with the bytes done and the bytes in all while the copy is made.

    Returns:
      "reflink" or "copy", as link_or_copy() does.

    Raises:
      WriteError: no copy can be made, or it is not the same; the file is what it was.
    """
    with _raising(WriteError, "put a copy in its place", path):
        try:
            how = link_or_copy(path, own, copy=True, progress=progress)
            if check and not filecmp.cmp(path, own, shallow=False):
                raise WriteError("a copy of the file is not the same", path=path)
            shutil.copymode(path, own)
            os.replace(own, path)
            _sync_directory(path)
            return how
        except BaseException:
            remove(own)
            raise


def _copy(reading: int, writing: int, progress: Progress) -> str:
    """Copies between file descriptors, in the fastest way that works."""
    try:
        import fcntl

        fcntl.ioctl(writing, _FICLONE, reading)
        os.fsync(writing)
        return "reflink"
    except (ImportError, OSError):
        pass  # another system, another file system, or one that cannot share blocks
    total = os.fstat(reading).st_size
    done = 0
    in_kernel = hasattr(os, "copy_file_range")
    while True:
        if in_kernel:
            try:
                count = os.copy_file_range(reading, writing, _CHUNK)
            except OSError as error:
                if done or error.errno not in NO_LINK | {errno.EINVAL}:
                    raise
                in_kernel = False
                continue
            # Some file systems answer 0 though there is more; reading then goes on by hand.
            in_kernel = bool(count) or done >= total
        if not in_kernel:
            count = _copy_chunk(reading, writing)
        if not count:
            break
        done += count
        if progress:
            progress(done, total)
    os.fsync(writing)
    return "copy"


def _copy_chunk(reading: int, writing: int) -> int:
    data = memoryview(os.read(reading, _CHUNK))
    count = len(data)
    while data:
        data = data[os.write(writing, data) :]
    return count

"""A file under a second name: by a hard link, by shared blocks, or by a copy."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import Optional

from estimator_ckpt.errors import NotACheckpointError, WriteError
from estimator_ckpt.files.ahead import ReadAhead, at_once, parts_of
from estimator_ckpt.files.paths import is_remote, raising, scheme
from estimator_ckpt.files.read import open_read, size
from estimator_ckpt.files.remote import remote_files
from estimator_ckpt.files.write import open_write, remove, sync_directory

# Called with the bytes done so far and the bytes in all.
Progress = Optional[Callable[[int, int], None]]

_FICLONE = 0x40049409  # linux/fs.h: let a file share the blocks of another
_CHUNK = 16 << 20
# What a file system says that has no hard links, or none to there.
NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


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
    if not copy and _link(source, destination):
        return "link"
    return _copy(source, destination, progress)


def link_or_copy_all(
    pairs: Sequence[tuple[str, str]], *, copy: bool = False, progress: Progress = None
) -> list[str]:
    """Does as link_or_copy() with several files; those that are copied are copied at once.

    Args:
      pairs: the files, and their new names.
      copy: never by a hard link.
      progress: called with the bytes copied of all and those in all, from several threads, though
        by one at a time.

    Raises:
      WriteError, NotACheckpointError: as link_or_copy() does; some of the others are there then.
    """
    found = {pair: "link" for pair in pairs if not copy and _link(*pair)}
    left = [pair for pair in pairs if pair not in found]
    done = dict.fromkeys(left, 0)
    total = sum(size(source) for source, _ in left)
    lock = threading.Lock()

    def copied(pair: tuple[str, str]) -> str:
        def report(count: int, _: int) -> None:
            with lock:
                done[pair] = count
                if progress:
                    progress(sum(done.values()), total)

        return _copy(*pair, report)

    found.update(zip(left, at_once(copied, left)))
    return [found[pair] for pair in pairs]


def _link(source: str, destination: str) -> bool:
    """Makes a hard link, if the file system can."""
    if is_remote(source) or is_remote(destination):
        return False
    with raising(WriteError, f"link or copy {source} to this", destination):
        try:
            os.link(os.path.realpath(source), destination)  # the file, not a symbolic link
            return True
        except FileNotFoundError:
            size(source)  # says so if it is the source that is missing
            raise
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            return False


def _copy(source: str, destination: str, progress: Progress) -> str:
    with raising(WriteError, f"link or copy {source} to this", destination):
        if is_remote(source) or is_remote(destination):
            total = size(source)
            if scheme(source) == scheme(destination):  # perhaps within the store, without us
                remote_files().copy(source, destination, overwrite=False)
                if progress:
                    progress(total, total)
            else:
                _copy_ahead(source, destination, total, progress)
            return "copy"
        with open_read(source) as reading, open(destination, "xb") as writing:
            try:
                return _copy_local(reading.fileno(), writing.fileno(), progress)
            except BaseException:
                os.remove(destination)
                raise


def _copy_ahead(source: str, destination: str, total: int, progress: Progress) -> None:
    """Copies between file systems, with several parts of a remote file under way."""
    parts = list(parts_of(source, 0, total))
    with contextlib.closing(ReadAhead(parts)) as ahead, open_write(destination) as writing:
        for part in parts:
            data = ahead.take(part)
            if len(data) != part.size:
                raise NotACheckpointError(
                    f"expected {total} bytes, found {part.offset + len(data)}", path=source
                )
            writing.write(bytes(data))  # as a GFile takes no views
            if progress:
                progress(part.end, total)


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
    with raising(WriteError, "put a copy in its place", path):
        try:
            how = link_or_copy(path, own, copy=True, progress=progress)
            if check and not filecmp.cmp(path, own, shallow=False):
                raise WriteError("a copy of the file is not the same", path=path)
            shutil.copymode(path, own)
            os.replace(own, path)
            sync_directory(path)
            return how
        except BaseException:
            remove(own)
            raise


def _copy_local(reading: int, writing: int, progress: Progress) -> str:
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

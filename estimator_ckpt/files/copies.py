"""A file under a second name: by a hard link, by shared blocks, or by a copy."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable
from typing import Optional

from estimator_ckpt.errors import WriteError
from estimator_ckpt.files.paths import is_remote, raising
from estimator_ckpt.files.read import open_read, size
from estimator_ckpt.files.remote import remote_files
from estimator_ckpt.files.write import remove, sync_directory

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
    with raising(WriteError, f"link or copy {source} to this", destination):
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

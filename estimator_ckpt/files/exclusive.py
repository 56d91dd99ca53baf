"""A local file that appears whole, in one step, which fails where there is one already."""

from __future__ import annotations

import errno
import os

from estimator_ckpt import files

_DESCRIPTORS = "/proc/self/fd"


def create(path: str, own_name: str, content: bytes) -> int:
    """Makes a file, with its content, in one step.

    Args:
      path: the file.
      own_name: a name that nobody else uses, for where a file has to have one at once.
      content: of it; a few bytes.

    Returns:
      A descriptor that reads and writes.

    Raises:
      FileExistsError: there is one.
      OSError, ValueError: it cannot be written; nothing is left.
    """
    descriptor = open_nameless(path)
    nameless = descriptor is not None
    if descriptor is None:
        descriptor = os.open(own_name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        try:
            os.write(descriptor, content)
            _link(descriptor, path) if nameless else os.link(own_name, path)
        finally:
            if not nameless:
                os.remove(own_name)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in files.NO_LINK:
            raise
        # No links, as on FAT: it is torn if this process is killed before it writes.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, content)
        except BaseException:
            os.close(descriptor)
            os.remove(path)
            raise
    return descriptor


def open_nameless(path: str) -> int | None:
    """A new file without a name in the directory of a path; None where there is no such thing."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(_DESCRIPTORS):
        return None
    try:
        return os.open(os.path.dirname(path) or ".", os.O_TMPFILE | os.O_RDWR, 0o644)
    except OSError as error:
        if error.errno in files.NO_LINK | {errno.EISDIR, errno.EINVAL}:
            return None
        raise


def _link(descriptor: int, path: str) -> None:
    """Gives a file without a name its first one."""
    directory = os.open(_DESCRIPTORS, os.O_RDONLY)
    try:  # with a directory, Python calls linkat(), which can follow the link there
        os.link(str(descriptor), path, src_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)

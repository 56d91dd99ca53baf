"""A local file that appears whole, in one step, which fails where there is one already."""

from __future__ import annotations

import contextlib
import errno
import os
import re

from estimator_ckpt import files

_DESCRIPTORS = "/proc/self/fd"


def create(path: str, own_name: str, content: bytes) -> int:
    """Makes a file, with its content, in one step.

    Args:
      path: the file.
      own_name: a name that nobody else uses, for where a file has to have one at once: `path`, a
        dot and 16 hexadecimal digits.
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
                with contextlib.suppress(FileNotFoundError):
                    os.remove(own_name)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, FileNotFoundError) and os.path.lexists(path):
            raise FileExistsError(*error.args) from error  # whoever made it removed the other
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
    if not nameless:
        clear_own_names(path)
    return descriptor


def clear_own_names(path: str) -> None:
    """Removes what killed processes have left that were about to make a file, which is there now.

    One that is alive finds that its own is gone, and that the file is there.
    """
    directory, name = os.path.split(path)
    own_name = re.compile(re.escape(name) + r"(\.[0-9a-f]{16})+")
    with contextlib.suppress(OSError):
        for found in filter(own_name.fullmatch, os.listdir(directory or ".")):
            os.remove(os.path.join(directory, found))


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

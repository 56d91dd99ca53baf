"""New local files written past the page cache, where the file system can.

What a program writes is copied to the page cache first, by a core and through memory that a
training uses, too. A disk takes it by itself from memory that is aligned as its blocks are.
"""

from __future__ import annotations

import contextlib
import errno
import os

from estimator_ckpt.errors import WriteError
from estimator_ckpt.files.paths import raising

_BLOCK = 64 << 10  # a multiple of every disk's and every file system's
_CHUNK = 16 << 20


def write_uncached(path: str, data: memoryview) -> None:
    """Writes a new local file, which need not outlast a power failure once this returns.

    Args:
      path: the file.
      data: all of it; from the start of a page of memory on, else it goes through the cache.

    Raises:
      WriteError: the file cannot be written, or is not new.
    """
    with raising(WriteError, "write the file", path), contextlib.ExitStack() as closing:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        closing.callback(os.close, descriptor)
        _set_past_cache(descriptor, True)
        whole = len(data) - len(data) % _BLOCK
        _write(descriptor, data[:whole])
        _set_past_cache(descriptor, False)
        _write(descriptor, data[whole:])


def _write(descriptor: int, data: memoryview) -> None:
    at = 0
    while at < len(data):
        try:
            at += os.write(descriptor, data[at : at + _CHUNK])
        except OSError as error:
            # Of a file system that cannot after all, or behind a write that was cut short.
            if error.errno != errno.EINVAL or not _set_past_cache(descriptor, False):
                raise


def _set_past_cache(descriptor: int, is_past: bool) -> bool:
    """Has what is written next go past the cache, or through it; whether that is a change."""
    direct = getattr(os, "O_DIRECT", 0)  # not on macOS
    if not direct:
        return False
    import fcntl

    before = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        wanted = before | direct if is_past else before & ~direct
        fcntl.fcntl(descriptor, fcntl.F_SETFL, wanted)
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) != before

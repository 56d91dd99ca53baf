"""Files written so that the old content or all of the new is there; directories; names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from estimator_ckpt.errors import WriteError
from estimator_ckpt.files.paths import is_remote, raising
from estimator_ckpt.files.read import exists
from estimator_ckpt.files.remote import remote_files


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
    with raising(WriteError, "write the file", path):
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
                sync_directory(path)
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
    with raising(WriteError, "write the file", path):
        if is_remote(path):
            if not append and exists(path):
                raise WriteError("the file exists", path=path)
            try:
                with remote_files().GFile(path, "ab" if append else "wb") as file:
                    yield file
            except BaseException:
                with contextlib.suppress(Exception):
                    if not append:
                        remove(path)  # what was written until then, which its end has made a file
                raise
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
    with raising(WriteError, "cut off the end", path):
        os.truncate(path, length)


def make_dirs(path: str) -> None:
    """Makes a directory and those above it, if they are not there.

    Raises:
      WriteError: it cannot be made.
    """
    with raising(WriteError, "make the directory", path):
        if is_remote(path):
            remote_files().makedirs(path)
        else:
            missing = []
            while path and not os.path.isdir(path):
                missing.append(path)
                path = os.path.dirname(path)
            for one in reversed(missing):  # os.makedirs() calls itself for each
                os.makedirs(one, exist_ok=True)


def sync_directory(path: str) -> None:
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
    with raising(WriteError, f"rename {source} to this", destination):
        if is_remote(source) or is_remote(destination):
            remote_files().rename(source, destination, overwrite=True)
        else:
            os.replace(source, destination)


def remove(path: str) -> None:
    """Removes a file, if there is one.

    Raises:
      WriteError: it cannot be removed.
    """
    with raising(WriteError, "remove the file", path):
        if is_remote(path):
            if exists(path):
                remote_files().remove(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def remove_dir(path: str) -> None:
    """Removes an empty directory, if there is one.

    Raises:
      WriteError: it cannot be removed, or is not empty.
    """
    with raising(WriteError, "remove the directory", path):
        if is_remote(path):
            if exists(path):  # an object store has none that is empty
                remote_files().rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)

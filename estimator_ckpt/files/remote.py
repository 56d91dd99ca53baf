"""`scheme://` paths: by `tf.io.gfile` where TensorFlow is installed, else by fsspec.

Both look the same to `files`: `remote_files()` has the functions of `tf.io.gfile` that it calls.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import IO, Any, NamedTuple

from estimator_ckpt.errors import MissingPackageError


@functools.cache
def remote_files() -> Any:
    """`tf.io.gfile`, or what stands for it.

    Raises:
      MissingPackageError: neither TensorFlow nor fsspec is installed.
    """
    try:
        import tensorflow as tf  # imported for remote paths alone: it takes seconds
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        return FsspecFiles()
    return tf.io.gfile


def read_remote(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a remote file, in one request where the file system has one for a range."""
    found = remote_files()
    if isinstance(found, FsspecFiles):
        return found.read_range(path, offset, size)
    with found.GFile(path, "rb") as file:
        file.seek(offset)
        return file.read(size)  # type: ignore[no-any-return]


class _Stat(NamedTuple):
    length: int


class FsspecFiles:
    """The functions of `tf.io.gfile` that this package calls, done by fsspec.

    Listings are never cached: a job writes where we read.

    Raises:
      MissingPackageError: fsspec is not installed.
    """

    def __init__(self) -> None:
        try:
            import fsspec
        except ModuleNotFoundError as error:
            if error.name != "fsspec":
                raise
            raise MissingPackageError(
                "remote paths need fsspec or TensorFlow, and neither is installed: "
                "pip install 'estimator-ckpt[remote]', or 'estimator-ckpt[tensorflow]'"
            ) from error
        self._open = functools.partial(fsspec.core.url_to_fs, use_listings_cache=False)

    def exists(self, path: str) -> bool:
        system, name = self._open(path)
        return bool(system.exists(name))

    def isdir(self, path: str) -> bool:
        system, name = self._open(path)
        return bool(system.isdir(name))

    def listdir(self, path: str) -> list[str]:
        system, name = self._open(path)
        if not system.isdir(name):
            if system.exists(name):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        below = (one.rstrip("/").rpartition("/")[2] for one in system.ls(name, detail=False))
        return [one for one in below if one]

    def stat(self, path: str) -> _Stat:
        system, name = self._open(path)
        return _Stat(int(system.size(name)))

    def GFile(self, path: str, mode: str) -> IO[bytes]:  # noqa: N802 (as in tf.io.gfile)
        system, name = self._open(path)
        return system.open(name, mode)  # type: ignore[no-any-return]

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        # A file that is open for reading would fetch megabytes for each range, to have them ready.
        system, name = self._open(path)
        return bytes(system.cat_file(name, start=offset, end=offset + size))

    def makedirs(self, path: str) -> None:
        system, name = self._open(path)
        system.makedirs(name, exist_ok=True)

    def rename(self, source: str, destination: str, overwrite: bool = False) -> None:
        system, name = self._open(source)
        target = self._target(destination, overwrite)
        system.mv(name, target)

    def copy(self, source: str, destination: str, overwrite: bool = False) -> None:
        system, name = self._open(source)
        target = self._target(destination, overwrite)
        if system is self._open(destination)[0]:
            system.copy(name, target)
            return
        import shutil

        with self.GFile(source, "rb") as reading, self.GFile(destination, "wb") as writing:
            shutil.copyfileobj(reading, writing, 16 << 20)

    def remove(self, path: str) -> None:
        system, name = self._open(path)
        system.rm_file(name)

    def rmtree(self, path: str) -> None:
        system, name = self._open(path)
        system.rm(name, recursive=True)

    def _target(self, path: str, overwrite: bool) -> str:
        system, name = self._open(path)
        if not overwrite and system.exists(name):
            raise FileExistsError(f"{path} exists")
        return str(name)

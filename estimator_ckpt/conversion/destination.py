"""Where a conversion writes: what may be there already, and what a killed one has left.

Until its index is there, no reader takes the files of a checkpoint for one. A file
`PREFIX.converting`, which tells the process, stands beside them from before the first of them until
after the index: what lies there with it and without an index was left by a conversion that was
killed, and is cleared away by the next.

In place it stands there while a data file is changed. What lies there then as a copy of that file,
`PREFIX.data-00000-of-00001.converting`, no index names, and the next clears it away, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from estimator_ckpt import files
from estimator_ckpt.errors import WriteError

_MARK = ".converting"


def check_destination(destination: str) -> None:
    """Raises WriteError where a checkpoint is, or data files that no killed conversion left."""
    if files.exists(f"{destination}.index"):
        raise WriteError("a checkpoint is there already; name another place", path=destination)
    if files.is_dir(destination):
        raise WriteError(
            "expected the prefix of a new checkpoint, found a directory", path=destination
        )
    if _is_left(destination):
        return
    left = _data_files(destination)
    if left:
        raise WriteError(
            f"{left[0]} is there without an index: of a checkpoint that is being written, or of a "
            "save that was interrupted; remove it, or name another place",
            path=destination,
        )


def _is_left(prefix: str) -> bool:
    """Whether a conversion that was killed has left its mark.

    Raises:
      WriteError: the mark is that of one that goes on, or may go on.
    """
    mark = prefix + _MARK
    if not files.exists(mark):
        return False
    host, _, process = files.read_bytes(mark).decode(errors="replace").rpartition(" ")
    if host != os.uname().nodename:
        raise WriteError(
            f"a conversion on {host or 'another host'} is writing this, or was killed; if it "
            "was, remove the file",
            path=mark,
        )
    if _runs(process):
        raise WriteError(f"a conversion is writing this, process {process}", path=prefix)
    return True


def claim(destination: str) -> None:
    """Marks a place that check_destination() has passed, and clears away what is left there."""
    release(destination)
    _mark(destination)
    for path in _data_files(destination):
        files.remove(path)


@contextlib.contextmanager
def claimed_in_place(prefix: str) -> Iterator[None]:
    """Marks a checkpoint while one of its data files is changed.

    Raises:
      WriteError: another conversion is at it.
    """
    if _is_left(prefix):
        release(prefix)
    _mark(prefix)
    try:
        yield
    finally:
        release(prefix)


def own_copy(data_file: str) -> str:
    """What a copy of a data file is called before it takes its place."""
    return data_file + _MARK


def _mark(prefix: str) -> None:
    with files.open_write(prefix + _MARK, sync=False) as file:
        file.write(f"{os.uname().nodename} {os.getpid()}".encode())


def release(destination: str) -> None:
    """Takes the mark away."""
    files.remove(destination + _MARK)


def _runs(process: str) -> bool:
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _data_files(prefix: str) -> list[str]:
    directory, name = os.path.split(prefix)
    directory = directory or "."
    if not files.is_dir(directory):
        return []
    start = f"{name}.data-"
    return [os.path.join(directory, n) for n in files.list_dir(directory) if n.startswith(start)]

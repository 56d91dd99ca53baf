"""Where a conversion writes: what may be there already, and what a killed one has left.

Until its index is there, no reader takes the files of a checkpoint for one. A file
`PREFIX.converting` stands beside them from before the first of them until after the index: what
lies there with it and without an index was left by a conversion that was killed, and is cleared
away by the next.
"""

from __future__ import annotations

import os

from estimator_ckpt import files
from estimator_ckpt.errors import WriteError

MARK = ".converting"


def check_destination(destination: str) -> None:
    """Raises WriteError where a checkpoint is, or data files that no killed conversion left."""
    if files.exists(f"{destination}.index"):
        raise WriteError("a checkpoint is there already; name another place", path=destination)
    if files.is_dir(destination):
        raise WriteError(
            "expected the prefix of a new checkpoint, found a directory", path=destination
        )
    left = _data_files(destination)
    if left and not files.exists(destination + MARK):
        raise WriteError(
            f"{left[0]} is there without an index: of a checkpoint that is being written, or of a "
            "save that was interrupted; remove it, or name another place",
            path=destination,
        )


def remove_leftovers(destination: str) -> None:
    """Clears away what a killed conversion left at a place that check_destination() has passed."""
    for path in _data_files(destination):
        files.remove(path)


def _data_files(prefix: str) -> list[str]:
    directory, name = os.path.split(prefix)
    directory = directory or "."
    if not files.is_dir(directory):
        return []
    start = f"{name}.data-"
    return [os.path.join(directory, n) for n in files.list_dir(directory) if n.startswith(start)]

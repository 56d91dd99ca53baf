"""What both formats have in common: a tensor's facts, and the error for a broken file."""

from __future__ import annotations

from typing import NamedTuple

from estimator_ckpt.errors import CorruptCheckpointError


class FileTensor(NamedTuple):
    """A tensor of a file of another library.

    Attributes:
      name: as the file has it.
      dtype: as a number of TensorFlow's.
      shape: its dimensions, the last of which varies fastest.
      nbytes: its size.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    nbytes: int


def corrupt(message: str, path: str, name: str | None = None) -> CorruptCheckpointError:
    """The error for bytes that contradict the format."""
    return CorruptCheckpointError(message, path=path, key=name)

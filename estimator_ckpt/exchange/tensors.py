"""What both formats have in common: a tensor's facts, and the error for a broken file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from estimator_ckpt.errors import CorruptCheckpointError, UnsupportedCheckpointError
from estimator_ckpt.reading.object_tensors import NO_VARIABLES

_LARGEST_RANK = 254  # TensorShape::MaxDimensions()
_LARGEST_SIZE = (1 << 63) - 1


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


def check_variables(tensors: Iterable[FileTensor], path: str) -> None:
    """Raises UnsupportedCheckpointError for a tensor that no variable of a checkpoint can be."""
    for tensor in tensors:
        why = _unfit(tensor)
        if why:
            raise UnsupportedCheckpointError(why, path=path, key=tensor.name)


def _unfit(tensor: FileTensor) -> str:
    """Why a tensor cannot be a variable; empty if it can."""
    name, shape = tensor.name, tensor.shape
    if not name or name.startswith("\0"):
        return "a variable's name cannot be empty or begin with a NUL character; rename the tensor"
    if name in NO_VARIABLES:
        return "a checkpoint has something else under this name; rename the tensor"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is no UTF-8; rename the tensor"
    if len(shape) > _LARGEST_RANK:
        return f"expected {_LARGEST_RANK} dimensions at most, found {len(shape)}"
    if max(shape, default=0) > _LARGEST_SIZE:
        return f"expected dimensions of {_LARGEST_SIZE} at most, found {max(shape)}"
    return ""

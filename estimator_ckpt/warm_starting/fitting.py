"""What makes a tensor of a checkpoint fit a variable of another shape, if the settings say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FITTINGS = ("reshape", "pad", "slice")

Shape = Sequence[int]


def misfit(fitting: str, shape: Shape, source: Shape) -> str:
    """Why a tensor cannot be made to fit in this way; "" if it can.

    Args:
      fitting: one of FITTINGS.
      shape: of the variable.
      source: of the tensor.
    """
    if fitting == "reshape":
        elements, others = math.prod(source), math.prod(shape)
        return "" if elements == others else f"reshape: {elements:,} elements for {others:,}"
    if len(shape) != len(source):
        return f"{fitting}: {len(source)} dimensions for {len(shape)}"
    if fitting == "pad" and any(size < old for size, old in zip(shape, source)):
        return "pad: the variable is the smaller one; slice leaves out what is at the end"
    if fitting == "slice" and any(size > old for size, old in zip(shape, source)):
        return "slice: the variable is the larger one; pad initializes what is at the end"
    return ""


def fitting_text(fitting: str, shape: Shape, source: Shape) -> str:
    """What is said of a variable that starts so."""
    if fitting == "reshape":
        return f"reshape of {list(source)}"
    if fitting == "pad":
        return f"pad: {list(source)} from the checkpoint, the rest by its initializer"
    return f"slice: the first {list(shape)} of {list(source)}"


def fitted(
    fitting: str,
    value: np.ndarray[Any, Any],
    shape: Shape,
    initial: np.ndarray[Any, Any],
    offset: Shape | None = None,
) -> np.ndarray[Any, Any]:
    """What a variable, or a slice of a partitioned one, starts with.

    Args:
      fitting: one of FITTINGS, which fits.
      value: of the tensor.
      shape: of the whole variable.
      initial: the initial value of the variable or the slice.
      offset: where the slice begins in the whole; None: it is the whole.
    """
    if fitting == "reshape":
        value = value.reshape(shape)
    offset = [0] * initial.ndim if offset is None else offset
    result = initial.astype(value.dtype)  # a copy; a bfloat16 of TensorFlow's is one of ml_dtypes
    ends = [min(o + n, size) for o, n, size in zip(offset, initial.shape, value.shape)]
    if all(end > start for start, end in zip(offset, ends)) or not initial.ndim:
        here = tuple(slice(0, end - start) for start, end in zip(offset, ends))
        result[here] = value[tuple(slice(start, end) for start, end in zip(offset, ends))]
    return result

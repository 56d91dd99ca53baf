"""What a variable of a program's optimizer starts from, of what a conversion has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.tensors import numpy_dtype
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.casting import cast_chunk
from estimator_ckpt.conversion.plan import (
    FLOAT32,
    INT32,
    INT64,
    Content,
    Item,
    ReadNumber,
    is_number,
    number_content,
)
from estimator_ckpt.errors import UnsupportedCheckpointError
from estimator_ckpt.matching.model import ModelVariable
from estimator_ckpt.text.quantities import tensor_text

if TYPE_CHECKING:
    import numpy as np

FLOAT64 = 2
_NUMBERS = {dtype_name(number): number for number in (FLOAT32, FLOAT64, INT32, INT64)}


class Start(NamedTuple):
    """What a variable of an optimizer starts from, and why.

    Attributes:
      content: bytes of the checkpoint, as they are or computed, or new ones.
      why: what they are.
    """

    content: Content
    why: str


def slot_start(item: Item, variable: ModelVariable, why: str) -> Start:
    """What a slot starts from.

    Raises:
      UnsupportedCheckpointError: it has another shape or dtype.
    """
    content = item.content
    if variable.shape not in (None, content.shape) or variable.dtype != dtype_name(content.dtype):
        raise UnsupportedCheckpointError(
            f"expected {tensor_text(variable.dtype, variable.shape)} for the slot {variable.name!r}"
            f", found {tensor_text(dtype_name(content.dtype), content.shape)}",
            key=item.own_key or None,
        )
    return Start(content, why)


def number_start(item: Item, variable: ModelVariable, read: ReadNumber) -> Start:
    """What a number of an optimizer starts from, in the variable's dtype.

    Raises:
      UnsupportedCheckpointError: it is no number, or the variable is of no number's dtype.
    """
    dtype = _NUMBERS.get(variable.dtype)
    if dtype is None or not is_number(item.content):
        raise UnsupportedCheckpointError(
            f"expected a number for {variable.name!r}, a {variable.dtype}, found "
            f"{tensor_text(dtype_name(item.content.dtype), item.content.shape)}",
            key=item.own_key or None,
        )
    if item.content.dtype == dtype:
        return Start(item.content, item.why)
    value = read(item.content)
    return Start(number_content(int(value) if dtype in (INT32, INT64) else value, dtype), item.why)


def content_value(checkpoint: Checkpoint, content: Content) -> np.ndarray[Any, Any]:
    """The values that a content stands for, computed as a conversion computes them.

    Raises:
      CorruptCheckpointError: the checkpoint's bytes are wrong.
      MismatchError: a value is beyond the range of the dtype.
    """
    import numpy as np

    dtype = numpy_dtype(content.dtype)
    if content.value or not content.source:
        return np.frombuffer(content.value, dtype).reshape(content.shape)
    value = checkpoint.get_tensor(content.source)
    if not content.computed:
        return value
    data, _ = cast_chunk(
        value.tobytes(), content.dtype, content.dtype, content.scale, content.source
    )
    return np.frombuffer(data, dtype).reshape(content.shape)

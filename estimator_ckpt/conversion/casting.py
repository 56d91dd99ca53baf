"""Values of one dtype as another, a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.errors import MismatchError, SettingsError

FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
_KINDS = (FLOATS, INTEGERS)
_NUMBERS = {dtype_name(number): number for number in range(1, 34)}

# A name for all floating-point variables, or a mapping from dtype to dtype.
Casts = Union[str, Mapping[str, str], None]


def parse_casts(casts: Casts) -> dict[int, int]:
    """What each dtype becomes, by number.

    Raises:
      SettingsError: a dtype that is not known, or a cast between numbers of different kinds.
    """
    if casts is None:
        return {}
    if isinstance(casts, str):
        casts = {source: casts for source in FLOATS if source != casts}
    for source, target in casts.items():
        if not any(source in kind and target in kind for kind in _KINDS):
            raise SettingsError(
                f"expected two of {', '.join(FLOATS)}, or two of {', '.join(INTEGERS)}, found "
                f"{source!r} and {target!r}",
                key="dtype",
            )
    return {_NUMBERS[source]: _NUMBERS[target] for source, target in casts.items()}


def cast_chunk(chunk: bytes, source: int, target: int, scale: float, key: str) -> bytes:
    """The values of one dtype in `chunk`, multiplied by `scale`, as another dtype.

    Raises:
      MismatchError: a number is beyond the range of the other dtype.
    """
    import numpy as np

    from estimator_ckpt.bundle.tensors import numpy_dtype

    values: Any = np.frombuffer(chunk, numpy_dtype(source))
    if scale != 1.0:
        values = values * np.asarray(scale, values.dtype)
    with np.errstate(over="ignore"):
        result = values.astype(numpy_dtype(target))
    if dtype_name(target) in INTEGERS:
        lost = result.astype(values.dtype) != values
        lost |= (result < 0) != (values < 0)
    else:
        lost = np.isinf(result.astype(np.float64)) & ~np.isinf(values.astype(np.float64))
    if lost.any():
        raise MismatchError(
            f"the value {values[lost.argmax()]} is beyond the range of {dtype_name(target)}; leave "
            "the dtype as it is, or the variable out",
            key=key,
        )
    data: bytes = result.tobytes()
    return data

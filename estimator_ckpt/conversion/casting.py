"""Values of one dtype as another, a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from estimator_ckpt.bundle.checksum import Bytes
from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.errors import MismatchError, SettingsError

FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
_KINDS = (FLOATS, INTEGERS)
_NUMBERS = {dtype_name(number): number for number in range(1, 34)}

_SMALLEST = 2.0**-126  # of float32's normal numbers

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
    if not isinstance(casts, Mapping):
        raise SettingsError(
            f"expected a dtype's name, or a mapping of them, found {casts!r}", key="dtype"
        )
    for source, target in casts.items():
        if not any(source in kind and target in kind for kind in _KINDS):
            raise SettingsError(
                f"expected two of {', '.join(FLOATS)}, or two of {', '.join(INTEGERS)}, found "
                f"{source!r} and {target!r}",
                key="dtype",
            )
    return {_NUMBERS[source]: _NUMBERS[target] for source, target in casts.items()}


def cast_chunk(
    chunk: Bytes, source: int, target: int, scale: float, key: str, strict: bool = False
) -> tuple[bytes, int]:
    """The values of one dtype in `chunk`, multiplied by `scale`, as another dtype.

    Returns:
      The values, and how many of them are 0 only because they are too small for the other dtype.
      Those that float32 has no normal number for, below 1.2e-38, count as 0 from the start.

    Raises:
      MismatchError: a number is beyond the range of the other dtype; or, if `strict`, too small.
    """
    import numpy as np

    from estimator_ckpt.bundle.tensors import numpy_dtype

    values: Any = np.frombuffer(chunk, numpy_dtype(source))
    if scale != 1.0:
        # Wide enough for every product, so that what the dtype cannot hold shows below.
        exact = np.float64(scale if source == _NUMBERS["float64"] else np.float32(scale))
        values = values.astype(np.float64) * exact
    with np.errstate(over="ignore", under="ignore"):
        result = values.astype(numpy_dtype(target))
    small = lost = values[:0]
    if dtype_name(target) in INTEGERS:
        lost = values[(result.astype(values.dtype) != values) | ((result < 0) != (values < 0))]
    elif result.size:
        # By their bits: NumPy takes three times as long to look at a bfloat16 as at an integer.
        bits = result.view(f"u{result.itemsize}")
        infinite = np.array(np.inf, result.dtype).view(bits.dtype)
        sizes = bits & bits.dtype.type((1 << (8 * result.itemsize - 1)) - 1)
        if sizes.max() >= infinite:
            lost = values[sizes == infinite]
            lost = lost[~np.isinf(lost)]
        if not sizes.min():
            zeros = values[sizes == 0]
            zeros = zeros[zeros != 0]
            small = zeros[np.abs(zeros.astype(np.float64)) >= _SMALLEST]
    if lost.size:
        raise MismatchError(
            f"the value {lost[0]} is beyond the range of {dtype_name(target)}; leave "
            "the dtype as it is, or the variable out",
            key=key,
        )
    if strict and small.size:
        raise MismatchError(
            f"the value {small[0]:.6g} of an optimizer's slot would be 0 as {dtype_name(target)}, "
            "and optimizers divide by such values; leave the slots out (drop_slots), or take "
            "bfloat16",
            key=key,
        )
    return result.tobytes(), small.size

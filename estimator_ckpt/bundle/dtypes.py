"""The dtypes a checkpoint can hold: name and bytes per element, by their number in TensorFlow.

Source: tensorflow/core/framework/types.proto up to TensorFlow 2.21. Every element has whole bytes:
int4, uint4 and the other small ones take one byte each, as in a TensorFlow tensor on the host.
"""

from __future__ import annotations

# number: (name, bytes per element; None where the elements differ in length)
_DTYPES: dict[int, tuple[str, int | None]] = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    7: ("string", None),
    8: ("complex64", 8),
    9: ("int64", 8),
    10: ("bool", 1),
    11: ("qint8", 1),
    12: ("quint8", 1),
    13: ("qint32", 4),
    14: ("bfloat16", 2),
    15: ("qint16", 2),
    16: ("quint16", 2),
    17: ("uint16", 2),
    18: ("complex128", 16),
    19: ("float16", 2),
    20: ("resource", None),
    21: ("variant", None),
    22: ("uint32", 4),
    23: ("uint64", 8),
    24: ("float8_e5m2", 1),
    25: ("float8_e4m3fn", 1),
    26: ("float8_e4m3fnuz", 1),
    27: ("float8_e4m3b11fnuz", 1),
    28: ("float8_e5m2fnuz", 1),
    29: ("int4", 1),
    30: ("uint4", 1),
    31: ("int2", 1),
    32: ("uint2", 1),
    33: ("float4_e2m1fn", 1),
}

STRING = 7
VARIANT = 21


def dtype_name(dtype: int) -> str:
    """TensorFlow's name of a dtype (``tf.dtypes.as_dtype(dtype).name``; float16, not half).

    A number this package does not know is named by the number: ``"dtype 99"``.
    """
    return _DTYPES[dtype][0] if dtype in _DTYPES else f"dtype {dtype}"


def dtype_size(dtype: int) -> int | None:
    """Bytes per element in a checkpoint; None for string, variant, resource and unknown dtypes."""
    return _DTYPES[dtype][1] if dtype in _DTYPES else None

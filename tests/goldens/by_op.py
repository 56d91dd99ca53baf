"""Goldens written by the SaveV2 op itself: every dtype it takes. Each function is a kind."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf
from expected import Expected

EXPERIMENTAL = {
    name: dtype
    for name, dtype in vars(tf.dtypes.experimental).items()
    if isinstance(dtype, tf.DType)
}
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.25, float("inf"), float("-inf"), float("nan")]
QUANTIZED = {
    tf.qint8: tf.int8,
    tf.quint8: tf.uint8,
    tf.qint16: tf.int16,
    tf.quint16: tf.uint16,
    tf.qint32: tf.int32,
}


class Tensors:
    """The tensors of one checkpoint, with their rows."""

    def __init__(self, directory: str) -> None:
        self.expected = Expected(directory)
        self.tensors: dict[str, tf.Tensor] = {}

    def add(self, name: str, tensor: tf.Tensor, values: Any = None) -> None:
        """`values`: those of the tensor, where its own do not make a NumPy array."""
        self.tensors[name] = tensor
        values = tensor.numpy() if values is None else values
        self.expected.add(name, values, name=name, dtype=tensor.dtype, slices=0)

    def add_cast(self, name: str, dtype: tf.DType, values: list[float]) -> None:
        """A vector of a dtype that TensorFlow makes from no Python number."""
        array = np.array(values).astype(dtype.as_numpy_dtype)
        self.add(name, tf.constant(array, dtype))

    def save(self) -> None:
        prefix = os.path.join(self.expected.directory, "model.ckpt")
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(self.tensors),
            shape_and_slices=[""] * len(self.tensors),
            tensors=list(self.tensors.values()),
        )
        self.expected.write(prefix, "saver")


def limits(dtype: tf.DType) -> list[int]:
    return [int(dtype.min), 0, 1, 2, int(dtype.max)]


def dtypes(directory: str) -> None:
    tensors = Tensors(directory)
    for dtype in (tf.int8, tf.int16, tf.int32, tf.int64):
        tensors.add(dtype.name, tf.constant(limits(dtype), dtype))
    for dtype in (tf.uint8, tf.uint16, tf.uint32, tf.uint64):
        tensors.add(dtype.name, tf.constant(limits(dtype), dtype))
    for dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
        tensors.add_cast(dtype.name, dtype, [*FLOATS, float(dtype.min), float(dtype.max)])
    for dtype in (tf.complex64, tf.complex128):
        tensors.add(
            dtype.name, tf.constant([1 + 2j, complex(-0.0, 0.5), complex(0, np.inf)], dtype)
        )
    tensors.add("bool", tf.constant([True, False, True]))
    for dtype, plain in QUANTIZED.items():
        values = tf.constant(limits(plain), plain)
        tensors.add(dtype.name, tf.bitcast(values, dtype), values.numpy())
    for name in ("float8_e5m2", "float8_e4m3fn"):
        tensors.add_cast(name, EXPERIMENTAL[name], [0.0, -0.0, 1.0, -1.5, 0.25, float("nan")])
    for name, values in (("int4", [-8, -1, 0, 7]), ("uint4", [0, 1, 8, 15])):
        if name in EXPERIMENTAL:
            tensors.add_cast(name, EXPERIMENTAL[name], values)
    for number, dtype in enumerate((tf.int8, tf.int64, tf.bfloat16, tf.float64, tf.complex64)):
        tensors.add(f"scalar/{dtype.name}", tf.constant(number + 10, dtype))
    tensors.add("scalar/bool", tf.constant(True))
    for dtype in (tf.float32, tf.int64, tf.bfloat16, tf.bool):
        for shape in ((0,), (0, 3), (2, 0, 3)):
            size = "x".join(map(str, shape))
            tensors.add(f"empty/{dtype.name}/{size}", tf.zeros(shape, dtype))
    tensors.add("rank_6", tf.reshape(tf.range(50, 62), (1, 2, 1, 3, 2, 1)))
    tensors.save()


def dtypes_new(directory: str) -> None:
    """Dtypes of TensorFlow 2.21 that 2.15 does not know."""
    tensors = Tensors(directory)
    for name, values in (
        ("int2", [-2, -1, 0, 1]),
        ("uint2", [0, 1, 2, 3]),
        ("float8_e4m3fnuz", [0.0, 1.0, -1.5, 0.25, float("nan")]),
        ("float8_e5m2fnuz", [0.0, 1.0, -1.5, 0.25, float("nan")]),
        ("float8_e4m3b11fnuz", [0.0, 1.0, -1.5, 0.25, float("nan")]),
        ("float4_e2m1fn", [0.0, -0.0, 1.0, -1.5, 6.0]),
    ):
        tensors.add_cast(name, EXPERIMENTAL[name], values)
    tensors.save()


KINDS = {"dtypes": dtypes, "dtypes_new": dtypes_new}

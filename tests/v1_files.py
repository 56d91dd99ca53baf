"""Checkpoints in TensorFlow's first format: written by its own op, read by its own op."""

from __future__ import annotations

import numpy as np
from tensorflow_party import tf


def write_v1(path, tensors, slices=None):
    """Writes one file by TensorFlow's SaveSlices.

    Args:
      path: of the file.
      tensors: {name: value}; of a sliced one the name with the slice: "w[0:2]".
      slices: {the same name: (variable name, "shape slice" as TensorFlow has it)}.
    """
    names, specs = [], []
    for name in tensors:
        plain, spec = (slices or {}).get(name, (name, ""))
        names.append(plain)
        specs.append(spec)
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=names,
        shapes_and_slices=specs,
        data=[tf.constant(value) for value in tensors.values()],
    )
    return str(path)


def stock_value(prefix, name, dtype):
    """What TensorFlow's RestoreV2 reads."""
    (value,) = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype]
    )
    return value.numpy()


# Numbers with varints of every length, and of either sign.
WIDE = np.array([0, 1, 127, 128, 300, -1, 2**31 - 1, -(2**31), 2**62, -(2**63)], np.int64)
DTYPES = {
    "float32": np.float32([[1.5, -0.0], [np.inf, 3e-45]]),
    "float64": np.float64([1e300, -2.5]),
    "float16": np.float16([1.5, -2.0, 65504, -0.0]),
    "int64": WIDE,
    "int32": WIDE.astype(np.int32),
    "int16": np.int16([0, -1, 32767, -32768, 200]),
    "int8": np.int8([[0, -1], [127, -128]]),
    "uint8": np.uint8([0, 127, 128, 255]),
    "uint16": np.uint16([0, 127, 128, 65535]),
    "bool": np.array([True, False, True]),
    "complex64": np.complex64([1 + 2j, -3.5j]),
    "complex128": np.complex128([1 + 2j, -3.5j]),
    "string": np.array([b"a", b"", b"\x00\xff" * 200], object),
    "scalar": np.float32(2.5),
    "step": np.int64(1 << 40),
    "text": np.array(b"one", object),
    "empty": np.zeros([0, 3], np.float32),
    "no_integers": np.zeros([0], np.int32),
}

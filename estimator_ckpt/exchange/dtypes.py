"""Which dtypes safetensors and npz files hold, and what they call them."""

from __future__ import annotations

from estimator_ckpt.bundle.dtypes import dtype_name

_NUMBERS = {dtype_name(number): number for number in range(1, 34)}

# Source: safetensors/src/tensor.rs, `enum Dtype`. It has no complex128, and for dtypes of less than
# a byte others than TensorFlow, which gives each element a byte.
SAFETENSORS = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}

# What NumPy has of its own: np.load() gives a bfloat16 or a float8 back as two or one raw bytes.
NPZ = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "float16",
    "int32",
    "uint32",
    "float32",
    "int64",
    "uint64",
    "float64",
    "complex64",
    "complex128",
)

# By the ending of a file's name: TensorFlow's number of a dtype -> what the format calls it.
NAMES = {
    ".safetensors": {_NUMBERS[ours]: theirs for theirs, ours in SAFETENSORS.items()},
    ".npz": {_NUMBERS[name]: name for name in NPZ},
}

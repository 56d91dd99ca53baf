"""The golden checkpoints under tests/goldens, and what each of them holds.

    @pytest.mark.parametrize("case", golden_cases(), ids=str)
    def test_...(case): ...

Their script is tests/goldens/make.py, which also says how to make them anew.
"""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

GOLDENS = Path(__file__).parent / "goldens"

ALL = ("2.12", "2.15", "2.21")
WITH_ESTIMATOR = ("2.12", "2.15")  # Also the last ones with Keras 2.
NEWEST = ("2.21",)
BY_PACKAGE = ("2.12", "2.15", "2.16", "2.18", "2.21")
V1 = ("v1_format", "v1_sharded")

# Every kind, with the versions of TensorFlow that can write it.
KINDS = {
    "dtypes": ALL,
    "dtypes_new": NEWEST,
    "estimator": WITH_ESTIMATOR,
    "estimator_guide": WITH_ESTIMATOR,
    "guide": ALL,
    "iterator": ALL,
    "keras_weights": WITH_ESTIMATOR,
    "multi_shard": ALL,
    "name_based": ALL,
    "object_based": ALL,
    "optimizer_keras": ALL,
    "partitioned": ALL,
    "partitioned_object": ALL,
    "saved_model": ALL,
    "saved_model_tf1": ALL,
    "slots_keras_legacy": WITH_ESTIMATOR,
    "slots_object": ALL,
    "slots_tf1": ALL,
    "strings": ALL,
    "table": ALL,
    "table_tf1": ALL,
    "v1_format": ALL,
    "v1_sharded": ALL,
    "snappy": ALL,
    "layer_configs": ALL,
    "keras_tuner": WITH_ESTIMATOR,
    "own_saver": BY_PACKAGE,
    "own_checkpoint": BY_PACKAGE,
    "own_both": BY_PACKAGE,
}


class GoldenVariable(NamedTuple):
    """One tensor of a golden checkpoint.

    Attributes:
      key: its key in the index.
      name: the variable name; None where the checkpoint has none (tables, iterators).
      object_path: the local names from the root object, not escaped; None for slot variables and
        in name-based checkpoints.
      shape: the shape; of a partitioned variable that of the whole.
      dtype: TensorFlow's name of the dtype.
      value: strings as an object array of bytes, quantized dtypes as the plain integers; None
        where NumPy and ml_dtypes have no such dtype (variant, and int2 with an old ml_dtypes).
      slices: the number of slices; 0 if it is not partitioned.
      slot_of: the key of the variable whose slot it is, in object-based checkpoints.
      slot_name: the slot's name there.
      also: other keys of the same bytes.
    """

    key: str
    name: str | None
    object_path: tuple[str, ...] | None
    shape: tuple[int, ...]
    dtype: str
    value: Any
    slices: int
    slot_of: str | None
    slot_name: str | None
    also: tuple[str, ...]


class GoldenCase(NamedTuple):
    """One golden checkpoint.

    Attributes:
      version: of the TensorFlow that wrote it, `2.15`.
      kind: a key of KINDS.
      directory: the model_dir, or the SavedModel.
      prefix: the checkpoint's path; the newest one in the directory.
      format: "saver", "checkpoint", "both"; "v1" for the single-file format.
      global_step: its value, where there is one.
      state: what the `checkpoint` state file says, all paths relative; None without such a file.
      variables: all tensors except the object graph.
    """

    version: str
    kind: str
    directory: str
    prefix: str
    format: str
    global_step: int | None
    state: dict[str, Any] | None
    variables: tuple[GoldenVariable, ...]

    def __str__(self) -> str:
        return f"{self.version}-{self.kind}"


def golden_cases(*kinds: str) -> list[GoldenCase]:
    """The checkpoints of the given kinds (of all), except those in the V1 single-file format."""
    return [
        golden_case(version, kind)
        for kind, versions in KINDS.items()
        if kind not in V1 and (not kinds or kind in kinds)
        for version in versions
    ]


@functools.cache
def golden_case(version: str, kind: str) -> GoldenCase:
    directory = GOLDENS / f"tf{version}" / kind
    content = json.loads((directory / "expected.json").read_text(encoding="utf-8"))
    return GoldenCase(
        version,
        kind,
        str(directory),
        str(directory / content["prefix"]),
        content["format"],
        content["global_step"],
        content["state"],
        tuple(_variable(row) for row in content["variables"]),
    )


def _variable(row: dict[str, Any]) -> GoldenVariable:
    path = row["object_path"]
    return GoldenVariable(
        row["key"],
        row["name"],
        None if path is None else tuple(path),
        tuple(row["shape"]),
        row["dtype"],
        _value(row),
        row["slices"],
        row.get("slot_of"),
        row.get("slot_name"),
        tuple(row.get("also", ())),
    )


def _value(row: dict[str, Any]) -> np.ndarray | None:
    values, dtype = row["values"], numpy_dtype(row["dtype"])
    if values is None or dtype is None:
        return None
    array = np.empty(len(values), object)
    if dtype.kind == "O":
        array[:] = [base64.b64decode(value) for value in values]
    elif dtype.kind == "c":
        array[:] = [complex(float(real), float(imaginary)) for real, imaginary in values]
    elif dtype.kind in "biu":
        array[:] = values
    else:
        array[:] = [float(value) for value in values]
        array = array.astype(np.float64)  # What ml_dtypes convert from.
    return array.astype(dtype).reshape(row["shape"])


def numpy_dtype(name: str) -> np.dtype | None:
    """The dtype that an array of a TensorFlow dtype has; None where there is none."""
    if name == "string":
        return np.dtype(object)
    name = {"bool": "bool_"}.get(name, name.removeprefix("q"))  # qint8 as int8.
    scalar = getattr(ml_dtypes, name, None) or getattr(np, name, None)
    return None if scalar is None else np.dtype(scalar)


def texts(value: Any) -> tuple[Any, ...]:
    """Shape and every element of an array, such that two are the same if these are equal.

    Unlike `==` it tells -0.0 from 0.0 and finds NaN the same as NaN. A scalar may be bytes.
    """
    array = np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
    if array.dtype.kind not in "biufcO":
        array = array.astype(np.float64)  # bfloat16, int4 and the like: they all fit.
    return (array.shape, *map(repr, array.ravel().tolist()))

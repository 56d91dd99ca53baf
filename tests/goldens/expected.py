"""What a golden checkpoint is said to hold: the rows of its `expected.json`."""

from __future__ import annotations

import base64
import json
import math
import os
from typing import Any

import numpy as np
import tensorflow as tf


def numbers(first: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Consecutive numbers from `first`: exact in every dtype used here, so no two files agree."""
    return np.arange(first, first + math.prod(shape), dtype=dtype).reshape(shape)


def byte_strings(values: Any) -> np.ndarray:
    """An array of bytes objects; NumPy's own byte strings would drop NULs at the end."""
    return np.array(values, dtype=object)


def json_value(value: Any) -> Any:
    """One element as JSON has it: base64 for bytes, a pair for complex, text for NaN and Inf."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, complex):
        return [json_value(value.real), json_value(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_values(array: np.ndarray) -> list[Any]:
    """The elements, row by row. A dtype that NumPy lacks goes through one that holds its values."""
    if array.dtype.kind not in "biufcO":
        array = array.astype(np.float64)
    return [json_value(value) for value in array.ravel().tolist()]


class Expected:
    """The content of one `expected.json`, collected while a checkpoint is made."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.variables: list[dict[str, Any]] = []

    def add(
        self,
        key: str,
        array: Any,
        *,
        name: str | None = None,
        path: list[str] | None = None,
        dtype: tf.DType | None = None,
        **more: Any,
    ) -> None:
        """One tensor.

        Args:
          key: its key in the index.
          array: its value; None for one that NumPy cannot show (then `more` has a shape).
          name: the variable's name in the graph, where the checkpoint has it.
          path: the local names from the root object, not escaped, where it is an object.
          dtype: where the array's own does not tell it.
          more: slices (the number of parts), slot_of (a key) and slot_name.
        """
        row: dict[str, Any] = {"key": key, "name": name, "object_path": path}
        if array is not None:
            array = np.asarray(array)
            is_text = array.dtype == object
            dtype = tf.string if is_text else dtype or tf.as_dtype(array.dtype)
            row.update(shape=list(array.shape), values=json_values(array))
        assert dtype is not None
        self.variables.append({**row, "dtype": dtype.name, **more})

    def write(self, prefix: str, checkpoint_format: str, global_step: int | None = None) -> None:
        """Writes expected.json. `prefix` is the checkpoint that the rows are about."""
        content = {
            "tensorflow": tf.__version__,
            "prefix": self._relative(prefix),
            "format": checkpoint_format,
            "global_step": global_step,
            "state": self._state(),
        }
        rows = ",\n".join("  " + json.dumps(row) for row in self.variables)
        fields = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        fields.append(f' "variables": [\n{rows}\n ]')
        with open(os.path.join(self.directory, "expected.json"), "w", encoding="utf-8") as file:
            file.write("{\n" + ",\n".join(fields) + "\n}\n")

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.directory)

    def _state(self) -> dict[str, Any] | None:
        """What the `checkpoint` state file says; None without one."""
        state = tf.train.get_checkpoint_state(self.directory)
        if state is None:
            return None
        return {
            "model_checkpoint_path": self._relative(state.model_checkpoint_path),
            "all_model_checkpoint_paths": [
                self._relative(path) for path in state.all_model_checkpoint_paths
            ],
        }

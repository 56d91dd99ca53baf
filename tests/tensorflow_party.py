"""TensorFlow as the other party of a test, by `from tensorflow_party import tf, v1`.

It is imported at its first use, so that the tests of a module that do without it run where there
is none. There, a test that uses it is skipped, and counted by conftest.py.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

WITH_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


class _Module:
    def __init__(self, name: str) -> None:
        self.__name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(("_", "pytest")) and attribute not in (
            "__internal__",
            "__version__",
        ):
            raise AttributeError(attribute)  # pytest asks it of all that a test module has
        return getattr(importlib.import_module(self.__name), attribute)


tf: Any = _Module("tensorflow")
v1: Any = _Module("tensorflow.compat.v1")

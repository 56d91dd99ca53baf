"""The function that `package.module:function` names."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.text.names import did_you_mean, near_names

_FORM = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def has_form_of_function(text: str) -> bool:
    """Whether a text reads as `package.module:function`."""
    return _FORM.fullmatch(text) is not None


def check_module(spec: str, key: str | None = None) -> None:
    """Looks for the module of `package.module:function`, or its package, and imports nothing.

    Args:
      spec, key: as load_function() takes them.

    Raises:
      SettingsError: there is none.
    """
    package = spec.partition(":")[0].partition(".")[0]
    if has_form_of_function(spec) and package not in sys.modules and not find_spec(package):
        raise _no_module(package, key or spec)


def load_function(spec: str, key: str | None = None) -> Callable[..., Any]:
    """What `package.module:function` names.

    Args:
      spec: the function may be an attribute of an object: `module:Model.model_fn`.
      key: what errors name, such as the flag; unless given, the spec.

    Raises:
      SettingsError: no such module, nothing of that name in it, or it cannot be called. What the
        module raises while it is imported comes as it is.
    """
    key = key or spec
    if not has_form_of_function(spec):
        raise SettingsError(f"expected package.module:function, found {spec!r}", key=key)
    module_name, _, path = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that theirs imports
        raise _no_module(error.name, key) from None
    where = module_name
    for name in path.split("."):
        if not hasattr(found, name):
            hint = did_you_mean(near_names(name, _functions(found)))
            raise SettingsError(f"{where} has no {name!r}{hint}", key=key)
        found = getattr(found, name)
        where = f"{where}.{name}"
    if not callable(found):
        kind = type(found).__name__
        raise SettingsError(f"expected a function, but {spec} is of type {kind}", key=key)
    function: Callable[..., Any] = found
    return function


def import_from_current_directory() -> None:
    """Has modules in the current directory found, as `python -m` does; for a command."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())


def _no_module(name: str, key: str) -> SettingsError:
    return SettingsError(
        f"there is no module {name!r} in the current directory or on PYTHONPATH", key=key
    )


def _functions(holder: Any) -> list[str]:
    return [name for name in dir(holder) if callable(getattr(holder, name, None))]

"""The functions and params of a model that a command line names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.jobs.warm_start_flags import parse_yaml
from estimator_ckpt.text.names import did_you_mean, near_names

# What Estimator itself passes to an input_fn (tensorflow_estimator/python/estimator/estimator.py).
_INPUT_FN_ARGUMENTS = ("mode", "params", "config", "input_context")


def load_function(spec: str, flag: str) -> Callable[..., Any]:
    """What `package.module:function` names.

    Args:
      spec: the function may be an attribute of an object: `module:Model.model_fn`.
      flag: the flag's name, for errors.

    Raises:
      SettingsError: no such module, nothing of that name in it, or it cannot be called. What the
        module raises while it is imported comes as it is.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise SettingsError(f"expected package.module:function, found {spec!r}", key=flag)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that theirs imports
        raise SettingsError(
            f"there is no module {error.name!r} in the current directory or on PYTHONPATH",
            key=flag,
        ) from None
    except ValueError as error:  # `..module`
        raise SettingsError(f"{module_name!r} is no module's name: {error}", key=flag) from None
    where = module_name
    for name in path.split("."):
        if not hasattr(found, name):
            hint = did_you_mean(near_names(name, dir(found)))
            raise SettingsError(f"{where} has no {name!r}{hint}", key=flag)
        found = getattr(found, name)
        where = f"{where}.{name}"
    if not callable(found):
        raise SettingsError(f"{spec} is a {type(found).__name__}, not a function", key=flag)
    function: Callable[..., Any] = found
    return function


def load_input_fn(spec: str, flag: str) -> Callable[..., Any]:
    """load_function() for an input_fn.

    Raises:
      SettingsError: also if it needs arguments that Estimator does not pass.
    """
    function = load_function(spec, flag)
    wrong = [one for one in required_arguments(function) if one not in _INPUT_FN_ARGUMENTS]
    if wrong:
        raise SettingsError(
            f"{spec} needs {', '.join(map(repr, wrong))}, but Estimator passes only "
            f"{', '.join(_INPUT_FN_ARGUMENTS)}",
            key=flag,
        )
    return function


def load_params(given: Sequence[str]) -> dict[str, Any]:
    """The params of a model: YAML mappings, and files of them, later ones over earlier ones.

    Raises:
      SettingsError: no such file, no YAML, or no mapping.
    """
    params: dict[str, Any] = {}
    for text in given:
        path: str | None = files.path_text(text, "--params")
        if path is None or not files.exists(path) or files.is_dir(path):
            path = None
        if path is None and text.endswith((".yaml", ".yml")):
            raise SettingsError("there is no such file", path=text, key="--params")
        found = parse_yaml(
            files.read_bytes(path).decode("utf-8", "replace") if path else text, "--params"
        )
        if not isinstance(found, dict):
            raise SettingsError(
                f"expected a file, or a YAML mapping such as '{{learning_rate: 0.1}}', found "
                f"{found!r}",
                path=path,
                key="--params",
            )
        params.update(found)
    return params


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments without which it cannot be called."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        one.name
        for one in parameters
        if one.default is inspect.Parameter.empty and one.kind not in variable
    ]

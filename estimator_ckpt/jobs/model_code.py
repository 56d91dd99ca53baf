"""The functions and params of a model that a command line names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.jobs.warm_start_flags import parse_yaml
from estimator_ckpt.loading import load_function

# What Estimator itself passes to an input_fn (tensorflow_estimator/python/estimator/estimator.py).
_INPUT_FN_ARGUMENTS = ("mode", "params", "config", "input_context")


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


def call_with(function: Callable[..., Any], spec: str, flag: str, available: dict[str, Any]) -> Any:
    """Calls a function with those of the available arguments that it names.

    Raises:
      SettingsError: it needs another one.
    """
    wrong = [name for name in required_arguments(function) if name not in available]
    if wrong:
        raise SettingsError(
            f"{spec} needs {', '.join(map(repr, wrong))}, but it can get only "
            f"{', '.join(available)}",
            key=flag,
        )
    return function(**{name: available[name] for name in _arguments(function, available)})


def made_by(
    functions: Sequence[tuple[str, Callable[..., Any]]],
    flag: str,
    available: dict[str, Any],
    kind: type,
) -> list[Any]:
    """What functions return: each an object of a kind, or several of them.

    Args:
      functions: the text that names each, and the function.
      flag: the flag's name, for errors.
      available: the arguments that they can get.
      kind: the class of what is expected.

    Raises:
      SettingsError: a function returned something else, or cannot be called.
    """
    found = []
    for spec, function in functions:
        made = call_with(function, spec, flag, available)
        several = list(made) if isinstance(made, (list, tuple)) else [made]
        for one in several:
            if not isinstance(one, kind):
                raise SettingsError(
                    f"{spec} returned {one!r}, expected a {kind.__name__} or a list of them",
                    key=flag,
                )
        found += several
    return found


def _arguments(function: Callable[..., Any], available: dict[str, Any]) -> list[str]:
    try:
        taken = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return []
    return [name for name in available if name in taken]

"""Warm-start settings, checked."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.conversion.hyperparameters import check_hyperparameters
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.policies import (
    MATCH_BY,
    POLICIES,
    Policy,
    ShapePolicy,
    check_policy,
)
from estimator_ckpt.matching.rules import Rules
from estimator_ckpt.roles.dialects import class_names
from estimator_ckpt.text.patterns import compile_pattern
from estimator_ckpt.warm_starting.fitting import FITTINGS
from estimator_ckpt.warm_starting.vocabulary import check_vocabulary, with_home

_ON_UNEXPECTED = ("error", "warn", "ignore")


class NotGiven(enum.Enum):
    """The default of a field whose None has a meaning."""

    NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Settings:
    """The fields of WarmStart, which says what they mean, and what this package's parts know of it.

    Raises:
      SettingsError: a field of the wrong kind; the error's key says which, `assignment_map[2]`.
    """

    ckpt_to_initialize_from: str
    vars_to_warm_start: Any = NotGiven.NOT_GIVEN
    var_name_to_vocab_info: Mapping[str, Any] = field(default_factory=dict)
    var_name_to_prev_var_name: Mapping[str, str] = field(default_factory=dict)
    assignment_map: Sequence[tuple[str, Any]] = ()
    rename: Sequence[tuple[str, str]] = ()
    exclude: Sequence[str] = ()
    on_missing: Policy = "error"
    on_shape_mismatch: ShapePolicy = "error"
    on_unexpected: str = "ignore"
    require_all_rules_match: bool = True
    match_by: str | None = None
    root: str | None = None
    use_averages: str | bool = False
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    from_optimizer: str | None = None

    def __post_init__(self) -> None:
        name = "ckpt_to_initialize_from"
        path = self.ckpt_to_initialize_from
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise _wrong(name, "the path of a checkpoint", path)
        object.__setattr__(self, name, files.path_text(path, name))
        _check_selection(self.vars_to_warm_start)
        for name in ("var_name_to_vocab_info", "var_name_to_prev_var_name"):
            if not isinstance(getattr(self, name), Mapping):
                raise _wrong(name, "a mapping from variable names", getattr(self, name))
        for variable, info in self.var_name_to_vocab_info.items():
            check_vocabulary(f"var_name_to_vocab_info[{variable!r}]", info)
        vocabularies = {name: with_home(info) for name, info in self.var_name_to_vocab_info.items()}
        object.__setattr__(self, "var_name_to_vocab_info", vocabularies)
        for variable, previous in self.var_name_to_prev_var_name.items():
            if not isinstance(previous, str) or not previous:
                setting = f"var_name_to_prev_var_name[{variable!r}]"
                raise _wrong(setting, "a variable name", previous)
        for name in ("assignment_map", "rename"):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, tuple(getattr(self, name).items()))
        for name in ("assignment_map", "rename", "exclude"):
            object.__setattr__(self, name, tuple(_sequence(name, getattr(self, name))))
        for number, pair in enumerate(self.assignment_map):
            _check_assignment(f"assignment_map[{number}]", pair)
        Rules(rename=self.rename, exclude=self.exclude)
        check_policy("on_missing", self.on_missing)
        check_policy("on_shape_mismatch", self.on_shape_mismatch, (*POLICIES, *FITTINGS))
        if self.on_unexpected not in _ON_UNEXPECTED:
            raise _wrong("on_unexpected", f"one of {', '.join(_ON_UNEXPECTED)}", self.on_unexpected)
        if not isinstance(self.require_all_rules_match, bool):
            raise _wrong("require_all_rules_match", "true or false", self.require_all_rules_match)
        if self.match_by not in (None, *MATCH_BY):
            raise _wrong("match_by", f"one of {', '.join(MATCH_BY)}", self.match_by)
        averages = self.use_averages
        if averages == "" or not isinstance(averages, (bool, str)):
            raise _wrong("use_averages", "True or the name of the averages", averages)
        check_hyperparameters(self.hyperparameters)
        if self.from_optimizer not in (None, *class_names()):
            choices = ", ".join(map(repr, class_names()))
            raise _wrong("from_optimizer", f"one of {choices}", self.from_optimizer)
        if averages and (self.hyperparameters or self.from_optimizer):
            raise SettingsError(
                "an optimizer's slots belong to the raw values, so no optimizer starts",
                key="use_averages",
            )
        if self.root is not None and (not isinstance(self.root, str) or not self.root):
            raise _wrong("root", "an object path of the checkpoint, '/' for its root", self.root)

    @property
    def selects_by_default(self) -> bool:
        """Whether no setting says which variables start."""
        is_given = self.vars_to_warm_start is not NotGiven.NOT_GIVEN
        return not is_given and not self.assignment_map

    @property
    def selection(self) -> Any:
        """What vars_to_warm_start selects: as it is given, or what stands for it if it is not."""
        if self.vars_to_warm_start is not NotGiven.NOT_GIVEN:
            return self.vars_to_warm_start
        return () if self.assignment_map else ".*"


def _check_selection(selected: Any) -> None:
    name = "vars_to_warm_start"
    if isinstance(selected, str):
        compile_pattern(selected, name)
    elif isinstance(selected, (list, tuple)):
        for number, one in enumerate(selected):
            if isinstance(one, str):
                compile_pattern(one, f"{name}[{number}]")
            elif not hasattr(one, "name"):
                raise _wrong(f"{name}[{number}]", "an expression or a variable", one)
        if len({isinstance(one, str) for one in selected}) > 1:
            raise _wrong(name, "expressions or variables, not both", selected)
    elif not (selected is None or selected is NotGiven.NOT_GIVEN):
        raise _wrong(name, "an expression, a list or None", selected)


def _check_assignment(setting: str, pair: Any) -> None:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
        raise _wrong(setting, "a pair of checkpoint name or scope and model side", pair)
    source, target = pair
    if not source or target is None or (isinstance(target, str) and not target):
        raise _wrong(setting, "names; the root scope is '/'", pair)
    if isinstance(target, (bool, int, float, Mapping)):
        raise _wrong(setting, "a name, a scope, a variable or a list of its parts", target)
    is_scope = isinstance(target, str) and target.endswith("/")
    if source.endswith("/") != is_scope:
        raise _wrong(setting, "a scope for a scope: 'scope/', with the slash", pair)


def _wrong(name: str, expected: str, found: object) -> SettingsError:
    return SettingsError(f"expected {expected}, found {found!r}", key=name)


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SettingsError(f"expected a list, found {value!r}", key=name)
    return value

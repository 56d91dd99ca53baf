"""Which variables a WarmStart selects, and which of them its rules give a source by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.roles import COUNTER, NUMBER, SLOT, STEP
from estimator_ckpt.text.names import did_you_mean, near_names
from estimator_ckpt.warm_starting.settings import Settings

DEFAULT = "default"  # in place of a setting, where none selects
_STATE = (SLOT, NUMBER, STEP, COUNTER)


@dataclass(frozen=True)
class Choice:
    """A rule that selects a variable.

    Attributes:
      source: what it names in the checkpoint; None where the match decides.
      setting: the setting, `assignment_map[2]`.
      text: the rule itself, or "".
    """

    source: str | None
    setting: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}" if self.text else self.setting


@dataclass
class Selection:
    """What the settings make of a model.

    Attributes:
      chosen: the rule for each selected variable, by name.
      matched: the settings of the rules that apply to anything.
      is_default: whether no setting selects: then a model's optional variables start if they can.
    """

    chosen: dict[str, Choice] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)
    is_default: bool = False


def select(settings: Settings, model: Model) -> Selection:
    """Applies assignment_map, var_name_to_prev_var_name, vars_to_warm_start and vocabularies.

    Of several pairs of an assignment_map for one variable the last decides, as in
    tf.compat.v1.train.init_from_checkpoint, which makes one assignment after the other.

    Raises:
      SettingsError: two settings name a source for one variable, or a rule names no variable.
    """
    found = Selection(is_default=model.starts_all and settings.selects_by_default)
    by_name = {variable.name: variable for variable in model.variables}
    for name, choice in _assigned(settings, model, by_name, found.matched):
        found.chosen[name] = choice
    for name, previous in settings.var_name_to_prev_var_name.items():
        setting = f"var_name_to_prev_var_name[{name!r}]"
        if name in by_name:
            found.matched.add(setting)
            before = found.chosen.setdefault(name, Choice(previous, setting))
            if before.setting != setting and before.source != previous:
                raise SettingsError(f"two rules for {name!r}: {before} and {setting}", key=setting)
    for variable in model.variables:
        _select_one(settings, variable, found)
    for name in settings.var_name_to_vocab_info:
        if name in by_name:
            setting = f"var_name_to_vocab_info[{name!r}]"
            found.matched.add(setting)
            found.chosen.setdefault(name, Choice(name, setting))
    return found


def _select_one(settings: Settings, variable: ModelVariable, found: Selection) -> None:
    rule = DEFAULT if found.is_default else selecting_rule(settings, variable)
    before = found.chosen.get(variable.name)
    if rule is not None:
        found.matched.add(rule)
        found.chosen.setdefault(variable.name, Choice(None, rule))
    elif (
        before is not None
        and before.setting.startswith("var_name_to_prev")
        and variable.name not in settings.var_name_to_vocab_info
    ):
        # It "has no effect on the set of variables that is warm-started" (TensorFlow's words).
        found.matched.discard(found.chosen.pop(variable.name).setting)


def _assigned(
    settings: Settings,
    model: Model,
    by_name: Mapping[str, ModelVariable],
    matched: set[str],
) -> list[tuple[str, Choice]]:
    # TensorFlow's maps are applied before the optimizer has made its variables, so a scope that
    # moves leaves them alone, as vars_to_warm_start does that is not a list.
    movable = [v for v in model.variables if v.role not in _STATE or v.trainable]
    whole_of = {part: variable.name for variable in model.variables for part in variable.parts}
    found: list[tuple[str, Choice]] = []
    for number, (source, target) in enumerate(settings.assignment_map):
        setting = f"assignment_map[{number}]"
        if not (isinstance(target, str) and target.endswith("/")):
            names = _target_names(setting, target, by_name, whole_of)
            found += [(name, Choice(source, setting, f"{source!r} -> {name!r}")) for name in names]
            matched.add(setting)
            continue
        text = f"{source!r} -> {target!r}"
        source_scope, scope = ("" if one == "/" else one for one in (source, target))
        for variable in movable:
            name = variable.name
            if name.startswith(scope):
                matched.add(setting)
                # From the root to the root names nothing: it only says all.
                is_all = source == target == "/"
                choice = None if is_all else source_scope + name[len(scope) :]
                found.append((name, Choice(choice, setting, text)))
    return found


def _target_names(
    setting: str, given: Any, by_name: Mapping[str, ModelVariable], whole_of: Mapping[str, str]
) -> list[str]:
    """The variable that a name, a variable or the parts of a partitioned one stand for."""
    if isinstance(given, str):
        if given not in by_name:
            hint = did_you_mean(near_names(given, by_name))
            raise SettingsError(f"the model has no variable {given!r}{hint}", key=setting)
        return [given]
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    here = {getattr(part, "name", "") for part in parts}
    names = {whole_of.get(name, name) for name in here}
    if len(names) != 1 or not names <= by_name.keys():
        raise SettingsError(f"the model has no one variable {given!r}", key=setting)
    (name,) = names
    if not here >= set(by_name[name].parts) and here != names:
        raise SettingsError(
            f"expected all {len(by_name[name].parts)} parts of {name!r}, found {sorted(here)}",
            key=setting,
        )
    return [name]


def selecting_rule(settings: Settings, variable: ModelVariable) -> str | None:
    """The rule of vars_to_warm_start that selects a variable."""
    selection = settings.selection
    names = (variable.name, *variable.parts)
    if isinstance(selection, str):
        found = variable.trainable and any(re.match(selection, name) for name in names)
        return "vars_to_warm_start" if found else None
    for number, one in enumerate(selection or ()):
        found = (
            any(re.match(one, name) for name in names)
            if isinstance(one, str)
            else getattr(one, "name", None) in names
        )
        if found:
            return f"vars_to_warm_start[{number}]"
    return None


def check_all_apply(settings: Settings, matched: set[str]) -> None:
    """Raises SettingsError for rules that apply to nothing."""
    selection = settings.vars_to_warm_start
    rules = [f"assignment_map[{n}]" for n in range(len(settings.assignment_map))]
    rules += [f"var_name_to_prev_var_name[{n!r}]" for n in settings.var_name_to_prev_var_name]
    rules += [f"var_name_to_vocab_info[{n!r}]" for n in settings.var_name_to_vocab_info]
    rules += [f"exclude[{n}]" for n in range(len(settings.exclude))]
    if isinstance(selection, str):
        rules.append("vars_to_warm_start")
    elif isinstance(selection, (list, tuple)):
        rules += [f"vars_to_warm_start[{n}]" for n in range(len(selection))]
    unused = [rule for rule in rules if rule not in matched]
    if unused:
        raise SettingsError(
            "applies to no variable of the model that the settings select"
            + (f", and neither do {', '.join(unused[1:])}" if unused[1:] else "")
            + "; require_all_rules_match=False allows that",
            key=unused[0],
        )


def exclusion(settings: Settings, name: str) -> tuple[str, str] | None:
    """The exclusion that a variable's name matches: its setting, and the rule."""
    for number, pattern in enumerate(settings.exclude):
        if re.fullmatch(pattern, name):
            return f"exclude[{number}]", f"exclude[{number}]: {pattern}"
    return None

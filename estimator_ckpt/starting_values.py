"""What each variable starts from: a WarmStart applied to a checkpoint and a model's variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.mapping import Rules
from estimator_ckpt.matching import describe, mismatch, policy_for
from estimator_ckpt.object_graph import SAVE_COUNTER
from estimator_ckpt.report import Row, fold, near_names, text_table
from estimator_ckpt.warm_start import NotGiven, WarmStart

_MOST_HINTS = 100


@dataclass(frozen=True)
class Target:
    """A variable of the model, whole.

    Attributes:
      name: its full name.
      shape: of the whole variable; None where it is not known.
      dtype: its name, `float32`.
      trainable: whether it is one of the trainable variables.
      parts: the names that its parts have, `name/part_0:0`; for an undivided one `name:0`.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    trainable: bool
    parts: tuple[str, ...]


@dataclass(frozen=True)
class StartingValue:
    """Where one variable's first value comes from.

    Attributes:
      target: the variable's name.
      source: its key in the checkpoint; None where it is initialized instead.
      rule: the setting that decided it, or the reason why it is initialized.
      shape: of the variable.
      nbytes: how many bytes are read for it.
      has_vocabulary: whether its rows are remapped from one vocabulary to another.
    """

    target: str
    source: str | None
    rule: str
    shape: tuple[int, ...] | None
    nbytes: int = 0
    has_vocabulary: bool = False


@dataclass(frozen=True)
class WarmStartReport:
    """What came from where.

    Attributes:
      checkpoint: the prefix of the checkpoint.
      values: one for every variable of the model that the settings select or exclude.
      unexpected: the checkpoint's variables from which nothing starts.
    """

    checkpoint: str
    values: Sequence[StartingValue]
    unexpected: Sequence[str]

    def __str__(self) -> str:
        rows = [
            Row(
                "warm-started" if value.source is not None else "initialized",
                value.target,
                describe("", value.shape),
                value.source or "-",
                value.rule,
            )
            for value in self.values
        ]
        started = [value for value in self.values if value.source is not None]
        total = (
            f"{len(started)} of {len(self.values)} variables, "
            f"{sum(value.nbytes for value in started):,} bytes, from {self.checkpoint}"
        )
        headers = ("", "variable", "shape", "from", "by")
        cells = [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)]
        return f"{text_table(headers, cells)}\n{total}"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "checkpoint": self.checkpoint,
            "variables": [
                {
                    "variable": value.target,
                    "source": value.source,
                    "rule": value.rule,
                    "shape": None if value.shape is None else list(value.shape),
                    "bytes": value.nbytes,
                }
                for value in self.values
            ],
            "unexpected": list(self.unexpected),
        }


@dataclass(frozen=True)
class _Choice:
    """A rule that names a source for a target; `place` and `text` say which rule."""

    source: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.text else self.place


def starting_values(
    settings: WarmStart, checkpoint: Checkpoint, targets: Sequence[Target]
) -> WarmStartReport:
    """Decides for every variable what it starts from, and why.

    Raises:
      SettingsError: two rules for one variable (names both), or a rule that applies to nothing.
      MismatchError: with one table of everything that is missing, or has another shape or dtype,
        where the settings make that an error; and with a rule to paste, where one shift of scopes
        explains most of what is missing.
    """
    sources = _renamed(settings, checkpoint)
    chosen, matched = _choose(settings, checkpoint, sources, targets)
    problems: list[Row] = []
    missing: list[str] = []
    values: list[StartingValue] = []
    used: set[str] = set()
    names = list(sources)
    row: Row | None
    for target in targets:
        choice = chosen.get(target.name)
        if choice is None:
            continue
        excluded = next((p for p in settings.exclude if re.fullmatch(p, target.name)), None)
        if excluded is not None:
            matched.add(f"exclude {excluded!r}")
            values.append(StartingValue(target.name, None, f"exclude: {excluded}", target.shape))
            continue
        source = _find(choice.source, sources, checkpoint)
        if source is None:
            policy = policy_for(target.name, settings.on_missing)
            near = near_names(choice.source, names) if len(missing) < _MOST_HINTS else []
            note = f"did you mean {near[0]}?" if near else ""
            missing.append(choice.source)
            row = Row("missing", target.name, describe(target.dtype, target.shape), "", note)
            reason = f"not in the checkpoint ({choice.place})"
        else:
            vocabulary = target.name in settings.var_name_to_vocab_info
            row = _misfit(target, source, vocabulary)
            policy = policy_for(target.name, settings.on_shape_mismatch)
            if row is not None and row.status == "dtype":
                policy = "error"
            reason = f"other shape ({choice.place})"
        if row is None:
            assert source is not None
            used.add(source.name)
            values.append(
                StartingValue(
                    target.name, source.key, str(choice), target.shape, source.nbytes, vocabulary
                )
            )
            continue
        if policy == "error":
            problems.append(row)
            continue
        if policy == "warn":
            logging.warning("%s is initialized, not warm-started: %s", target.name, reason)
        values.append(StartingValue(target.name, None, reason, target.shape))
    if problems:
        error = mismatch(checkpoint, problems)
        error.message += _shift_to_paste(missing, names)
        raise error
    if settings.require_all_rules_match:
        _require_all(settings, matched)
    unexpected = [n for n, v in sources.items() if v.name not in used and n != SAVE_COUNTER]
    if unexpected and settings.on_unexpected != "ignore":
        error = mismatch(checkpoint, [Row("unexpected", name) for name in unexpected])
        if settings.on_unexpected == "error":
            raise error
        logging.warning("%s", error)
    return WarmStartReport(checkpoint.prefix, values, unexpected)


def _renamed(settings: WarmStart, checkpoint: Checkpoint) -> dict[str, Variable]:
    """The checkpoint's variables by the names that the rename rules give them."""
    lines = Rules(rename=settings.rename).resolve(
        checkpoint.variables, require_all_rules_match=settings.require_all_rules_match
    )
    return {line.target: checkpoint.variables[line.source] for line in lines if line.target}


def _choose(
    settings: WarmStart,
    checkpoint: Checkpoint,
    sources: Mapping[str, Variable],
    targets: Sequence[Target],
) -> tuple[dict[str, _Choice], set[str]]:
    """The rule for each target, and the places of the rules that have applied."""
    chosen: dict[str, _Choice] = {}
    matched: set[str] = set()

    def choose(target: str, choice: _Choice) -> None:
        matched.add(choice.place)
        before = chosen.setdefault(target, choice)
        if before.place != choice.place and before.source != choice.source:
            raise SettingsError(
                f"two rules for {target!r}: {before} and {choice}", key=choice.place
            )

    by_name = {target.name: target for target in targets}
    whole_of = {part: target.name for target in targets for part in target.parts}
    for number, (source, model) in enumerate(settings.assignment_map):
        place = f"assignment_map[{number}]"
        if isinstance(model, str) and model.endswith("/"):
            source_scope = "" if source == "/" else source
            target_scope = "" if model == "/" else model
            for target in targets:
                if target.name.startswith(target_scope):
                    rest = target.name[len(target_scope) :]
                    choose(
                        target.name, _Choice(source_scope + rest, place, f"{source!r} -> {model!r}")
                    )
            continue
        for name in _target_names(place, model, by_name, whole_of):
            choose(name, _Choice(source, place, f"{source!r} -> {name!r}"))
    for name, previous in settings.var_name_to_prev_var_name.items():
        place = f"var_name_to_prev_var_name[{name!r}]"
        if name in by_name:
            choose(name, _Choice(previous, place, ""))
    for target in targets:
        rule = _selected(settings, target)
        if rule is not None:
            matched.add(rule)
            if target.name not in chosen:
                chosen[target.name] = _Choice(target.name, "same name", "")
        elif (
            target.name in chosen
            and chosen[target.name].place.startswith("var_name_to_prev")
            and target.name not in settings.var_name_to_vocab_info
        ):
            # It "has no effect on the set of variables that is warm-started" (TensorFlow's words).
            matched.discard(chosen.pop(target.name).place)
    for name in settings.var_name_to_vocab_info:
        if name in by_name:
            matched.add(f"var_name_to_vocab_info[{name!r}]")
            chosen.setdefault(name, _Choice(name, f"var_name_to_vocab_info[{name!r}]", ""))
    return chosen, matched


def _target_names(
    place: str, model: Any, by_name: Mapping[str, Target], whole_of: Mapping[str, str]
) -> list[str]:
    """The variable that a name, a variable or the parts of a partitioned one stand for."""
    if isinstance(model, str):
        if model not in by_name:
            near = near_names(model, by_name)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"the model has no variable {model!r}{hint}", key=place)
        return [model]
    parts = list(model) if isinstance(model, (list, tuple)) else [model]
    names = {whole_of.get(getattr(part, "name", ""), getattr(part, "name", "")) for part in parts}
    if len(names) != 1 or not names <= by_name.keys():
        raise SettingsError(f"the model has no one variable {model!r}", key=place)
    return list(names)


def _selected(settings: WarmStart, target: Target) -> str | None:
    """The rule of vars_to_warm_start that selects a variable."""
    selection = settings.vars_to_warm_start
    if selection is NotGiven.NOT_GIVEN:
        if settings.assignment_map:
            return None
        selection = ".*"
    names = (target.name, *target.parts)
    if isinstance(selection, str):
        found = target.trainable and any(re.match(selection, name) for name in names)
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


def _find(source: str, sources: Mapping[str, Variable], checkpoint: Checkpoint) -> Variable | None:
    found = sources.get(source)
    if found is not None or checkpoint.object_graph is None:
        return found
    return next((v for v in checkpoint.variables.values() if v.object_path == source), None)


def _misfit(target: Target, source: Variable, has_vocabulary: bool) -> Row | None:
    expected, found = describe(target.dtype, target.shape), describe(source.dtype, source.shape)
    if source.dtype != target.dtype:
        return Row("dtype", target.name, expected, found, f"key {source.key}")
    if has_vocabulary or target.shape is None or source.shape == target.shape:
        return None
    return Row("shape", target.name, expected, found, f"key {source.key}")


def _require_all(settings: WarmStart, matched: set[str]) -> None:
    selection = settings.vars_to_warm_start
    rules = [f"assignment_map[{n}]" for n in range(len(settings.assignment_map))]
    rules += [f"var_name_to_prev_var_name[{n!r}]" for n in settings.var_name_to_prev_var_name]
    rules += [f"var_name_to_vocab_info[{n!r}]" for n in settings.var_name_to_vocab_info]
    rules += [f"exclude {pattern!r}" for pattern in settings.exclude]
    if isinstance(selection, str):
        rules.append("vars_to_warm_start")
    elif isinstance(selection, (list, tuple)):
        rules += [f"vars_to_warm_start[{n}]" for n in range(len(selection))]
    unused = [rule for rule in rules if rule not in matched]
    if unused:
        raise SettingsError(
            "applies to no variable of the model"
            + (f", and so do {', '.join(unused[1:])}" if unused[1:] else "")
            + "; require_all_rules_match=False allows that",
            key=unused[0],
        )


def _shift_to_paste(missing: Sequence[str], names: Iterable[str]) -> str:
    """The one change of a scope that explains most of what is missing, as a rule to paste."""
    by_last: dict[str, list[str]] = {}
    for name in names:
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    shifts: Counter[tuple[str, str]] = Counter()
    for wanted in missing[:_MOST_HINTS]:
        found = set()
        for name in by_last.get(wanted.rpartition("/")[2], ())[:_MOST_HINTS]:
            ours, theirs = wanted.split("/"), name.split("/")
            while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1]:
                ours.pop()
                theirs.pop()
            if ours[-1] == theirs[-1]:
                (ours if len(ours) == 1 else theirs).pop()
            found.add(("/".join([*theirs, ""]) or "/", "/".join([*ours, ""]) or "/"))
        shifts.update(found)
    if not shifts:
        return ""
    (theirs_scope, ours_scope), count = shifts.most_common(1)[0]
    if count < 2 or count * 2 < len(missing[:_MOST_HINTS]):
        return ""
    return (
        f"\nThis rule would find {count} of {len(missing)}:\n"
        f'assignment_map: [["{theirs_scope}", "{ours_scope}"]]'
    )

"""What each variable starts from: a WarmStart applied to a checkpoint and a model's variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.object_graph import SAVE_COUNTER
from estimator_ckpt.report import Row, did_you_mean, fold, near_names, tensor_text
from estimator_ckpt.saving.matching import mismatch, policy_for
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.sources import Sources
from estimator_ckpt.warm_starting.training_state import training_state
from estimator_ckpt.warm_starting.vocabulary import check_size, fits

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart

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
      ConflictError: a rule's source is the name of one variable and the object path of another.
      MismatchError: with one table of everything that is missing, or has another shape or dtype,
        where the settings make that an error; and with a rule to paste, where one shift of scopes
        explains most of what is missing.
    """
    report, problems, hint = find_starting_values(settings, checkpoint, targets)
    if problems:
        error = mismatch(checkpoint, problems)
        error.message += hint
        raise error
    for value in report.values:
        if value.warns:
            logging.warning("%s is initialized, not warm-started: %s", value.target, value.rule)
    if report.not_trainable:
        rows = fold(Row("initialized", name) for name in report.not_trainable)
        logging.warning(
            "The checkpoint has these variables, but they are not trainable and keep their initial "
            'values; assignment_map=[("/", "/")] starts all of a model from its checkpoint: %s',
            ", ".join(row.name for row in rows),
        )
    if report.unexpected and settings.on_unexpected == "warn":
        rows = [Row("unexpected", name) for name in report.unexpected]
        logging.warning("%s", mismatch(checkpoint, rows))
    return report


def find_starting_values(
    settings: WarmStart, checkpoint: Checkpoint, targets: Sequence[Target]
) -> tuple[WarmStartReport, list[Row], str]:
    """What starting_values() returns, what it would raise as rows, and the rule to paste or "".

    Raises:
      SettingsError, ConflictError: as starting_values() does.
    """
    sources = Sources(settings, checkpoint)
    chosen, matched = _choose(settings, targets)
    problems: list[Row] = []
    missing: list[str] = []
    values: list[StartingValue] = []
    used: set[str] = set()
    for target in targets:
        choice = chosen.get(target.name)
        if choice is None:
            continue
        number = next(
            (n for n, p in enumerate(settings.exclude) if re.fullmatch(p, target.name)), None
        )
        if number is not None:
            matched.add(f"exclude[{number}]")
            rule = f"exclude[{number}]: {settings.exclude[number]}"
            values.append(StartingValue(target.name, None, rule, target.shape))
            continue
        source = sources.find(choice.source)
        if source is None:
            note = sources.hint(choice.source) if len(missing) < _MOST_HINTS else ""
            missing.append(choice.source)
            wanted = tensor_text(target.dtype, target.shape)
            row = Row("missing", target.name, wanted, "", note)
            policy = policy_for(target.name, settings.on_missing)
            reason = f"not in the checkpoint ({choice.place})"
        else:
            info = settings.var_name_to_vocab_info.get(target.name)
            has_vocabulary = info is not None
            if has_vocabulary:
                check_size(f"var_name_to_vocab_info[{target.name!r}]", info, target.shape)
            misfit = _misfit(target, source, info)
            if misfit is None:
                used.add(source.name)
                rule, size = str(choice), source.nbytes
                values.append(
                    StartingValue(target.name, source.key, rule, target.shape, size, has_vocabulary)
                )
                continue
            row = misfit
            policy = policy_for(target.name, settings.on_shape_mismatch)
            reason = f"other shape ({choice.place})"
        if policy == "error" or row.status == "dtype":
            problems.append(row)
        else:
            values.append(
                StartingValue(target.name, None, reason, target.shape, warns=policy == "warn")
            )
    if settings.require_all_rules_match and not problems:
        _require_all(settings, matched)
        if not values:
            raise SettingsError(
                "the settings select no variable of the model, so nothing would start from the "
                "checkpoint; require_all_rules_match=False allows that",
                key="vars_to_warm_start",
            )
    unexpected = [n for n, v in sources.items() if v.name not in used and n != SAVE_COUNTER]
    hint = _shift_to_paste(missing, [*sources, *sources.object_paths]) if problems else ""
    if settings.on_unexpected == "error":
        problems += [Row("unexpected", name) for name in unexpected]
    others = _not_trainable(settings, targets, chosen, sources)
    return WarmStartReport(checkpoint.prefix, values, unexpected, others), problems, hint


def _choose(settings: WarmStart, targets: Sequence[Target]) -> tuple[dict[str, _Choice], set[str]]:
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
    # TensorFlow's maps are applied before the optimizer has made its variables, so a scope that
    # moves leaves them alone, as vars_to_warm_start does that is not a list.
    state = _training_state(targets)
    whole_of = {part: target.name for target in targets for part in target.parts}
    for number, (source, model) in enumerate(settings.assignment_map):
        place = f"assignment_map[{number}]"
        if isinstance(model, str) and model.endswith("/"):
            source_scope = "" if source == "/" else source
            target_scope = "" if model == "/" else model
            for target in targets:
                if target.name.startswith(target_scope) and target.name not in state:
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


def _training_state(targets: Sequence[Target]) -> set[str]:
    state = training_state({target.name: target.shape for target in targets})
    return state - {target.name for target in targets if target.trainable}


def _not_trainable(
    settings: WarmStart,
    targets: Sequence[Target],
    chosen: Collection[str],
    sources: Sources,
) -> list[str]:
    """See WarmStartReport.not_trainable."""
    if not isinstance(settings.selection, str):
        return []
    selection = re.compile(settings.selection)
    state = _training_state(targets)
    names = {target.name for target in targets}
    return [
        target.name
        for target in targets
        if not target.trainable
        and target.name not in state
        and target.name not in chosen
        and target.name.rpartition("/")[0] not in names  # an average follows its variable
        and selection.match(target.name)
        and target.name in sources
    ]


def _target_names(
    place: str, model: Any, by_name: Mapping[str, Target], whole_of: Mapping[str, str]
) -> list[str]:
    """The variable that a name, a variable or the parts of a partitioned one stand for."""
    if isinstance(model, str):
        if model not in by_name:
            hint = did_you_mean(near_names(model, by_name))
            raise SettingsError(f"the model has no variable {model!r}{hint}", key=place)
        return [model]
    parts = list(model) if isinstance(model, (list, tuple)) else [model]
    given = {getattr(part, "name", "") for part in parts}
    names = {whole_of.get(name, name) for name in given}
    if len(names) != 1 or not names <= by_name.keys():
        raise SettingsError(f"the model has no one variable {model!r}", key=place)
    (name,) = names
    if not given >= set(by_name[name].parts) and given != names:
        raise SettingsError(
            f"expected all {len(by_name[name].parts)} parts of {name!r}, found {sorted(given)}",
            key=place,
        )
    return [name]


def _selected(settings: WarmStart, target: Target) -> str | None:
    """The rule of vars_to_warm_start that selects a variable."""
    selection = settings.selection
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


def _misfit(target: Target, source: Variable, vocabulary: Any) -> Row | None:
    expected, found = (
        tensor_text(target.dtype, target.shape),
        tensor_text(source.dtype, source.shape),
    )
    if source.dtype != target.dtype:
        return Row("dtype", target.name, expected, found, f"key {source.key}")
    if target.shape is None or source.shape == target.shape:
        return None
    if vocabulary is not None and fits(vocabulary, target.shape, source.shape):
        return None
    return Row("shape", target.name, expected, found, f"key {source.key}")


def _require_all(settings: WarmStart, matched: set[str]) -> None:
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
                ours.pop()
                theirs.pop()
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

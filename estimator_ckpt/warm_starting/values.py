"""What each variable starts from: a WarmStart applied to a checkpoint and a model's variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.policies import policy_for
from estimator_ckpt.matching.resolve import Resolution, resolve
from estimator_ckpt.matching.restoring import mismatch
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.together import lacking_halves, left_out
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.roles import COUNTER, NUMBER, SLOT, STEP
from estimator_ckpt.text.names import meant
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.warm_starting.advice import NOTHING, what_helps
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.selection import (
    DEFAULT,
    Choice,
    Selection,
    check_all_apply,
    exclusion,
    select,
)
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.vocabulary import check_size, fits

_MOST_HINTS = 100
_STATE = (SLOT, NUMBER, STEP)


def starting_values(settings: Settings, checkpoint: Checkpoint, model: Model) -> WarmStartReport:
    """Decides for every variable what it starts from, and why.

    Raises:
      SettingsError: two rules for one variable (names both), or a rule that applies to nothing.
      ConflictError: a rule's source is the name of one variable and the object path of another.
      MismatchError: with one table of everything that is missing, or has another shape or dtype,
        where the settings make that an error, or of which it is not clear what it is, or of all if
        objects would start from nothing; and with a setting to paste, where one explains most of
        what is missing.
    """
    report, problems, help_text = find_starting_values(settings, checkpoint, model)
    if problems:
        error = mismatch(checkpoint, problems, may_be_missing=NOTHING not in help_text)
        error.message += help_text
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


@dataclass
class _Findings:
    """What is found for the selected variables: by name, each in one of the first three."""

    started: dict[str, tuple[Variable, str, bool]] = field(default_factory=dict)
    kept: dict[str, tuple[str, bool]] = field(default_factory=dict)
    problems: dict[str, Row] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Decision:
    """What starts from what, and what does not fit.

    Attributes:
      selection: what the settings make of the model.
      excluded: the names of the selected variables that `exclude` leaves out.
      found: for the selected variables.
      problems: rows of what does not fit: about the model as a whole, or variable by variable.
    """

    selection: Selection
    excluded: Collection[str]
    found: _Findings
    problems: list[Row]

    @property
    def to_start(self) -> list[str]:
        """The names of the variables that would start, if the checkpoint had them."""
        return [name for name in self.selection.chosen if name not in self.excluded]


def find_starting_values(
    settings: Settings, checkpoint: Checkpoint, model: Model, *, saved: Saved | None = None
) -> tuple[WarmStartReport, list[Row], str]:
    """What starting_values() returns, what it would raise as rows, and what would help, or "".

    Args:
      settings, checkpoint, model: as starting_values() takes them.
      saved: what the checkpoint has under the settings' `rename` rules, if that is known already.

    Raises:
      SettingsError, ConflictError: as starting_values() does.
    """
    if saved is None:
        saved = _saved(settings, checkpoint)
    decision = _decide(settings, saved, model)
    found, problems = decision.found, list(decision.problems)
    if settings.require_all_rules_match and not problems:
        _check_rules(settings, decision)
    is_nothing = not problems and _starts_nothing(settings, decision, model)
    if is_nothing:
        problems = _nothing_rows(decision, model)
        found.kept.clear()
        found.problems.update({row.name: row for row in problems})
    chosen = decision.selection.chosen
    values = [_value(variable, found, chosen) for variable in model.variables]
    values += [_other_value(*other) for other in model.others]
    used = {source.name for source, _, _ in found.started.values()}
    unexpected = [n for n, v in saved.items() if v.name not in used and n != SAVE_COUNTER]
    help_text = ""
    if problems:
        unfound = {row.name for row in problems if row.status in ("missing", "ambiguous")}
        lacking = [variable.name for variable in model.variables if variable.name in unfound]

        def in_thought(tried: Settings) -> Mapping[str, str] | None:
            return _in_thought(tried, checkpoint, model, decision)

        help_text, meant_by_it = what_helps(
            settings, model, lacking, saved, in_thought, is_nothing=is_nothing
        )
        near = _near_names(problems, decision, model, saved, meant_by_it, is_nothing=is_nothing)
        problems = [
            replace(row, note="; ".join(filter(None, (row.note, near.get(row.name, "")))))
            for row in problems
        ]
    if settings.on_unexpected == "error":
        problems += [Row("unexpected", name) for name in unexpected]
    others = _not_trainable(settings, model, chosen, saved)
    return WarmStartReport(checkpoint.prefix, values, unexpected, others), problems, help_text


def _saved(settings: Settings, checkpoint: Checkpoint) -> Saved:
    return Saved(
        checkpoint,
        settings.rename,
        require_all_rules_match=settings.require_all_rules_match,
        use_averages=settings.use_averages,
    )


def _decide(settings: Settings, saved: Saved, model: Model) -> _Decision:
    selection = select(settings, model)
    found = _Findings()
    matches = Resolution({})
    if any(choice.source is None for choice in selection.chosen.values()):
        matches = resolve(model, saved, match_by=settings.match_by, root=settings.root)
    all_excluded = set()
    for variable in model.variables:
        choice = selection.chosen.get(variable.name)
        excluded = exclusion(settings, variable.name) if choice is not None else None
        if excluded is not None:
            rule_name, rule = excluded
            selection.matched.add(rule_name)
            all_excluded.add(variable.name)
            found.kept[variable.name] = (rule, False)
        elif choice is not None:
            is_optional = selection.is_default and not variable.is_required
            _find(settings, saved, matches, variable, choice, is_optional, found)
    if selection.is_default:
        fitting = {name: source for name, (source, _, _) in found.started.items()}
        for name, reason in left_out(model, saved, matches.structure, fitting).items():
            found.started.pop(name, None)
            found.kept[name] = (reason, False)
    for name, reason in lacking_halves(model, found.started).items():
        found.started.pop(name)
        found.kept[name] = (reason, True)
    problems = [*matches.problems, *(found.problems.values() if not matches.problems else ())]
    return _Decision(selection, all_excluded, found, problems)


def _check_rules(settings: Settings, decision: _Decision) -> None:
    """Raises SettingsError where a rule applies to nothing, or the rules leave nothing to start."""
    check_all_apply(settings, decision.selection.matched)
    if not decision.to_start:
        verb = "exclude every" if decision.selection.chosen else "select no"
        raise SettingsError(
            f"the settings {verb} variable of the model, so nothing would start from the "
            "checkpoint; require_all_rules_match=False allows that",
            key="exclude" if decision.selection.chosen else "vars_to_warm_start",
        )


def _starts_nothing(settings: Settings, decision: _Decision, model: Model) -> bool:
    """Whether a start of objects has nothing to do, which nobody can have meant.

    A job that allows all to be missing may well start with nothing of an earlier one.
    """
    if decision.found.started or not decision.to_start or not model.starts_all:
        return False
    return decision.selection.is_default or settings.require_all_rules_match


def _nothing_rows(decision: _Decision, model: Model) -> list[Row]:
    """A row for each variable that was to start where none does."""
    to_start = set(decision.to_start)
    kept = decision.found.kept
    return [
        _missing(v, kept.get(v.name, ("", False))[0]) for v in model.variables if v.name in to_start
    ]


def _near_names(
    problems: Sequence[Row],
    decision: _Decision,
    model: Model,
    saved: Saved,
    meant_by_rule: Mapping[str, str],
    *,
    is_nothing: bool,
) -> dict[str, str]:
    """What each may be that is missing, as a note: what the offered rule says, or what is near."""
    by_name = {variable.name: variable for variable in model.variables}
    taken = {source.key for source, _, _ in decision.found.started.values()}
    found: dict[str, str] = {}
    for row in problems:
        variable = by_name.get(row.name)
        is_explained = bool(row.note) and not is_nothing
        if row.status != "missing" or variable is None or is_explained or len(found) > _MOST_HINTS:
            continue
        name = decision.selection.chosen[row.name].source or variable.known_as
        if row.name in meant_by_rule:
            source = meant_by_rule[row.name]
            found[row.name] = meant([source] if source != name else [])
        elif name:
            found[row.name] = saved.hint(name, variable.shape, variable.dtype, taken)
    return found


def _in_thought(
    settings: Settings, checkpoint: Checkpoint, model: Model, before: _Decision
) -> Mapping[str, str] | None:
    """What would start from what under other settings, by names; None if these do any harm.

    They would where a variable does not start that did before, or of one that did not the tensor
    does not fit, or is a slot where the variable is none.
    """
    try:
        decision = _decide(settings, _saved(settings, checkpoint), model)
    except CheckpointError:
        return None
    started = decision.found.started
    fit = {v.name for v in model.variables if v.name in started}
    slots = {
        v.name
        for v in model.variables
        if v.is_required and v.name in started and started[v.name][0].slot_of is not None
    }
    known = {row.name for row in before.problems}
    new = [row for row in decision.problems if row.name not in known or row.status != "missing"]
    if slots or new or not fit >= before.found.started.keys():
        return None
    return {name: started[name][0].name for name in fit}


def _other_value(name: str, kind: str) -> StartingValue:
    reason = f"no variable but {kind}: a restore brings its state, a warm start does not"
    return StartingValue(name, None, reason, None, is_selected=False, kind=kind)


def _value(variable: ModelVariable, found: _Findings, chosen: Collection[str]) -> StartingValue:
    name, shape = variable.name, variable.shape
    if name in found.started:
        source, rule, has_vocabulary = found.started[name]
        return StartingValue(name, source.key, rule, shape, source.nbytes, has_vocabulary)
    if name in found.kept:
        rule, warns = found.kept[name]
        return StartingValue(name, None, rule, shape, warns=warns)
    if name in found.problems:
        return StartingValue(name, None, found.problems[name].status, shape)
    if name in chosen:
        return StartingValue(name, None, "nothing starts", shape)
    reason = "no setting selects it" if variable.trainable else "not trainable"
    if variable.role in _STATE:
        reason = f"{variable.role} of the training"
    return StartingValue(name, None, reason, shape, is_selected=False)


def _find(
    settings: Settings,
    saved: Saved,
    matches: Resolution,
    variable: ModelVariable,
    choice: Choice,
    is_optional: bool,
    found: _Findings,
) -> None:
    """Finds what a rule means for one variable."""
    name = variable.name
    if variable.role == COUNTER and is_optional:
        found.kept[name] = ("it counts this program's own saves", False)
        return
    if choice.source is None:
        match = matches.matches[name]
        source, row, rule = match.source, match.problem, match.rule
        if choice.place.startswith("assignment_map"):
            rule = f"{choice}, {rule}"
    else:
        source, row, rule = saved.find(choice.source), None, str(choice)
        if source is None:
            row = _missing(variable)
    has_vocabulary = name in settings.var_name_to_vocab_info
    if source is not None:
        info = settings.var_name_to_vocab_info.get(name)
        if has_vocabulary:
            check_size(f"var_name_to_vocab_info[{name!r}]", info, variable.shape)
        row = _misfit(variable, source, info)
    if source is not None and row is None:
        found.started[name] = (source, rule, has_vocabulary)
        return
    assert row is not None
    if is_optional:
        found.kept[name] = (f"{variable.role}: {row.status} in the checkpoint", False)
        return
    policy, reason = "error", row.status
    why = "" if choice.place == DEFAULT else f" ({choice.place})"
    if row.status == "missing":
        found.missing.append(name)
        policy = policy_for(name, settings.on_missing)
        reason = f"not in the checkpoint{why}"
    elif row.status == "shape":
        policy = policy_for(name, settings.on_shape_mismatch)
        reason = f"other shape{why}"
    if policy == "error":
        found.problems[name] = row
    else:
        found.kept[name] = (reason, policy == "warn")


def _missing(variable: ModelVariable, note: str = "") -> Row:
    return Row("missing", variable.name, tensor_text(variable.dtype, variable.shape), "", note)


def _not_trainable(
    settings: Settings, model: Model, chosen: Collection[str], saved: Saved
) -> list[str]:
    """See WarmStartReport.not_trainable."""
    if not isinstance(settings.selection, str):
        return []
    selection = re.compile(settings.selection)
    names = {variable.name for variable in model.variables}
    return [
        variable.name
        for variable in model.variables
        if not variable.trainable
        and variable.role not in _STATE
        and variable.name not in chosen
        and variable.name.rpartition("/")[0] not in names  # an average follows its variable
        and selection.match(variable.name)
        and variable.name in saved
    ]


def _misfit(variable: ModelVariable, source: Variable, vocabulary: Any) -> Row | None:
    expected, found = (
        tensor_text(variable.dtype, variable.shape),
        tensor_text(source.dtype, source.shape),
    )
    if source.dtype != variable.dtype:
        return Row("dtype", variable.name, expected, found, f"key {source.key}")
    if variable.shape is None or source.shape == variable.shape:
        return None
    if vocabulary is not None and fits(vocabulary, variable.shape, source.shape):
        return None
    return Row("shape", variable.name, expected, found, f"key {source.key}")

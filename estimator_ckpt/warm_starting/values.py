"""What each variable starts from: a WarmStart applied to a checkpoint and a model's variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from absl import logging

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.restoring import mismatch
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.roles import NUMBER, SLOT, STEP
from estimator_ckpt.text.names import meant
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.warm_starting.advice import NOTHING, what_helps
from estimator_ckpt.warm_starting.decide import Decision, decide, missing_row, saved_for
from estimator_ckpt.warm_starting.findings import Findings
from estimator_ckpt.warm_starting.fitting import fitting_text
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.selection import (
    check_all_apply,
)
from estimator_ckpt.warm_starting.settings import Settings

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
    for refusal in report.refused:
        logging.warning("The state of an optimizer does not start: %s", refusal)
    for note in report.notes:
        logging.warning("The state of an optimizer starts, but see to this: %s", note)
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


@collector_paused()
def find_starting_values(
    settings: Settings,
    checkpoint: Checkpoint,
    model: Model,
    *,
    saved: Saved | None = None,
    explain: bool = True,
) -> tuple[WarmStartReport, list[Row], str]:
    """What starting_values() returns, what it would raise as rows, and what would help, or "".

    Args:
      settings, checkpoint, model: as starting_values() takes them.
      saved: what the checkpoint has under the settings' `rename` rules, if that is known already.
      explain: whether to look for near names and for what would help, which takes time.

    Raises:
      SettingsError, ConflictError: as starting_values() does.
    """
    if saved is None:
        saved = saved_for(settings, checkpoint)
    decision = decide(settings, checkpoint, saved, model)
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
    unexpected = [
        n
        for n, v in saved.items()
        if v.name not in used and n != SAVE_COUNTER and found.used_keys.isdisjoint(v.keys)
    ]
    help_text = ""
    if problems and explain:
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
    report = WarmStartReport(
        checkpoint.prefix, values, unexpected, others, found.notes, found.refused
    )
    return report, problems, help_text


def _check_rules(settings: Settings, decision: Decision) -> None:
    """Raises SettingsError where a rule applies to nothing, or the rules leave nothing to start."""
    check_all_apply(settings, decision.selection.matched)
    if not decision.to_start:
        verb = "exclude every" if decision.selection.chosen else "select no"
        raise SettingsError(
            f"the settings {verb} variable of the model, so nothing would start from the "
            "checkpoint; require_all_rules_match=False allows that",
            key="exclude" if decision.selection.chosen else "vars_to_warm_start",
        )


def _starts_nothing(settings: Settings, decision: Decision, model: Model) -> bool:
    """Whether a start of objects has nothing to do, which nobody can have meant.

    A job that allows all to be missing may well start with nothing of an earlier one.
    """
    if decision.starts or not decision.to_start or not model.starts_all:
        return False
    return decision.selection.is_default or settings.require_all_rules_match


def _nothing_rows(decision: Decision, model: Model) -> list[Row]:
    """A row for each variable that was to start where none does."""
    to_start = set(decision.to_start)
    kept = decision.found.kept
    return [
        missing_row(v, kept.get(v.name, ("", False))[0])
        for v in model.variables
        if v.name in to_start
    ]


def _near_names(
    problems: Sequence[Row],
    decision: Decision,
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
    settings: Settings, checkpoint: Checkpoint, model: Model, before: Decision
) -> Mapping[str, str] | None:
    """What would start from what under other settings, by names; None if these do any harm.

    They would where a variable does not start that did before, or of one that did not the tensor
    does not fit, or is a slot where the variable is none.
    """
    try:
        decision = decide(settings, checkpoint, saved_for(settings, checkpoint), model)
    except CheckpointError:
        return None
    started = decision.found.started
    fit = decision.starts
    slots = {
        v.name
        for v in model.variables
        if v.is_required and v.name in started and started[v.name][0].slot_of is not None
    }
    known = {row.name for row in before.problems}
    new = [row for row in decision.problems if row.name not in known or row.status != "missing"]
    if slots or new or not fit >= before.starts:
        return None
    return {name: started[name][0].name if name in started else name for name in fit}


def _other_value(name: str, kind: str) -> StartingValue:
    reason = f"no variable but {kind}: a restore brings its state, a warm start does not"
    return StartingValue(name, None, reason, None, is_selected=False, kind=kind)


def _value(variable: ModelVariable, found: Findings, chosen: Collection[str]) -> StartingValue:
    name, shape = variable.name, variable.shape
    if name in found.started:
        source, rule, has_vocabulary = found.started[name]
        fitting = found.fittings.get(name, "")
        if fitting:
            rule += f"; {fitting_text(fitting, shape or (), source.shape)}"
        return StartingValue(
            name, source.key, rule, shape, source.nbytes, has_vocabulary, fitting=fitting
        )
    if name in found.computed:
        content, rule = found.computed[name]
        key = content.source or None
        return StartingValue(name, key, rule, shape, content.nbytes, content=content)
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

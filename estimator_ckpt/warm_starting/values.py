"""What each variable starts from: a WarmStart applied to a checkpoint and a model's variables."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.hints import scope_to_paste
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.policies import policy_for
from estimator_ckpt.matching.resolve import Resolution, resolve
from estimator_ckpt.matching.restoring import mismatch
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.together import lacking_halves, left_out
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.roles import COUNTER, NUMBER, SLOT, STEP
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.warm_starting.findings import Findings
from estimator_ckpt.warm_starting.fitting import FITTINGS, fitting_text, misfit
from estimator_ckpt.warm_starting.optimizer_states import start_optimizers
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.selection import (
    DEFAULT,
    Choice,
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
        where the settings make that an error, or of which it is not clear what it is; and with a
        rule to paste, where one shift of scopes explains most of what is missing.
    """
    report, problems, hint = find_starting_values(settings, checkpoint, model)
    if problems:
        error = mismatch(checkpoint, problems)
        error.message += hint
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


def find_starting_values(
    settings: Settings, checkpoint: Checkpoint, model: Model, *, saved: Saved | None = None
) -> tuple[WarmStartReport, list[Row], str]:
    """What starting_values() returns, what it would raise as rows, and the rule to paste or "".

    Args:
      settings, checkpoint, model: as starting_values() takes them.
      saved: what the checkpoint has under the settings' `rename` rules, if that is known already.

    Raises:
      SettingsError, ConflictError: as starting_values() does.
    """
    if saved is None:
        must_match = settings.require_all_rules_match
        saved = Saved(
            checkpoint,
            settings.rename,
            require_all_rules_match=must_match,
            use_averages=settings.use_averages,
        )
    selection = select(settings, model)
    found = Findings()
    matches = Resolution({})
    if any(choice.source is None for choice in selection.chosen.values()):
        matches = resolve(model, saved, match_by=settings.match_by, root=settings.root)
    for variable in model.variables:
        choice = selection.chosen.get(variable.name)
        excluded = exclusion(settings, variable.name) if choice is not None else None
        if excluded is not None:
            place, rule = excluded
            selection.matched.add(place)
            found.kept[variable.name] = (rule, False)
        elif choice is not None:
            is_optional = selection.is_default and not variable.is_required
            _find(settings, saved, matches, variable, choice, is_optional, found)
    decided: dict[str, str] = {}
    for is_decided in (False, True) if model.live_optimizers else (True,):
        fitting = {name: source for name, (source, _, _) in found.started.items()}
        leaving = {}
        if selection.is_default:
            leaving = left_out(model, saved, matches.structure, fitting, decided)
        if not is_decided:
            decided = start_optimizers(settings, checkpoint, model, selection, found, leaving)
        for name, reason in leaving.items() if is_decided else ():
            found.started.pop(name, None)
            found.kept[name] = (reason, False)
    for name, reason in lacking_halves(model, found.started).items():
        found.started.pop(name)
        found.kept[name] = (reason, True)
    settled = {v.name for v in model.variables if decided.get(v.optimizer) == ""}
    ambiguous = [row for row in matches.problems if row.name not in settled]
    problems = [*ambiguous, *(found.problems.values() if not ambiguous else ())]
    if selection.is_default and not found.started and not problems and found.missing:
        note = "nothing of the model is there: a bare object fits nowhere; root= says where it is"
        problems = [Row("missing", name, note=note) for name in found.missing]
        found.kept.clear()
        found.problems.update({row.name: row for row in problems})
    values = [_value(variable, found, selection.chosen) for variable in model.variables]
    if settings.require_all_rules_match and not problems:
        check_all_apply(settings, selection.matched)
        if not selection.chosen:
            raise SettingsError(
                "the settings select no variable of the model, so nothing would start from the "
                "checkpoint; require_all_rules_match=False allows that",
                key="vars_to_warm_start",
            )
    used = {source.name for source, _, _ in found.started.values()}
    unexpected = [
        n
        for n, v in saved.items()
        if v.name not in used and n != SAVE_COUNTER and found.used_keys.isdisjoint(v.keys)
    ]
    hint = scope_to_paste(model, found.missing, saved) if problems else ""
    if settings.on_unexpected == "error":
        problems += [Row("unexpected", name) for name in unexpected]
    others = _not_trainable(settings, model, selection.chosen, saved)
    report = WarmStartReport(
        checkpoint.prefix, values, unexpected, others, found.notes, found.refused
    )
    return report, problems, hint


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


def _find(
    settings: Settings,
    saved: Saved,
    matches: Resolution,
    variable: ModelVariable,
    choice: Choice,
    is_optional: bool,
    found: Findings,
) -> None:
    """Finds what a rule means for one variable."""
    name = variable.name
    if variable.role == COUNTER and is_optional:
        found.kept[name] = ("it counts this program's own saves", False)
        return
    if choice.source is None:
        match = matches.matches[name]
        source, row, rule = match.source, match.problem, match.rule
        if row is not None and row.status == "missing" and not row.note:
            note = saved.hint(variable.known_as) if len(found.missing) < _MOST_HINTS else ""
            row = replace(row, note=note)
        if choice.place.startswith("assignment_map"):
            rule = f"{choice}, {rule}"
    else:
        source, row, rule = saved.find(choice.source), None, str(choice)
        if source is None:
            note = saved.hint(choice.source) if len(found.missing) < _MOST_HINTS else ""
            row = Row("missing", name, tensor_text(variable.dtype, variable.shape), "", note)
    has_vocabulary = name in settings.var_name_to_vocab_info
    if source is not None:
        info = settings.var_name_to_vocab_info.get(name)
        if has_vocabulary:
            check_size(f"var_name_to_vocab_info[{name!r}]", info, variable.shape)
        row = _misfit(variable, source, info)
    if source is not None and row is not None and row.status == "shape":
        fitting = policy_for(name, settings.on_shape_mismatch)
        if fitting in FITTINGS:
            why_not = misfit(fitting, variable.shape or (), source.shape)
            if why_not:
                row = replace(row, note=f"{why_not}; {row.note}")
            else:
                found.fittings[name], row = fitting, None
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
    if policy in ("error", *FITTINGS):
        found.problems[name] = row
    else:
        found.kept[name] = (reason, policy == "warn")


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

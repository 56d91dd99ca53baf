"""Which selected variables start, and from what; what does not fit, and what stays as it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.policies import policy_for
from estimator_ckpt.matching.resolve import Resolution, resolve
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.together import lacking_halves, left_out
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles import COUNTER
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row
from estimator_ckpt.warm_starting.findings import Findings
from estimator_ckpt.warm_starting.fitting import FITTINGS, misfit
from estimator_ckpt.warm_starting.optimizer_states import start_optimizers
from estimator_ckpt.warm_starting.selection import DEFAULT, Choice, Selection, exclusion, select
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.vocabulary import check_size, fits


@dataclass(frozen=True)
class Decision:
    """What starts from what, and what does not fit.

    Attributes:
      selection: what the settings make of the model.
      excluded: the names of the selected variables that `exclude` leaves out.
      found: for the selected variables.
      problems: rows of what does not fit: about the model as a whole, or variable by variable.
    """

    selection: Selection
    excluded: Collection[str]
    found: Findings
    problems: list[Row]

    @property
    def starts(self) -> set[str]:
        """The names of the variables that start from the checkpoint."""
        return {*self.found.started, *self.found.computed}

    @property
    def to_start(self) -> list[str]:
        """The names of the variables that would start, if the checkpoint had them."""
        return [name for name in self.selection.chosen if name not in self.excluded]


def saved_for(settings: Settings, checkpoint: Checkpoint) -> Saved:
    """What a checkpoint has by the settings' `rename` rules, with averages if they want these."""
    return Saved(
        checkpoint,
        settings.rename,
        require_all_rules_match=settings.require_all_rules_match,
        use_averages=settings.use_averages,
    )


def decide(settings: Settings, checkpoint: Checkpoint, saved: Saved, model: Model) -> Decision:
    """Decides for every variable of a model.

    Args:
      settings: which are to start, by which rules.
      checkpoint: from where.
      saved: what it has.
      model: its variables.

    Raises:
      CheckpointError: a rule is wrong, or an optimizer's state that the settings ask for cannot
        start.
    """
    selection = select(settings, model)
    found = Findings()
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
            _find(
                variable,
                choice,
                is_optional=selection.is_default and not variable.is_required,
                settings=settings,
                saved=saved,
                matches=matches,
                found=found,
            )
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
    return Decision(selection, all_excluded, found, problems)


def _find(
    variable: ModelVariable,
    choice: Choice,
    *,
    is_optional: bool,
    settings: Settings,
    saved: Saved,
    matches: Resolution,
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
        if choice.setting.startswith("assignment_map"):
            rule = f"{choice}, {rule}"
    else:
        source, row, rule = saved.find(choice.source), None, str(choice)
        if source is None:
            row = missing_row(variable)
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
    row = row or missing_row(variable)
    if is_optional:
        found.kept[name] = (f"{variable.role}: {row.status} in the checkpoint", False)
        return
    policy, reason = "error", row.status
    why = "" if choice.setting == DEFAULT else f" ({choice.setting})"
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


def missing_row(variable: ModelVariable, note: str = "") -> Row:
    """The row of a variable that a checkpoint lacks."""
    return Row("missing", variable.name, tensor_text(variable.dtype, variable.shape), "", note)


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

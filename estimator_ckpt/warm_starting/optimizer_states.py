"""Optimizers of a model that start from the state of another kind of optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.live_state import (
    ADVICE,
    STAYS,
    LiveState,
    SourceOptimizers,
)
from estimator_ckpt.errors import CheckpointError, SettingsError, UnsupportedCheckpointError
from estimator_ckpt.matching.model import LiveOptimizer, Model, ModelVariable
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles import NUMBER, SLOT, STEP
from estimator_ckpt.roles.records import NEWER
from estimator_ckpt.warm_starting.findings import Findings
from estimator_ckpt.warm_starting.selection import Selection, exclusion
from estimator_ckpt.warm_starting.settings import Settings

_BY_ORDER = (
    "its slots start by the order of its lists alone: in the checkpoint several variables have one "
    "name, or none, so the optimizer must have been built in the same order"
)
_HYPERPARAMETERS = "hyperparameters"


def start_optimizers(
    settings: Settings,
    checkpoint: Checkpoint,
    model: Model,
    selection: Selection,
    found: Findings,
    left_out: Collection[str],
) -> dict[str, str]:
    """Finds what optimizers start from whose state the checkpoint has, but not as it stands there.

    All of an optimizer's state starts, or none of it.

    Args:
      settings, checkpoint, model, selection: of the warm start.
      found: what is found by objects and names; changed in place.
      left_out: the names of variables that do not start for all that is found.

    Returns:
      The optimizers that are decided here: "" for one that starts, else the reason why not.

    Raises:
      CheckpointError: the state of an optimizer that the settings ask for (hyperparameters,
        from_optimizer) cannot start, or one has no slots yet.
    """
    asked = [n for n in (_HYPERPARAMETERS, "from_optimizer") if getattr(settings, n)]
    others = {one.name: _numbers_of(settings, model, one) for one in model.live_optimizers}
    _check_numbers(settings, others)
    decided: dict[str, str] = {}
    source: SourceOptimizers | None = None
    by_name = {variable.name: variable for variable in model.variables}
    for live in model.live_optimizers if not settings.use_averages else ():
        own = _variables_of(live, model)
        if not _is_selected(settings, selection, live, own):
            continue
        starts = all(n in found.started and n not in left_out for n in own)
        try:
            source = source or SourceOptimizers(checkpoint, settings.from_optimizer)
            sources = {name: one.keys for name, (one, _, _) in found.started.items()}
            if starts and own:
                reason = source.another_class(live, sources)
                if reason is not None:
                    raise UnsupportedCheckpointError(reason)
                # Positions in lists may be others'; names and references are what they say.
                fit = source.slots_fit(live, sources) if live.dialect == NEWER else True
                if fit is None:
                    found.notes.append(f"{live.name}: {_BY_ORDER}")
                if fit is not False:
                    continue
            whole = _with_all_slots(live, own, by_name)
            state = source.state_for(whole, by_name, sources, others[live.name])
            if state is None:
                continue
        except CheckpointError as error:
            error.message = ADVICE.sub("", error.message)
            error.path = error.path or checkpoint.prefix
            if asked or not live.is_built:
                raise
            decided[live.name] = error.message
            _refuse(live, own, error.message, selection, found)
            continue
        decided[live.name] = ""
        _take(checkpoint, model, selection, own, state, found)
    if settings.hyperparameters and not decided and settings.require_all_rules_match:
        raise SettingsError(
            "they say how an optimizer's state becomes another's, and no optimizer of the model is "
            "selected that starts so; require_all_rules_match=False allows that",
            key=_HYPERPARAMETERS,
        )
    return decided


def _variables_of(live: LiveOptimizer, model: Model) -> list[str]:
    """The names of all its variables, those of no known meaning among them."""
    known = dict.fromkeys(live.variables())
    known.update(
        dict.fromkeys(
            variable.name
            for variable in model.variables
            if variable.optimizer == live.name and variable.role in (SLOT, NUMBER)
        )
    )
    return list(known)


def _is_selected(
    settings: Settings, selection: Selection, live: LiveOptimizer, own: Sequence[str]
) -> bool:
    """Whether all of an optimizer's state is to start; that of one that has none yet by default."""
    if not own:
        return selection.is_default and not live.is_built
    return all(
        name in selection.chosen
        and selection.chosen[name].source is None
        and exclusion(settings, name) is None
        for name in own
    )


def _with_all_slots(
    live: LiveOptimizer, own: Sequence[str], variables: Mapping[str, ModelVariable]
) -> LiveOptimizer:
    """The optimizer, refused if it has slots of no known meaning: they would begin anew."""
    known = set(live.variables())
    unknown = [
        name
        for name in own
        if name not in known
        and variables[name].role == SLOT
        and (variables[name].shape != () or not live.scale)  # a wrapper has numbers inside
    ]
    if not unknown or live.problem:
        return live
    problem = (
        "an optimizer's state starts all or not at all: nothing says what "
        f"{unknown[0]!r} of {live.label} is to start from"
    )
    return replace(live, problem=problem)


def _refuse(
    live: LiveOptimizer,
    own: Sequence[str],
    reason: str,
    selection: Selection,
    found: Findings,
) -> None:
    """None of the optimizer's variables starts."""
    if not selection.is_default and any(name in found.started for name in own):
        return  # those that are there start, each by itself, as the settings name it
    found.refused.append(f"{live.name}: {reason}")
    for name in own:
        if selection.is_default:
            found.forget(name)
            found.kept[name] = (reason, False)
        elif name in found.problems:
            found.problems[name] = replace(found.problems[name], note=reason)


def _take(
    checkpoint: Checkpoint,
    model: Model,
    selection: Selection,
    own: Sequence[str],
    state: LiveState,
    found: Findings,
) -> None:
    """An optimizer's state starts; with it a global step that the checkpoint has as its count."""
    by_key: dict[str, Variable] = {}
    for variable in checkpoint.variables.values():
        by_key.update(dict.fromkeys(variable.keys, variable))
    starts = dict(state.starts)
    for step in model.variables:
        is_lacking = step.name in selection.chosen and step.name not in found.started
        if step.role == STEP and is_lacking and state.step is not None:
            starts[step.name] = state.step
    for name, start in starts.items():
        found.forget(name)
        content = start.content
        if content.source in by_key and not content.computed:
            found.started[name] = (by_key[content.source], start.why, False)
        else:
            found.computed[name] = start
    for name in own:
        if name not in starts:
            found.forget(name)
            found.kept[name] = (state.stays.get(name, STAYS), False)
    found.notes += [note for note in state.notes if note not in found.notes]
    found.used_keys |= state.keys


def _numbers_of(settings: Settings, model: Model, live: LiveOptimizer) -> dict[str, float]:
    """The hyperparameters that are given for an optimizer, by their names alone.

    Raises:
      SettingsError: a name does not say whose it is.
    """
    found = {}
    for name, value in settings.hyperparameters.items():
        whose, _, number = name.rpartition("/")
        if not whose and len(model.live_optimizers) > 1:
            labels = sorted({f"{one.name}/{name}" for one in model.live_optimizers})
            raise SettingsError(
                f"{name}: there are {len(model.live_optimizers)} optimizers; say whose it is: "
                f"{', '.join(labels)}",
                key=_HYPERPARAMETERS,
            )
        if whose in ("", live.name, live.label):
            found[number] = value
    return found


def _check_numbers(settings: Settings, numbers: Mapping[str, Mapping[str, float]]) -> None:
    known = {number for one in numbers.values() for number in one}
    for name in settings.hyperparameters:
        if name.rpartition("/")[2] not in known and settings.require_all_rules_match:
            raise SettingsError(
                f"{name}: the model has no such optimizer; it has "
                f"{', '.join(numbers) or 'none that shows'}",
                key=_HYPERPARAMETERS,
            )

"""A rule to paste, where one change of a scope explains what is missing: checked before offered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from estimator_ckpt.checkpoint import Variable
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.roles.training_state import training_state

_MOST_HINTS = 100


def scope_to_paste(model: Model, missing: Sequence[str], saved: Saved) -> str:
    """The one change of a scope that explains most of what is missing, as a rule to paste, or "".

    Applied to the model it maps each variable of the scope to one of the checkpoint with the same
    shape and dtype, no two to one, and no weight to a slot or number of an optimizer. Of names that
    a counter may have made none is offered where the checkpoint has objects: `dense_1` for `dense`
    would be a guess.

    Args:
      model: its variables.
      missing: the names of those that were not found.
      saved: what the checkpoint has.
    """
    weights = _weights(saved)
    by_last: dict[str, list[str]] = {}
    for name in sorted(weights):
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    wanted = {v.name: v for v in model.variables if v.known_as and v.is_required}
    known = [wanted[name] for name in missing if name in wanted][:_MOST_HINTS]
    if saved.has_objects and any(one.is_weak or one.is_counted for one in known):
        return ""
    shifts: Counter[tuple[str, str]] = Counter()
    for variable in known:
        alike = by_last.get(variable.known_as.rpartition("/")[2], ())
        shifts.update({_shift(variable.known_as, name): 1 for name in alike[:_MOST_HINTS]})
    for (theirs, ours), _ in sorted(shifts.items(), key=lambda item: (-item[1], item[0])):
        count = _count(list(wanted.values()), {v.name for v in known}, weights, theirs, ours)
        if count >= 2 and count * 2 >= len(known):
            return (
                f"\nThis rule would find {count} of {len(missing)}:\n"
                f'assignment_map: [["{theirs}", "{ours}"]]'
            )
    return ""


def _weights(saved: Saved) -> dict[str, Variable]:
    """The variables of a checkpoint that are no training's state, by name and object path."""
    by_name = {**saved.object_paths, **saved}
    state = training_state({name: variable.shape for name, variable in saved.items()})
    left_out = {saved[name].key for name in state}
    return {
        name: variable
        for name, variable in by_name.items()
        if variable.slot_of is None and variable.key not in left_out and "_variables/" not in name
    }


def _shift(wanted: str, name: str) -> tuple[str, str]:
    ours, theirs = wanted.split("/"), name.split("/")
    while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    if ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return "/".join([*theirs, ""]) or "/", "/".join([*ours, ""]) or "/"


def _count(
    variables: Sequence[ModelVariable],
    missing: set[str],
    weights: dict[str, Variable],
    theirs: str,
    ours: str,
) -> int:
    """How many of the missing ones a rule finds; 0 where it maps any variable wrongly."""
    source_scope, scope = ("" if one == "/" else one for one in (theirs, ours))
    count = 0
    taken: set[str] = set()
    for variable in variables:
        name = variable.known_as
        if not name.startswith(scope):
            continue
        source = weights.get(source_scope + name[len(scope) :])
        if source is None or source.key in taken or source.dtype != variable.dtype:
            return 0
        if variable.shape is not None and source.shape != variable.shape:
            return 0
        taken.add(source.key)
        count += variable.name in missing
    return count

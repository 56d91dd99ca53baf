"""What might explain that much is missing: another scope, or another object as the root.

A caller applies what is found here in thought before it offers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from estimator_ckpt.matching.counted import counts_tell_apart
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.structure import stand_below
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles.training_state import training_state
from estimator_ckpt.text.names import scopes_apart

_MOST_HINTS = 100
_MOST_TRIED = 5


def scopes_that_fit(model: Model, missing: Sequence[str], saved: Saved) -> list[tuple[str, str]]:
    """The changes of a scope that explain most of what is missing, checkpoint -> model, best first.

    Each maps every variable of the model's scope to one of the checkpoint with the same shape and
    dtype, no two to one, and no weight to a slot or number of an optimizer. None comes from counts,
    `dense/` for `dense_1/`; nor, where the checkpoint has objects, from names that a counter may
    have made: that would be a guess.

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
        return []
    shifts: Counter[tuple[str, str]] = Counter()
    for variable in known:
        alike = by_last.get(variable.known_as.rpartition("/")[2], ())
        shifts.update({_shift(variable.known_as, name): 1 for name in alike[:_MOST_HINTS]})
    found = []
    for (theirs, ours), _ in sorted(shifts.items(), key=lambda item: (-item[1], item[0])):
        if counts_tell_apart(theirs.rstrip("/"), ours.rstrip("/")):
            continue
        count = _count(list(wanted.values()), {v.name for v in known}, weights, theirs, ours)
        if count >= 2 and count * 2 >= len(known):
            found.append((theirs, ours))
            if len(found) == _MOST_TRIED:
                break
    return found


def roots_that_fit(model: Model, saved: Saved) -> list[str]:
    """The object paths below which most of a model's variables stand, best first.

    Args:
      model: its objects, or its names alone, which are then names in a dictionary of the
        checkpoint's objects.
      saved: what the checkpoint has.
    """
    wanted = [v for v in model.variables if v.is_required] or list(model.variables)
    edges = set(model.structure.nodes.children(0))
    if model.has_names_alone:
        edges = {v.known_as for v in wanted} | {v.known_as.partition("/")[0] for v in wanted}
    counts = []
    for node in sorted(saved.graph.nodes.others) if saved.has_objects else ():
        if not edges.isdisjoint(saved.graph.nodes.children(node)):
            tensors = stand_below(model, saved, node)
            fitting = [v for v in wanted if any(_fits(v, t) for t in tensors.get(v.name, ()))]
            if fitting:
                counts.append((-len(fitting), node))
    return [saved.path_of(node) for _, node in sorted(counts)[:_MOST_TRIED]]


def _fits(variable: ModelVariable, tensor: Variable) -> bool:
    has_shape = variable.shape is None or variable.shape == tensor.shape
    return has_shape and variable.dtype == tensor.dtype and tensor.slot_of is None


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
    """The pair of an assignment map that leads from `name` to `wanted`."""
    theirs, ours = scopes_apart(name, wanted)
    return theirs or "/", ours or "/"


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

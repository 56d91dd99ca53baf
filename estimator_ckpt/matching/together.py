"""All of one optimizer's state starts, or none of it; the count of steps only with the slots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.structure import Structure
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles import NUMBER, SLOT, STEP

_OF_THE_MODEL = "_trainable_variables"


def left_out(
    model: Model,
    saved: Saved,
    structure: Structure,
    fitting: Mapping[str, Variable],
    decided: Mapping[str, str],
) -> dict[str, str]:
    """The optimizers' variables and steps that do not start, each with the reason.

    Args:
      model: its variables.
      saved: what the checkpoint has.
      structure: where the optimizers stand in it.
      fitting: by the names of the model's variables what would start them: it has their shapes.
      decided: the optimizers of which it is known already: "" for one that starts, else why not.
    """
    groups: dict[str, list[ModelVariable]] = {}
    for variable in model.variables:
        if variable.role in (SLOT, NUMBER):
            groups.setdefault(variable.optimizer, []).append(variable)
    owners = _Owners(model, saved, fitting)
    found: dict[str, str] = {}
    for optimizer, variables in groups.items():
        reason = decided.get(optimizer)
        if reason == "":
            continue
        reason = reason or _why_not(variables, fitting, owners)
        if not reason and not any(variable.role == SLOT for variable in variables):
            node = model.optimizers.get(optimizer)
            objects = structure.objects.get(node, ()) if node is not None else ()
            if _has_slots(saved, objects):
                reason = "the checkpoint has slots, and the optimizer has none yet: build it first"
        if reason:
            found.update({variable.name: reason for variable in variables})
    if found or any(decided.values()):
        reason = "the step goes together with the optimizer's state"
        found.update({v.name: reason for v in model.variables if v.role == STEP})
    return found


def lacking_halves(model: Model, fitting: Collection[str]) -> dict[str, str]:
    """The parts of lookup tables whose other part does not start, each with the reason.

    Args:
      model: its variables.
      fitting: the names of those that would start.
    """
    parts: dict[int, list[str]] = {}
    for variable in model.variables:
        if variable.suffix:
            parts.setdefault(variable.node, []).append(variable.name)
    reason = "keys and values of a table start together"
    return {
        name: reason
        for names in parts.values()
        if not set(names) <= set(fitting)
        for name in names
        if name in fitting
    }


def _why_not(
    variables: list[ModelVariable], fitting: Mapping[str, Variable], owners: _Owners
) -> str:
    all_or_none = "an optimizer's state starts all or not at all"
    missing = [variable.name for variable in variables if variable.name not in fitting]
    if len(missing) == len(variables):
        return "the checkpoint has no state of this optimizer"
    if missing:
        return f"{all_or_none}: {missing[0]} is not there, or has another shape"
    for variable in variables:
        if variable.role == SLOT and not owners.agree(variable):
            return f"{all_or_none}: {variable.name} is there the slot of another variable"
    return ""


class _Owners:
    """Whose slots the model's and the checkpoint's are."""

    def __init__(self, model: Model, saved: Saved, fitting: Mapping[str, Variable]) -> None:
        self._saved = saved
        self._fitting = fitting
        self._by_called: dict[str, list[ModelVariable]] = {}
        for variable in model.variables:
            self._by_called.setdefault(variable.known_as, []).append(variable)
        self._listed = _owners_in_lists(saved)

    def agree(self, slot: ModelVariable) -> bool:
        """Whether what would start a slot is a slot of what starts the slot's variable."""
        source = self._fitting[slot.name]
        owners = self._by_called.get(slot.owner, []) if slot.owner else []
        started = [self._fitting[v.name] for v in owners if v.name in self._fitting]
        if slot.owner and owners and not started:
            return False  # its variable keeps its initial value
        theirs = self._listed.get(source.key)
        if theirs is None and source.slot_of is not None:
            theirs = self._saved.find(source.slot_of)
        if theirs is None or len(started) != 1:
            return True  # nobody tells
        return self._saved.same(theirs, started[0])


def _owners_in_lists(saved: Saved) -> dict[str, Variable]:
    """By the keys of slots in Keras 3's lists their variables, which are listed beside them."""
    found: dict[str, Variable] = {}
    nodes = saved.graph.nodes
    for _, node in sorted(nodes.others.items()):
        if _OF_THE_MODEL not in node.children:
            continue
        in_order = nodes.children(node.children[_OF_THE_MODEL])
        for name, listed in node.children.items():
            if name in (_OF_THE_MODEL, "_variables"):
                continue
            for position, slot in nodes.children(listed).items():
                source = saved.at_node(slot)
                owner = saved.at_node(in_order[position]) if position in in_order else None
                if source is not None and owner is not None:
                    found[source.key] = owner
    return found


def _has_slots(saved: Saved, objects: Sequence[int]) -> bool:
    if not objects:
        return any(variable.slot_of is not None for variable in saved.values())
    nodes = saved.graph.nodes
    for number in objects:
        if nodes[number].slots:
            return True
        for name, listed in nodes.children(number).items():
            if name not in (_OF_THE_MODEL, "_variables") and nodes.children(listed):
                return True
    return False

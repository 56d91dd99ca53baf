"""Keras' optimizers since 2.11: their state stands in lists, in the order of their variables.

A slot is a member of a list of the optimizer object, `_momentums` of an Adam, and no name or slot
reference says whose it is. In Keras 3 the list `_trainable_variables` has the variables in the same
order. In Keras 2.11 to 2.15 the slot's full name says it, `m/dense/kernel`. Beside the lists stand
`_iterations` and `_learning_rate`, and `_variables`, which has all of them once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.objects.nodes import Node
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.dialects import ITERATIONS, LIST_NAMES, NEWER_BY_CLASS, NEWER_OWN
from estimator_ckpt.roles.newer_names import NewerSlot

ALL_VARIABLES = "_variables"
# In Keras 3: a list of the model's variables, not of its own.
MODEL_VARIABLES = "_trainable_variables"


class NewerState(NamedTuple):
    """The state of one of these optimizers, by the items that have it.

    Attributes:
      node: its object.
      lists: list name -> the item at each index; None for what has no value.
      owners: the item of each variable, in the same order; None where nothing tells it.
      own: `_iterations`, `_learning_rate` and other single values, by their names.
      scope: what its variables' names begin with in Keras 3, `adam` or `adam_1`; else "".
      is_keras_3: whether it lists the model's variables.
    """

    node: int
    lists: Mapping[str, list[int | None]]
    owners: list[int | None]
    own: Mapping[str, int]
    scope: str
    is_keras_3: bool

    @property
    def size(self) -> int:
        """How many variables have slots."""
        return max(map(len, self.lists.values()), default=0)


def is_newer(node: Node) -> bool:
    """Whether an object is one of these optimizers; in a converted file without `_variables`."""
    names = node.children.keys()
    return ITERATIONS in names and (ALL_VARIABLES in names or not LIST_NAMES.isdisjoint(names))


def newer_state(
    graph: ObjectGraph,
    number: int,
    item_of: Mapping[int, int],
    owner_by_name: Callable[[int], int | None],
) -> NewerState:
    """The state of an optimizer object of which is_newer() is true.

    Args:
      graph: has the object.
      number: of the object.
      item_of: the item of an object with a value.
      owner_by_name: the item of the variable whose slot an item is by its full name.
    """
    children = graph.nodes[number].children
    lists = {
        name: _members(graph.nodes[child], item_of)
        for name, child in children.items()
        if name in LIST_NAMES
    }
    own = {name: item_of[child] for name, child in children.items() if child in item_of}
    state = NewerState(number, lists, [], own, "", MODEL_VARIABLES in children)
    owners: list[int | None] = []
    if state.is_keras_3:
        owners = _members(graph.nodes[children[MODEL_VARIABLES]], item_of)
    else:
        for index in range(state.size):
            slots = [one[index] for one in lists.values() if index < len(one)]
            told = {owner_by_name(slot) for slot in slots if slot is not None} - {None}
            owners.append(told.pop() if len(told) == 1 else None)
    iterations = graph.nodes[children[ITERATIONS]].attributes
    scope = iterations[0].full_name.rpartition("/")[0] if iterations else ""
    return state._replace(owners=owners, scope=scope)


def _members(node: Node, item_of: Mapping[int, int]) -> list[int | None]:
    """The items of a list object; its children are called 0, 1, ..., and some may be missing."""
    indices = [int(name) for name in node.children if name.isdecimal()]
    children = [node.children.get(str(index)) for index in range(max(indices, default=-1) + 1)]
    return [None if child is None else item_of.get(child) for child in children]


def classes(state: NewerState) -> list[str]:
    """The classes that an optimizer can be of, by its lists and, in Keras 3, by its scope's name.

    No graph says the class itself: Adam and AdamW have the same lists, and so have SGD and Lion in
    Keras 2.
    """
    fitting = []
    for label, newer in NEWER_BY_CLASS.items():
        if newer.only_keras_3 and not state.is_keras_3:
            continue
        lists = {slot: list_name(label, slot, state.is_keras_3) for slot in newer.lists}
        optional = {lists[slot] for slot in newer.options}
        own = NEWER_OWN & state.own.keys()
        if set(lists.values()) - optional == state.lists.keys() - optional and own == {*newer.own}:
            fitting.append(label)
    return _of_scope(fitting, state.scope)


def classes_by_names(slots: Collection[NewerSlot]) -> list[str]:
    """The same, where the names of slots are all that there is."""
    called = {slot.called for slot in slots}
    is_keras_3 = any(slot.is_keras_3 for slot in slots)
    fitting = []
    for label, newer in NEWER_BY_CLASS.items():
        names = newer.ends if is_keras_3 else newer.starts
        found = {names.get(one, "") for one in called}
        needed = newer.lists.keys() - newer.options.keys() - set(newer.empty)
        if needed <= found <= newer.lists.keys():
            fitting.append(label)
    return _of_scope(fitting, next((slot.scope.rpartition("/")[2] for slot in slots), ""))


def _of_scope(fitting: list[str], scope: str) -> list[str]:
    """Those that are called as the scope of an optimizer, if any is."""
    scope = re.sub(r"_\d+$", "", scope).lower()
    return [label for label in fitting if scope in _scopes_of(label)] or fitting


def newer_class(fitting: Sequence[str], given: str | None, known_by: str) -> str:
    """The class of an optimizer: as it is given, or where nothing else fits.

    Of Adam and AdamW it is Adam, unless the name of its scope says otherwise: what they keep is the
    same, and the weight decay is in no checkpoint.

    Args:
      fitting: those that it can be of.
      given: as the user says.
      known_by: what tells them, `the lists _m, _u`.

    Raises:
      SettingsError: it cannot be of the class that is given, or of several.
    """
    if given is not None:
        if given not in fitting:
            raise SettingsError(
                f"expected {' or '.join(fitting) or 'a class that is known'}, by its {known_by}, "
                f"found {given!r}",
                key="from_optimizer",
            )
        return given
    if fitting and all(NEWER_BY_CLASS[one].taken_for == fitting[0] for one in fitting[1:]):
        return fitting[0]
    if len(fitting) != 1:
        raise SettingsError(
            f"the checkpoint does not say whether the optimizer is {' or '.join(fitting)}; say it"
            if fitting
            else f"an optimizer with the {known_by} is not known",
            key="from_optimizer",
        )
    return fitting[0]


def list_name(label: str, slot: str, is_keras_3: bool) -> str:
    """The list in which an optimizer of a class has a slot."""
    newer = NEWER_BY_CLASS[label]
    name = newer.lists[slot]
    return name if is_keras_3 else newer.lists_in_keras_2.get(slot, name)


def _scopes_of(label: str) -> set[str]:
    """What Keras 3 calls an optimizer that was given no name: `rmsprop`, `adamw` or `adam_w`."""
    parts = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", label))
    return {label.lower(), parts.lower()}

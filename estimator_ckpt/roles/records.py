"""What a record of the table of optimizers says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# The dialects. LEGACY are Keras' optimizers up to 2.10, NEWER those since: Keras 2.11 to 2.15,
# tf_keras and Keras 3.
TF1, LEGACY, NEWER = "tf1", "keras", "keras_new"

# What a conversion calls them: of the newer ones it must know whose.
KERAS_2, KERAS_3 = NEWER_TARGETS = ("keras2", "keras3")
TARGETS = (LEGACY, *NEWER_TARGETS, TF1)

EXACT, SCALED, REFUSED = "exact", "scaled", "refused"


class Tf1(NamedTuple):
    """An optimizer of tf.compat.v1.

    Attributes:
      name: what it calls itself unless it is given another name; its slots are `X/NAME`,
        `X/NAME_1`, ... in the order in which it makes them (slot_creator.py).
      slots: in this order.
      classes: its class, and others that save the same.
      powers: the betas of which it keeps powers, `beta1_power` of `beta_1`.
      ends: how the names of its slots end, if not so: end -> slot.
      orders: the slots that a variable may have, where that depends on the variable.
      reduced: the slots that lack one dimension of their variable.
    """

    name: str
    slots: tuple[str, ...]
    classes: tuple[str, ...] = ()
    powers: tuple[str, ...] = ()
    ends: Mapping[str, str] = {}
    orders: tuple[tuple[str, ...], ...] = ()
    reduced: tuple[str, ...] = ()


class Legacy(NamedTuple):
    """One of Keras' optimizers up to 2.10, or another that derives from them.

    Attributes:
      name: its class; its variables are in a scope of this name.
      slots: slot -> its own name for it.
      numbers: its hyperparameters that are variables, beside `learning_rate` and `decay`.
      also: other classes that save the same.
    """

    name: str
    slots: Mapping[str, str]
    numbers: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


class Newer(NamedTuple):
    """One of Keras' optimizers since 2.11, which keep slots in lists.

    Attributes:
      name: its class.
      lists: slot -> the list that has it. A list may be missing, or empty, where the optimizer was
        made without what it is for.
      starts: how Keras 2 calls the slots of X: `m/X`: what is before the slash -> slot.
      ends: how Keras 3 does, `X_momentum`: what is behind the last `_` -> slot.
      own: variables that it alone has, by their names in the object.
      options: slots that it has only where it was made so: slot -> what with.
      empty: slots whose lists are empty where it was made without what they are for.
      lists_in_keras_2: slot -> list, where that has another name there.
      taken_for: the class that it is taken for where nothing tells them apart: they keep the same.
      only_keras_3: whether Keras 2 has no such optimizer.
    """

    name: str
    lists: Mapping[str, str]
    starts: Mapping[str, str]
    ends: Mapping[str, str]
    own: tuple[str, ...] = ()
    options: Mapping[str, str] = {}
    empty: tuple[str, ...] = ()
    lists_in_keras_2: Mapping[str, str] = {}
    taken_for: str = ""
    only_keras_3: bool = False


class Relation(NamedTuple):
    """What becomes of an optimizer's state in another dialect.

    Attributes:
      how: EXACT, SCALED or REFUSED.
      why: what scales it, what else has to be equal in the program, or why it is refused.
      needs: numbers that are given or taken from the template, where the checkpoint lacks them.
      positive: numbers that have to be given, above 0; without them the state means something else.
      dense_only: whether training goes on otherwise where gradients are sparse.
      with_slots: slots without which the state means something else.
      unused: slots that the target has in any case, and does not use where the source has none.
      fills: whether the target has every slot of every variable, those that it does not use, too.
      late: exact only where so many steps were made that no bias is left to correct.
    """

    how: str
    why: str = ""
    needs: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    dense_only: bool = False
    with_slots: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    fills: bool = False
    late: bool = False


class LossScale(NamedTuple):
    """A wrapper of an optimizer that scales losses, for float16.

    Attributes:
      name: its class.
      inner: its child that is the optimizer; "" where it has the optimizer's children as its own.
      names: its numbers -> what they are called as variables.
      paths: its numbers -> where they are, from the wrapper.
      scope: what the wrapper's variables are called below; "" if nothing.
    """

    name: str
    inner: str
    names: Mapping[str, str]
    paths: Mapping[str, tuple[str, ...]]
    scope: str = ""


class Optimizer(NamedTuple):
    """One optimizer, by what it is called and what it keeps in each dialect.

    Attributes:
      name: for people, and in the names of hyperparameters, `Adam/beta_1`.
      relations: by the dialects, from which and to which; a pair that is not there is refused.
    """

    name: str
    tf1: Tf1 | None = None
    legacy: Legacy | None = None
    newer: Newer | None = None
    relations: Mapping[tuple[str, str], Relation] = {}

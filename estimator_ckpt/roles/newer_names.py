"""The slots of Keras' optimizers since 2.11 by their names: `Adam/m/dense/kernel`.

Keras 2 names them so; Keras 3 `adam/dense_kernel_momentum`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from estimator_ckpt.roles.dialects import NEWER_ENDS, NEWER_STARTS


class NewerSlot(NamedTuple):
    """What the name of such a slot says.

    Attributes:
      variable: whose it is.
      called: what the optimizer calls the slot.
      scope: the optimizer's name, as far as it is there.
      is_keras_3: whether Keras 3 names slots so.
    """

    variable: str
    called: str
    scope: str
    is_keras_3: bool


def newer_keras_slot(
    name: str,
    shape: tuple[int, ...],
    shape_of: Callable[[str], tuple[int, ...] | None],
    by_flat_name: Mapping[str, Sequence[str]],
) -> NewerSlot | None:
    """What a name says, if it is that of a slot of Keras' newer optimizers.

    Args:
      name: of the slot variable.
      shape: of it.
      shape_of: as slot_by_name() takes it.
      by_flat_name: the variable names, as flat_names() makes it.
    """
    scopes = name.split("/")
    for number, scope in enumerate(scopes[:-1]):
        variable = "/".join(scopes[number + 1 :])
        if scope in NEWER_STARTS and shape_of(variable) == shape:
            return NewerSlot(variable, scope, "/".join(scopes[:number]), False)
    *above, last = scopes
    slot = next((slot for slot in NEWER_ENDS if last.endswith(f"_{slot}")), None)
    if slot is None or len(scopes) == 1:
        return None
    flat = last[: -len(slot) - 1]
    # A variable that is none of Keras' own is called `X:0` there.
    flats = {flat, flat.removesuffix("_0")}
    variables = [v for one in flats for v in by_flat_name.get(one, ()) if shape_of(v) == shape]
    return NewerSlot(variables[0], slot, "/".join(above), True) if len(variables) == 1 else None


def flat_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Variable names by what they are with "_" for each "/", as in the names of Keras 3's slots."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.replace("/", "_"), []).append(name)
    return found

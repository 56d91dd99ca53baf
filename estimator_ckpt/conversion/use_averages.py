"""Averages as weights: a tf.train.ExponentialMovingAverage's shadows in the variables' places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.matching.averaged import averages_of, check_fit


class Averaged(NamedTuple):
    """The items with averages as weights.

    Attributes:
      items: those that stay.
      left_out: the others, each with the reason.
    """

    items: list[Item]
    left_out: list[tuple[Item, str]]


def averages_as_weights(
    items: list[Item],
    *,
    use_averages: str | bool,
    keep_raw: str | None,
    stays: Iterable[int] = (),
) -> Averaged:
    """Puts the average of each variable in the variable's place; what has none stays itself.

    Optimizers' variables go: their slots belong to the raw values.

    Args:
      items: of a checkpoint, with the optimizers' parts marked.
      use_averages: the name of the ExponentialMovingAverage; True for its default name.
      keep_raw: `X/KEEP_RAW` is what the raw value of X is called then; None leaves it out.
      stays: what stays though it is an optimizer's: the global step.

    Raises:
      SettingsError: there are no averages of this name.
      MismatchError: an average has another shape or dtype than its variable.
      ConflictError: two averages of one variable.
    """
    by_name = {item.name: number for number, item in enumerate(items)}
    average_of: dict[int, int] = {}
    candidates = {item.name: item for item in items if item.part is None}
    for owner_name, name in averages_of(candidates, use_averages).items():
        owner, shadow = candidates[owner_name].content, candidates[name].content
        check_fit(
            name,
            (dtype_name(owner.dtype), owner.shape),
            (dtype_name(shadow.dtype), shadow.shape),
            owner=owner_name,
        )
        average_of[by_name[owner_name]] = by_name[name]

    averages = set(average_of.values())
    kept, left_out = [], []
    for number, item in enumerate(items):
        raw = item
        if number in averages:
            continue
        if number in average_of:
            average = items[average_of[number]]
            kept.append(
                item._replace(
                    content=average.content, why=f"the average {average.name}", key=item.own_key
                )
            )
            if keep_raw is not None:
                new_name = f"{item.name}/{keep_raw}"
                if new_name in by_name:
                    raise ConflictError("a variable of this name is there already", key=new_name)
                raw = item._replace(name=new_name, why="the raw value", node=-1, renamed=True)
                kept.append(raw)
            else:
                left_out.append((item, f"{average.name} takes its place"))
        elif item.part is not None and number not in stays:
            why = f"of the optimizer {item.part.label}, for the raw values"
            left_out.append((item, why.replace("optimizer ,", "optimizer,")))
        elif any(
            item.name.startswith(f"{items[a].name}/")
            for a in _above(item.name, by_name)
            if a in averages
        ):
            left_out.append((item, "of an average"))
        else:
            kept.append(item)
    return Averaged(kept, left_out)


def _above(name: str, by_name: Mapping[str, int]) -> list[int]:
    """The items whose names are scopes of a name: of an average, its `biased` and `local_step`."""
    found = []
    while "/" in name:
        name = name.rpartition("/")[0]
        if name in by_name:
            found.append(by_name[name])
    return found

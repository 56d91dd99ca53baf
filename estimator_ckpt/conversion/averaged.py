"""Averages as weights: a tf.train.ExponentialMovingAverage's shadows in the variables' places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.errors import ConflictError, MismatchError, SettingsError
from estimator_ckpt.report import first_names, tensor_text

# What tf.train.ExponentialMovingAverage is called unless it is given a name
# (tensorflow/python/training/moving_averages.py).
DEFAULT_AVERAGE = "ExponentialMovingAverage"


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
    name = use_averages if isinstance(use_averages, str) else DEFAULT_AVERAGE
    by_name = {item.name: number for number, item in enumerate(items)}
    average_of: dict[int, int] = {}
    for number, item in enumerate(items):
        variable = variable_of_average(item.name, name, by_name)
        if variable is None:
            continue
        other = average_of.setdefault(by_name[variable], number)
        if other != number:
            raise ConflictError(
                f"{items[other].name!r} and {item.name!r} are both averages of {variable!r}; "
                "leave one out (exclude), or give the longer name",
                key=variable,
            )
        _check_fit(items[by_name[variable]], item)
    if not average_of:
        raise SettingsError(_none_found(items, by_name, name), key="use_averages")

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


def variable_of_average(name: str, average: str, names: Mapping[str, object]) -> str | None:
    """The variable that a name is the average of; None if it is none.

    An ema.apply() inside a scope puts the scope before the whole name: `scope/dense/kernel/ema`.

    Args:
      name: a variable name.
      average: the name of the ExponentialMovingAverage.
      names: all variable names.
    """
    if not name.endswith(f"/{average}"):
        return None
    start = name[: -len(average) - 1]
    while start not in names and "/" in start:
        start = start.partition("/")[2]
    return start if start in names else None


def _above(name: str, by_name: Mapping[str, int]) -> list[int]:
    """The items whose names are scopes of a name: of an average, its `biased` and `local_step`."""
    found = []
    while "/" in name:
        name = name.rpartition("/")[0]
        if name in by_name:
            found.append(by_name[name])
    return found


def _check_fit(variable: Item, average: Item) -> None:
    expected, found = (
        tensor_text(dtype_name(one.content.dtype), one.content.shape) for one in (variable, average)
    )
    if expected != found:
        raise MismatchError(
            f"expected an average like its variable {variable.name!r}, {expected}, found {found}",
            key=average.name,
        )


def _none_found(items: list[Item], by_name: Mapping[str, int], name: str) -> str:
    ends = Counter(
        item.name.rpartition("/")[2]
        for item in items
        if item.part is None and item.name.rpartition("/")[0] in by_name
    )
    hint = f"; below variables there are {first_names(sorted(ends))}" if ends else ""
    return f"expected averages called VARIABLE/{name}, found none{hint}; give their name"

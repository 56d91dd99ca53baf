"""A checkpoint's averages in the places of their variables, as a tf.train.ExponentialMovingAverage
names them: `dense/kernel/ExponentialMovingAverage`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from estimator_ckpt.errors import ConflictError, MismatchError, SettingsError
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.names import first_names
from estimator_ckpt.text.quantities import tensor_text

# What tf.train.ExponentialMovingAverage is called unless it is given a name
# (tensorflow/python/training/moving_averages.py).
DEFAULT_AVERAGE = "ExponentialMovingAverage"


def average_name(use_averages: str | bool) -> str:
    """The name that the option means: True is the default name."""
    return use_averages if isinstance(use_averages, str) else DEFAULT_AVERAGE


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


def averages_of(names: Mapping[str, object], use_averages: str | bool) -> dict[str, str]:
    """The average of each variable that has one, by their names.

    Raises:
      SettingsError: there is none of this name.
      ConflictError: a variable has two.
    """
    average = average_name(use_averages)
    found: dict[str, str] = {}
    for name in names:
        variable = variable_of_average(name, average, names)
        if variable is None:
            continue
        other = found.setdefault(variable, name)
        if other != name:
            raise ConflictError(
                f"{other!r} and {name!r} are both averages of {variable!r}; leave one out "
                "(exclude), or give the longer name",
                key=variable,
            )
    if not found:
        raise SettingsError(_none_found(names, average), key="use_averages")
    return found


def check_fit(
    name: str,
    variable: tuple[str, tuple[int, ...]],
    average: tuple[str, tuple[int, ...]],
    *,
    owner: str,
) -> None:
    """Raises MismatchError where an average has another dtype or shape than its variable.

    Args:
      name: of the average.
      variable, average: the dtype and shape of each.
      owner: the name of the variable.
    """
    expected, found = tensor_text(*variable), tensor_text(*average)
    if expected != found:
        raise MismatchError(
            f"expected an average like its variable {owner!r}, {expected}, found {found}", key=name
        )


def with_averages(
    variables: Mapping[str, Variable], use_averages: str | bool
) -> dict[str, Variable]:
    """The variables of a checkpoint, each with the value of its average where it has one.

    The averages themselves and the optimizers' slots, which belong to the raw values, are left out.

    Raises:
      SettingsError, ConflictError: as averages_of() does.
      MismatchError: an average does not fit its variable.
    """
    average_of = averages_of(variables, use_averages)
    averages = set(average_of.values())
    found = {}
    for name, variable in variables.items():
        if name in averages or variable.slot_of is not None:
            continue
        if name in average_of:
            average = variables[average_of[name]]
            check_fit(
                average.name,
                (variable.dtype, variable.shape),
                (average.dtype, average.shape),
                owner=name,
            )
            variable = variable._replace(
                key=average.key, keys=average.keys, slices=average.slices, entry=average.entry
            )
        found[name] = variable
    return found


def _none_found(names: Iterable[str], average: str) -> str:
    known = set(names)
    ends = Counter(
        name.rpartition("/")[2] for name in sorted(known) if name.rpartition("/")[0] in known
    )
    hint = f"; below variables there are {first_names(sorted(ends))}" if ends else ""
    return f"expected averages called VARIABLE/{average}, found none{hint}; give their name"

"""Which averages a checkpoint lacks: of variables that ought to have one, by all that is known.

A graph whose own ema.apply() has been called knows which variables are averaged, and under which
names. Any other graph knows the name of the ExponentialMovingAverage alone. There a checkpoint
with averages tells which variables have one: the others, a subset was given to ema.apply(), say,
are read themselves. But a checkpoint without one for all of the model is no answer: another name or
another scope would look the same, and the values of the last step pass for averages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.matching.policies import policy_for
from estimator_ckpt.matching.restoring import Resolution, Wanted, mismatch
from estimator_ckpt.text.names import NameIndex, meant, some_of
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row

_MOST_HINTS = 100
_MOST_SHOWN = 10


def average_problems(
    checkpoint: Checkpoint,
    wanted: Sequence[Wanted],
    resolution: Resolution,
    on_missing: str | Mapping[str, str],
) -> list[Row]:
    """A row for each average that ought to be there, is not, and whose lack is an error.

    Warns of those whose lack is none, and of other trainable variables that are read themselves.

    Args:
      checkpoint: name-based, object-based or both.
      wanted: what the model needs.
      resolution: what the checkpoint has of it.
      on_missing: "error", "warn", "init", or one of these by a pattern of averages' names.
    """
    read = resolution.keys.keys() - set(resolution.averages)
    lacking = [want for want in wanted if want.average and want.tensor in read]
    needed = _needed(checkpoint, lacking, any_found=bool(resolution.averages))
    policies = {want.average: policy_for(want.average, on_missing) for want in needed}
    warned = [want for want in needed if policies[want.average] == "warn"]
    if warned:
        logging.warning("%s", mismatch(checkpoint, _rows(checkpoint, warned)))
    others = [w.name for w in lacking if w.is_trainable and w.average not in policies]
    if others:
        logging.warning(
            "%s has averages of other variables, but none of %s: read themselves",
            checkpoint.prefix,
            some_of(others, _MOST_SHOWN),
        )
    return _rows(checkpoint, [want for want in needed if policies[want.average] == "error"])


def _needed(
    checkpoint: Checkpoint, lacking: Sequence[Wanted], *, any_found: bool
) -> Sequence[Wanted]:
    """Those that ought to have an average; `any_found`: whether another variable has one."""
    strays = _strays(checkpoint, lacking)
    needed = [
        want
        for want in lacking
        if want.is_averaged or want.average in strays or (want.is_trainable and not any_found)
    ]
    # A graph may tell of no variable whether it is trained.
    return needed if needed or any_found else lacking


def _rows(checkpoint: Checkpoint, lacking: Sequence[Wanted]) -> list[Row]:
    """A row for each average that is not there, with the name of what may be meant."""
    strays = _strays(checkpoint, lacking)
    names = NameIndex(checkpoint.variables if len(lacking) <= _MOST_HINTS else ())
    others = _other_names(checkpoint)
    rows = []
    for want in lacking:
        near = [strays.get(want.average, ""), *others.get(want.name, ())]
        near += [name for name in names.near(want.average) if name != want.name]
        note = meant([name for name in near if name][:1])
        expected = tensor_text(want.dtype, want.shape)
        rows.append(Row("no average", want.average, expected, note=note))
    return rows


def _strays(checkpoint: Checkpoint, lacking: Sequence[Wanted]) -> dict[str, str]:
    """The averages whose own variable the checkpoint lacks, by all that their names end with.

    ema.apply() in a scope puts it before the whole name: `scope/dense/kernel/ema`.
    """
    ends = {want.average.rpartition("/")[2] for want in lacking}
    found: dict[str, str] = {}
    for name in checkpoint.variables:
        owner, _, last = name.rpartition("/")
        if last in ends and owner not in checkpoint.variables:
            rest = name
            while "/" in rest:
                rest = rest.partition("/")[2]
                found.setdefault(rest, name)
    return found


def _other_names(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """What stands below each variable and is no slot: averages of another name."""
    found: dict[str, list[str]] = {}
    for name, variable in checkpoint.variables.items():
        owner = name.rpartition("/")[0]
        if variable.slot_of is None and owner in checkpoint.variables:
            found.setdefault(owner, []).append(name)
    return found

"""Where a checkpoint has several optimizers: whether it is clear which is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.optimizer_relations import several
from estimator_ckpt.errors import ConflictError, SettingsError, UnsupportedCheckpointError
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.roles.records import TF1


def numbered(optimizers: Iterable[Optimizer]) -> list[Optimizer]:
    """Optimizers with numbers for those of one class that objects tell apart.

    Only where a template finds each by the variables that it trains: no number tells which it is.
    """
    found: list[Optimizer] = []
    for optimizer in optimizers:
        before = sum(one.label == optimizer.label for one in found)
        is_object = optimizer.dialect != TF1
        found.append(replace(optimizer, again=before) if before and is_object else optimizer)
    return found


def check_several(
    optimizers: list[Optimizer], hyperparameters: Iterable[str], counts: Collection[float | None]
) -> None:
    """Raises an error where nothing tells which of the optimizers is meant.

    Args:
      optimizers: of a checkpoint.
      hyperparameters: the names of those that are given, `Adam/iter` or `iter`.
      counts: their different counts of steps, where one is to be the global step.
    """
    labels = [optimizer.name for optimizer in optimizers]
    for optimizer in optimizers:
        if labels.count(optimizer.name) > 1:
            raise UnsupportedCheckpointError(several(optimizer))
    if len(counts) > 1:
        shown = " and ".join(sorted(map(str, counts), key=len))
        raise ConflictError(
            f"the optimizers count {shown} steps; say which is the "
            f"global step by a rule that calls it {GLOBAL_STEP!r}"
        )
    shared = sorted(name for name in hyperparameters if "/" not in name)
    if shared and len(labels) > 1:
        raise SettingsError(
            f"{', '.join(shared)}: there are {len(labels)} optimizers, {', '.join(labels)}; "
            f"say whose it is, as in {labels[0]}/{shared[0]}",
            key="hyperparameters",
        )

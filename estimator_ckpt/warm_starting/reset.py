"""A reset: what a job initializes once although the checkpoint that it resumes from has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.averaged import DEFAULT_AVERAGE, variable_of_average
from estimator_ckpt.matching.model import ModelVariable
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.roles import NUMBER, SLOT, STATISTIC, STEP
from estimator_ckpt.saving.resets import Request, request_id
from estimator_ckpt.saving.saver import Saver
from estimator_ckpt.text.names import did_you_mean_or
from estimator_ckpt.warm_starting.graph_optimizers import counts_without_slots, graph_updates
from estimator_ckpt.warm_starting.starter import graph_model, graph_variables

OPTIMIZER, AVERAGES, STATISTICS, EARLY_STOPPING = (
    "optimizer",
    "averages",
    "statistics",
    "early_stopping",
)
# tensorflow_estimator/python/estimator/early_stopping.py
_STOP = "signal_early_stopping/STOP"


def apply_reset(saver: Any, options: SaverOptions) -> None:
    """Has a saver meet the request of its options, when the graph is complete.

    Raises:
      SettingsError: it is a saver of another kind.
    """
    if options.reset is None:
        return
    if not isinstance(saver, Saver):
        raise SettingsError(
            f"the Scaffold keeps its own {type(saver).__name__}, which resets nothing", key="reset"
        )
    saver.when_built(lambda: _prepare(saver, tuple(options.reset or ()), options.reset_once))


def _prepare(saver: Saver, reset: tuple[str, ...], once: str | None) -> None:
    """Decides what is reset, in a graph that is complete, and still open for ops."""
    variables = graph_model(saver).variables
    chosen: set[str] = set()
    roles = _by_role(variables)
    for one in reset:
        found = roles.get(one)
        if found is None:
            found = {v.name for v in variables if re.fullmatch(one, v.name)}
        if not found:
            known = [*roles, *(v.name for v in variables)]
            hint = did_you_mean_or(one, known) if one not in roles else ""
            raise SettingsError(f"no variable of the model is meant by {one!r}{hint}", key="reset")
        chosen |= found
    # What an optimizer keeps of a variable that begins anew, belongs to its old value.
    chosen |= {v.name for v in variables if v.role == SLOT and v.owner in chosen}
    # An Adam that counts on from 1,000 steps no longer corrects the bias of slots that are zero.
    chosen |= counts_without_slots(variables, graph_updates(graph_variables()), chosen)
    wanted = saver.built.contents.by_holder()
    by_name = {want.name: want.tensor for want in wanted.values()}
    parts = {part.rpartition(":")[0]: v.name for v in variables for part in v.parts}
    tensors = {want.tensor for op, want in wanted.items() if parts.get(op) in chosen}
    tensors |= {by_name[name] for name in chosen if name in by_name}
    saver.built.initial_values  # noqa: B018 (while ops can be added)
    step = next((v.name for v in variables if v.role == STEP and v.name in chosen), None)
    saver.request = Request(request_id(reset, once), reset, frozenset(tensors), step)
    saver.resets = saver.request.met_at_start()


def _by_role(variables: Iterable[ModelVariable]) -> dict[str, set[str]]:
    """The names of the variables of each role that can be named."""
    variables = list(variables)
    names = {v.name: v for v in variables}
    averages = {n for n in names if variable_of_average(n, DEFAULT_AVERAGE, names) is not None}
    stop = {v.name for v in variables if v.name == _STOP or v.name.endswith(f"/{_STOP}")}
    return {
        OPTIMIZER: {v.name for v in variables if v.role in (SLOT, NUMBER)},
        AVERAGES: averages,
        STATISTICS: {v.name for v in variables if v.role == STATISTIC} - averages - stop,
        EARLY_STOPPING: stop,
    }

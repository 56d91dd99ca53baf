"""Optimizers that have no slots yet get them, where it is clear of which variables."""

from __future__ import annotations

from typing import Any

from estimator_ckpt.matching.kinds import is_layer
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.model import LiveOptimizer, Model
from estimator_ckpt.roles.records import LEGACY, NEWER


def build_optimizers(model: Model, given: Any) -> bool:
    """Builds the optimizers of objects that have no slots yet.

    That of a Keras model trains the model's trainable variables, and so does the only optimizer
    beside the only model. They are zeros, as the first step would make them. Where it is not so
    clear nothing is built.

    Args:
      model: what the objects are.
      given: the objects.

    Returns:
      Whether any has been built.
    """
    unbuilt = {one.name: one for one in model.live_optimizers if not one.is_built}
    if not unbuilt:
        return False
    live = LiveObjects(given).live
    models = [one for one in live if is_layer(one) and one.built and hasattr(one, "compile")]
    found = False
    for name, optimizer in unbuilt.items():
        target = live[model.optimizers[name]]
        owners = [one for one in models if getattr(one, "optimizer", None) is target]
        if not owners and len(model.live_optimizers) == 1:
            owners = _outermost(models)
        if len(owners) == 1:
            found = _build(owners[0], target, optimizer) or found
    return found


def _outermost(models: list[Any]) -> list[Any]:
    """Those models that no other one has among its layers."""
    inside = {
        id(layer) for model in models for layer in LiveObjects(model).live if layer is not model
    }
    return [model for model in models if id(model) not in inside]


def _build(model: Any, optimizer: Any, known: LiveOptimizer) -> bool:
    from estimator_ckpt.saving import tf_internals

    variables = model.trainable_variables
    if not variables:
        return False
    with model.distribute_strategy.scope():
        if known.dialect == NEWER:
            optimizer.build(variables)
        elif known.dialect == LEGACY:
            tf_internals.create_slots(optimizer, variables)
        else:
            return False
    return True

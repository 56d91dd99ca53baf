"""What the optimizers of a source become where `optimizer` asks for it, and with which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.choose import may_be_slots
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.like import template_optimizers
from estimator_ckpt.conversion.misfits import Refusal
from estimator_ckpt.conversion.plan import Content, Item, read_number
from estimator_ckpt.conversion.translate_optimizer import Relinker
from estimator_ckpt.errors import CheckpointError, SettingsError, UnsupportedCheckpointError
from estimator_ckpt.roles.records import KERAS_2, KERAS_3, LEGACY, NEWER, NEWER_TARGETS


class Relinked(NamedTuple):
    """What became of the optimizers.

    Attributes:
      items: all of them, with those of the optimizers in their new places.
      step: which of them is the global step.
      notes: what the program must see to.
      refusal: why nothing was done, to be told with all else that does not fit a template.
    """

    items: list[Item]
    step: int | None
    notes: list[str]
    refusal: Refusal | None = None


def relink(
    checkpoint: Checkpoint,
    items: list[Item],
    optimizers: list[Optimizer],
    step: int | None,
    options: ConvertOptions,
) -> Relinked:
    """Makes the optimizers those of `options.optimizer`.

    Raises:
      CheckpointError: they cannot be, and there is no template: as Relinker.relink() does.
    """

    def read(content: Content) -> float:
        return read_number(checkpoint.prefix, checkpoint.index, content)

    target, template = _target(options)
    relinker = Relinker(
        list(items),
        step,
        target,
        options.hyperparameters,
        read,
        template=template,
        from_optimizer=options.from_optimizer,
        is_keras_3=options.optimizer == KERAS_3,
    )
    try:
        relinker.relink(optimizers)
    except CheckpointError as error:
        if not optimizers and isinstance(error, UnsupportedCheckpointError):
            error.message += may_be_slots(items)
        if options.like is None:
            raise
        return Relinked(items, step, [], Refusal(error, relinker.asked))
    return Relinked(relinker.items, relinker.step, relinker.notes)


def _target(options: ConvertOptions) -> tuple[str, Mapping[str, float]]:
    """What the optimizers are to become, and the hyperparameters that the template has."""
    target = options.optimizer
    assert target is not None
    if options.like is None:
        if target in NEWER_TARGETS:
            raise SettingsError(
                "Keras' optimizers since 2.11 know their slots by the order of the variables, and "
                "only the program knows that; let it write a template, after "
                "optimizer.build(model.trainable_variables), by tf.train.Checkpoint(model=model, "
                "optimizer=optimizer).write(PATH), and give PATH as `like`",
                key="like",
            )
        return target, {}
    template = template_optimizers(options.like)
    there = "none of them"
    if template.newer:
        there = KERAS_3 if template.is_keras_3 else KERAS_2
    if target in NEWER_TARGETS and there != target:
        raise SettingsError(
            f"expected an optimizer of {target} in {template.name}, found {there}", key="like"
        )
    if target in (LEGACY, *NEWER_TARGETS) and template.newer:
        target = NEWER
    return target, template.numbers

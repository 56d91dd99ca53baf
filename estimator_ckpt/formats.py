"""What a checkpoint format consists of: the keys under which each tensor stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# `--checkpoint_format` and its Python namesakes.
CheckpointFormat = Literal["saver", "checkpoint", "both"]
CHECKPOINT_FORMATS: tuple[CheckpointFormat, ...] = ("saver", "checkpoint", "both")

# What a job says in its checkpoints of the resets that it has made (saving/resets.py): a key of the
# index and no variable, in every format.
RESETS_KEY = "_ESTIMATOR_CKPT_RESETS"

# How a sentence calls a checkpoint of each.
IN_WORDS = {
    "saver": "name-based checkpoint",
    "checkpoint": "object-based checkpoint",
    "both": "checkpoint of both formats",
}

# tf.compat.v1.GraphKeys.GLOBAL_STEP. Estimator looks for it by this name in every checkpoint: else
# train(max_steps=...) of a job that has finished would go on
# (tensorflow_estimator/python/estimator/estimator.py).
GLOBAL_STEP = "global_step"


def keys_in(
    checkpoint_format: CheckpointFormat,
    names: Sequence[str],
    object_keys: Sequence[str | None],
    step: int | None,
) -> list[tuple[str, ...]]:
    """The keys of tensors in a checkpoint of a format; whoever writes one asks here.

    A "saver" file has the variable names, a "checkpoint" file the keys of the objects, and "both"
    has both. Where there are objects the global step has the key `global_step` as well, by whatever
    name it goes.

    Args:
      checkpoint_format: one of CHECKPOINT_FORMATS.
      names: the variable name of each tensor; "" where a name-based reader is not to find it.
      object_keys: the key of its object; None where it has none.
      step: which of them is the global step, if none has the name `global_step`.

    Returns:
      The keys of each, none twice: the names before the key of the object.
    """
    with_names, with_objects = checkpoint_format != "checkpoint", checkpoint_format != "saver"
    found: list[tuple[str, ...]] = []
    for name, key in zip(names, object_keys):
        keys = (name,) if name and with_names else ()
        found.append(keys if key is None or key in keys or not with_objects else (*keys, key))
    if GLOBAL_STEP in names:
        step = names.index(GLOBAL_STEP)
    if with_objects and step is not None and GLOBAL_STEP not in found[step] and found[step]:
        *before, last = found[step]
        found[step] = (*before, GLOBAL_STEP, last)
    return found

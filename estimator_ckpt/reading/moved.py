"""A model_dir that was moved or copied, whose state file names checkpoints by absolute paths.

Some savers write such paths. A stock job would start anew without a word, or go on from the
checkpoints of the old place, and delete these. Nothing is written here: the next save does that.
"""

from __future__ import annotations

import os

from estimator_ckpt import files
from estimator_ckpt.bundle.v1 import v1_prefix
from estimator_ckpt.reading.state import read_state, real_prefix


def in_directory(prefix: str, directory: str | None) -> str:
    """The checkpoint of that name in a directory, if there is one, else the one that is named."""
    if directory is None or _is_below(prefix, directory):
        return prefix
    here = os.path.join(directory, os.path.basename(prefix))
    return here if is_there(here) else prefix


def is_there(prefix: str) -> bool:
    """Whether there is a checkpoint, or a part of one, in either of TensorFlow's formats."""
    return files.exists(f"{prefix}.index") or v1_prefix(prefix) is not None


def _is_below(prefix: str, directory: str) -> bool:
    start = real_prefix(os.path.join(directory, ""))
    return real_prefix(prefix).startswith(start)


def moved_here(model_dir: str | None) -> str | None:
    """The newest checkpoint of a model_dir, where the state file names it in another place.

    Returns:
      None if the state file names what is there, or there is none, or no checkpoint.

    Raises:
      CorruptCheckpointError: the state file is broken.
    """
    listed = None if model_dir is None else read_state(model_dir)
    if listed is None:
        return None
    named = listed.model_checkpoint_path
    here = in_directory(named, model_dir)
    return None if here == named else here

"""What a saver does with checkpoints on disk beside reading them: dates and deletes them."""

from __future__ import annotations

import os

import tensorflow as tf
from absl import logging

from estimator_ckpt import files
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.reading.input_files import input_directory
from estimator_ckpt.saving.staging import data_files, remove_tree


def open_any(path: str) -> Checkpoint:
    """As open_checkpoint(); also below a directory whose name is a tilde."""
    if path.startswith("~") and os.path.exists(os.path.join(os.curdir, f"{path}.index")):
        # RunConfig("~/run") makes a directory of that name, and is what a saver is asked for.
        path = os.path.join(os.curdir, path)
    return open_checkpoint(path)


def written_at(prefix: str) -> float | None:
    """When a checkpoint's index was written, in seconds since the epoch; None if there is none."""
    try:
        return float(tf.io.gfile.stat(f"{prefix}.index").mtime_nsec) / 1e9
    except tf.errors.NotFoundError:
        return None


def delete(prefix: str, meta_graph_suffix: str = "meta") -> bool:
    """Deletes a checkpoint with what belongs to it, or warns; returns whether it is gone."""
    try:
        # The index first: what has none is no checkpoint, wherever this stops.
        files.remove(f"{prefix}.index")
        for paths in data_files(prefix).values():
            for path in paths:
                files.remove(path)
        files.remove(f"{prefix}.{meta_graph_suffix}")
        remove_tree(input_directory(prefix))
    except CheckpointError as error:
        if files.is_dir(os.path.dirname(prefix) or "."):
            # A checkpoint too many is no reason to stop a training.
            logging.warning("Could not delete %s: %s", prefix, error)
        return False
    return True

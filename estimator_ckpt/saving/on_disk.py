"""What a saver does with checkpoints on disk beside reading them: opens, dates, deletes them."""

from __future__ import annotations

import os

import tensorflow as tf
from absl import logging

from estimator_ckpt import files
from estimator_ckpt.bundle.index import Entry, Index
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.saving.staging import data_files


def open_any(path: str) -> Checkpoint:
    """As open_checkpoint(); one in TensorFlow's first file format has names, shapes and dtypes."""
    try:
        return open_checkpoint(path)
    except (UnsupportedCheckpointError, NotACheckpointError) as error:
        # RestoreV2 reads TensorFlow's first file format too, by names. If it was sharded, its path
        # is a pattern.
        try:
            reader = tf.compat.v1.train.NewCheckpointReader(path)
        except (tf.errors.OpError, ValueError, RuntimeError):
            raise error from None
        shapes = reader.get_variable_to_shape_map()
        entries = {
            # Only TensorFlow knows where the bytes are: they are told apart by their numbers.
            name.encode(): Entry(dtype.as_datatype_enum, tuple(shapes[name]), 0, number, 1, number)
            for number, (name, dtype) in enumerate(reader.get_variable_to_dtype_map().items())
        }
        return Checkpoint(path, path, Index(1, entries), None)


def written_at(prefix: str) -> float | None:
    """When a checkpoint's index was written, in seconds since the epoch; None if there is none."""
    try:
        return float(tf.io.gfile.stat(f"{prefix}.index").mtime_nsec) / 1e9
    except tf.errors.NotFoundError:
        return None


def delete(prefix: str, meta_graph_suffix: str = "meta") -> bool:
    """Deletes a checkpoint and the graph beside it, or warns; returns whether it is gone."""
    try:
        # The index first: what has none is no checkpoint, wherever this stops.
        files.remove(f"{prefix}.index")
        for paths in data_files(prefix).values():
            for path in paths:
                files.remove(path)
        files.remove(f"{prefix}.{meta_graph_suffix}")
    except CheckpointError as error:
        if files.is_dir(os.path.dirname(prefix) or "."):
            # A checkpoint too many is no reason to stop a training.
            logging.warning("Could not delete %s: %s", prefix, error)
        return False
    return True

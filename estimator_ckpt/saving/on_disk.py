"""What a saver does with checkpoints on disk beside reading them: dates and deletes them."""

from __future__ import annotations

import tensorflow as tf
from absl import logging


def written_at(prefix: str) -> float | None:
    """When a checkpoint's index was written, in seconds since the epoch; None if there is none."""
    try:
        return float(tf.io.gfile.stat(f"{prefix}.index").mtime_nsec) / 1e9
    except tf.errors.NotFoundError:
        return None


def delete(prefix: str, meta_graph_suffix: str) -> None:
    """Deletes a checkpoint and the graph beside it, or warns."""
    try:
        # The index first: what has none is no checkpoint, wherever this stops.
        for pattern in (".index", ".data-?????-of-?????", f".{meta_graph_suffix}"):
            for path in tf.io.gfile.glob(prefix + pattern):
                tf.io.gfile.remove(path)
    except tf.errors.OpError as error:
        # A checkpoint too many is no reason to stop a training.
        logging.warning("Could not delete %s: %s", prefix, error)

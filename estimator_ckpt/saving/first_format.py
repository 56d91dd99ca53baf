"""Opens what a saver is to restore: also a checkpoint in TensorFlow's first file format."""

from __future__ import annotations

import tensorflow as tf

from estimator_ckpt.bundle.index import Entry, Index
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import NotACheckpointError, UnsupportedCheckpointError


def open_any(path: str) -> Checkpoint:
    """As open_checkpoint(); one in the first format has names, shapes and dtypes, but no values."""
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

"""Variables of a graph that start from a tensor of another shape."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from estimator_ckpt.saving import tf_internals
from estimator_ckpt.warm_starting.fitting import fitted
from estimator_ckpt.warm_starting.report import StartingValue


class FittedPart:
    """A variable, or a slice of a partitioned one.

    Attributes:
      value: what the whole variable starts from.
    """

    def __init__(self, value: StartingValue, part: Any) -> None:
        """Adds ops to the default graph.

        Args:
          value: what the whole variable starts from.
          part: the variable, or one slice of it.
        """
        self.value = value
        self._offset = tf_internals.slice_offset(part)
        replicas = tf_internals.replicas(part)
        with tf.name_scope("warm_start_fitted"), tf.control_dependencies(None):
            self._initial = tf.identity(replicas[0])
            self._new = tf.compat.v1.placeholder(self._initial.dtype, self._initial.shape)
            self._assign = tf.group(*(one.assign(self._new, read_value=False) for one in replicas))

    def put(self, session: tf.compat.v1.Session, array: Any) -> None:
        """Gives it what it starts with.

        Args:
          session: in which it has its initial value.
          array: what the checkpoint has.
        """
        initial = session.run(self._initial)
        shape = self.value.shape or ()
        new = fitted(self.value.fitting, array, shape, initial, self._offset)
        session.run(self._assign, {self._new: new})

"""The hook that has the input of an Estimator go on where it stood."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from estimator_ckpt.saving.input_position import InputPosition


class InputHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Restores the position when a session is there; the last of the hooks, as the others
    initialize iterators."""

    def __init__(self, position: InputPosition, workers: int) -> None:
        """Makes the hook.

        Args:
          position: saves and restores.
          workers: how many processes read data.
        """
        self._position = position
        self._workers = workers

    def begin(self) -> None:
        self._position.check(self._workers)

    def after_create_session(self, session: tf.compat.v1.Session, coord: Any) -> None:
        del coord
        self._position.start(session)

"""A job in a model_dir that was moved, where Estimator does not find the newest checkpoint.

It looks for it before it calls the model_fn: for the step at which a training begins, and for what
to evaluate. The saver finds it when the session is made; what Estimator has decided is mended here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import NotACheckpointError
from estimator_ckpt.reading.moved import is_there, moved_here
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving import tf_internals


class StopWhereDone(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends a training before its first step where it had reached its max_steps before."""

    def after_create_session(self, session: tf.compat.v1.Session, coord: Any) -> None:
        step = tf.compat.v1.train.global_step(session, tf.compat.v1.train.get_global_step())
        if any(step >= last for last in tf_internals.last_steps(session.graph)):
            logging.info("Skipping training: step %d was reached before.", step)
            coord.request_stop()


def refuse_initial_values(scaffold: tf.compat.v1.train.Scaffold, model_dir: str | None) -> None:
    """Has an evaluation or a prediction fail that would use initial values in a moved model_dir.

    A Scaffold runs its init_fn only where no checkpoint was given: one that the caller named is
    used.
    """
    newest = moved_here(model_dir)
    listed = None if newest is None or model_dir is None else read_state(model_dir)
    if listed is None or is_there(listed.model_checkpoint_path):
        return

    def refuse(scaffold: Any, session: Any) -> None:
        raise NotACheckpointError(
            f"the file `checkpoint` in {model_dir} names it as the newest one, but it is not "
            f"there; the directory was moved and has {newest}. Give that as checkpoint_path=, use "
            "wrap_estimator(), which finds it, or resume the training, which mends the file",
            path=listed.model_checkpoint_path,
        )

    tf_internals.put_start(scaffold, None, refuse)

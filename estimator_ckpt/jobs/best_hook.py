"""An evaluation that keeps the checkpoint that it has read, if that is one of the best."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.best import keep_if_best, numbers_of
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.kept.evaluating import hold, release
from estimator_ckpt.reading.best import Criterion
from estimator_ckpt.reading.named import run_of
from estimator_ckpt.saving.journal import fingerprint
from estimator_ckpt.saving.saver import Saver
from estimator_ckpt.text.names import did_you_mean_or

_LOSS = "loss"  # what Estimator calls the mean of EstimatorSpec.loss


class KeepBest(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Reads the metrics of an evaluation when it ends, from the variables that hold them.

    Estimator reads the same ones right after its hooks (tensorflow/python/training/evaluation.py),
    so that these are the values that evaluate() returns.
    """

    def __init__(
        self,
        spec: Any,
        criteria: tuple[Criterion, ...],
        saver: Saver,
        model_dir: str,
    ) -> None:
        """Looks at what the evaluation measures.

        Args:
          spec: an EstimatorSpec for evaluation.
          criteria: by what checkpoints are the best.
          saver: that will restore the checkpoint.
          model_dir: of the job; checkpoints of other directories are not its best.

        Raises:
          SettingsError: the evaluation lacks a metric that counts.
        """
        self._criteria = criteria
        self._saver = saver
        self._model_dir = model_dir
        self._held: str | None = None
        self._values = {name: value[0] for name, value in (spec.eval_metric_ops or {}).items()}
        self._update: Any = None
        if spec.loss is not None and tf.distribute.get_strategy().num_replicas_in_sync == 1:
            # As Estimator makes its own, which a model_fn does not see.
            mean = tf.compat.v1.metrics.mean(spec.loss, name="loss_of_the_best")
            self._values[_LOSS], self._update = mean
        for one in criteria:
            if one.metric not in self._values:
                hint = did_you_mean_or(one.metric, sorted(self._values))
                if one.metric == _LOSS:
                    hint = (
                        " of all replicas; have the model measure it, in eval_metric_ops, by "
                        "tf.compat.v1.metrics.mean(loss)"
                    )
                raise SettingsError(
                    f"the evaluation has no metric {one.metric}{hint}", key="keep_best"
                )

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Holds the checkpoint that was restored; a trainer may delete it from now on."""
        del session, coord
        self._held = None
        if self._saver.sound is None:  # an InMemoryEvaluatorHook restores none
            logging.warning("keep_best: this evaluation has read no checkpoint, and keeps none.")
            return
        prefix, read = self._saver.sound
        run = os.path.realpath(run_of(prefix)) if "://" not in prefix else run_of(prefix)
        own = os.path.realpath(self._model_dir) if "://" not in prefix else self._model_dir
        if run.rstrip("/") != own.rstrip("/"):
            logging.info("keep_best: %s is not in %s, and does not count.", prefix, self._model_dir)
            return
        self._held = hold(prefix)
        try:
            is_gone = fingerprint(self._held) != read
        except CheckpointError:
            is_gone = True
        if is_gone:
            logging.warning("keep_best: %s was deleted or replaced just after it was read.", prefix)
            release(self._held)
            self._held = None

    def before_run(self, run_context: Any) -> Any:
        del run_context
        return None if self._update is None else tf.compat.v1.train.SessionRunArgs(self._update)

    def end(self, session: Any) -> None:
        """Keeps the checkpoint, if it is one of the best."""
        if self._held is None:
            return
        metrics = numbers_of(session.run(self._values))
        prefix, _ = self._saver.sound or (self._held, "")
        try:
            best = keep_if_best(run_of(prefix), self._held, metrics, self._criteria)
            for name in best:
                logging.info("%s is one of the best by %s: %g", prefix, name, metrics[name])
        except CheckpointError as error:  # no reason to end a job
            logging.warning("keep_best: %s may be one of the best, but: %s", prefix, error)
        finally:
            release(self._held)
            self._held = None

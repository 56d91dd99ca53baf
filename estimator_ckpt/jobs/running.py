"""One run of a job: an Estimator, its input and hooks, what it tells, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.jobs.parameter_server import serve_until_trainers_end
from estimator_ckpt.jobs.resuming import newest_checkpoint
from estimator_ckpt.jobs.stopping import STOP, StopHook
from estimator_ckpt.jobs.training_hooks import Progress, Show, shown_lines

_TRAINERS = ("chief", "master", "worker")


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
      estimator: the Estimator.
      mode: "train_and_evaluate", "train" or "evaluate".
      train_input_fn: None if nothing is trained.
      eval_input_fn: None if nothing is evaluated.
      max_steps: the global step at which training ends; None: when the input ends.
      eval_steps: batches in one evaluation; None: all that the input has.
      eval_throttle_secs: the least time from one evaluation to the next, in seconds.
      hooks: of the training, the program's own.
      exporters: what follows each evaluation.
      progress_secs: seconds between two lines of progress.
      notes: lines to begin with, where there is a checkpoint to resume from.
    """

    estimator: Any
    mode: str
    train_input_fn: Any
    eval_input_fn: Any
    max_steps: int | None
    eval_steps: int | None
    eval_throttle_secs: int
    hooks: Sequence[Any]
    exporters: Sequence[Any]
    progress_secs: float
    notes: Sequence[str] = ()


def run(plan: Plan, estimator_lib: Any) -> int:
    """Runs a job to its end, or until SIGINT or SIGTERM.

    Args:
      plan: what to do.
      estimator_lib: tf.estimator.

    Returns:
      The exit code: 0, or 130 or 143 where a signal has ended it.

    Raises:
      NotACheckpointError: the newest checkpoint of the state file is not there.
      SettingsError: TF_CONFIG gives this process a part that the mode has not; two exporters have
        one name.
    """
    config = plan.estimator.config
    trains = plan.mode != "evaluate" and config.task_type in _TRAINERS
    if plan.mode != "evaluate" and config.is_chief:
        newest_checkpoint(config.model_dir)  # or a training would start anew
    with _signals_handled(config), shown_lines() as show:
        progress = Progress(plan.max_steps, config.model_dir, plan.progress_secs, show)
        if trains and config.is_chief and _goes_on(plan):
            for note in plan.notes:
                show(note)
        try:
            _run(plan, estimator_lib, progress, show)
        except SystemExit:
            if STOP.signal is None:  # the program's own
                raise
        if trains:
            show(_last_line(plan, progress))
    return STOP.exit_code


def _goes_on(plan: Plan) -> bool:
    """Whether there is a checkpoint to resume from, and a step left to make."""
    newest, step = _newest(plan.estimator)
    return newest is not None and (plan.max_steps is None or step < plan.max_steps)


def _run(plan: Plan, estimator_lib: Any, progress: Progress, show: Show) -> None:
    """The mode of the plan, in the part that TF_CONFIG gives this process."""
    config, stop = plan.estimator.config, StopHook(STOP)
    if plan.mode == "evaluate":
        tell_metrics(
            plan.estimator.evaluate(plan.eval_input_fn, steps=plan.eval_steps, hooks=[stop])
        )
        return
    hooks = [stop, progress, *plan.hooks]
    if plan.mode == "train":
        if config.task_type not in (*_TRAINERS, "ps"):
            raise SettingsError(f"TF_CONFIG makes this the {config.task_type}", key="--mode=train")
        if not config.cluster_spec:
            plan.estimator.train(plan.train_input_fn, hooks=hooks, max_steps=plan.max_steps)
            return
    throttle = plan.eval_throttle_secs
    try:
        # Only train_and_evaluate() starts a server; only the evaluator uses its EvalSpec.
        specs = (
            estimator_lib.TrainSpec(plan.train_input_fn, max_steps=plan.max_steps, hooks=hooks),
            estimator_lib.EvalSpec(
                plan.train_input_fn if plan.mode == "train" else plan.eval_input_fn,
                steps=plan.eval_steps,
                hooks=[stop],
                exporters=[_told_metrics(estimator_lib), *plan.exporters],
                start_delay_secs=min(throttle, 120),
                throttle_secs=throttle,
            ),
        )
    except (TypeError, ValueError) as error:  # it has looked at the exporters' names
        raise SettingsError(f"{error}", key="--exporter") from None
    estimator_lib.train_and_evaluate(plan.estimator, *specs)


def _told_metrics(estimator_lib: Any) -> Any:
    """An Exporter that exports nothing: it is told each evaluation's result."""

    class Told(estimator_lib.Exporter):  # type: ignore[misc]
        name = "estimator-ckpt train"

        def export(
            self,
            estimator: Any,
            export_path: str,
            checkpoint_path: str,
            eval_result: Any,
            is_the_final_export: bool,
        ) -> None:
            del estimator, export_path, checkpoint_path, is_the_final_export
            tell_metrics(eval_result)

    return Told()


def tell_metrics(metrics: dict[str, Any]) -> None:
    """Prints the result of an evaluation."""
    metrics = dict(metrics)
    step = metrics.pop("global_step", None)
    shown = ", ".join(f"{name} {value}" for name, value in sorted(metrics.items()))
    print(f"evaluated step {step}: {shown}", flush=True)


def _last_line(plan: Plan, progress: Progress) -> str:
    """Where the training has come to, and why it has ended."""
    newest, saved = _newest(plan.estimator)
    step = saved if progress.step is None else progress.step
    if STOP.signal is not None:
        if not plan.estimator.config.is_chief:
            return f"stopped at step {step:,}; the chief saves"
        if newest is None:
            return "stopped; no checkpoint was saved"
        return f"stopped at step {saved:,}; the next start resumes from {newest}"
    if plan.max_steps is None or step < plan.max_steps:
        return f"finished at step {step:,}: the input has ended, or a hook has asked for the end"
    if progress.step is None:
        return f"finished at step {step:,} before: --max_steps={plan.max_steps} is reached"
    return f"finished at step {step:,}" + (f", {progress.last_loss}" if progress.last_loss else "")


def _newest(estimator: Any) -> tuple[str | None, int]:
    """The newest checkpoint, and its global step, or 0."""
    path = estimator.latest_checkpoint()
    if path is None:
        return None, 0
    try:
        with open_checkpoint(path) as checkpoint:
            return path, checkpoint.global_step or 0
    except CheckpointError:  # another process has replaced it, or deletes it
        return path, 0


@contextlib.contextmanager
def _signals_handled(config: Any) -> Iterator[None]:
    if config.task_type == "ps":
        serve_until_trainers_end()
        yield
        return
    with STOP.everywhere():
        yield

"""The flag-driven training job: `estimator-ckpt train`, `python -m estimator_ckpt.train`.

It loads a model_fn or an Estimator and its input_fns from modules as they are, trains and evaluates
them in a chosen checkpoint format, and stops in good order when it is asked to.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from absl import flags, logging

from estimator_ckpt import files
from estimator_ckpt.bundle.v1 import v1_prefix
from estimator_ckpt.errors import NotACheckpointError, SettingsError
from estimator_ckpt.flags import JobFlags, estimator_module
from estimator_ckpt.jobs.estimator_methods import put_methods
from estimator_ckpt.jobs.model_code import (
    load_function,
    load_input_fn,
    load_params,
    required_arguments,
)
from estimator_ckpt.jobs.training_hooks import (
    Progress,
    Stop,
    StopEvaluation,
    Stopped,
    StopTraining,
    shown_lines,
)
from estimator_ckpt.reading import state
from estimator_ckpt.reading.moved import in_directory

MODES = ("train_and_evaluate", "train", "evaluate")

_FACTORY_ARGUMENTS = ("config", "params", "model_dir")
_TRAINING_TASKS = ("chief", "master", "worker", "ps")


@dataclass(frozen=True)
class TrainSettings:
    """What `estimator-ckpt train` trains; the fields are its flags.

    Attributes:
      model_fn: `package.module:function`, or None where there is `estimator`.
      estimator: `package.module:function`, which returns an Estimator; it gets what its arguments
        name: `config`, a RunConfig; `params`, a dict; `model_dir`.
      train_input_fn: `package.module:function`.
      eval_input_fn: `package.module:function`.
      params: YAML mappings, or the paths of files with one; later ones win.
      max_steps: the global step at which training ends; None: when the input ends.
      eval_steps: batches in one evaluation; None: all that the input has.
      mode: one of MODES.
      eval_throttle_secs: the least time from one evaluation to the next, in seconds.
      tf_random_seed: RunConfig's.
      progress_secs: seconds between two lines of progress.
      verbose: whether to show what TensorFlow logs, too.
    """

    model_fn: str | None = None
    estimator: str | None = None
    train_input_fn: str | None = None
    eval_input_fn: str | None = None
    params: Sequence[str] = ()
    max_steps: int | None = None
    eval_steps: int | None = None
    mode: str = "train_and_evaluate"
    eval_throttle_secs: int = 600
    tf_random_seed: int | None = None
    progress_secs: float = 5.0
    verbose: bool = False


def train(settings: TrainSettings, job: JobFlags, arguments: Sequence[str] = ()) -> int:
    """Runs a job to its end, or until SIGINT or SIGTERM.

    Args:
      settings: what to train.
      job: the flags about checkpoints.
      arguments: the command line of the loaded modules, whose own absl flags it gives values.

    Returns:
      The exit code: 0; 130 or 143 where SIGINT or SIGTERM has ended it, a checkpoint being saved.

    Raises:
      SettingsError: a flag is wrong: no such function, a signature that Estimator cannot call, no
        YAML, no Estimator in this TensorFlow. What the user's own code raises comes as it is.
      CheckpointError: the checkpoint to start from does not fit.
    """
    estimator_lib = estimator_module()
    _check(settings, job)
    _quiet(settings.verbose)
    sys.path[:0] = [] if os.getcwd() in sys.path else [os.getcwd()]
    make_model, train_input_fn, eval_input_fn = (
        _load(settings, name)
        for name in (
            "estimator" if settings.estimator else "model_fn",
            "train_input_fn",
            "eval_input_fn",
        )
    )
    _parse_flags_of_modules(arguments)
    params = load_params(settings.params)
    if settings.estimator:
        estimator = _call_factory(make_model, settings, job, params)
    else:
        estimator = _make_estimator(make_model, settings, job, params)
    if job.value("warm_start_dry_run") and job.warm_start() is not None:
        estimator.train(_needed(settings, "train_input_fn", train_input_fn), max_steps=1)
        raise AssertionError("a dry run ends when the model is built")  # pragma: no cover
    if settings.mode != "evaluate" and estimator.config.is_chief:
        check_newest(estimator.config.model_dir)
    stop = Stop()
    with _handling_signals(stop, estimator.config), shown_lines() as show:
        runner = _Runner(estimator_lib, estimator, settings, stop, show)
        with contextlib.suppress(Stopped):
            runner.run(train_input_fn, eval_input_fn)
        if stop.signal is not None:
            newest = estimator.latest_checkpoint()
            show(f"stopped; the next start resumes from {newest}" if newest else "stopped")
    return stop.exit_code


class _Runner:
    """One job: an Estimator, its input, what it tells, and how it is stopped."""

    def __init__(
        self,
        estimator_lib: Any,
        estimator: Any,
        settings: TrainSettings,
        stop: Stop,
        show: Callable[[str], None],
    ) -> None:
        self._lib = estimator_lib
        self._estimator = estimator
        self._settings = settings
        self._stop = stop
        self._show = show

    def run(self, train_input_fn: Any, eval_input_fn: Any) -> None:
        """Runs the mode that the settings say, in the part that TF_CONFIG gives this process."""
        settings, config = self._settings, self._estimator.config
        mode = settings.mode
        if mode == "evaluate":
            _needed(settings, "eval_input_fn", eval_input_fn)
            self._tell(
                self._estimator.evaluate(
                    eval_input_fn, steps=settings.eval_steps, hooks=[StopEvaluation(self._stop)]
                )
            )
            return
        _needed(settings, "train_input_fn", train_input_fn)
        hooks = [
            StopTraining(self._stop),
            Progress(settings.max_steps, config.model_dir, settings.progress_secs, self._show),
        ]
        if mode == "train" and not config.cluster_spec:
            if config.task_type == "evaluator":
                raise SettingsError("TF_CONFIG makes this the evaluator", key="--mode=train")
            self._estimator.train(train_input_fn, hooks=hooks, max_steps=settings.max_steps)
            return
        if mode == "train":
            # Only train_and_evaluate() starts a server; only the evaluator uses its EvalSpec.
            if config.task_type not in _TRAINING_TASKS:
                raise SettingsError(
                    f"TF_CONFIG makes this the {config.task_type}", key="--mode=train"
                )
            eval_input_fn = train_input_fn
        _needed(settings, "eval_input_fn", eval_input_fn)
        throttle = settings.eval_throttle_secs
        self._lib.train_and_evaluate(
            self._estimator,
            self._lib.TrainSpec(train_input_fn, max_steps=settings.max_steps, hooks=hooks),
            self._lib.EvalSpec(
                eval_input_fn,
                steps=settings.eval_steps,
                hooks=[StopEvaluation(self._stop)],
                exporters=[self._told_metrics()],
                start_delay_secs=min(throttle, 120),
                throttle_secs=throttle,
            ),
        )

    def _told_metrics(self) -> Any:
        """An Exporter that exports nothing: it is told each evaluation's result."""
        tell = self._tell

        class Told(self._lib.Exporter):  # type: ignore[misc, name-defined]
            name = "metrics"

            def export(
                self,
                estimator: Any,
                export_path: str,
                checkpoint_path: str,
                eval_result: Any,
                is_the_final_export: bool,
            ) -> None:
                del estimator, export_path, checkpoint_path, is_the_final_export
                tell(eval_result)

        return Told()

    def _tell(self, metrics: dict[str, Any]) -> None:
        metrics = dict(metrics)
        step = metrics.pop("global_step", None)
        told = ", ".join(f"{name} {value}" for name, value in sorted(metrics.items()))
        print(f"evaluated step {step}: {told}", flush=True)


def check_newest(model_dir: str) -> None:
    """Sees to it that a training does not start anew because its checkpoint is missing.

    Raises:
      NotACheckpointError: the newest checkpoint of the state file is neither in its place nor in
        the model_dir.
    """
    found = state.read_state(model_dir)
    if found is None:
        return
    newest = in_directory(found.model_checkpoint_path, model_dir)
    if not files.exists(f"{newest}.index") and v1_prefix(newest) is None:
        raise NotACheckpointError(
            f"the file `checkpoint` in {model_dir} names it as the newest one, but it is not "
            "there; bring it back, or remove the file `checkpoint` to start anew",
            path=newest,
        )


def _check(settings: TrainSettings, job: JobFlags) -> None:
    if bool(settings.model_fn) == bool(settings.estimator):
        raise SettingsError("give this or --estimator, one of the two", key="--model_fn")
    if settings.mode not in MODES:
        raise SettingsError(f"expected one of {', '.join(MODES)}", key="--mode")
    if settings.mode == "train" and job.value("ema"):
        raise SettingsError(
            "only evaluation and prediction read averages, and --mode=train does neither; leave it "
            "out",
            key=job.flag_name("ema"),
        )
    if job.run_config().model_dir is None:  # neither the flag nor TF_CONFIG has one
        raise SettingsError(
            "say where checkpoints are to be; TensorFlow would put them into a temporary directory",
            key=job.flag_name("model_dir"),
        )


def _load(settings: TrainSettings, name: str) -> Any:
    spec = getattr(settings, name)
    if not spec:
        return None
    load = load_input_fn if name.endswith("input_fn") else load_function
    return load(spec, f"--{name}")


def _needed(settings: TrainSettings, name: str, function: Any) -> Any:
    if function is None:
        raise SettingsError(f"--mode={settings.mode} needs it", key=f"--{name}")
    return function


def _make_estimator(
    model_fn: Any, settings: TrainSettings, job: JobFlags, params: dict[str, Any]
) -> Any:
    config = job.run_config(tf_random_seed=settings.tf_random_seed)
    wrapped = job.wrap_model_fn(model_fn)
    try:
        made = estimator_module().Estimator(wrapped, config=config, params=params or None)
    except (ValueError, TypeError) as error:  # it has looked at the signature only
        raise SettingsError(f"{settings.model_fn}: {error}", key="--model_fn") from None
    put_methods(made)
    return made


def _call_factory(
    factory: Any, settings: TrainSettings, job: JobFlags, params: dict[str, Any]
) -> Any:
    config = job.run_config(tf_random_seed=settings.tf_random_seed)
    available = {"config": config, "params": params, "model_dir": config.model_dir}
    wrong = [name for name in required_arguments(factory) if name not in available]
    if wrong:
        raise SettingsError(
            f"{settings.estimator} needs {', '.join(map(repr, wrong))}, but it can get only "
            f"{', '.join(_FACTORY_ARGUMENTS)}",
            key="--estimator",
        )
    taken = inspect.signature(factory).parameters
    if params and "params" not in taken:
        raise SettingsError(f"{settings.estimator} takes no `params`", key="--params")
    estimator = factory(**{name: value for name, value in available.items() if name in taken})
    if not hasattr(estimator, "config"):
        raise SettingsError(
            f"{settings.estimator} returned {estimator!r}, expected a tf.estimator.Estimator",
            key="--estimator",
        )
    for name, asked in job.given(
        ("model_dir", "save_checkpoints_steps", "save_checkpoints_secs")
    ).items():
        has = getattr(estimator.config, name)
        if has != asked:
            raise SettingsError(
                f"{settings.estimator} returned an Estimator with {has!r}; it has to take `config` "
                "and pass it on",
                key=job.flag_name(name),
            )
    return job.wrap_estimator(estimator)


def _parse_flags_of_modules(arguments: Sequence[str]) -> None:
    """Gives the absl flags that the loaded modules define their values."""
    try:
        rest = flags.FLAGS(["train", *arguments])[1:]
    except flags.Error as error:
        raise SettingsError(f"{error} (of the flags after --)") from None
    if rest:
        raise SettingsError(
            f"unexpected arguments: {' '.join(rest)}; flags of the model's own modules stand after "
            "--, all others before it"
        )


def _quiet(verbose: bool) -> None:
    """Shows this package's own messages, and TensorFlow's where they are wanted."""
    logging.use_absl_handler()
    if "verbosity" not in flags.FLAGS or flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    tf.get_logger().handlers.clear()  # absl's root handler shows these lines, once is enough
    tf.get_logger().setLevel("INFO" if verbose else "ERROR")


@contextlib.contextmanager
def _handling_signals(stop: Stop, config: Any) -> Iterator[None]:
    if config.task_type == "ps":
        # It waits in TensorFlow for ever, where no Python handler runs, and has nothing to save.
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        yield
        return
    with stop.on_signals():
        yield


if __name__ == "__main__":
    from estimator_ckpt.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

"""The flag-driven training job: `estimator-ckpt train`, `python -m estimator_ckpt.train`.

It loads a model_fn or an Estimator, its input_fns and what else belongs to the job from modules as
they are, trains and evaluates them in a chosen checkpoint format, and stops in good order when it
is asked to.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.flags import JobFlags, estimator_module
from estimator_ckpt.jobs.model_code import (
    call_with,
    load_input_fn,
    load_params,
    made_by,
)
from estimator_ckpt.loading import check_module, import_from_current_directory, load_function

MODES = ("train_and_evaluate", "train", "evaluate")

_FUNCTIONS = ("model_fn", "estimator", "run_config")
_INPUT_FNS = ("train_input_fn", "eval_input_fn")


@dataclass(frozen=True)
class TrainSettings:
    """What `estimator-ckpt train` trains; the fields are its flags.

    Attributes:
      model_fn: `package.module:function`, or None where there is `estimator`.
      estimator: `package.module:function`, which returns an Estimator; it gets what its arguments
        name: `config`, a RunConfig; `params`, a dict; `model_dir`.
      train_input_fn: `package.module:function`.
      eval_input_fn: `package.module:function`.
      run_config: `package.module:function`, which returns a tf.estimator.RunConfig. It gets what
        its arguments name: `params`, `model_dir`. Flags that are given win over the result.
      hooks: `package.module:function`s, each of which returns a SessionRunHook of the training, or
        a list of them. They get `config`, `params`, `model_dir`.
      exporter: `package.module:function`s, each of which returns a tf.estimator.Exporter, or a list
        of them. They get `config`, `params`, `model_dir`.
      params: YAML mappings, or the paths of files with one; later ones win.
      max_steps: the global step at which training ends; None: when the input ends.
      eval_steps: batches in one evaluation; None: all that the input has.
      mode: one of MODES.
      eval_throttle_secs: the least time from one evaluation to the next, in seconds.
      tf_random_seed: RunConfig's.
      progress_secs: seconds between two lines of progress.
    """

    model_fn: str | None = None
    estimator: str | None = None
    train_input_fn: str | None = None
    eval_input_fn: str | None = None
    run_config: str | None = None
    hooks: Sequence[str] = ()
    exporter: Sequence[str] = ()
    params: Sequence[str] = ()
    max_steps: int | None = None
    eval_steps: int | None = None
    mode: str = "train_and_evaluate"
    eval_throttle_secs: int = 600
    tf_random_seed: int | None = None
    progress_secs: float = 5.0


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
    check_settings(settings, job)
    estimator_lib = estimator_module()
    # What is wrong with the flags is said before the user's own code runs.
    config = None if settings.run_config else _config(settings, job, None, {})
    code = {name: load_function(spec, f"--{name}") for name, spec in _given(settings, _FUNCTIONS)}
    inputs = {name: load_input_fn(spec, f"--{name}") for name, spec in _given(settings, _INPUT_FNS)}
    hooks = [(spec, load_function(spec, "--hooks")) for spec in settings.hooks]
    exporters = [(spec, load_function(spec, "--exporter")) for spec in settings.exporter]
    _parse_flags_of_modules(arguments)
    params = load_params(settings.params)
    if config is None:
        config = _config(settings, job, code["run_config"], params)
    if settings.estimator:
        estimator = _call_factory(code["estimator"], settings, job, (config, params))
    else:
        estimator = _make_estimator(code["model_fn"], settings, job, (config, params))
    if job.value("warm_start_dry_run") and job.warm_start() is not None:
        estimator.train(_needed(settings, inputs, "train_input_fn"), max_steps=1)
        raise AssertionError("a dry run ends when the model is built")  # pragma: no cover
    needs = {"train": _INPUT_FNS[:1], "evaluate": _INPUT_FNS[1:]}.get(settings.mode, _INPUT_FNS)
    for name in needs:
        _needed(settings, inputs, name)

    from estimator_ckpt.jobs.running import Plan, run
    from estimator_ckpt.jobs.taking_over import not_taken_over

    available = {"config": estimator.config, "params": params, "model_dir": estimator.model_dir}
    made_hooks = made_by(hooks, "--hooks", available, _session_run_hook())
    made_exporters = made_by(exporters, "--exporter", available, estimator_lib.Exporter)
    keep = job.value("keep_checkpoint_max")
    notes = not_taken_over(
        estimator.model_dir,
        lacking=[
            flag
            for flag, is_given in (
                ("run_config", settings.run_config or settings.estimator),
                ("hooks", hooks),
                ("exporter", exporters),
            )
            if not is_given
        ],
        exporters=[exporter.name for exporter in made_exporters],
        keep_checkpoint_max=estimator.config.keep_checkpoint_max if keep is None else keep,
    )
    return run(
        Plan(
            estimator=estimator,
            mode=settings.mode,
            train_input_fn=inputs.get("train_input_fn"),
            eval_input_fn=inputs.get("eval_input_fn"),
            max_steps=settings.max_steps,
            eval_steps=settings.eval_steps,
            eval_throttle_secs=settings.eval_throttle_secs,
            hooks=made_hooks,
            exporters=made_exporters,
            progress_secs=settings.progress_secs,
            notes=notes,
        ),
        estimator_lib,
    )


def check_settings(settings: TrainSettings, job: JobFlags) -> None:
    """What is wrong with the flags that needs no TensorFlow to be told, which takes seconds.

    Raises:
      SettingsError: see train().
    """
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
    if settings.mode != "train_and_evaluate" and settings.exporter:
        raise SettingsError(f"--mode={settings.mode} exports nothing", key="--exporter")
    if settings.mode == "evaluate" and settings.hooks:
        raise SettingsError("these are of a training, and --mode=evaluate is none", key="--hooks")
    import_from_current_directory()
    for name, spec in _given(settings, (*_FUNCTIONS, *_INPUT_FNS)):
        check_module(spec, f"--{name}")


def _given(settings: TrainSettings, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, getattr(settings, name)) for name in names if getattr(settings, name)]


def _needed(settings: TrainSettings, inputs: dict[str, Any], name: str) -> Any:
    if name not in inputs:
        raise SettingsError(f"--mode={settings.mode} needs it", key=f"--{name}")
    return inputs[name]


def _session_run_hook() -> Any:
    import tensorflow as tf

    return tf.compat.v1.train.SessionRunHook


def _config(settings: TrainSettings, job: JobFlags, function: Any, params: dict[str, Any]) -> Any:
    """The RunConfig of the job."""
    seed = settings.tf_random_seed
    own = {} if seed is None else {"tf_random_seed": seed}
    if function is None:
        config = job.run_config(**own)
    else:
        available = {"params": params, "model_dir": job.value("model_dir")}
        base = call_with(function, settings.run_config or "", "--run_config", available)
        if not isinstance(base, estimator_module().RunConfig):
            raise SettingsError(
                f"{settings.run_config} returned {base!r}, expected a tf.estimator.RunConfig",
                key="--run_config",
            )
        config = job.run_config(base, **own)
    if config.model_dir is None:  # no flag, no TF_CONFIG, no RunConfig has one
        raise SettingsError(
            "say where checkpoints are to be; TensorFlow would put them into a temporary directory",
            key=job.flag_name("model_dir"),
        )
    return config


def _make_estimator(
    model_fn: Any, settings: TrainSettings, job: JobFlags, given: tuple[Any, dict[str, Any]]
) -> Any:
    from estimator_ckpt.jobs.estimator_methods import put_methods

    config, params = given
    wrapped = job.wrap_model_fn(model_fn)
    try:
        made = estimator_module().Estimator(wrapped, config=config, params=params or None)
    except (ValueError, TypeError) as error:  # it has looked at the signature only
        raise SettingsError(f"{settings.model_fn}: {error}", key="--model_fn") from None
    put_methods(made)
    return made


def _call_factory(
    factory: Any, settings: TrainSettings, job: JobFlags, given: tuple[Any, dict[str, Any]]
) -> Any:
    config, params = given
    available = {"config": config, "params": params, "model_dir": config.model_dir}
    if params and "params" not in inspect.signature(factory).parameters:
        raise SettingsError(f"{settings.estimator} takes no `params`", key="--params")
    estimator = call_with(factory, settings.estimator or "", "--estimator", available)
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


if __name__ == "__main__":
    from estimator_ckpt.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

"""usage: estimator-ckpt train [flags] [-- flags of the model's own modules]

Trains and evaluates a model_fn of tf.estimator, or an Estimator, from a module that need not be
changed, in checkpoints of a chosen format; resumes from those of every format.

  estimator-ckpt train --model_fn=my.model:model_fn --train_input_fn=my.data:train \\
      --eval_input_fn=my.data:evaluation --model_dir=run --max_steps=10000

SIGINT (Ctrl-C) and SIGTERM stop it in good order: it finishes the step, saves a checkpoint and
exits with 130 or 143; the next start resumes there. A second signal stops it at once. TF_CONFIG is
respected: the same flags run on one machine and as each process of a cluster.

Flags can stand in a file: --flagfile=job.flags.
"""

from __future__ import annotations

from absl import flags

from estimator_ckpt.flags import JobFlags, define_flags

EXIT_CODES = {
    0: "finished",
    130: "stopped by SIGINT, after a checkpoint",
    143: "stopped by SIGTERM, after a checkpoint",
    2: "an error: a wrong flag, a checkpoint that does not fit",
}
GROUPS = {
    "The job": (
        "model_fn estimator train_input_fn eval_input_fn model_dir checkpoint_format params mode"
        " run_config hooks exporter"
    ),
    "How long": "max_steps eval_steps eval_throttle_secs",
    "Checkpoints": (
        "save_checkpoints_steps save_checkpoints_secs keep_checkpoint_max"
        " keep_checkpoint_every_n_hours keep_checkpoint_every_n_steps keep_best deletion_grace_secs"
        " reset reset_once durable async_checkpoint ema on_missing match_by on_corrupt check_data"
        " save_input on_input_change on_unsavable_input save_input_max_bytes"
    ),
    "Warm start": (
        "warm_start_from warm_start_config warm_start_override warm_start_dry_run"
        " checkpoint_exclude_scopes ignore_missing_vars"
    ),
}

_TEXTS = {
    "model_fn": "The model_fn, package.module:function. The current directory counts.",
    "estimator": "Instead of --model_fn: a function that returns an Estimator. It gets what its"
    " arguments name: config (a RunConfig), params, model_dir.",
    "train_input_fn": "package.module:function.",
    "eval_input_fn": "package.module:function.",
    "run_config": "package.module:function that returns the job's RunConfig; it may take params and"
    " model_dir. Flags that are given win.",
}
_LISTS = {
    "params": "The model's params: a YAML file, or a YAML mapping, '{learning_rate: 0.1}'. May be"
    " repeated; later ones win.",
    "hooks": "package.module:function that returns a SessionRunHook of the training, or a list; it"
    " may take config, params and model_dir. May be repeated.",
    "exporter": "package.module:function that returns a tf.estimator.Exporter (BestExporter,"
    " FinalExporter, LatestExporter, or the job's own), or a list; it may take config, params and"
    " model_dir. May be repeated.",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""
    for name, text in _TEXTS.items():
        flags.DEFINE_string(name, None, text, flag_values=flag_values)
    for name, text in _LISTS.items():
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)
    flags.DEFINE_integer(
        "max_steps",
        None,
        "The global step at which training ends; unless given, when the input ends.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_alias("train_steps", "max_steps", flag_values=flag_values)
    flags.DEFINE_integer(
        "eval_steps",
        None,
        "Batches in one evaluation; unless given, all that the input has.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "mode",
        "train_and_evaluate",
        ["train_and_evaluate", "train", "evaluate"],
        "What to do; train_and_evaluate evaluates after checkpoints.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "eval_throttle_secs",
        600,
        "The least seconds from one evaluation to the next.",
        lower_bound=0,
        flag_values=flag_values,
    )
    flags.DEFINE_integer("tf_random_seed", None, "RunConfig's.", flag_values=flag_values)
    flags.DEFINE_float(
        "progress_secs",
        5.0,
        "Seconds between two lines of progress.",
        lower_bound=0.0,
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "verbose", False, "Show what TensorFlow logs, too.", flag_values=flag_values
    )
    define_flags(flag_values=flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Trains; 130 or 143 if a signal has ended it."""
    from dataclasses import fields

    from estimator_ckpt.text.logs import import_tensorflow
    from estimator_ckpt.train import TrainSettings, check_settings, train

    given = {one.name: getattr(flag_values, one.name) for one in fields(TrainSettings)}
    settings, job = TrainSettings(**given), JobFlags("", flag_values)
    check_settings(settings, job)
    import_tensorflow(verbose=flag_values.verbose)
    return train(settings, job, arguments)

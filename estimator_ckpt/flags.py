"""absl flags for the checkpoints of a training job, and what they make.

    from estimator_ckpt.flags import define_flags

    JOB = define_flags()  # beside the program's other flags

    def main(_):
        estimator = tf.estimator.Estimator(JOB.wrap_model_fn(model_fn), config=JOB.run_config())
        estimator.train(input_fn, hooks=JOB.hooks(), max_steps=10000)

Importing this module defines no flag.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.jobs.flag_table import ALIASES, FLAGS, help_text
from estimator_ckpt.jobs.warm_start_flags import exclusion, parse_policy, with_overrides
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.reading.best import parse_criteria
from estimator_ckpt.warm_start import WarmStart

if TYPE_CHECKING:
    from estimator_ckpt.jobs.resuming import ResumePoint

# The flags belong to the module that calls define_flags(), so that its --help lists them.
flags.disclaim_key_flags()

_SAVER_OPTIONS = (
    "keep_checkpoint_max",
    "keep_checkpoint_every_n_hours",
    "keep_checkpoint_every_n_steps",
    "deletion_grace_secs",
    "reset_once",
    "match_by",
    "durable",
    "async_checkpoint",
    "on_corrupt",
    "check_data",
    "ema",
    "save_input",
    "on_input_change",
    "on_unsavable_input",
    "save_input_max_bytes",
)
_PATHS = ("model_dir", "warm_start_from", "init_checkpoint", "warm_start_config")
_RUN_CONFIG = (
    "model_dir",
    "save_checkpoints_steps",
    "save_checkpoints_secs",
    "keep_checkpoint_max",
    "keep_checkpoint_every_n_hours",
)


def define_flags(
    prefix: str = "",
    flag_values: flags.FlagValues = flags.FLAGS,
    *,
    use_existing: Sequence[str] = (),
) -> JobFlags:
    """Defines the flags, once for a program; a repeated call gives the same ones.

    --model_dir, --checkpoint_format, --save_checkpoints_steps, --save_checkpoints_secs,
    --keep_checkpoint_max, --keep_checkpoint_every_n_hours, --keep_checkpoint_every_n_steps,
    --keep_best, --reset, --reset_once, --deletion_grace_secs, --on_missing, --match_by, --durable,
    --async_checkpoint, --on_corrupt, --check_data, --ema, --save_input, --on_input_change,
    --on_unsavable_input, --save_input_max_bytes, --warm_start_from (or --init_checkpoint),
    --warm_start_config, --warm_start_override, --warm_start_dry_run,
    --checkpoint_exclude_scopes, --ignore_missing_vars.

    Args:
      prefix: what each name begins with, for a program whose own flags would clash: "ckpt_".
      flag_values: where to define them.
      use_existing: names, from the list above, of flags that the program itself defines and that
        mean the same. They are used as they are, without the prefix.

    Returns:
      What makes a model_fn, a RunConfig and a Scaffold of the flags' values.

    Raises:
      SettingsError: a flag of one of the names is there already; nothing has been defined then.
        Or `use_existing` has a name that is not in the list.
    """
    for name in use_existing:
        if name not in FLAGS and name not in ALIASES:
            known = ", ".join([*FLAGS, *ALIASES])
            raise SettingsError(f"no such flag; they are {known}", key=f"use_existing: {name}")
    ours = [name for name in [*FLAGS, *ALIASES] if name not in use_existing]
    theirs = [name for name in ours if prefix + name in flag_values]
    if not all(_is_ours(flag_values[prefix + name], name, prefix) for name in theirs):
        raise _clash(prefix, theirs, flag_values)
    for name in ours:
        if name in theirs:
            continue
        if name in FLAGS:
            define, arguments = FLAGS[name]
            arguments = {**arguments, "help": help_text(name, prefix)}
            define(prefix + name, flag_values=flag_values, **arguments)
        elif ALIASES[name] not in use_existing:
            flags.DEFINE_alias(prefix + name, prefix + ALIASES[name], flag_values=flag_values)
    return JobFlags(prefix, flag_values, use_existing)


def _is_ours(flag: Any, name: str, prefix: str) -> bool:
    if name in ALIASES:
        return bool(flag.help == f"Alias for --{prefix}{ALIASES[name]}.")
    return help_text(name, prefix) in (flag.help or "")  # absl adds an enum's values


def _clash(prefix: str, names: Sequence[str], flag_values: Any) -> SettingsError:
    name = next(n for n in names if not _is_ours(flag_values[prefix + n], n, prefix))
    module = flag_values.find_module_defining_flag(prefix + name)
    # What is the main program absl knows by its path, as sys.argv[0] has it.
    file = getattr(sys.modules.get(module), "__file__", None) or module
    others = [f"--{prefix}{n}" for n in names if n != name]
    return SettingsError(
        f"{file} has a flag of this name already ({flag_values[prefix + name].help!r})"
        + (f"; there are {', '.join(others)}, too" if others else "")
        + f". If it means the same, define_flags(use_existing=[{name!r}]) uses it; otherwise "
        f'define_flags(prefix="{prefix}ckpt_") gives ours other names',
        key=f"--{prefix}{name}",
    )


class JobFlags:
    """The flags of one program; their values are read when a method is called."""

    def __init__(
        self, prefix: str, flag_values: flags.FlagValues, use_existing: Sequence[str] = ()
    ) -> None:
        """See define_flags()."""
        self._prefix = prefix
        self._values = flag_values
        self._existing = frozenset(use_existing)

    def flag_name(self, name: str) -> str:
        """How the command line writes the flag of this name, `--ckpt_model_dir`."""
        return f"--{name}" if name in self._existing else f"--{self._prefix}{name}"

    def value(self, name: str) -> Any:
        """The value of the flag of this name, which is without prefix here; of a path without `~`.

        Raises:
          absl.flags.UnparsedFlagAccessError: the command line has not been parsed.
          SettingsError: it is one of `use_existing`, but the program has no such flag.
        """
        full = self.flag_name(name)[2:]
        if full not in self._values:
            raise SettingsError("it is in use_existing, but is not defined", key=f"--{full}")
        value = getattr(self._values, full)
        return files.path_text(value, f"--{full}") if name in _PATHS and value else value

    def given(self, names: Sequence[str]) -> dict[str, Any]:
        """The values of these flags that are neither empty nor the default."""
        found = {name: self.value(name) for name in names}
        return {
            name: value
            for name, value in found.items()
            if value is not None and value != self._values[self.flag_name(name)[2:]].default
        }

    def saver_options(self) -> SaverOptions:
        """The SaverOptions that the flags give.

        Raises:
          SettingsError: a value out of its range; the error's key is the flag.
        """
        options = {name: self.value(name) for name in _SAVER_OPTIONS}
        key = self.flag_name("on_missing")
        options["on_missing"] = parse_policy(self.value("on_missing"), key)
        best = parse_criteria(self.value("keep_best") or (), self.flag_name("keep_best"))
        options["keep_best"] = best or None
        options["reset"] = self.value("reset") or None
        try:
            return SaverOptions(**options)
        except SettingsError as error:
            raise SettingsError(error.message, key=self.flag_name(str(error.key))) from None

    def warm_start(self) -> WarmStart | None:
        """What training starts from where there is nothing to resume from, if a flag says so.

        Raises:
          SettingsError: the file or an override is wrong; or flags that only make sense with a
            checkpoint to start from are given without one.
        """
        source = self._one_of("warm_start_from", "init_checkpoint")
        config = self.value("warm_start_config")
        if source is None and not config:
            alone = self.given(
                (
                    "warm_start_override",
                    "warm_start_dry_run",
                    "checkpoint_exclude_scopes",
                    "ignore_missing_vars",
                )
            )
            if not alone:
                return None
            raise SettingsError(
                f"it needs {self.flag_name('warm_start_from')} or "
                f"{self.flag_name('warm_start_config')}, from which to start",
                key=self.flag_name(next(iter(alone))),
            )
        if config:
            from estimator_ckpt.warm_start import load_warm_start

            settings = load_warm_start(config, ckpt_to_initialize_from=source)
        else:
            settings = WarmStart(str(source))
        overrides: list[str] = self.value("warm_start_override") or []
        return with_overrides(
            settings,
            overrides,
            key=self.flag_name("warm_start_override"),
            exclude=[exclusion(scope) for scope in self.value("checkpoint_exclude_scopes") or []],
            on_missing="warn" if self.value("ignore_missing_vars") else None,
        )

    def _one_of(self, name: str, alias: str) -> str | None:
        """The value of a flag or its alias, where at most one has another value than the other."""
        values = [name]
        if {alias, name} & self._existing and self.flag_name(alias)[2:] in self._values:
            values.append(alias)
        found = {self.value(one) for one in values} - {None, ""}
        if len(found) > 1:
            raise SettingsError(
                f"and {self.flag_name(alias)} name different checkpoints", key=self.flag_name(name)
            )
        return str(found.pop()) if found else None

    def run_config(self, base: Any = None, **settings: Any) -> Any:
        """A tf.estimator.RunConfig; TF_CONFIG in the environment is respected, as always.

        Args:
          base: a RunConfig, of which a copy is returned. A flag that is given wins over it.
          **settings: instead of `base`, the program's own for RunConfig. A flag wins over them.

        Raises:
          SettingsError: settings or a TF_CONFIG that RunConfig refuses; both
            --save_checkpoints_steps and --save_checkpoints_secs; no Estimator in this TensorFlow.
        """
        given = self.given(_RUN_CONFIG)
        every = ("save_checkpoints_steps", "save_checkpoints_secs")
        if all(name in given for name in every):
            raise SettingsError(
                f"give this or {self.flag_name(every[1])}, not both", key=self.flag_name(every[0])
            )
        if any(name in given for name in every):
            settings = {name: value for name, value in settings.items() if name not in every}
        settings = {**settings, **given}
        model_dir = settings.get("model_dir")
        if model_dir is not None:
            flag = self.flag_name("model_dir")
            settings["model_dir"] = model_dir = files.path_text(model_dir, flag)
            if files.exists(model_dir) and not files.is_dir(model_dir):
                raise SettingsError("expected a directory, found a file", path=model_dir, key=flag)
        make = estimator_module().RunConfig if base is None else base.replace
        try:
            return make(**settings)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise SettingsError(f"RunConfig or TF_CONFIG: {reason}") from None

    def hooks(self) -> list[Any]:
        """What belongs into the hooks of TrainSpec, EvalSpec, or a MonitoredTrainingSession.

        Returns:
          estimator_ckpt.stop_hook(), with which SIGTERM and Ctrl-C finish the step and save.
        """
        from estimator_ckpt.jobs.stopping import stop_hook

        return [stop_hook()]

    def resume_point(self, max_steps: int | None = None) -> ResumePoint:
        """estimator_ckpt.resume_point() of --model_dir, with what the other flags say.

        Raises:
          SettingsError: no --model_dir is given.
        """
        from estimator_ckpt.jobs.resuming import resume_point

        model_dir = self.value("model_dir")
        if not model_dir:
            raise SettingsError("say where checkpoints are", key=self.flag_name("model_dir"))
        options = {name: self.value(name) for name in ("on_corrupt", "check_data")}
        return resume_point(model_dir, max_steps, **options)

    def wrap_model_fn(
        self, model_fn: Callable[..., Any], *, checkpoint: Any = None
    ) -> Callable[..., Any]:
        """estimator_ckpt.wrap_model_fn() with what the flags say.

        With --warm_start_dry_run, the result prints what a training would start from as soon as
        it has built the model for training, and raises SystemExit(0).

        Args:
          model_fn: as for estimator_ckpt.wrap_model_fn().
          checkpoint: as for estimator_ckpt.wrap_model_fn().

        Raises:
          SettingsError: a flag's value is wrong.
        """
        from estimator_ckpt.model_fn import wrap_model_fn

        settings = self.warm_start()
        if self.value("warm_start_dry_run") and settings is not None:
            from estimator_ckpt.jobs.dry_run import stop_after_building

            return stop_after_building(wrap_model_fn(model_fn, "saver"), settings)
        return wrap_model_fn(
            model_fn,
            self.value("checkpoint_format"),
            checkpoint=checkpoint,
            warm_start=settings,
            **vars(self.saver_options()),
        )

    def wrap_estimator(self, estimator: Any, *, checkpoint: Any = None) -> Any:
        """estimator_ckpt.wrap_estimator() with what the flags say; else as wrap_model_fn().

        The Estimator keeps the RunConfig that it was made with.
        """
        from estimator_ckpt.model_fn import wrap_estimator, wrap_model_fn

        settings = self.warm_start()
        if self.value("warm_start_dry_run") and settings is not None:
            from estimator_ckpt.jobs.dry_run import stop_after_building
            from estimator_ckpt.saving import tf_internals

            wrap_estimator(estimator)  # for its errors
            reporting = stop_after_building(wrap_model_fn(estimator.model_fn, "saver"), settings)
            return tf_internals.on_model_fn(estimator, reporting)
        return wrap_estimator(
            estimator,
            self.value("checkpoint_format"),
            checkpoint=checkpoint,
            warm_start=settings,
            **vars(self.saver_options()),
        )

    def scaffold(self, checkpoint: Any = None, *, base: Any = None, run_config: Any = None) -> Any:
        """estimator_ckpt.make_scaffold() with what the flags say, for a MonitoredTrainingSession.

        Call it when the model is built. With --warm_start_dry_run it prints what training would
        start from, and raises SystemExit(0).

        Args:
          checkpoint: as for estimator_ckpt.make_scaffold().
          base: as for estimator_ckpt.make_scaffold().
          run_config: as for estimator_ckpt.make_scaffold().

        Raises:
          SettingsError: a flag's value is wrong.
        """
        from estimator_ckpt.scaffold import make_scaffold

        settings = self.warm_start()
        if self.value("warm_start_dry_run") and settings is not None:
            from estimator_ckpt.jobs.dry_run import print_and_exit

            print_and_exit(settings, self.value("model_dir"))
        return make_scaffold(
            self.value("checkpoint_format"),
            checkpoint,
            warm_start=settings,
            base=base,
            run_config=run_config,
            **vars(self.saver_options()),
        )


def estimator_module() -> Any:
    """tf.estimator.

    Raises:
      SettingsError: this TensorFlow has none.
    """
    import tensorflow as tf

    try:
        tf.estimator.Estimator  # noqa: B018
    except (AttributeError, ImportError):
        raise SettingsError(
            f"TensorFlow {tf.__version__} has no tf.estimator, which is in 2.15 and before: "
            "pip install 'estimator-ckpt[estimator]'"
        ) from None
    return tf.estimator

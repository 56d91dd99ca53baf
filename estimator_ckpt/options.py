"""SaverOptions: what every factory and wrapper takes as **saver_options; Retention is a part."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.matching.policies import MATCH_BY, Policy, check_policy
from estimator_ckpt.reading.best import Criterion, KeepBest, criteria_of
from estimator_ckpt.text.names import did_you_mean_or
from estimator_ckpt.text.patterns import compile_pattern

MatchBy = Literal["path", "name"]
OnCorrupt = Literal["error", "fall_back"]
ON_CORRUPT: tuple[OnCorrupt, ...] = ("error", "fall_back")
OnInputChange = Literal["error", "restart"]
ON_INPUT_CHANGE: tuple[OnInputChange, ...] = ("error", "restart")
OnUnsavableInput = Literal["error", "warn"]
ON_UNSAVABLE_INPUT: tuple[OnUnsavableInput, ...] = ("error", "warn")

# A field of Retention -> the option that says the same, by the name that RunConfig or a flag has.
OPTION_OF = {
    "newest": "keep_checkpoint_max",
    "every_n_hours": "keep_checkpoint_every_n_hours",
    "every_n_steps": "keep_checkpoint_every_n_steps",
    "best": "keep_best",
    "deletion_grace_secs": "deletion_grace_secs",
}


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: those that any of these wants, and those that are pinned.

        wrap_model_fn(model_fn, retention=Retention(newest=5, every_n_steps=10_000))

    `estimator-ckpt retention RUN --dry_run` shows what the next save would delete, and why.

    Attributes:
      newest: so many of the newest; 0: all. None: as RunConfig says, or 5.
      every_n_hours: one more for every so many hours of training. None: as RunConfig says, or
        10,000 hours.
      every_n_steps: one more for every so many steps: the first that is written at or after each
        multiple. None: none.
      best: the best ones as well, in `RUN/best`: ("accuracy", 3), a metric of the evaluation and
        how many; ("loss", 3, "min"), where small values are the good ones; or a list of such. Each
        evaluation of a wrapped model_fn counts, in whatever process; what else evaluates says so
        by record_metrics(). `RUN@best` names the best one.
      deletion_grace_secs: seconds between a checkpoint's replacement and its deletion, for an
        evaluator that may still be reading it.

    Raises:
      SettingsError: a value out of its range.
    """

    newest: int | None = None
    every_n_hours: float | None = None
    every_n_steps: int | None = None
    best: KeepBest | None = None
    deletion_grace_secs: float = 0.0

    def __post_init__(self) -> None:
        if self.newest is not None and not (
            _is_number(self.newest, numbers.Integral) and self.newest >= 0
        ):
            raise _unexpected("newest", "a whole number, 0 for all", self)
        hours, steps = self.every_n_hours, self.every_n_steps
        if hours is not None and not (_is_number(hours) and hours > 0):
            raise _unexpected("every_n_hours", "a positive number of hours", self)
        if steps is not None and not (_is_number(steps, numbers.Integral) and steps > 0):
            raise _unexpected("every_n_steps", "a positive number of steps", self)
        criteria_of(self.best, "best")
        grace = self.deletion_grace_secs
        if not (_is_number(grace) and grace >= 0):
            raise _unexpected("deletion_grace_secs", "a number of seconds", self)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """By what checkpoints are the best, where the best are kept."""
        return criteria_of(self.best)

    def else_keep(
        self, newest: int | None = 5, every_n_hours: float | None = 10_000.0
    ) -> Retention:
        """The same, with these where it says nothing; a `newest` of 0 or None keeps all."""
        return replace(
            self,
            newest=(newest or 0) if self.newest is None else self.newest,
            every_n_hours=every_n_hours if self.every_n_hours is None else self.every_n_hours,
        )

    def as_options(self) -> dict[str, Any]:
        """The same by the names that SaverOptions has."""
        return {option: getattr(self, name) for name, option in OPTION_OF.items()}


@dataclass(frozen=True)
class SaverOptions:
    """How a saver keeps and restores checkpoints.

    Attributes:
      retention: which checkpoints stay: a Retention. Its fields are options as well, by the names
        of RunConfig and of flags; what is said in both ways has to be the same.
      keep_checkpoint_max: its `newest`.
      keep_checkpoint_every_n_hours: its `every_n_hours`.
      keep_checkpoint_every_n_steps: its `every_n_steps`.
      keep_best: its `best`.
      deletion_grace_secs: its `deletion_grace_secs`.
      reset: what a job initializes although the checkpoint that it resumes from has it: roles
        ("optimizer", "averages", "statistics", "early_stopping") and regular expressions that match
        whole variable names, as ["optimizer", "head/.*"]. Once: the checkpoints say that it was
        done. The checkpoint from before is pinned as `before-reset-ID`.
      reset_once: a name for that request, to ask for the same again; None: its list is its name.
      on_missing: what to do with a variable that the checkpoint lacks: "error"; "warn" or "init",
        which initialize it, the one with a warning; or a mapping from regular expressions, which
        match a whole variable name, to one of these, the first match deciding, else "error".
      match_by: "path" or "name" decides where a variable's object path and its name lead to
        different tensors of the checkpoint; None makes that an error.
      durable: whether a save waits until its data are on the disk, and only then has the state file
        name the checkpoint. Otherwise that happens beside training; nothing older is deleted before
        it has happened.
      async_checkpoint: whether training goes on while a checkpoint is written. A save then takes a
        snapshot of the variables, at the cost of their memory once more at most, and a thread
        writes that. The state file names the checkpoint, older ones are deleted, and listeners of a
        CheckpointSaverHook are called when it is complete. A save waits for the one before it, and
        the end of the session for the last one. What goes wrong in the thread is raised at the next
        step. See docs/async_saves.md.
      on_corrupt: what a job does whose newest checkpoint is damaged: "error", or "fall_back" to the
        newest one before it that is sound. One that was not yet known to be on the disk when the
        machine stopped is read through, and is fallen back from in any case. Evaluation and
        prediction never fall back.
      check_data: whether a job that resumes reads through its newest checkpoint in any case, to
        see whether it is whole.
      ema: the name given to tf.train.ExponentialMovingAverage, or that object itself: evaluation
        and prediction read the averages in place of the variables. A checkpoint without one is an
        error, as on_missing has it by the names of averages; there "warn" and "init" read the
        variables themselves. So is one that lacks an average which the object keeps in this graph
        (after its apply()); else a variable that has none, beside others that do, is read itself.
        A saver with `ema` writes no checkpoints. An InMemoryEvaluatorHook restores none, and so
        evaluates the variables themselves.
      save_input: whether the position of the job's tf.data iterators is saved beside each
        checkpoint, in PREFIX.input, so that a job that resumes goes on with the next batch. The
        elements are the same, each once. The files hold what stands in buffers, as in that of
        shuffle: records of the training data. A position at the end of the data is not restored:
        the input begins anew.
      on_input_change: what a job does whose pipeline is not the one that the position is of:
        "error", or "restart", which begins the input anew. Compared are what the pipeline consists
        of and the dtypes and shapes that come out; not what is in files, nor a list of files that
        is read when the pipeline runs.
      on_unsavable_input: what a job does whose position cannot be saved (py_function or random ops
        in a pipeline, from_generator, a strategy, several processes): "error", or "warn", which
        trains without.
      save_input_max_bytes: how large the files of one position may be. None: as large as they are.

    Raises:
      SettingsError: a value out of its range.
    """

    retention: Retention = field(default_factory=Retention)
    keep_checkpoint_max: int | None = None
    keep_checkpoint_every_n_hours: float | None = None
    keep_checkpoint_every_n_steps: int | None = None
    keep_best: KeepBest | None = None
    deletion_grace_secs: float = 0.0
    reset: Sequence[str] | None = None
    reset_once: str | None = None
    on_missing: Policy = "error"
    match_by: MatchBy | None = None
    durable: bool = False
    async_checkpoint: bool = False
    on_corrupt: OnCorrupt = "error"
    check_data: bool = False
    ema: Any = None
    save_input: bool = False
    on_input_change: OnInputChange = "error"
    on_unsavable_input: OnUnsavableInput = "error"
    save_input_max_bytes: int | None = None

    def __post_init__(self) -> None:
        self._settle_retention()
        self._check_reset()
        check_policy("on_missing", self.on_missing)
        if self.match_by not in (None, *MATCH_BY):
            raise _unexpected("match_by", "'path', 'name' or None", self)
        if self.on_corrupt not in ON_CORRUPT:
            raise _unexpected("on_corrupt", "'error' or 'fall_back'", self)
        if self.on_input_change not in ON_INPUT_CHANGE:
            raise _unexpected("on_input_change", "'error' or 'restart'", self)
        if self.on_unsavable_input not in ON_UNSAVABLE_INPUT:
            raise _unexpected("on_unsavable_input", "'error' or 'warn'", self)
        most = self.save_input_max_bytes
        if most is not None and not (_is_number(most, numbers.Integral) and most > 0):
            raise _unexpected("save_input_max_bytes", "a positive number of bytes", self)
        for name in ("durable", "async_checkpoint", "check_data", "save_input"):
            if not isinstance(getattr(self, name), bool):
                raise _unexpected(name, "True or False", self)
        if self.average is None and self.ema is not None:
            raise _unexpected("ema", "a tf.train.ExponentialMovingAverage or its name", self)

    def _settle_retention(self) -> None:
        """Has `retention` and the options that stand for its fields say the same."""
        if not isinstance(self.retention, Retention):
            raise _unexpected("retention", "a Retention, as Retention(newest=5)", self)
        said = {}
        for name, option in OPTION_OF.items():
            value, default = getattr(self, option), getattr(Retention, name)
            there = getattr(self.retention, name)
            if value != default and there not in (default, value):
                raise SettingsError(
                    f"it is {value!r}, but retention says {name}={there!r}; say it in one place",
                    key=option,
                )
            said[name] = there if value == default else value
        try:
            retention = Retention(**said)
        except SettingsError as error:
            key = OPTION_OF[str(error.key)]
            raise SettingsError(error.message, key=key) from None
        for name, value in {"retention": retention, **retention.as_options()}.items():
            object.__setattr__(self, name, value)

    def _check_reset(self) -> None:
        if self.reset is not None and (
            isinstance(self.reset, str)
            or not isinstance(self.reset, Sequence)
            or not self.reset
            or not all(isinstance(one, str) and one for one in self.reset)
        ):
            raise _unexpected("reset", "a list of roles and patterns of names", self)
        for one in self.reset or ():
            compile_pattern(one, "reset")
        once = self.reset_once
        if once is not None and (self.reset is None or not isinstance(once, str) or not once):
            raise _unexpected("reset_once", "a name, beside `reset`", self)

    @property
    def average(self) -> str | None:
        """The last part of an average's variable name, where averages are to be read."""
        name = self.ema if isinstance(self.ema, str) else getattr(self.ema, "name", None)
        return name if isinstance(name, str) and name else None

    def given(self) -> dict[str, Any]:
        """The options that are not left at their defaults; a Retention by the options for it."""
        default = SaverOptions()
        said = {name: value for name, value in vars(self).items() if name != "retention"}
        return {name: v for name, v in said.items() if v != getattr(default, name)}

    def under(self, run_config: Any) -> SaverOptions:
        """These options, with the retention settings of a RunConfig where they have none."""
        if run_config is None:
            return self
        return self.else_keep(
            run_config.keep_checkpoint_max, run_config.keep_checkpoint_every_n_hours
        )

    def else_keep(self, max_to_keep: int | None, every_n_hours: float) -> SaverOptions:
        """These options, with this retention where they have none; 0 and None keep all."""
        return replace(self, retention=self.retention.else_keep(max_to_keep, every_n_hours))


class SaverKeywords(TypedDict, total=False):
    """The fields of SaverOptions as keywords, so that editors and type checkers know them."""

    retention: Retention
    keep_checkpoint_max: int | None
    keep_checkpoint_every_n_hours: float | None
    keep_checkpoint_every_n_steps: int | None
    keep_best: KeepBest | None
    deletion_grace_secs: float
    reset: Sequence[str] | None
    reset_once: str | None
    on_missing: Policy
    match_by: MatchBy | None
    durable: bool
    async_checkpoint: bool
    on_corrupt: OnCorrupt
    check_data: bool
    ema: Any
    save_input: bool
    on_input_change: OnInputChange
    on_unsavable_input: OnUnsavableInput
    save_input_max_bytes: int | None


def saver_options(loose: Mapping[str, Any]) -> SaverOptions:
    """SaverOptions from keywords; SettingsError names an unknown one and what may be meant."""
    known = [one.name for one in fields(SaverOptions)]
    for name in loose:
        if name not in known:
            raise SettingsError(f"no such option{did_you_mean_or(name, known)}", key=name)
    return SaverOptions(**loose)


def check_format(checkpoint_format: object) -> None:
    """Raises SettingsError unless it is one of CHECKPOINT_FORMATS."""
    if checkpoint_format not in CHECKPOINT_FORMATS:
        choices = ", ".join(repr(f) for f in CHECKPOINT_FORMATS)
        raise SettingsError(
            f"expected one of {choices}, found {checkpoint_format!r}", key="checkpoint_format"
        )


def _is_number(value: object, kind: type = numbers.Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _unexpected(name: str, expected: str, given: object) -> SettingsError:
    return SettingsError(f"expected {expected}, found {getattr(given, name)!r}", key=name)

"""Warm-start settings: which checkpoint a new training starts from, and by which rules."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.policies import check_policy
from estimator_ckpt.matching.resolve import MATCH_BY
from estimator_ckpt.matching.rules import Rules
from estimator_ckpt.warm_starting.vocabulary import check_vocabulary, with_home

if TYPE_CHECKING:
    from estimator_ckpt.warm_starting.report import WarmStartReport

Policy = Union[str, Mapping[str, str]]

_ON_UNEXPECTED = ("error", "warn", "ignore")


class NotGiven(enum.Enum):
    """The default of a field whose None has a meaning."""

    NOT_GIVEN = "not given"


@dataclass(frozen=True)
class WarmStart:
    """What a training without a checkpoint of its own starts from.

    The first four fields have the meanings of tf.estimator.WarmStartSettings
    (tensorflow/python/training/warm_starting_util.py).

    Attributes:
      ckpt_to_initialize_from: a checkpoint of any format: a prefix, a model_dir, a SavedModel, ...
      vars_to_warm_start: a regular expression for names of trainable variables; a list of them for
        names of all global variables; a list of variables; or None for those with a vocabulary
        alone. Expressions match as re.match does. Not given: ".*", unless there is an
        assignment_map, which then chooses alone.
      var_name_to_vocab_info: variable name -> VocabInfo, for variables with a row for each word.
      var_name_to_prev_var_name: variable name -> its name in the checkpoint.
      assignment_map: (checkpoint, model) pairs in the five syntaxes of
        tf.compat.v1.train.init_from_checkpoint: ("scope/", "other/"), ("name", "other"),
        ("name", variable), ("name", [parts of a partitioned variable]), ("/", "scope/"). A scope or
        name of an object-based checkpoint may be a variable name's or an object path's. A scope
        does not stand for the state of the training in it: slots and numbers of optimizers
        (`beta1_power`, `learning_rate`), the global step. Name them, or give vars_to_warm_start a
        list, to start from these.
      rename: (pattern, replacement) pairs. The first pattern that matches a whole name of the
        checkpoint renames that variable, as re.sub does, before anything is looked up; its object
        path then does not find it either.
      exclude: patterns; a variable whose whole name one of them matches keeps its initial value.
      on_missing: what to do with a selected variable that the checkpoint lacks: "error"; "warn" or
        "init", which leave it its initial value; or a mapping from patterns to these.
      on_shape_mismatch: the same for one of another shape.
      on_unexpected: what to do about variables of the checkpoint that nothing starts from: "error",
        "warn" or "ignore".
      require_all_rules_match: whether a rule that applies to nothing is an error.
      match_by: "path" or "name" decides where the objects and the names of model and checkpoint
        lead to different tensors, or where only the order of a list or of layers tells; None makes
        that an error.
      use_averages: starts each variable from its average (tf.train.ExponentialMovingAverage), where
        the checkpoint has one: True for averages of the default name, else their name. Slots of
        optimizers, which belong to the raw values, are then not there to start from.
      root: the object path in the checkpoint of the object that apply() is given, `model` or
        `model/encoder`, `/` for the root; None to find it.

    Raises:
      SettingsError: a field of the wrong kind; the error's key says which, `assignment_map[2]`.
    """

    ckpt_to_initialize_from: str
    vars_to_warm_start: Any = NotGiven.NOT_GIVEN
    var_name_to_vocab_info: Mapping[str, Any] = field(default_factory=dict)
    var_name_to_prev_var_name: Mapping[str, str] = field(default_factory=dict)
    assignment_map: Sequence[tuple[str, Any]] = ()
    rename: Sequence[tuple[str, str]] = ()
    exclude: Sequence[str] = ()
    on_missing: Policy = "error"
    on_shape_mismatch: Policy = "error"
    on_unexpected: str = "ignore"
    require_all_rules_match: bool = True
    match_by: str | None = None
    root: str | None = None
    use_averages: str | bool = False

    def __post_init__(self) -> None:
        name = "ckpt_to_initialize_from"
        path = self.ckpt_to_initialize_from
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise _wrong(name, "the path of a checkpoint", path)
        object.__setattr__(self, name, files.path_text(path, name))
        _check_selection(self.vars_to_warm_start)
        for name in ("var_name_to_vocab_info", "var_name_to_prev_var_name"):
            if not isinstance(getattr(self, name), Mapping):
                raise _wrong(name, "a mapping from variable names", getattr(self, name))
        for variable, info in self.var_name_to_vocab_info.items():
            check_vocabulary(f"var_name_to_vocab_info[{variable!r}]", info)
        vocabularies = {name: with_home(info) for name, info in self.var_name_to_vocab_info.items()}
        object.__setattr__(self, "var_name_to_vocab_info", vocabularies)
        for variable, previous in self.var_name_to_prev_var_name.items():
            if not isinstance(previous, str) or not previous:
                place = f"var_name_to_prev_var_name[{variable!r}]"
                raise _wrong(place, "a variable name", previous)
        for name in ("assignment_map", "rename"):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, tuple(getattr(self, name).items()))
        for name in ("assignment_map", "rename", "exclude"):
            object.__setattr__(self, name, tuple(_sequence(name, getattr(self, name))))
        for number, pair in enumerate(self.assignment_map):
            _check_assignment(f"assignment_map[{number}]", pair)
        Rules(rename=self.rename, exclude=self.exclude)
        check_policy("on_missing", self.on_missing)
        check_policy("on_shape_mismatch", self.on_shape_mismatch)
        if self.on_unexpected not in _ON_UNEXPECTED:
            raise _wrong("on_unexpected", f"one of {', '.join(_ON_UNEXPECTED)}", self.on_unexpected)
        if not isinstance(self.require_all_rules_match, bool):
            raise _wrong("require_all_rules_match", "true or false", self.require_all_rules_match)
        if self.match_by not in (None, *MATCH_BY):
            raise _wrong("match_by", f"one of {', '.join(MATCH_BY)}", self.match_by)
        averages = self.use_averages
        if averages == "" or not isinstance(averages, (bool, str)):
            raise _wrong("use_averages", "True or the name of the averages", averages)
        if self.root is not None and (not isinstance(self.root, str) or not self.root):
            raise _wrong("root", "an object path of the checkpoint, '/' for its root", self.root)

    @property
    def selects_by_default(self) -> bool:
        """Whether no setting says which variables start."""
        is_given = self.vars_to_warm_start is not NotGiven.NOT_GIVEN
        return not is_given and not self.assignment_map

    @property
    def selection(self) -> Any:
        """What vars_to_warm_start selects: as it is given, or what stands for it if it is not."""
        if self.vars_to_warm_start is not NotGiven.NOT_GIVEN:
            return self.vars_to_warm_start
        return () if self.assignment_map else ".*"

    def to_settings(self, directory: str | None = None) -> Any:
        """The tf.estimator.WarmStartSettings that start the same, for `warm_start_from=`.

        Args:
          directory: where to put a name-based view of the checkpoint (an index of its own, and
            links to the data files, or copies where the file system has no links), which
            TensorFlow needs of an object-based one, and for `rename` and `assignment_map`. It must
            stay until the training has started. None: a temporary one, gone when the process ends.

        Raises:
          SettingsError: these settings cannot be said in TensorFlow's; says which.
          CheckpointError: the checkpoint cannot be read, or the view not written.
        """
        from estimator_ckpt.warm_starting.stock_settings import stock_settings

        if directory is not None:
            directory = files.path_text(directory, "directory")
        return stock_settings(self, directory)

    def apply(self, variables: Any) -> WarmStartReport:
        """Assigns to variables of an eager program, at once: all of them, or none.

        Where neither vars_to_warm_start nor assignment_map is given, every variable of an object
        starts, trainable or not. State of metrics and of random seeds starts where the checkpoint
        has it. An optimizer's state starts if the checkpoint has all of it, and else not at all;
        the step goes with it.

        Objects are matched by structure before names: a name that a counter made, `dense_1` of a
        Dense layer, says nothing against the place where an object stands.

        Args:
          variables: a Keras model or layer that is built, a tf.Module, an optimizer or another
            trackable object, which is looked for anywhere in the checkpoint (see `root`); a
            tf.train.Checkpoint, which stands at its root; a list of variables; or a mapping from
            names to variables, or to objects, as tf.train.Checkpoint takes them. A variable without
            a name in a mapping has its own, without `:0`.

        Returns:
          What came from where.

        Raises:
          SettingsError: there are no variables yet, or a rule is wrong.
          MismatchError: the checkpoint does not fit, or it is not clear what belongs to what; lists
            everything.
          CheckpointError: the checkpoint cannot be read.
        """
        from estimator_ckpt.warm_starting.eager import apply_eagerly

        return apply_eagerly(self, variables)

    def deferred(self, root: Any = None) -> Any:
        """A context manager for variables that are yet to be made: `with settings.deferred():`.

        A variable starts when it is made, if its name says from what: the first call of a model
        computes with the restored values. Given the object that is to hold the variables, it starts
        by structure, when the Keras layer that it is made for has been built. When the block ends,
        it does with all of them what apply() does with a list of them, or with the object: what is
        found otherwise then is put right, without a second assignment of what was right before. An
        error, of the block too, gives all of them initial values. It yields an object whose
        `report` is there afterwards.

        Args:
          root: a Keras model, a tf.Module, a tf.train.Checkpoint, ... or None for all variables
            that the block makes.

        Raises:
          CheckpointError: as apply(), when the block ends.
        """
        from estimator_ckpt.warm_starting.deferred import deferred_start

        return deferred_start(self, root)


def warm_start_from(given: Any) -> WarmStart | None:
    """A WarmStart from what a factory or wrapper is given: one, a checkpoint's path, or settings of
    tf.estimator.

    Raises:
      SettingsError: it is none of these.
    """
    if given is None or isinstance(given, WarmStart):
        return given
    if isinstance(given, (str, os.PathLike)):
        return WarmStart(given)  # type: ignore[arg-type]
    if hasattr(given, "ckpt_to_initialize_from"):  # a tf.estimator.WarmStartSettings
        return WarmStart(
            given.ckpt_to_initialize_from,
            given.vars_to_warm_start,
            given.var_name_to_vocab_info or {},
            given.var_name_to_prev_var_name or {},
        )
    raise SettingsError(
        f"expected a WarmStart, a checkpoint's path or a WarmStartSettings, found {given!r}",
        key="warm_start",
    )


def _check_selection(selected: Any) -> None:
    name = "vars_to_warm_start"
    if isinstance(selected, str):
        _compile(name, selected)
    elif isinstance(selected, (list, tuple)):
        for number, one in enumerate(selected):
            if isinstance(one, str):
                _compile(f"{name}[{number}]", one)
            elif not hasattr(one, "name"):
                raise _wrong(f"{name}[{number}]", "an expression or a variable", one)
        if len({isinstance(one, str) for one in selected}) > 1:
            raise _wrong(name, "expressions or variables, not both", selected)
    elif not (selected is None or selected is NotGiven.NOT_GIVEN):
        raise _wrong(name, "an expression, a list or None", selected)


def _check_assignment(place: str, pair: Any) -> None:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
        raise _wrong(place, "a pair of checkpoint name or scope and model side", pair)
    source, target = pair
    if not source or target is None or (isinstance(target, str) and not target):
        raise _wrong(place, "names; the root scope is '/'", pair)
    if isinstance(target, (bool, int, float, Mapping)):
        raise _wrong(place, "a name, a scope, a variable or a list of its parts", target)
    is_scope = isinstance(target, str) and target.endswith("/")
    if source.endswith("/") != is_scope:
        raise _wrong(place, "a scope for a scope: 'scope/', with the slash", pair)


def _wrong(name: str, expected: str, found: object) -> SettingsError:
    return SettingsError(f"expected {expected}, found {found!r}", key=name)


def _sequence(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SettingsError(f"expected a list, found {value!r}", key=name)
    return value


def _compile(place: str, pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SettingsError(f"{pattern!r} is no pattern: {error}", key=place) from None

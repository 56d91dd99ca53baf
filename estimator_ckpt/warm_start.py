"""Warm starts: which checkpoint a new training starts from, by which rules, and starting itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.configs import find_config
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.warm_starting.report import WarmStartReport
from estimator_ckpt.warm_starting.settings import Settings


@dataclass(frozen=True)
class WarmStart(Settings):
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
      on_shape_mismatch: the same for one of another shape. Or "reshape", where the elements are as
        many; "pad", where the variable is larger: what it has beyond the end of the checkpoint's
        keeps its initial value, as new rows of an embedding do; "slice", where it is smaller, and
        starts from the beginning of the checkpoint's. Where that does not fit it is an error.
      on_unexpected: what to do about variables of the checkpoint that nothing starts from: "error",
        "warn" or "ignore".
      require_all_rules_match: whether a rule that applies to nothing is an error.
      match_by: "path" or "name" decides where the objects and the names of model and checkpoint
        lead to different tensors, or where only the order of a list or of layers tells; None makes
        that an error.
      use_averages: starts each variable from its average (tf.train.ExponentialMovingAverage), where
        the checkpoint has one: True for averages of the default name, else their name. Slots of
        optimizers, which belong to the raw values, are then not there to start from.
      hyperparameters: numbers with which an optimizer's state becomes that of another kind, by name
        (`iter`, `learning_rate`, `beta_1`, ...), where neither the program nor the checkpoint tells
        them; of several optimizers by whose they are, `optimizer/iter` or `Adam/iter`. They are not
        written into the program's optimizer, but for its count of steps. In a job they are for
        state that a list of vars_to_warm_start selects.
      from_optimizer: the class of the checkpoint's optimizer, where its names do not say it: "SGD",
        "AdamW", ...
      root: the object path in the checkpoint of the object that apply() is given, `model` or
        `model/encoder`, `/` for the root; None to find it. For variables of a job, or without
        objects: of what has them under their names, such as a dictionary `vars`.

    Raises:
      SettingsError: a field of the wrong kind; the error's key says which, `assignment_map[2]`.
    """

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
        the step goes with it. The state of another kind of optimizer starts one where the two mean
        the same, as docs/optimizers.md has it: that of a TF1 job one of Keras', say. Where they do
        not, the report and a warning say why, and the optimizer begins anew; with hyperparameters
        or from_optimizer that is an error. The optimizer keeps its own learning rate. One that has
        no slots yet gets them first: the one that a model is compiled with, or the only one beside
        the only Keras model; another one has to be built before.

        Objects are matched by structure before names: a name that a counter made, `dense_1` of a
        Dense layer, says nothing against the place where an object stands. A list of variables
        shows no objects: where the checkpoint has some, such a name finds nothing without match_by.
        Lookup tables that objects hold start too, keys and values together. Other objects with
        state (iterators, PythonState) are left alone, and stand in the report. Of a checkpoint with
        names alone a model's own name, with which Keras 3 begins those of its variables, need not
        begin them there.

        Args:
          variables: a Keras model or layer that is built, a tf.Module, an optimizer or another
            trackable object, which is looked for anywhere in the checkpoint (see `root`); a
            tf.train.Checkpoint, which stands at its root; a list of variables, or of objects, which
            is one object; or a mapping from names to variables, or to objects, as
            tf.train.Checkpoint takes them. A variable without a name in a mapping has its own,
            without `:0`.

        Returns:
          What came from where.

        Raises:
          SettingsError: there are no variables yet, a rule is wrong, or a number is needed that
            `hyperparameters` must give.
          UnsupportedCheckpointError, ConflictError: an optimizer's state cannot become that of the
            program's, or contradicts the numbers given, and these were given.
          MismatchError: the checkpoint does not fit, or nothing of it starts, or it is not clear
            what belongs to what; lists everything.
          CheckpointError: the checkpoint cannot be read.
        """
        from estimator_ckpt.warm_starting.eager import apply_eagerly

        return apply_eagerly(self, variables)

    def deferred(self, root: Any = None) -> Any:
        """A context manager for variables that are yet to be made: `with settings.deferred():`.

        A variable starts when it is made, if a name that no counter has made says from what: the
        first call of a model computes with the restored values. Given the object that is to hold
        the variables, it starts by structure, when the Keras layer that it is made for has been
        built; one that the object has already, when the block begins. When the block ends,
        it does with all of them what apply() does with a list of them, or with the object: what is
        found otherwise then is put right, without a second assignment of what was right before. An
        error, of the block too, gives all of them the values that they had before. It yields an
        object whose `report` is there afterwards. A variable whose initial value a tf.function
        computes, as tf.Variable(tf.zeros(...)) in one, starts when the block ends; the log says so.

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


def load_warm_start(
    path: str | os.PathLike[str],
    *,
    ckpt_to_initialize_from: str | os.PathLike[str] | None = None,
) -> WarmStart:
    """Reads a YAML file with the fields of WarmStart.

    A field has the type that it has in Python, and no other is converted to it: a name that reads
    as a number needs quotes. `assignment_map` and `rename` are lists of pairs, or mappings;
    `var_name_to_vocab_info` is a mapping from variable names to the fields of VocabInfo.

    Args:
      path: of the file; `configs/NAME` stands for a packaged one where there is no such file.
      ckpt_to_initialize_from: a checkpoint in place of the file's, which then may name none: rules
        that serve many jobs.

    Raises:
      SettingsError: no such file, no YAML, an unknown field, a wrong type; with the file and the
        place in it, such as `assignment_map[2]`.
    """
    from estimator_ckpt.warm_starting.file import read_settings

    path = find_config(files.path_text(path))
    if ckpt_to_initialize_from is not None:
        name = "ckpt_to_initialize_from"
        ckpt_to_initialize_from = files.path_text(ckpt_to_initialize_from, name)
    fields = read_settings(path, ckpt_to_initialize_from)
    try:
        return WarmStart(**fields)
    except SettingsError as error:
        raise SettingsError(error.message, path=path, key=error.key) from None

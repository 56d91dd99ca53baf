"""The factories: tf.compat.v1.train.Scaffold objects that save in a chosen format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY
from estimator_ckpt.options import SaverKeywords, SaverOptions, check_format, saver_options
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.given import Objects, VarList, check_objects, check_var_list
from estimator_ckpt.saving.input_position import InputPosition
from estimator_ckpt.saving.saver import Saver
from estimator_ckpt.text.quantities import counted
from estimator_ckpt.warm_start import warm_start_from
from estimator_ckpt.warm_starting.reset import apply_reset
from estimator_ckpt.warm_starting.starter import apply_warm_start

if TYPE_CHECKING:
    from typing_extensions import Unpack


def saver_scaffold(
    var_list: VarList = None,
    *,
    warm_start: Any = None,
    run_config: Any = None,
    base: tf.compat.v1.train.Scaffold | None = None,
    **options: Unpack[SaverKeywords],
) -> tf.compat.v1.train.Scaffold:
    """A Scaffold that writes name-based (TF1) checkpoints and restores those of every format.

    Args:
      var_list: what to save, as tf.compat.v1.train.Saver takes it: a list of variables and other
        saveable objects, or a dict from names to them. None: everything that the graph has when it
        is finalized.
      warm_start: what to start from where there is no checkpoint to resume from: a WarmStart, the
        path of a checkpoint, or a tf.estimator.WarmStartSettings.
      run_config: a tf.estimator.RunConfig, for its keep_checkpoint_max and
        keep_checkpoint_every_n_hours.
      base: a Scaffold whose other pieces (init_op, ready_op, local_init_op, summary_op, init_fn,
        feeds) are kept. A saver in it hands over what it saves and its retention, as far as these
        are not given here. It is changed in place: a tf.compat.v1.train.Saver in it becomes the
        saver of the result, for whoever holds it. Without a base, so does the one in the SAVERS
        collection.
      **options: the fields of SaverOptions.

    Returns:
      A tf.compat.v1.train.Scaffold whose saver is built when the Scaffold is finalized.

    Raises:
      SettingsError: an unknown option, a value out of its range, or no graph.
    """
    check_var_list(var_list)
    _check(base, run_config, warm_start)
    return _scaffold(
        "saver",
        var_list,
        None,
        warm_start=warm_start,
        run_config=run_config,
        base=base,
        options=options,
    )


def checkpoint_scaffold(
    checkpoint: Objects | None = None,
    *,
    warm_start: Any = None,
    run_config: Any = None,
    base: tf.compat.v1.train.Scaffold | None = None,
    **options: Unpack[SaverKeywords],
) -> tf.compat.v1.train.Scaffold:
    """A Scaffold that writes object-based (TF2) checkpoints and restores those of every format.

    What it writes, tf.train.Checkpoint(var_list={name: variable, ...}, step=...).restore() takes in
    TensorFlow 2: the root has a `var_list` with one child for each variable, named as the variable
    is, and `step`, the global step.

    Args:
      checkpoint: the objects whose structure the checkpoints get, beside the complete `var_list`: a
        tf.train.Checkpoint, a dict of trackables, or a callable that returns one of these; a
        callable runs while the graph is finalized and must not create variables.
      warm_start: as for saver_scaffold().
      run_config: as for saver_scaffold().
      base: as for saver_scaffold(); a tf.train.Checkpoint in its place for the saver is used as
        `checkpoint`.
      **options: the fields of SaverOptions.

    Returns:
      A tf.compat.v1.train.Scaffold whose saver is built when the Scaffold is finalized.

    Raises:
      SettingsError: an unknown option, a value out of its range, or no graph.
    """
    return make_scaffold(
        "checkpoint", checkpoint, warm_start=warm_start, run_config=run_config, base=base, **options
    )


def dual_scaffold(
    checkpoint: Objects | None = None,
    *,
    warm_start: Any = None,
    run_config: Any = None,
    base: tf.compat.v1.train.Scaffold | None = None,
    **options: Unpack[SaverKeywords],
) -> tf.compat.v1.train.Scaffold:
    """A Scaffold that writes checkpoints which are both, in one set of files.

    Each tensor is stored once and has two keys, so that tf.compat.v1.train.Saver and
    tf.train.Checkpoint both read it. Arguments, result and errors are those of
    checkpoint_scaffold().
    """
    return make_scaffold(
        "both", checkpoint, warm_start=warm_start, run_config=run_config, base=base, **options
    )


def make_scaffold(
    checkpoint_format: CheckpointFormat,
    checkpoint: Objects | None = None,
    *,
    warm_start: Any = None,
    run_config: Any = None,
    base: tf.compat.v1.train.Scaffold | None = None,
    **options: Unpack[SaverKeywords],
) -> tf.compat.v1.train.Scaffold:
    """saver_scaffold(), checkpoint_scaffold() or dual_scaffold(), chosen by a word, for flags.

    Args:
      checkpoint_format: "saver", "checkpoint" or "both".
      checkpoint: as for checkpoint_scaffold(); with "saver" it only helps to restore object-based
        checkpoints by their structure.
      warm_start: as for saver_scaffold().
      run_config: as for saver_scaffold().
      base: as for saver_scaffold().
      **options: the fields of SaverOptions.

    Returns:
      A tf.compat.v1.train.Scaffold whose saver is built when the Scaffold is finalized.

    Raises:
      SettingsError: no such format, an unknown option, a value out of its range, or no graph.
    """
    check_format(checkpoint_format)
    check_objects(checkpoint)
    _check(base, run_config, warm_start)
    return _scaffold(
        checkpoint_format,
        None,
        checkpoint,
        warm_start=warm_start,
        run_config=run_config,
        base=base,
        options=options,
    )


def _scaffold(
    checkpoint_format: CheckpointFormat,
    var_list: VarList,
    objects: Objects | None,
    *,
    warm_start: Any,
    run_config: Any,
    base: tf.compat.v1.train.Scaffold | None,
    options: SaverKeywords,
) -> tf.compat.v1.train.Scaffold:
    settings = saver_options(options)
    # What a stock Scaffold without a saver saves with, and a hook without one.
    collected = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.SAVERS)
    theirs = base.saver if base is not None else None
    if theirs is None and len(collected) == 1:
        theirs = collected[0]
    saver = make_saver(
        checkpoint_format, settings, run_config, theirs, var_list=var_list, objects=objects
    )
    if theirs is None and not collected:
        collected.append(saver)
    scaffold = tf.compat.v1.train.Scaffold(saver=saver, copy_from_scaffold=base)
    apply_warm_start(scaffold, warm_start_from(warm_start))
    if settings.save_input:
        position = input_of(saver)
        if position is None:
            raise SettingsError(
                f"the Scaffold keeps its own {type(saver).__name__}, beside whose checkpoints no "
                "position of the input is saved",
                key="save_input",
            )
        position.serve(scaffold)
    apply_reset(saver, settings)
    return scaffold


def input_of(saver: Any) -> InputPosition | None:
    """What saves the position of the input for a saver that is asked to do so; None for others."""
    if not isinstance(saver, Saver) or not saver.options.save_input:
        return None
    if saver.input is None:
        saver.input = InputPosition(saver.options)
        saver.when_built(saver.input.build)
    found: InputPosition = saver.input
    return found


def _check(base: object, run_config: object, warm_start: object) -> None:
    """Raises SettingsError for arguments of the factories that are of another kind."""
    if base is not None and not isinstance(base, tf.compat.v1.train.Scaffold):
        raise SettingsError(
            f"expected a tf.compat.v1.train.Scaffold, found {type(base).__name__}", key="base"
        )
    if run_config is not None and not hasattr(run_config, "keep_checkpoint_max"):
        raise SettingsError(
            f"expected a tf.estimator.RunConfig, found {type(run_config).__name__}",
            key="run_config",
        )
    warm_start_from(warm_start)


def make_saver(
    checkpoint_format: CheckpointFormat,
    options: SaverOptions,
    run_config: Any = None,
    theirs: Any = None,
    *,
    var_list: VarList = None,
    objects: Objects | None = None,
) -> Any:
    """The saver for a Scaffold; `theirs`, which it has for one, hands over what it saves.

    Returns:
      A Saver. `theirs`, where there is one: a stock Saver has become ours in place, so that hooks
      and collections that hold it save the same. One that cannot be understood stays as it is, with
      a warning.
    """
    check_format(checkpoint_format)
    if isinstance(theirs, Saver):
        check_agreement(theirs, checkpoint_format, options)
        return theirs
    if theirs is None:
        return Saver(checkpoint_format, var_list, objects, options.under(run_config))
    if isinstance(theirs, tf.train.Checkpoint):
        logging.info("The tf.train.Checkpoint in the Scaffold gives the checkpoints' structure.")
        return Saver(checkpoint_format, var_list, objects or theirs, options.under(run_config))
    settings = tf_internals.saver_settings(theirs)
    if not settings.plain:
        logging.warning(
            "The Scaffold has a saver of a kind that cannot be taken over (%s). It is left as it "
            "is, so checkpoints are written and restored as it does it.",
            type(theirs).__name__,
        )
        return theirs
    mapping = settings.var_list
    if isinstance(mapping, (list, tuple)) and any(
        getattr(saveable, "name", None) == OBJECT_GRAPH_KEY for saveable in mapping
    ):
        # tf.keras.estimator.model_to_estimator freezes its model into a Saver, with keys for names
        # (tensorflow_estimator/python/estimator/keras_lib.py).
        logging.info("The Keras model in the Scaffold's saver gives the checkpoints' structure.")
        objects = objects or mapping
        return Saver(checkpoint_format, var_list, objects, options.under(run_config)).replace(
            theirs
        )
    logging.info(
        "The saver in the Scaffold is replaced by one that saves the same: %s.",
        "all variables"
        if mapping is None
        else f"{counted(len(mapping), 'variable')}, under its names",
    )
    ours = Saver(
        checkpoint_format,
        mapping if var_list is None else var_list,
        objects,
        options.else_keep(settings.max_to_keep, settings.keep_checkpoint_every_n_hours),
        reshape=settings.reshape,
        pad_step_number=settings.pad_step_number,
    )
    for other in tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVERS):
        others = tf_internals.saver_settings(other)
        if others.plain and _identities(others.var_list) == _identities(mapping):
            ours.replace(other)
    return ours.replace(theirs)


def _identities(var_list: Any) -> dict[str, int] | set[int] | None:
    """What tells whether two Savers save the same."""
    if isinstance(var_list, Mapping):
        return {name: id(value) for name, value in var_list.items()}
    return None if var_list is None else set(map(id, var_list))


def check_agreement(
    saver: Saver, checkpoint_format: CheckpointFormat, options: SaverOptions
) -> None:
    """Raises SettingsError where a Saver that is there already was asked for otherwise."""
    asked = {"checkpoint_format": checkpoint_format, **options.given()}
    there = {"checkpoint_format": saver.checkpoint_format, **vars(saver.options)}
    for name, value in asked.items():
        if there[name] != value:
            raise SettingsError(
                f"the Scaffold has a saver of this package already, with {there[name]!r}, but "
                f"{value!r} was asked for; decide it in one place",
                key=name,
            )

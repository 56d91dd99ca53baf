"""Wrappers: a model_fn or an Estimator that saves in a chosen format, itself unchanged."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.jobs.best_hook import KeepBest
from estimator_ckpt.jobs.estimator_methods import put_methods
from estimator_ckpt.jobs.input_hook import InputHook
from estimator_ckpt.jobs.moved_job import StopWhereDone, refuse_initial_values
from estimator_ckpt.matching.policies import weaken
from estimator_ckpt.options import SaverKeywords, SaverOptions, check_format, saver_options
from estimator_ckpt.reading.moved import moved_here
from estimator_ckpt.saving import tf_data_internals, tf_internals
from estimator_ckpt.saving.given import Objects, check_objects
from estimator_ckpt.saving.saver import Saver
from estimator_ckpt.scaffold import check_agreement, input_of, make_saver
from estimator_ckpt.warm_start import warm_start_from
from estimator_ckpt.warm_starting.reset import apply_reset
from estimator_ckpt.warm_starting.starter import apply_warm_start

if TYPE_CHECKING:
    from typing_extensions import Unpack

# The values of tf.estimator.ModeKeys, which the newest TensorFlow does not have.
_TRAIN, _EVAL = "train", "eval"

# The attribute that tells a wrapped model_fn from others; its value is the format.
_SAVES = "_estimator_ckpt_saves"

_NONE_KEPT = (
    "keep_best: an evaluation with a saver of another kind, or by a TPUEstimatorSpec, keeps no "
    "checkpoints; call record_metrics() with what evaluate() returns."
)

ModelFn = Callable[..., Any]


def wrap_model_fn(
    model_fn: ModelFn,
    checkpoint_format: CheckpointFormat = "checkpoint",
    *,
    checkpoint: Objects | None = None,
    warm_start: Any = None,
    **options: Unpack[SaverKeywords],
) -> ModelFn:
    """A model_fn that does what `model_fn` does and saves in another checkpoint format.

    Training writes `checkpoint_format`. Training, evaluation, prediction and export start from
    checkpoints of every format. What is exported stays name-based.

    Args:
      model_fn: a model_fn of tf.estimator, with any of the signatures that it allows: a function, a
        bound method, an object with __call__, a functools.partial. It is not changed.
      checkpoint_format: "saver", "checkpoint" or "both".
      checkpoint: the objects whose structure the checkpoints get; see checkpoint_scaffold(). A
        tf.train.Checkpoint that the model_fn itself puts into its Scaffold needs no mention here.
      warm_start: what to start from where the model_dir has no checkpoint: a WarmStart, the path of
        a checkpoint, or a tf.estimator.WarmStartSettings.
      **options: the fields of SaverOptions. Retention that is not given is RunConfig's, unless the
        model_fn's own Saver decides it.

    Returns:
      A function with the arguments of `model_fn`, and `mode` and `config` if it lacks them, that
      returns an EstimatorSpec or TPUEstimatorSpec.

    Raises:
      SettingsError: `model_fn` is none, or is wrapped already; no such format, an unknown option,
        or another argument of the wrong kind or out of its range.
    """
    check_format(checkpoint_format)
    _check_model_fn(model_fn, checkpoint_format)
    check_objects(checkpoint)
    warm_start = warm_start_from(warm_start)
    settings = saver_options(options)
    theirs = tf_internals.argument_names(model_fn)
    # Estimator passes what the signature names. RunConfig has the retention settings.
    ours = [*theirs, *(name for name in ("mode", "config") if name not in theirs)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in ours])

    # Not its __dict__: what decorators of TensorFlow leave there leads back to their signature.
    @functools.wraps(model_fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind_partial(*args, **kwargs).arguments
        iterators = len(tf_data_internals.iterators(tf.compat.v1.get_default_graph()))
        spec = model_fn(**{name: value for name, value in arguments.items() if name in theirs})
        mode = arguments.get("mode") or getattr(spec, "mode", _TRAIN)

        def with_saver(scaffold: tf.compat.v1.train.Scaffold) -> tf.compat.v1.train.Scaffold:
            _put_saver(
                scaffold,
                str(mode),
                checkpoint_format,
                checkpoint=checkpoint,
                warm_start=warm_start,
                options=settings,
                run_config=arguments.get("config"),
            )
            return scaffold

        if hasattr(spec, "scaffold_fn"):  # a TPUEstimatorSpec, which makes its Scaffold later
            _check_tpu(mode, settings)
            make = spec.scaffold_fn or tf.compat.v1.train.Scaffold
            return spec._replace(scaffold_fn=lambda: with_saver(make()))
        if hasattr(spec, "scaffold"):
            with_saver(spec.scaffold)
        model_dir = getattr(arguments.get("config"), "model_dir", None)
        if mode == _EVAL and settings.keep_best and model_dir is not None:
            return _with_best_kept(spec, settings, model_dir)
        if mode == _TRAIN and hasattr(spec, "training_hooks"):
            hooks = _training_hooks(spec, model_dir, arguments.get("config"), iterators)
            return spec._replace(training_hooks=[*spec.training_hooks, *hooks]) if hooks else spec
        return spec  # what is no EstimatorSpec, Estimator refuses in its own words

    wrapped.__signature__ = signature  # type: ignore[attr-defined]
    setattr(wrapped, _SAVES, checkpoint_format)
    return wrapped


def _check_tpu(mode: Any, settings: SaverOptions) -> None:
    """What a TPUEstimator cannot do."""
    if mode == _EVAL and settings.keep_best:
        logging.warning(_NONE_KEPT)
    if settings.save_input and mode == _TRAIN:
        raise SettingsError("a TPUEstimator reads ahead of its steps", key="save_input")


def _training_hooks(spec: Any, model_dir: str | None, config: Any, iterators: int) -> list[Any]:
    """The hooks that a training needs beside its own.

    Args:
      spec: what the model_fn has returned.
      model_dir, config: the Estimator's.
      iterators: how many the graph had before the model_fn was called.
    """
    hooks: list[Any] = [StopWhereDone()] if moved_here(model_dir) else []
    position = input_of(spec.scaffold.saver)
    if position is not None:
        position.by_hook(iterators)
        hooks.append(InputHook(position, getattr(config, "num_worker_replicas", 1)))
    return hooks


def _with_best_kept(spec: Any, settings: SaverOptions, model_dir: str) -> Any:
    """A spec for evaluation with the hook that keeps the best checkpoints."""
    collection = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVERS)
    saver = next((one for one in collection if isinstance(one, Saver)), None)
    if saver is None or not hasattr(spec, "eval_metric_ops"):
        logging.warning(_NONE_KEPT)
        return spec
    hook = KeepBest(spec, settings.retention.criteria, saver, model_dir)
    return spec._replace(evaluation_hooks=[*spec.evaluation_hooks, hook])


def _check_model_fn(model_fn: Any, checkpoint_format: CheckpointFormat) -> None:
    """Raises SettingsError for what is no model_fn, or is wrapped already."""
    if not callable(model_fn):
        is_estimator = hasattr(model_fn, "model_fn")
        hint = "; wrap_estimator() takes an Estimator" if is_estimator else ""
        raise SettingsError(f"expected a callable, found {model_fn!r}{hint}", key="model_fn")
    # What an ordinary function lacks, Estimator says in its own words.
    is_object = isinstance(model_fn, (type, tf.__internal__.tracking.Trackable))
    if is_object and "features" not in tf_internals.argument_names(model_fn):
        is_class = isinstance(model_fn, type)
        found = f"the class {model_fn.__name__}" if is_class else f"a {type(model_fn).__name__}"
        raise SettingsError(
            f"expected a model_fn, which has an argument `features`, found {found}; "
            "tf.keras.estimator.model_to_estimator() makes an Estimator of a Keras model, and "
            "wrap_estimator() takes that",
            key="model_fn",
        )
    while isinstance(model_fn, functools.partial):
        model_fn = model_fn.func
    before = getattr(model_fn, _SAVES, None)
    if before is not None:
        raise SettingsError(
            f"it is wrapped already, to save as {before!r}; wrap the model_fn itself, once",
            key="model_fn" if before == checkpoint_format else "checkpoint_format",
        )


def wrap_estimator(
    estimator: Any,
    checkpoint_format: CheckpointFormat = "checkpoint",
    *,
    checkpoint: Objects | None = None,
    warm_start: Any = None,
    **options: Unpack[SaverKeywords],
) -> Any:
    """An Estimator that does what `estimator` does and saves in another checkpoint format.

    For Estimators whose model_fn one does not have in hand: canned ones, model_to_estimator.

    Args:
      estimator: a tf.estimator.Estimator, whose model_dir, config, params and warm-start settings
        the result shares. It is not changed.
      checkpoint_format: "saver", "checkpoint" or "both".
      checkpoint: as for wrap_model_fn().
      warm_start: as for wrap_model_fn(); the Estimator's own settings are kept beside it.
      **options: as for wrap_model_fn().

    Returns:
      An Estimator of the same class. Its get_variable_names() and get_variable_value() speak of
      variables by their names, whatever the format; and in a model_dir that was moved it finds the
      newest checkpoint.

    Raises:
      SettingsError: not an Estimator, or one that is made of more than a model_fn, such as a
        TPUEstimator (wrap its model_fn); else as wrap_model_fn().
    """
    v1 = tf.compat.v1.estimator
    if not isinstance(estimator, v1.Estimator) or isinstance(estimator, v1.tpu.TPUEstimator):
        raise SettingsError(
            f"expected a tf.estimator.Estimator, found {type(estimator).__name__}; "
            "use wrap_model_fn() on its model_fn",
            key="estimator",
        )
    _check_model_fn(tf_internals.own_model_fn(estimator), checkpoint_format)
    wrapped = tf_internals.on_model_fn(
        estimator,
        wrap_model_fn(
            estimator.model_fn,
            checkpoint_format,
            checkpoint=checkpoint,
            warm_start=warm_start,
            **options,
        ),
    )
    put_methods(wrapped)
    return wrapped


class _EvaluationScaffold(tf.compat.v1.train.Scaffold):  # type: ignore[misc]
    """A Scaffold that tells its saver only while a session runs on the graph.

    InMemoryEvaluatorHook asks before there is a session, and refuses a Scaffold with a saver. An
    export asks in a session, and would else take a stock Saver, which does not restore every format
    (tensorflow_estimator/python/estimator/hooks/hooks.py, .../estimator.py).
    """

    @property
    def saver(self) -> Any:
        session = tf.compat.v1.get_default_session()
        if self._saver is None and session is not None:
            collection = session.graph.get_collection(tf.compat.v1.GraphKeys.SAVERS)
            return next((saver for saver in collection if isinstance(saver, Saver)), None)
        return self._saver


def _put_saver(
    scaffold: tf.compat.v1.train.Scaffold,
    mode: str,
    checkpoint_format: CheckpointFormat,
    *,
    checkpoint: Objects | None,
    warm_start: Any,
    options: SaverOptions,
    run_config: Any,
) -> None:
    """Gives the Scaffold of a spec our saver, in the way that each mode needs it."""
    if mode == _TRAIN:
        options = replace(options, ema=None)
    else:
        # Nothing is written but exports. And initial values must not pass for trained ones.
        checkpoint_format = "saver"
        options = replace(
            options,
            on_missing=weaken(options.on_missing),
            async_checkpoint=False,
            save_input=False,
        )

    # The collection, too: other Scaffolds and hooks of this graph look for the saver there. It may
    # be ours already: a strategy calls the model_fn once for each replica.
    collection = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.SAVERS)
    saver = next((s for s in [scaffold.saver, *collection] if isinstance(s, Saver)), None)
    is_first = saver is None or saver not in collection
    if saver is not None:
        if mode == _TRAIN:
            check_agreement(saver, checkpoint_format, options)
        if type(scaffold.saver) is tf.compat.v1.train.Saver:
            saver.replace(scaffold.saver)
    else:
        is_collected = scaffold.saver is None and len(collection) == 1
        theirs = collection[0] if is_collected else scaffold.saver
        saver = make_saver(checkpoint_format, options, run_config, theirs, objects=checkpoint)
        if not isinstance(saver, Saver):  # one that cannot be understood
            stays = f"the {type(saver).__name__} of the model_fn stays as it is, and would "
            if options.ema is not None:
                raise SettingsError(f"{stays}read the variables themselves", key="ema")
            if options.save_input:
                raise SettingsError(f"{stays}save no position of the input", key="save_input")
            if mode == _TRAIN:
                apply_reset(saver, options)
            return
        if mode in (_TRAIN, _EVAL) and not collection:
            collection.append(saver)
    if mode != _TRAIN:
        refuse_initial_values(scaffold, getattr(run_config, "model_dir", None))
    if mode != _EVAL or scaffold.saver is not None:
        tf_internals.put_saver(scaffold, saver)
        if mode == _TRAIN and is_first:
            apply_warm_start(scaffold, warm_start)
            apply_reset(saver, options)
    elif type(scaffold) is tf.compat.v1.train.Scaffold:
        scaffold.__class__ = _EvaluationScaffold

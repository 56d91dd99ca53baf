"""Every use of TensorFlow's private API, one small function each, with the reason for it.

tests/test_tf_internals.py checks each of them against the public API and so fails on the version
of TensorFlow that breaks one.
"""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops import resources
from tensorflow.python.trackable.base import NoRestoreSaveable
from tensorflow.python.training import monitored_session
from tensorflow.python.training.saver import BulkSaverBuilder as BulkSaverBuilder
from tensorflow.python.training.saving import saveable_object_util
from tensorflow.python.util import function_utils

from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY

# What a tf.compat.v1.train.Saver's builder saves, and one tensor of it; they have no public type
# annotation.
Saveable = Any
SaveSpec = Any


def saveables_by_name(var_list: Sequence[Any] | Mapping[str, Any]) -> dict[str, list[Saveable]]:
    """What a stock Saver makes of its `var_list`: the name, and the saveables under that name.

    Private because only a Saver's own constructor calls it: the grouping of slices, the names of
    lookup tables and the refusal of two variables of one name should stay TensorFlow's own
    (tensorflow/python/training/saving/saveable_object_util.py).

    Raises:
      ValueError, TypeError: as tf.compat.v1.train.Saver raises them.
    """
    if not isinstance(var_list, Mapping):
        var_list = saveable_object_util.op_list_to_dict(list(var_list))
    grouped: dict[str, list[Saveable]] = {}
    for saveable in saveable_object_util.validate_and_slice_inputs(dict(var_list)):
        grouped.setdefault(saveable.name, []).append(saveable)
    return grouped


def frozen_saveables(root: tf.train.Checkpoint) -> list[Saveable]:
    """The saveables below a root object, named by their keys, the object graph's among them.

    Private because the public way, Scaffold(saver=tf.train.Checkpoint(...)), does the same and
    then hides it in a Saver (tensorflow/python/training/monitored_session.py).
    """
    return list(tf.__internal__.tracking.ObjectGraphView(root).frozen_saveable_objects())


def object_graph_bytes(saveable: Saveable) -> bytes | None:
    """The serialized object graph, where `saveable` is the constant that holds it, else None."""
    if saveable.name != OBJECT_GRAPH_KEY:
        return None
    value = tf.make_ndarray(saveable.specs[0].tensor.op.get_attr("value"))
    data: bytes = value.item()
    return data


class SaverSettings(NamedTuple):
    """What a stock Saver was constructed with.

    Attributes:
      plain: whether it saves in the ordinary way: neither a subclass, nor with a builder of its
        own, nor made from a SaverDef alone.
      var_list: None means all variables.
    """

    plain: bool
    var_list: Any
    reshape: bool
    max_to_keep: int | None
    keep_checkpoint_every_n_hours: float
    pad_step_number: bool


def saver_settings(saver: Any) -> SaverSettings:
    """Private because a Saver has no public way to ask (tensorflow/python/training/saver.py)."""
    if type(saver) is not tf.compat.v1.train.Saver:
        return SaverSettings(False, None, False, None, 0.0, False)
    return SaverSettings(
        plain=type(saver._builder) in (type(None), BulkSaverBuilder)
        and (saver._var_list is not None or saver.saver_def is None),
        var_list=saver._var_list,
        reshape=saver._reshape,
        max_to_keep=saver._max_to_keep,
        keep_checkpoint_every_n_hours=saver._keep_checkpoint_every_n_hours,
        pad_step_number=saver._pad_step_number,
    )


def argument_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments of a model_fn that Estimator passes: a partial's open ones, a method's without
    self, a decorated function's own. Private because only Estimator needs it, and it must be the
    same here (tensorflow/python/util/function_utils.py)."""
    names: tuple[str, ...] = function_utils.fn_args(fn)
    return names


def on_model_fn(estimator: Any, model_fn: Callable[..., Any]) -> Any:
    """The same Estimator on another model_fn, which is otherwise given to the constructor only.

    A copy, and not a new tf.estimator.Estimator, so that it keeps its class, its params (input_fns
    ask for them) and its warm-start settings (tensorflow_estimator/python/estimator/estimator.py).
    """
    other = copy.copy(estimator)
    other._model_fn = model_fn
    return other


def own_model_fn(estimator: Any) -> Any:
    """The model_fn that an Estimator was made with: `estimator.model_fn` is another one, which
    calls it and does not tell (tensorflow_estimator/python/estimator/estimator.py)."""
    return estimator._model_fn


def put_saver(scaffold: tf.compat.v1.train.Scaffold, saver: Any) -> None:
    """Gives a Scaffold another saver in place, which is otherwise given to the constructor only.

    A copy would do for the session, but hooks of the model_fn may hold the Scaffold, and it may be
    of a class of the user's own (tensorflow/python/training/monitored_session.py).
    """
    scaffold._saver = saver


def never_restored(saveable: Saveable) -> bool:
    """Whether `saveable` only writes: TensorFlow freezes Python state so, and the object graph."""
    return isinstance(saveable, NoRestoreSaveable)


def is_saveable(value: Any) -> bool:
    """Whether `value` is a SaveableObject, a class that only subclasses of a builder name."""
    return isinstance(value, BulkSaverBuilder.SaveableObject)


def written_only(spec: Any) -> Saveable:
    """A saveable that writes the tensor of a SaveSpec and restores nothing."""
    return NoRestoreSaveable(
        lambda: spec.tensor, spec.name, dtype=spec.dtype.base_dtype, device=spec.device
    )


def put_start(
    scaffold: tf.compat.v1.train.Scaffold,
    init_op: tf.Operation | None,
    init_fn: Callable[[Any, Any], None],
) -> None:
    """Gives a Scaffold another start in place; for the reason see put_saver()."""
    if init_op is not None:
        scaffold._init_op = init_op
    scaffold._user_init_fn = init_fn
    scaffold._init_fn = lambda session: init_fn(scaffold, session)


def initialize_shared_resources() -> tf.Operation:
    """What a Scaffold's own init_op runs for resources that are no variables."""
    op: tf.Operation = resources.initialize_resources(resources.shared_resources())
    return op


def full_name(variable: Any) -> str:
    """A variable's name, as a Saver keys it; a slice's is that of its partitioned variable
    (tensorflow/python/training/saving/saveable_object_util.py)."""
    info = variable._save_slice_info
    return op_name(variable) if info is None else str(info.full_name)


def full_shape(variable: Any) -> tuple[int, ...] | None:
    """The shape of the whole variable that a slice belongs to; None where it is not known."""
    info = variable._save_slice_info
    if info is not None:
        return tuple(info.full_shape)
    return tuple(variable.shape.as_list()) if variable.shape.is_fully_defined() else None


def slice_offset(variable: Any) -> tuple[int, ...] | None:
    """Where a slice begins in the whole variable; None for a whole one."""
    info = variable._save_slice_info
    return None if info is None else tuple(info.var_offset)


def replicas(variable: Any) -> Sequence[Any]:
    """The variables that a strategy has made of one, or the variable itself.

    Private because `values` is an attribute that only the classes of variables of a strategy have
    (tensorflow/python/distribute/values.py).
    """
    found: Sequence[Any] = getattr(variable, "values", (variable,))
    return found


def op_name(variable: Any) -> str:
    """The name of the op that holds a variable; of several replicas, that of the first.

    `variable.op` is not it where a strategy sums the replicas: there it is the op of a sum, made
    anew each time, for which a finalized graph has no place.
    """
    name: str = replicas(variable)[0].op.name
    return name


def distributed_variable(saveable: Saveable) -> Any:
    """The variable of a strategy that `saveable` saves, else None.

    Private because the saveable tells only the tensor, which may be made anew each time that it is
    asked for, as the sum over the replicas is (tensorflow/python/distribute/values.py).
    """
    for name in ("_distributed_variable", "_mirrored_variable", "_sync_on_read_variable"):
        if hasattr(saveable, name):
            return getattr(saveable, name)
    return None


def put_input(op: tf.Operation, index: int, tensor: tf.Tensor) -> None:
    """Gives an op that exists another input; publicly an op gets its inputs when it is made. A
    session that has run the op goes on with the old one (tensorflow/c/python_api.cc)."""
    op._update_input(index, tensor)


def function_graph(graph: tf.Graph, name: str) -> tf.Graph | None:
    """The graph of a function that ops of `graph` call; None where it is not known. Publicly the
    whole graph has to be serialized for it (tensorflow/python/framework/ops.py)."""
    return getattr(graph._get_function(name), "graph", None)


def resuming_directory() -> str | None:
    """The directory whose newest checkpoint a SessionManager is restoring at this moment, for a job
    that resumes; None if nothing is restored, or what was named to it, as for an evaluation.

    A Saver is not told: restore() and recover_last_checkpoints() get the same paths either way. So
    the function that calls them is looked for on the stack
    (tensorflow/python/training/session_manager.py).
    """
    frame = frame_of(tf.compat.v1.train.SessionManager._restore_checkpoint.__code__)
    return None if frame is None else frame.f_locals.get("checkpoint_dir")


def is_in_init_fn() -> bool:
    """Whether a SessionManager, which has restored nothing, calls an init_fn; see is_ending()."""
    manager = tf.compat.v1.train.SessionManager
    is_restoring = frame_of(manager._restore_checkpoint.__code__) is not None
    return not is_restoring and frame_of(manager.prepare_session.__code__) is not None


def is_needed_at_once() -> bool:
    """Whether whoever has called a Saver's save() goes on to use the checkpoint.

    A Saver is not told of either: the listeners of a CheckpointSaverHook are called when save()
    returns (tensorflow/python/training/basic_session_run_hooks.py), and when a MonitoredSession
    ends, what closing it raises is dropped. So they are looked for on the stack.
    """
    kind = tf.compat.v1.train.CheckpointSaverHook
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        hook = frame.f_locals.get("self")
        if isinstance(hook, kind) and hook._listeners:
            return True
        frame = frame.f_back
    return is_ending()


def is_ending() -> bool:
    """Whether a MonitoredSession calls the end() of its hooks, or closes its session; private as
    resuming_directory() is (tensorflow/python/training/monitored_session.py)."""
    return frame_of(tf.compat.v1.train.MonitoredSession._close_internal.__code__) is not None


def drops_errors_of_close() -> bool:
    """Whether the session is closed by a MonitoredSession or by the garbage collector, which drop
    what that raises (_CoordinatedSession of tensorflow/python/training/monitored_session.py; closed
    sessions, too, are closed in the end by __del__ of tensorflow/python/client/session.py)."""
    dropping = (monitored_session._CoordinatedSession.close, tf.compat.v1.Session.__del__)
    return any(frame_of(one.__code__) is not None for one in dropping)


def frame_of(code: CodeType) -> FrameType | None:
    """The call of some code that leads to this moment, for the reason see resuming_directory()."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def before_run_and_close(
    session: tf.compat.v1.Session, before_run: Callable[[], None], before_close: Callable[[], None]
) -> None:
    """Has functions called before each run() of a session, which they can refuse by an error, and
    before its close(), which is closed even so.

    A saver is told of neither: only the hooks of a MonitoredSession are, and of the one alone. The
    session has new attributes of these names, which do not keep it alive.
    """
    kind, weakly = type(session), weakref.ref(session)
    others = {name: vars(session).get(name) for name in ("run", "close")}

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        other = others[name]  # another saver's
        if other is not None:
            return other(*args, **kwargs)
        alive = weakly()  # None where the garbage collector closes it
        return None if alive is None else getattr(kind, name)(alive, *args, **kwargs)

    def run(*args: Any, **kwargs: Any) -> Any:
        before_run()
        return call("run", *args, **kwargs)

    def close() -> None:
        try:
            before_close()
        finally:
            call("close")

    session.run, session.close = run, close


def objects_of(*kinds: type) -> list[Any]:
    """The objects of classes, and of those that derive from them, that the garbage collector knows.

    Large processes have millions of others. An object refers to its class (Python 3.9 and later),
    so the collector itself can pick them out: 30 ms of 315,000 objects, where a comparison of all
    their classes takes 70 ms.
    """
    wanted = [*kinds]
    for one in wanted:
        wanted.extend(type.__subclasses__(one))
    return [found for found in gc.get_referrers(*wanted) if issubclass(type(found), kinds)]


def stock_savers(graph: tf.Graph, among: Sequence[Any] | None = None) -> list[Any]:
    """The stock Savers, and those of subclasses of the user's own, that anyone holds of a graph.

    A graph does not know its Savers, but the garbage collector does; `among` are objects that it
    has already been asked for.
    """
    kind = tf.compat.v1.train.Saver
    found = objects_of(kind) if among is None else among
    savers = [saver for saver in found if isinstance(saver, kind)]

    def graph_of(saver: Any) -> Any:
        given = getattr(saver, "_var_list", None) or ()
        first = next(iter(given.values() if isinstance(given, Mapping) else given), None)
        return getattr(getattr(first, "op", None), "graph", None)

    return [saver for saver in savers if graph_of(saver) is graph]


def hooks_with(savers: Sequence[Any]) -> list[Any]:
    """The hooks that have one of some savers for an attribute; found as stock_savers() are."""
    kind = tf.compat.v1.train.SessionRunHook
    wanted = set(map(id, savers))
    hooks = objects_of(kind)
    return [hook for hook in hooks if not wanted.isdisjoint(map(id, vars(hook).values()))]


def checkpoint_hooks(graph: tf.Graph, among: Sequence[Any]) -> list[tuple[Any, str, Any]]:
    """The CheckpointSaverHooks among objects that have begun on a graph: each, its directory, and
    its own saver or that of its Scaffold; None where it saves with the graph's
    (tensorflow/python/training/basic_session_run_hooks.py)."""
    kind = tf.compat.v1.train.CheckpointSaverHook
    found = []
    for hook in (one for one in among if isinstance(one, kind)):
        step = getattr(hook, "_global_step_tensor", None)
        if getattr(step, "graph", None) is graph:
            scaffold = hook._scaffold
            saver = hook._saver or (scaffold and scaffold.saver)
            found.append((hook, hook._checkpoint_dir, saver))
    return found


def last_steps(graph: tf.Graph) -> list[int]:
    """The global steps at which the StopAtStepHooks of a graph end a training; found as
    stock_savers() are (tensorflow/python/training/basic_session_run_hooks.py)."""
    kind = tf.compat.v1.train.StopAtStepHook
    hooks = objects_of(kind)
    return [
        hook._last_step
        for hook in hooks
        if hook._last_step is not None
        and getattr(getattr(hook, "_global_step_tensor", None), "graph", None) is graph
    ]


def create_slots(optimizer: Any, variables: Sequence[Any]) -> None:
    """Makes the variables of one of Keras' legacy optimizers, as its first step would.

    Public is only apply_gradients(), which changes what it trains, and counts
    (keras/src/optimizers/legacy/optimizer_v2.py).
    """
    optimizer._create_all_weights(variables)

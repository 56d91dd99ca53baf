"""The tf.data iterators of a graph, and the ops that save and restore their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.saving import tf_data_internals
from estimator_ckpt.saving.pipelines import Pipelines
from estimator_ckpt.saving.snapshots import SnapshotOps, Snapshots
from estimator_ckpt.saving.upstream import upstream
from estimator_ckpt.text.quantities import counted

STEP = "global_step"
# tf.data's ExternalStatePolicy: whether an iterator is saved whose pipeline has state elsewhere.
_IGNORE, _FAIL = 1, 2
_VIEWS = ("IteratorFromStringHandle", "IteratorFromStringHandleV2")
_RANDOM = ("Random", "Stateful", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial")


@dataclass(frozen=True)
class InputIterator:
    """One iterator.

    Attributes:
      key: its role and its number among those of the role: "input/0", "model/0".
      handle: the tensor that stands for it.
      pipeline: its pipeline as text; see Pipelines.
      outside: the types of ops in the pipeline whose state no position has.
    """

    key: str
    handle: tf.Tensor
    pipeline: str
    outside: Sequence[str]


def input_iterators(count: int | None, local_init_op: Any = None) -> list[InputIterator]:
    """The iterators of the default graph.

    Args:
      count: how many had been made when the model was not yet begun: these are "input", the others
        "model". None: all are "input".
      local_init_op: what is run to initialize them; None: hooks do that.

    Raises:
      SettingsError: there is none; or one whose position cannot be saved, or not be restored.
    """
    graph = tf.compat.v1.get_default_graph()
    for op in graph.get_operations():
        if "MultiDeviceIterator" in op.type:
            raise SettingsError(
                f"{op.name!r} ({op.type}) hands the batches to the devices of a strategy, and "
                "tf.data cannot save the position of such an iterator; train without the strategy",
                key="save_input",
            )
    handles = tf_data_internals.iterators(graph)
    own = [(n, handle) for n, handle in enumerate(handles) if handle.op.type not in _VIEWS]
    if not own:
        raise SettingsError(
            "the graph has no iterator of tf.data, so there is no position to save",
            key="save_input",
        )
    if tf.compat.v1.train.get_global_step() is None:
        raise SettingsError(
            "the graph has no global step; make one by tf.compat.v1.train.get_or_create_global_step"
            "(), which tells to which checkpoint a position belongs",
            key="save_input",
        )
    pipelines = Pipelines(graph)
    run = None if local_init_op is None else {op.name for op in upstream([local_init_op])}
    found: list[InputIterator] = []
    for number, handle in own:
        makers = pipelines.makers(handle.op.name)
        _check(handle.op.name, handle.op.type, makers, run)
        role = "input" if count is None or number < count else "model"
        index = sum(one.key.startswith(f"{role}/") for one in found)
        found.append(
            InputIterator(
                f"{role}/{index}",
                handle,
                pipelines.text(handle.op.name),
                pipelines.outside_state(handle.op.name),
            )
        )
    return found


def _check(name: str, op_type: str, makers: Sequence[str], run: set[str] | None) -> None:
    """Raises SettingsError for an iterator whose position cannot be restored."""
    if len(makers) > 1:
        raise SettingsError(
            f"the iterator {name!r} has {len(makers)} initializers ({', '.join(makers)}), so that "
            "nobody can tell which pipeline its position is in; give each pipeline its own "
            "iterator",
            key="save_input",
        )
    if not makers and op_type != "OneShotIterator":
        raise SettingsError(
            f"the iterator {name!r} ({op_type}) has no initializer, which would tell its pipeline",
            key="save_input",
        )
    if run is not None and makers and makers[0] not in run:
        raise SettingsError(
            f"the iterator {name!r} is not initialized by the Scaffold's local_init_op, but by a "
            "hook, say, which would lose the restored position; in an Estimator use "
            "wrap_model_fn() or wrap_estimator(); in a MonitoredSession add its initializer: "
            "tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, "
            "iterator.initializer)",
            key="save_input",
        )


class InputOps:
    """The ops for the positions of iterators.

    Attributes:
      iterators: whose positions they are.
      path: the prefix to write to or to read from, a string; nothing is restored from "".
      step: the global step.
      snapshots: holds the positions of one moment, and writes them.
      local_init_op: what a Scaffold runs, after restore_in().
      random: the types of random ops of the model, whose numbers a resumed job does not repeat.
    """

    def __init__(self, iterators: Sequence[InputIterator]) -> None:
        """Adds them to the default graph."""
        self.iterators = iterators
        self.random = _random_ops()
        self.local_init_op: tf.Operation | None = None
        with tf.name_scope("input_position"), tf.device("/cpu:0"):
            self.path = tf.compat.v1.placeholder_with_default("", [], name="path")
            self.step = tf.identity(tf.compat.v1.train.get_global_step(), name="step")
            states = [_serialized(one, _FAIL) for one in iterators]
            pipelines = [tf.constant(one.pipeline) for one in iterators]
            names = [STEP, *self._state_keys, *(f"{one.key}/pipeline" for one in iterators)]
            key = tf.compat.v1.placeholder(tf.int64, [], name="key")
            holding = SnapshotOps(key)
            held = holding.through([tf.cast(self.step, tf.int64), *states])
            save = tf.raw_ops.SaveV2(
                prefix=self.path,
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[*held, *pipelines],
            )
            self.snapshots = Snapshots(holding, save, self.path, [])
            self._trials = [
                (state.op, _serialized(one, _IGNORE).op) for state, one in zip(states, iterators)
            ]

    @property
    def _state_keys(self) -> list[str]:
        return [f"{one.key}/state" for one in self.iterators]

    def restored(self) -> tf.Tensor:
        """Adds ops that restore the positions, when all iterators are initialized.

        Returns:
          Of each iterator, whether anything follows. If nothing follows for one, all are again
          where they were before: at the start.
        """
        handles = [one.handle for one in self.iterators]
        before = [_serialized(one, _IGNORE) for one in self.iterators]
        with tf.control_dependencies(before):
            states = tf.raw_ops.RestoreV2(
                prefix=self.path,
                tensor_names=self._state_keys,
                shape_and_slices=[""] * len(handles),
                dtypes=[tf.variant] * len(handles),
            )
            placed = _placed(handles, states)
        with tf.control_dependencies([placed]):
            follows = tf.stack([_has_next(handle) for handle in handles])
        # To look is to take one, so they are put into their places again.
        placed = tf.cond(
            tf.reduce_all(follows),
            lambda: _placed(handles, states),
            lambda: _placed(handles, before),
        )
        with tf.control_dependencies([placed]):
            return tf.identity(follows, name="restored")

    def restore_in(self, scaffold: tf.compat.v1.train.Scaffold) -> dict[Any, Any]:
        """Has a Scaffold restore the positions right after its own local_init_op.

        Returns:
          What its session is fed with there: the path, which may change.
        """
        feeds = {**(scaffold.local_init_feed_dict or {}), self.path: ""}

        def restore() -> tf.Tensor:
            follows = tf.reduce_all(self.restored())
            warned = tf.cond(follows, lambda: tf.constant(True), self._tell_of_end)
            with tf.control_dependencies([warned]):
                return tf.identity(follows)

        with tf.control_dependencies([scaffold.local_init_op]), tf.name_scope("input_position"):
            # The predicate, too, is to wait for the initializers.
            is_given = tf.not_equal(tf.identity(self.path), "")
            done = tf.cond(is_given, restore, lambda: tf.constant(True))
        self.local_init_op = done.op
        tf_data_internals.put_local_init(scaffold, done.op, feeds)
        return feeds

    def _tell_of_end(self) -> tf.Tensor:
        with tf.control_dependencies([tf.print(*end_message(self.path))]):
            return tf.constant(True)

    def unsavable(self, session: tf.compat.v1.Session) -> str:
        """Why the positions cannot be saved; "" where they can. The iterators stay where they are.

        TensorFlow has one exception for an iterator without its initial state and for a pipeline
        with state elsewhere; the first it has also where such state is to be ignored.
        """
        for iterator, (strict, lenient) in zip(self.iterators, self._trials):
            try:
                session.run(strict)
                continue
            except tf.errors.OpError as error:
                why = error.message.strip().rpartition("\n")[0].strip() or error.message
            what = f"the position of {iterator.key} cannot be saved ({iterator.pipeline}): "
            try:
                session.run(lenient)
            except tf.errors.FailedPreconditionError:
                name = iterator.handle.op.name
                return f"{what}its iterator, {name!r}, was not initialized when the session began"
            except tf.errors.OpError:
                return f"{what}{why.rpartition('}}')[2] or why}{_of(iterator)}"
            return f"{what}a part of its state is outside of tf.data{_of(iterator)}"
        return ""


def end_message(position: Any) -> tuple[Any, ...]:
    """What is said where a position is not restored; the parts of a line."""
    return ("The input begins anew: its position is at the end of the data in", position)


def _of(iterator: InputIterator) -> str:
    if not iterator.outside:
        return ""
    return f", in {counted(len(iterator.outside), 'kind')} of ops: {', '.join(iterator.outside)}"


def _serialized(iterator: InputIterator, policy: int) -> tf.Tensor:
    return tf.raw_ops.SerializeIterator(
        resource_handle=iterator.handle, external_state_policy=policy
    )


def _placed(handles: Sequence[tf.Tensor], states: Sequence[tf.Tensor]) -> tf.Tensor:
    """Puts each iterator where a state of it was."""
    ops = [
        tf.raw_ops.DeserializeIterator(resource_handle=handle, serialized=state)
        for handle, state in zip(handles, states)
    ]
    with tf.control_dependencies(ops):
        return tf.constant(True)


def _has_next(handle: tf.Tensor) -> tf.Tensor:
    optional = tf.raw_ops.IteratorGetNextAsOptional(
        iterator=handle,
        output_types=handle.op.get_attr("output_types"),
        output_shapes=handle.op.get_attr("output_shapes"),
    )
    return tf.raw_ops.OptionalHasValue(optional=optional)


def _random_ops() -> list[str]:
    """The types of the random ops of the default graph, but for those of initial values."""
    variables = [*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables()]
    starts = [one.initializer for one in variables if one.initializer is not None]
    initial = {op.name for op in upstream([getattr(one, "op", one) for one in starts])}
    operations = tf.compat.v1.get_default_graph().get_operations()
    return sorted(
        {
            op.type
            for op in operations
            if op.type.startswith(_RANDOM) and "Dataset" not in op.type and op.name not in initial
        }
    )

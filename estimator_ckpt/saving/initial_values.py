"""Runs the initializers of some variables and leaves the values of others alone.

An op drags all that is upstream of it into the run. The initial value of a variable may wait for
the initializer of another, `with tf.control_dependencies([w.initializer])` is the usual way to copy
w, and then initializing the copy resets w. So the Assign of each such w gets an input that can be
fed. Fed with what w holds it changes nothing, and what the initial value of w is computed from does
not run at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.upstream import ASSIGNS, is_handle, operations, upstream, written_by


@dataclass(frozen=True)
class _Guard:
    """An Assign of an initial value, and what to feed so that it changes nothing.

    Attributes:
      variable: the name of the op that holds the variable.
      held: what the variable holds.
      initial: what the Assign assigns; can be fed.
    """

    variable: str
    held: tf.Tensor
    initial: tf.Tensor


@dataclass(frozen=True)
class Initialization:
    """Initializers to be run, of some variables, beside others that have their values.

    Attributes:
      initializers: the ops.
      guards: those of the others that these would reset.
    """

    initializers: Sequence[tf.Operation]
    guards: Sequence[_Guard]

    def run(self, session: tf.compat.v1.Session, feeds: dict[Any, Any] | None = None) -> None:
        """Initializes, with the `feeds` that the initial values need.

        Raises:
          SettingsError: the session had run before the saver was built, and goes on with the graph
            of that time.
        """
        if not self.initializers:
            return
        held = [guard.held for guard in self.guards]
        values = session.run(held)
        if not session.graph.finalized:
            values = [np.array(value) for value in values]  # a reference's may be its own memory
        fed = {guard.initial: value for guard, value in zip(self.guards, values)}
        session.run(self.initializers, {**(feeds or {}), **fed})
        if session.graph.finalized:
            return  # it was complete before there was a session
        for guard, before, after in zip(self.guards, values, session.run(held)):
            if not _same(before, after):
                raise SettingsError(
                    "the session had run before the saver was built, so that initializing what the "
                    f"checkpoint lacks has reset {guard.variable!r}, which it has; finalize() the "
                    "Scaffold first, and make the session then"
                )


class InitialValues:
    """The initializers of a graph's variables. Each is named by its op, or that of a replica."""

    def __init__(self, variables: Iterable[Any]) -> None:
        """Reads the default graph, and changes it where one initializer waits for another.

        Args:
          variables: all that may be initialized, or must not be.
        """
        self._initializers: dict[str, tf.Operation] = {}
        own: dict[str, str] = {}  # the Assigns of initial values -> what they write
        for variable in variables:
            ops = [replica.op.name for replica in tf_internals.replicas(variable)]
            if ops[0] not in self._initializers and variable.initializer is not None:
                # One that is distributed makes an op each time that it is asked.
                initializer = _operation(variable.initializer)
                self._initializers.update(dict.fromkeys(ops, initializer))
                own.update(_assigns([initializer, *_first_assigns(ops)], ops))
        self._guards = {
            op.name: _guard(op, own[op.name])
            for op in list(upstream(_needed(self._initializers.values())))
            if op.name in own
        }

    @property
    def waited_for(self) -> dict[str, str]:
        """The Assigns of initial values that other initializers wait for, and what they write."""
        return {op: guard.variable for op, guard in self._guards.items()}

    def beside(
        self,
        names: Iterable[str],
        restored: Collection[str],
        *,
        initialized: Collection[str] = (),
        ops: Sequence[Any] = (),
    ) -> Initialization:
        """What to run, to initialize some variables.

        Args:
          names: theirs; what has no initializer is left out.
          restored: those that have their values, of a checkpoint. None of these is written.
          initialized: more that have values, which their own initializers do not write again.
          ops: what else is to be run.

        Raises:
          ConflictError: one of `restored` would be written by an op other than its initializer.
        """
        by_name = {n: self._initializers[n] for n in names if n in self._initializers}
        by_name.update((op.name, op) for op in map(_operation, ops))
        restored = set(restored)
        kept = {*restored, *initialized}
        guards = {op: guard for op, guard in self._guards.items() if guard.variable in kept}
        fed = {guard.initial.name for guard in guards.values()}
        needed = []
        for op in upstream(by_name.values(), fed):
            if op.name in guards:
                needed.append(guards[op.name])
                continue
            for written in written_by(op, restored):
                whose = next(
                    name
                    for name, start in by_name.items()
                    if any(op.name == other.name for other in upstream([start], fed))
                )
                raise ConflictError(
                    f"the initial value of {whose!r} waits for {op.name!r} ({op.type}), which "
                    f"writes {written!r}; but {written!r} has its value from a checkpoint, and "
                    f"would lose it. Compute the initial value of {whose!r} without that op",
                    key=written,
                )
        initializers = {op.name: op for op in by_name.values()}
        return Initialization(list(initializers.values()), needed)


def warn_of_resets(local_init_op: Any, saved: Collection[str]) -> None:
    """Warns of variables that a session resets after each restore, with its local_init_op.

    Args:
      local_init_op: of a Scaffold: None, or what a session runs.
      saved: the names of the ops that hold what checkpoints have.
    """
    starts = operations(local_init_op)
    found = {name for op in upstream(starts) for name in written_by(op, saved)}
    if found:
        logging.warning(
            "The Scaffold's local_init_op runs after every restore and writes what the checkpoints "
            "have: %s. They keep the value that it gives them, not the restored one.",
            ", ".join(sorted(found)),
        )


def _operation(element: Any) -> tf.Operation:
    """An op, of which TensorFlow may give the output or the name."""
    element = tf.compat.v1.get_default_graph().as_graph_element(element)
    return getattr(element, "op", element)


def _first_assigns(names: Iterable[str]) -> list[tf.Operation]:
    """What TensorFlow made for initializers, even where init_from_checkpoint has put others."""
    ops = []
    for name in names:
        try:
            ops.append(tf.compat.v1.get_default_graph().get_operation_by_name(f"{name}/Assign"))
        except KeyError:
            continue
    return ops


def _assigns(initializers: Iterable[tf.Operation], holders: Collection[str]) -> dict[str, str]:
    """The Assigns among initializers and in groups of these, with what they write."""
    found: dict[str, str] = {}
    waiting = list(initializers)
    while waiting:
        op = waiting.pop()
        if op.type == "NoOp":
            waiting.extend(op.control_inputs)
        elif op.type in ASSIGNS:
            found.update((op.name, holder) for holder in written_by(op, holders))
    return found


def _needed(initializers: Iterable[tf.Operation]) -> list[tf.Operation]:
    """What initializers are computed from and wait for."""
    found: list[tf.Operation] = []
    waiting = list(initializers)
    while waiting:
        op = waiting.pop()
        others = [*(tensor.op for tensor in op.inputs), *op.control_inputs]
        (waiting if op.type == "NoOp" else found).extend(others)
    return found


def _guard(assign: tf.Operation, variable: str) -> _Guard:
    """Gives an Assign an input that can be fed; constants, say, cannot always be."""
    holder = assign.graph.get_operation_by_name(variable).outputs[0]
    (index, initial) = next((n, t) for n, t in enumerate(assign.inputs) if not is_handle(t))
    with tf.control_dependencies(None), tf.device(assign.device), tf.name_scope("kept"):
        fed = tf.identity(initial, name="initial")
        if holder.dtype == tf.resource:
            held = tf.raw_ops.ReadVariableOp(resource=holder, dtype=initial.dtype)
        else:
            held = tf.identity(holder)
    tf_internals.put_input(assign, index, fed)
    return _Guard(variable, held, fed)


def _same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes())

"""The uses of TensorFlow's private API for what sessions do; all others are in tf_internals.py and
tf_data_internals.py."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client.session import BaseSession
from tensorflow.python.ops import resources

from estimator_ckpt.saving.tf_internals import frame_of


def creator_of_own_session(saver: Any) -> Any:
    """The ChiefSessionCreator that is making a session of this process's own, and is finalizing a
    Scaffold for it that has `saver`; None if there is none, or the session is a cluster's.

    A saver is told of neither, so the functions are looked for on the stack
    (tensorflow/python/training/monitored_session.py).
    """
    finalizing = frame_of(tf.compat.v1.train.Scaffold.finalize.__code__)
    creating = frame_of(tf.compat.v1.train.ChiefSessionCreator.create_session.__code__)
    if finalizing is None or creating is None:
        return None
    # Where another function has been put in the place of one of these, it may call it otherwise.
    scaffold, creator = (frame.f_locals.get("self") for frame in (finalizing, creating))
    if scaffold is None or creator is None:
        return None
    is_for_it = creator._scaffold is scaffold and scaffold.saver is saver
    return creator if is_for_it and not creator._master else None


def scaffold_of(creator: Any) -> tf.compat.v1.train.Scaffold:
    """The Scaffold that a ChiefSessionCreator has, or made for itself."""
    return creator._scaffold


def put_session_manager(creator: Any, manager: tf.compat.v1.train.SessionManager) -> None:
    """Gives a ChiefSessionCreator the SessionManager that it would make of its Scaffold's pieces:
    these stay as they are, for whoever else runs them or exports the graph."""
    creator._session_manager = manager


def is_scaffolds_own_check(op: Any) -> bool:
    """Whether a Scaffold has made a ready_op or a ready_for_local_init_op, and no user: it does so
    in functions inside of finalize()."""
    makers = ("default_ready_op", "default_ready_for_local_init_op")
    creation = getattr(getattr(op, "op", None), "traceback", None) or ()
    return any(frame.name in makers for frame in creation)


def report_resources(*, local: bool) -> tf.Tensor | None:
    """The names of the resources, those that are no variables, that have not been initialized, as
    strings of shape [number]; None if there are none: a Scaffold's own checks report them.

    Args:
      local: those of this session alone, too.
    """
    found = [*resources.shared_resources(), *(resources.local_resources() if local else ())]
    return resources.report_uninitialized_resources(found) if found else None


def is_conditional(op: tf.Operation) -> bool:
    """Whether an op may not run although it is asked for: in a tf.cond or a loop, the branches of
    which TensorFlow 1 has in the graph itself (tensorflow/python/framework/ops.py)."""
    return op._get_control_flow_context() is not None


def reader(session: tf.compat.v1.Session, tensors: Sequence[tf.Tensor]) -> Callable[[], list[Any]]:
    """What gives the values of tensors as arrays in the session's own memory, which they share with
    variables; a run() copies them (tensorflow/python/client/session.py). Does not keep it alive."""
    options = config_pb2.CallableOptions(fetch=[tensor.name for tensor in tensors])
    session._extend_graph()
    return _WeakCallable(session, options)


class _WeakCallable(BaseSession._Callable):  # type: ignore[misc]
    """Has no session any more when the session is gone, and with it what C++ has of this."""

    @property
    def _session(self) -> Any:
        return self._weakly()

    @_session.setter
    def _session(self, session: Any) -> None:
        self._weakly = weakref.ref(session)

    def __call__(self) -> Any:
        if self._session._closed:
            raise RuntimeError("Attempted to use a closed Session.")  # as a run() says it
        return super().__call__()

    def __del__(self) -> None:
        if self._session is not None:
            super().__del__()

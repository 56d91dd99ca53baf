"""What a session checks before it trains: that each variable has a value.

A Scaffold asks each variable, and a session does so twice: before local variables are initialized
(`ready_for_local_init_op`), and after that (`ready_op`). With thousands of variables each of these
takes seconds, as every first run of a large part of a graph does. But a session of one process
that initializes or restores a variable itself need not ask whether it has a value. In a cluster the
answer may depend on others, so everything is asked there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from estimator_ckpt.saving import session_internals, tf_internals
from estimator_ckpt.saving.upstream import ASSIGNS, VARIABLE_OPS, operations, upstream


def check_only_the_rest(saver: Any) -> None:
    """Has the session that is being made leave out checks whose results are certain.

    Called while a Scaffold is finalized. Its ready_op and ready_for_local_init_op stay as they are.
    The session runs others, of the variables that may have no value, if there are any: those that
    either a first start, by its init_op or a warm start, or a restore does not assign. A check of
    the user's own is run as it is.

    Args:
      saver: one whose ops are there. It must be the Scaffold's, else nothing is done.
    """
    creator = session_internals.creator_of_own_session(saver)
    if creator is None or saver.saver_def is None:
        return
    scaffold = session_internals.scaffold_of(creator)
    started = assigned_by(scaffold.init_op)
    restored = set(assigned_by(saver.saver_def.restore_op_name).values())
    certain = restored.intersection((*started.values(), *saver.built.warm_started))
    for_all = tf.compat.v1.global_variables()
    rest = [one for one in for_all if not _has_value(one, certain, started)]
    if len(rest) == len(for_all):
        return
    started_locally = set(assigned_by(scaffold.local_init_op).values())
    local = tf.compat.v1.local_variables()
    rest_local = [variable for variable in local if _holder(variable) not in started_locally]
    ready = _check(scaffold.ready_op, [*rest, *rest_local], local=True)
    ready_for_local = _check(scaffold.ready_for_local_init_op, rest, local=False)
    # The first run of even nothing takes its time in a large graph.
    does_nothing = ready is ready_for_local is None and _is_empty(scaffold.local_init_op)
    manager = tf.compat.v1.train.SessionManager(
        local_init_op=None if does_nothing else scaffold.local_init_op,
        local_init_feed_dict=scaffold.local_init_feed_dict,
        ready_op=ready,
        ready_for_local_init_op=ready_for_local,
        graph=tf.compat.v1.get_default_graph(),
    )
    session_internals.put_session_manager(creator, manager)


def assigned_by(fetches: Any) -> dict[str, str]:
    """The ops that certainly run and give a variable its value: name -> that of what holds it.

    Args:
      fetches: what is run: assignments of variables, or groups of these; what else there is, and
        what an assignment waits for, counts for nothing.
    """
    found = {}
    waiting = operations(fetches)
    seen = set(waiting)
    while waiting:
        op = waiting.pop()
        if op.type == "NoOp":
            others = [other for other in op.control_inputs if other not in seen]
            seen.update(others)
            waiting += others
        elif op.type in ASSIGNS and not session_internals.is_conditional(op):
            holder = op.inputs[0].op
            if holder.type in VARIABLE_OPS:
                found[op.name] = holder.name
    return found


def _is_empty(fetches: Any) -> bool:
    """Whether a run does nothing: it is of groups alone, and of groups of these."""
    ops = operations(fetches)
    return bool(ops) and all(op.type == "NoOp" for op in upstream(ops))


def _has_value(variable: Any, certain: Collection[str], started: Mapping[str, str]) -> bool:
    """Whether a variable has its value from a first start, and from a restore as well.

    Args:
      variable: of the graph.
      certain: the names of the ops that hold what both assign. A restore does not assign what the
        checkpoint lacks, but runs its initializer.
      started: what the init_op assigns.
    """
    holder = _holder(variable)
    if holder not in certain:
        return False
    initializer = variable.initializer  # one of a strategy is made anew each time
    name = str(getattr(initializer, "name", ""))
    return started.get(name) == holder or holder in assigned_by(initializer).values()


def _holder(variable: Any) -> str | None:
    """The name of the op that holds a variable; None for one of a strategy, which has several."""
    replicas = tf_internals.replicas(variable)
    return tf_internals.op_name(variable) if replicas[0] is variable else None


def _check(theirs: Any, rest: Sequence[Any], *, local: bool) -> Any:
    """What is run for a check of a Scaffold; None where nothing is to be asked."""
    if not session_internals.is_scaffolds_own_check(theirs):
        return theirs
    reports = [tf.compat.v1.report_uninitialized_variables(rest)] if rest else []
    of_resources = session_internals.report_resources(local=local)
    if of_resources is not None:
        reports.append(of_resources)
    return tf.concat(reports, 0) if reports else None

"""What a session checks before it trains: only what it has not itself given a value."""

import pytest
import tensorflow as tf
from graph_jobs import FORMATS, latest, run_job

from estimator_ckpt import WarmStart, make_scaffold, saver_scaffold

v1 = tf.compat.v1


def by_init_op(use_resource=True):
    """Variables that the default init_op starts, a local one, and a table."""
    v1.get_variable("w", [2], initializer=v1.ones_initializer(), use_resource=use_resource)
    v1.get_local_variable("l", [2], initializer=v1.zeros_initializer(), use_resource=use_resource)
    step = v1.train.get_or_create_global_step()
    return v1.assign_add(step, 1)


def names_checked(check):
    """The variables that a check asks; None if nothing is run."""
    if check is None:
        return None
    found, waiting = set(), [check.op]
    while waiting:
        op = waiting.pop()
        if op.type in ("VarIsInitializedOp", "IsVariableInitialized"):
            found.add(op.inputs[0].op.name)
        waiting += [tensor.op for tensor in op.inputs]
    return found


def checks(scaffold, *, model_dir=None, prefix=None, **options):
    """Starts a session; what it has run as ready_for_local_init_op and as ready_op."""
    creator = v1.train.ChiefSessionCreator(
        scaffold, checkpoint_dir=model_dir, checkpoint_filename_with_path=prefix, **options
    )
    with v1.train.MonitoredSession(creator):
        manager = creator._session_manager
        return (
            names_checked(manager._ready_for_local_init_op),
            names_checked(manager._ready_op),
        )


def partly():
    """An init_op that leaves a variable to an init_fn."""
    v1.get_variable("late", initializer=1.0)
    train = by_init_op()
    late, *others = v1.global_variables()
    return train, {
        "init_op": v1.variables_initializer(others),
        "init_fn": lambda scaffold, session: session.run(late.initializer),
    }


def conditional():
    """An init_op that assigns in a branch only, which runs this time."""
    train = by_init_op()
    w, *others = v1.global_variables()

    assigns = []

    def branch():
        assigns.append(v1.assign(w, [1.0, 1.0]).op)
        with tf.control_dependencies(assigns):
            return tf.constant(0)

    v1.disable_control_flow_v2()
    try:
        v1.cond(v1.placeholder_with_default(True, []), branch, lambda: tf.constant(1))
    finally:
        v1.enable_control_flow_v2()
    return train, {"init_op": tf.group(*assigns, v1.variables_initializer(others))}


def in_other_ways():
    """A local_init_op that is no assignment, but waits for one."""
    train = by_init_op()
    with tf.control_dependencies([v1.local_variables_initializer()]):
        return train, {"local_init_op": tf.constant(0)}


def own_check():
    train = by_init_op()
    return train, {"ready_op": tf.constant([], tf.string)}


CASES = {
    "all are initialized": (lambda: (by_init_op(), {}), None, None),
    "reference variables": (lambda: (by_init_op(use_resource=False), {}), None, None),
    "an init_op that leaves one": (partly, {"late"}, {"late"}),
    "an init_op with a branch": (conditional, {"w"}, {"w"}),
    "a local_init_op that does not say": (in_other_ways, None, {"l"}),
    "a ready_op of the user's own": (own_check, None, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_session_checks_what_it_has_not_initialized_itself(case, graph):
    build, for_local, ready = CASES[case]
    _, pieces = build()
    scaffold = make_scaffold("both", base=v1.train.Scaffold(**pieces))
    assert checks(scaffold) == (for_local, ready)
    if "ready_op" not in pieces:  # the Scaffold's own still ask for everything
        everything = {v.op.name for v in v1.global_variables()}
        assert names_checked(scaffold.ready_for_local_init_op) == everything
        assert names_checked(scaffold.ready_op) == everything | {"l"}
        assert graph.get_collection(v1.GraphKeys.READY_OP) == [scaffold.ready_op]


@pytest.mark.parametrize("has_local", [False, True])
def test_a_local_init_op_that_does_nothing_is_not_run(graph, has_local):
    v1.train.get_or_create_global_step()
    if has_local:
        v1.get_local_variable("l", initializer=1.0)
    scaffold = make_scaffold("both")
    creator = v1.train.ChiefSessionCreator(scaffold)
    with v1.train.MonitoredSession(creator):
        run = creator._session_manager._local_init_op
    assert run is (scaffold.local_init_op if has_local else None)


def test_a_restore_is_certain_of_what_the_saver_saves(tmp_path):
    def session(**where):
        with tf.Graph().as_default():
            by_init_op()
            step, other = v1.train.get_global_step(), v1.get_variable("other", initializer=1.0)
            scaffold = saver_scaffold([other, step])
            return checks(scaffold, **where)

    with tf.Graph().as_default():
        by_init_op()
        v1.get_variable("other", initializer=1.0)
        with v1.Session() as of_all:
            of_all.run(v1.global_variables_initializer())
            prefix = v1.train.Saver().save(of_all, str(tmp_path / "model.ckpt"))
    with pytest.raises(RuntimeError, match=r"error: Variables not initialized: w$"):
        session(prefix=prefix)  # in TensorFlow's own words
    assert session() == ({"w"}, {"w"})


@pytest.mark.parametrize("has_init_op", [False, True])
def test_a_warm_start_is_certain_of_what_it_assigns_and_initializes(tmp_path, has_init_op):
    prefix = str(tmp_path / "model.ckpt")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=[3.0, 4.0])
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, prefix)
    with tf.Graph().as_default():
        _, pieces = partly()
        scaffold = make_scaffold(
            "both",
            warm_start=WarmStart(prefix, on_missing="init"),
            base=v1.train.Scaffold(**pieces) if has_init_op else None,
        )
        # An init_op of the user's own initializes what the checkpoint lacks.
        expected = {"late"} if has_init_op else None
        assert checks(scaffold) == (expected, expected)


def test_a_session_of_a_cluster_checks_everything(graph):
    by_init_op()
    server = v1.train.Server.create_local_server()
    assert checks(make_scaffold("both"), master=server.target) == (
        {"w", "global_step"},
        {"w", "global_step", "l"},
    )


def test_a_worker_waits_until_all_is_initialized(graph):
    by_init_op()
    server = v1.train.Server.create_local_server()
    scaffold = make_scaffold("both")
    creator = v1.train.WorkerSessionCreator(scaffold, server.target, max_wait_secs=0)
    with pytest.raises(tf.errors.DeadlineExceededError):
        v1.train.MonitoredSession(creator)
    with v1.Session(server.target) as chief:
        chief.run([scaffold.init_op, scaffold.local_init_op])
        with v1.train.MonitoredSession(creator) as worker:
            assert worker.run(v1.train.get_global_step()) == 0


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_graph_of_a_checkpoint_has_the_checks(tmp_path, checkpoint_format):
    run_job(tmp_path, lambda: make_scaffold(checkpoint_format), steps=1)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{latest(tmp_path)}.meta")
        (ready,) = graph.get_collection(v1.GraphKeys.READY_OP)
        (for_local,) = graph.get_collection(v1.GraphKeys.READY_FOR_LOCAL_INIT_OP)
        names = [variable.op.name.encode() for variable in v1.global_variables()]
        assert [session.run(one).tolist() for one in (ready, for_local)] == [names, names]
        if checkpoint_format != "checkpoint":
            saver.restore(session, latest(tmp_path))
            assert [session.run(one).size for one in (ready, for_local)] == [0, 0]

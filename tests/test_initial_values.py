"""Initializing some variables never changes those that have their values from a checkpoint."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import run_job
from saver_sessions import COUNT, make_saver, partitioned, restore, variable

from estimator_ckpt import WarmStart, checkpoint_scaffold, open_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.saving.upstream import upstream, written_by

v1 = tf.compat.v1


def after(*variables):
    """In it, what is made waits for the initializers of these."""
    return tf.control_dependencies([v.initializer for v in variables])


@contextlib.contextmanager
def control_flow_of_v1():
    """As programs with reference variables have it; the newer one reads these too early."""
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def one_that_waits(**kind):
    w = variable("w", 1.0, **kind)
    with after(w):
        v1.get_variable("b", initializer=w.read_value() + 1, **kind)


def a_reference_that_waits():
    with control_flow_of_v1():
        one_that_waits(use_resource=False)


def one_of_the_other_kind():
    w = variable("w", 1.0, use_resource=False)
    with after(w), control_flow_of_v1():
        v1.get_variable("b", initializer=w.read_value() + 1, use_resource=True)


def a_chain():
    w = variable("w", 1.0)
    with after(w):
        c = v1.get_variable("c", initializer=w.read_value() * 10)
    with after(c):
        v1.get_variable("b", initializer=c.read_value() + 1)


def a_chain_of_what_is_restored():
    v = variable("v", 2.0)
    with after(v):
        w = v1.get_variable("w", initializer=v.read_value())
    with after(w):
        v1.get_variable("b", initializer=w.read_value() + v.read_value())


def one_initial_value_for_both():
    initial = tf.constant(1.0)
    w = v1.get_variable("w", initializer=initial)
    with after(w):
        v1.get_variable("b", initializer=tf.identity(initial))


def one_random_value_for_all_that_is_new():
    initial = tf.random.uniform([])
    w = v1.get_variable("w", initializer=initial)
    with after(w):
        shared = tf.identity(initial)
    c = v1.get_variable("c", initializer=shared)
    with after(c):
        v1.get_variable("b", initializer=c.read_value() - shared)


def parts():
    w = partitioned("w", 3)
    with after(*w):
        v1.get_variable("b", initializer=tf.add_n([tf.reduce_sum(p.read_value()) for p in w]))


def a_variable_without_its_feed():
    # Its initial value cannot be computed, and need not be.
    w = v1.get_variable("w", initializer=v1.placeholder(tf.float32, []))
    with after(w):
        v1.get_variable("b", initializer=w.read_value() + 1)


def a_variable_with_another_initializer_since():
    w = variable("w", 1.0)
    with after(w):
        v1.get_variable("b", initializer=w.read_value() + 1)
    w._initializer_op = w.assign(5.0).op  # as init_from_checkpoint does


def a_group_of_initializers():
    w, v = variable("w", 1.0), variable("v", 2.0)
    with tf.control_dependencies([v1.variables_initializer([w, v])]):
        v1.get_variable("b", initializer=w.read_value() + v.read_value())


def the_value_that_is_initialized():
    w = variable("w", 1.0)
    value = tf.cond(v1.is_variable_initialized(w), w.read_value, lambda: w.initial_value)
    with after(w):
        v1.get_variable("b", initializer=value + 1)


def a_reference_that_is_initialized():
    with control_flow_of_v1():
        w = variable("w", 1.0, use_resource=False)
        with after(w):
            v1.get_variable("b", initializer=w.initialized_value() + 1, use_resource=False)


def an_average():
    w = variable("w", 1.0)
    tf.train.ExponentialMovingAverage(0.5, name="b").apply([w])


# What is built, and what it has when w is 7 and v is 8 in the checkpoint. Of the third, b is new.
COPIES = {
    "a resource variable": (one_that_waits, {"w": 7, "b": 8}),
    "a reference variable": (a_reference_that_waits, {"w": 7, "b": 8}),
    "an initialized reference": (a_reference_that_is_initialized, {"w": 7, "b": 8}),
    "one of each": (one_of_the_other_kind, {"w": 7, "b": 8}),
    "a chain": (a_chain, {"w": 7, "c": 70, "b": 71}),
    "a chain of restored ones": (a_chain_of_what_is_restored, {"v": 8, "w": 7, "b": 15}),
    "a shared initial value": (one_initial_value_for_both, {"w": 7, "b": 1}),
    "a shared random value": (one_random_value_for_all_that_is_new, {"w": 7, "b": 0}),
    "slices": (parts, {"w": COUNT, "b": COUNT.sum()}),
    "no feed": (a_variable_without_its_feed, {"w": 7, "b": 8}),
    "another initializer": (a_variable_with_another_initializer_since, {"w": 7, "b": 8}),
    "a group": (a_group_of_initializers, {"w": 7, "v": 8, "b": 15}),
    "an initialized value": (the_value_that_is_initialized, {"w": 7, "b": 8}),
    "an average": (an_average, {"w": 7, "w/b": 7}),
}
NEW = "(.*b|c)"


def old_run(directory, build):
    """A model_dir whose checkpoint has w and v, of a stock saver."""
    with tf.Graph().as_default(), v1.Session() as session:
        partitioned("w", 2) if build is parts else variable("w", 7.0)
        variable("v", 8.0)
        v1.train.get_or_create_global_step()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(directory / "model.ckpt"), global_step=0)
    return str(directory)


def assert_values(values, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


def on_disk(directory):
    with open_checkpoint(str(directory)) as checkpoint:
        return {name: checkpoint.get_tensor(name) for name in checkpoint.variables}


def with_step(build):
    def complete():
        build()
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    return complete


@pytest.mark.parametrize("copies", COPIES)
def test_what_resumes_keeps_its_values_and_what_is_new_copies_them(tmp_path, copies):
    build, expected = COPIES[copies]
    old_run(tmp_path, build)
    for _ in range(2):  # the second time all is there
        start, _ = run_job(
            tmp_path,
            lambda: checkpoint_scaffold(on_missing={NEW: "init"}),
            build=with_step(build),
            steps=1,
        )
        assert_values(start, expected)
        assert_values(on_disk(tmp_path), expected)


def feeds():
    """A value for each placeholder of the graph."""
    ops = v1.get_default_graph().get_operations()
    return {op.outputs[0]: 1.0 for op in ops if op.type == "Placeholder"}


def ours():
    return v1.train.Scaffold(init_feed_dict=feeds())


def own():
    return v1.train.Scaffold(v1.global_variables_initializer(), init_feed_dict=feeds())


@pytest.mark.parametrize("base", [ours, own], ids=["", "after an init_op of one's own"])
@pytest.mark.parametrize("copies", COPIES)
def test_what_is_warm_started_keeps_its_values_and_the_rest_copies_them(tmp_path, copies, base):
    build, expected = COPIES[copies]
    old = old_run(tmp_path / "old", build)
    start, _ = run_job(
        tmp_path / "new",
        lambda: checkpoint_scaffold(warm_start=WarmStart(old, "[wv]$|w/part_.*"), base=base()),
        build=with_step(build),
        steps=1,
    )
    assert_values(start, expected)
    assert_values(on_disk(tmp_path / "new"), expected)


@pytest.mark.parametrize("build", [one_that_waits, a_reference_that_waits])
def test_without_a_checkpoint_all_is_initialized_as_ever(build):
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        make_saver(on_missing="init")
        session.run(v1.global_variables_initializer())
        assert session.run(v1.global_variables()) == [1.0, 2.0]


# --- other ops that write ---


def counting():
    w = variable("w", 1.0)
    with tf.control_dependencies([w.assign_add(1.0, read_value=False)]):
        v1.get_variable("b", initializer=tf.constant(3.0) + 1)


def counting_a_reference():
    w = variable("w", 1.0, use_resource=False)
    with tf.control_dependencies([w.assign_add(1.0)]):
        v1.get_variable("b", initializer=tf.constant(3.0) + 1, use_resource=False)


def counting_in_a_function():
    w = variable("w", 1.0)

    @tf.function
    def count():
        w.assign_add(1.0)
        return w.read_value()

    with tf.control_dependencies([count()]):
        v1.get_variable("b", initializer=tf.constant(3.0) + 1)


def counting_in_a_branch():
    w = variable("w", 1.0)
    value = tf.cond(tf.random.uniform([]) > 2, lambda: w.assign_add(1.0).read_value(), w.read_value)
    with tf.control_dependencies([value]):
        v1.get_variable("b", initializer=tf.constant(3.0) + 1)


def counting_for_a_chain():
    w = variable("w", 1.0)
    with tf.control_dependencies([w.assign_add(1.0, read_value=False)]):
        c = v1.get_variable("c", initializer=tf.constant(3.0) + 1)
    with after(c):
        v1.get_variable("b", initializer=c.read_value())


WRITERS = [
    counting,
    counting_a_reference,
    counting_in_a_function,
    counting_in_a_branch,
    counting_for_a_chain,
]


@pytest.mark.parametrize("build", WRITERS)
def test_another_write_is_an_error_that_names_both_and_nothing_has_changed(tmp_path, build):
    prefix = tf.train.latest_checkpoint(old_run(tmp_path, build))
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        saver = make_saver(on_missing="init")
        (w,) = (v for v in v1.global_variables() if v.op.name == "w")
        session.run(w.initializer)
        session.run(v1.global_variables_initializer())
        before = session.run(v1.global_variables())
        with pytest.raises(ConflictError, match=r"'[bc]' waits for .*writes 'w'"):
            saver.restore(session, prefix)
        assert session.run(v1.global_variables()) == before


@pytest.mark.parametrize("build", WRITERS)
def test_a_warm_start_with_another_write_is_refused(tmp_path, build):
    old = old_run(tmp_path / "old", build)
    with pytest.raises(ConflictError, match=r"'[bc]' waits for .*writes 'w'"):
        run_job(
            tmp_path / "new",
            lambda: checkpoint_scaffold(warm_start=WarmStart(old, "w$")),
            build=with_step(build),
        )
    assert not list((tmp_path / "new").glob("*.index"))


def words(write):
    """A table with a row, and a variable that is looked up in it or waits for a `write`."""
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0, name="words")
    insert = table.insert(["a"], [5.0])
    with tf.control_dependencies([insert] if write else []):
        found = table.lookup(tf.constant("a"))
    return table, insert, found


@pytest.mark.parametrize("write", [False, True])
def test_a_restored_table_is_read_by_an_initial_value_and_never_written(tmp_path, write):
    with tf.Graph().as_default(), v1.Session() as session:
        _, insert, _ = words(write)
        session.run(insert)
        prefix = make_saver().save(session, str(tmp_path / "model"))
    with tf.Graph().as_default():
        _, _, found = words(write)
        b = v1.Variable(found, validate_shape=False, use_resource=True, name="b")
        saver = make_saver(on_missing="init")
        if write:
            with pytest.raises(ConflictError, match=r"'b' waits for .*writes 'words'"):
                restore(saver, prefix, b)
        else:
            assert restore(saver, prefix, b) == 5.0


MAKERS = [
    (lambda w, v: w.read_value(), ""),
    (lambda w, v: v1.is_variable_initialized(w), ""),
    (lambda w, v: tf.gather(w, [0]), ""),
    (lambda w, v: tf.shape(w), ""),
    (lambda w, v: v1.scatter_add(w, [0], [1.0]), "w"),
    (lambda w, v: v1.train.GradientDescentOptimizer(1.0).minimize(w[0] * v[0]), "vw"),
    (lambda w, v: w.assign(v), "w"),
    (lambda w, v: tf.while_loop(lambda i: i < 3, lambda i: i + w[0], [0.0]), ""),
]
WITH_FUNCTIONS = [
    (lambda w, v: tf.while_loop(lambda i: i < 3, lambda i: w.assign_add([i])[0], [0.0]), "w"),
    (
        lambda w, v: tf.switch_case(
            v1.placeholder(tf.int32), [lambda: w[0], lambda: v.assign([2.0])[0]]
        ),
        "v",
    ),
    (lambda w, v: tf.function(lambda: tf.function(lambda: w.assign(v))())(), "w"),
    (lambda w, v: tf.function(lambda: tf.function(lambda: w + v)())(), ""),
]
KINDS = {
    "resource": (contextlib.nullcontext, True, MAKERS + WITH_FUNCTIONS),
    "resource, control flow of v1": (control_flow_of_v1, True, MAKERS + WITH_FUNCTIONS),
    "reference": (control_flow_of_v1, False, MAKERS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_which_variables_an_op_writes_is_known(kind):
    control_flow, use_resource, makers = KINDS[kind]
    found = []
    for make, _ in makers:
        with tf.Graph().as_default(), control_flow():
            w, v = (variable(name, [1.0], use_resource=use_resource) for name in "wv")
            ops = [getattr(one, "op", one) for one in tf.nest.flatten(make(w, v))]
            written = {name for op in upstream(ops) for name in written_by(op, {"w", "v"})}
            found.append("".join(sorted(written)))
    assert found == [expected for _, expected in makers]


# --- sessions ---


def test_a_session_older_than_the_saver_is_told_where_it_would_reset(tmp_path):
    prefix = tf.train.latest_checkpoint(old_run(tmp_path, one_that_waits))
    with tf.Graph().as_default(), v1.Session() as session:
        one_that_waits()
        session.run(v1.global_variables_initializer())
        saver = make_saver(on_missing="init")
        with pytest.raises(SettingsError, match=r"reset 'w'.*finalize\(\)"):
            saver.restore(session, prefix)


def test_a_local_init_op_that_writes_what_is_restored_is_told_and_left_alone(tmp_path, caplog):
    old_run(tmp_path, counting)

    def build():
        w = variable("w", 1.0)
        variable("v", 1.0)
        build.reset = [v1.local_variables_initializer(), tf.group(w.initializer)]
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    start, _ = run_job(
        tmp_path,
        lambda: checkpoint_scaffold(base=v1.train.Scaffold(local_init_op=build.reset)),
        build=build,
    )
    assert_values(start, {"w": 1, "v": 8})
    (message,) = (
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and "local_init_op" in record.getMessage()
    )
    assert "have: w. They" in message

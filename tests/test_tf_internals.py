"""What we use of TensorFlow's private API does what the public API shows: in this version, too."""

import functools
import inspect
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from saver_sessions import COUNT, make_saver, partitioned, save, variable, whole

from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph
from estimator_ckpt.saving import session_internals, tf_data_internals, tf_internals

v1 = tf.compat.v1

PACKAGE = Path(tf_internals.__file__).parent


def test_every_function_is_tested_here():
    own = {
        name
        for module in (tf_internals, tf_data_internals, session_internals)
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__
    }
    tests = {name for name in globals() if name.startswith("test_")}
    assert [
        name for name in sorted(own) if not any(t.startswith(f"test_{name}") for t in tests)
    ] == []


def test_objects_of_a_class_are_those_of_derived_ones_too():
    class Unhashable(type):
        __hash__ = None

    class Base:
        pass

    class Derived(Base):
        pass

    class Other(metaclass=Unhashable):
        pass

    made = [Base(), Derived(), Other()]
    assert {id(one) for one in tf_internals.objects_of(Base)} == {id(one) for one in made[:2]}


def test_nothing_else_imports_what_is_private():
    pattern = re.compile(r"^\s*(from|import) tensorflow(_estimator)?\.python", re.MULTILINE)
    found = {
        str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if pattern.search(p.read_text())
    }
    assert found == {"tf_internals.py", "tf_data_internals.py", "session_internals.py"}


# --- what a Saver saves ---


def keys_of_a_stock_saver(directory, var_list):
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(var_list)
        prefix = saver.save(session, str(directory / "stock"), write_meta_graph=False)
    return {name for name, _ in tf.train.list_variables(prefix)}


@pytest.mark.parametrize("as_mapping", [False, True])
def test_saveables_by_name_are_those_of_a_stock_saver(tmp_path, graph, as_mapping):
    a, w = variable("scope/a", 1.0), partitioned("w", 3)
    old = variable("old", 1.0, use_resource=False)
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="table")
    (saveable,) = v1.get_collection(v1.GraphKeys.SAVEABLE_OBJECTS)
    var_list = {"x": a, "w": w} if as_mapping else [a, *w, old, saveable]
    found = tf_internals.saveables_by_name(var_list)
    names = {spec.name for group in found.values() for one in group for spec in one.specs}
    assert names == keys_of_a_stock_saver(tmp_path, var_list)
    assert [len(group) for name, group in sorted(found.items()) if name == "w"] == [3]
    assert [one.specs[0].slice_spec for one in found["w"]] == [
        "12 2 0,4:0,2",
        "12 2 4,4:0,2",
        "12 2 8,4:0,2",
    ]
    assert table.name == "table"


def test_saveables_by_name_refuses_two_variables_of_one_name(graph):
    w, whole_w = partitioned("w", 2), v1.get_variable("w_1", [12, 2])
    for part in w:
        part._save_slice_info.full_name = "w_1"
    for refuse in (tf_internals.saveables_by_name, v1.train.Saver):
        with pytest.raises(ValueError, match="w_1"):
            refuse([whole_w, *w])


def test_is_saveable_knows_what_the_collection_holds(graph):
    tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    (saveable,) = v1.get_collection(v1.GraphKeys.SAVEABLE_OBJECTS)
    assert tf_internals.is_saveable(saveable)
    assert not tf_internals.is_saveable(variable("a", 1.0))


def test_the_builder_of_a_stock_saver_is_the_one_that_ours_extends(graph):
    variable("a", 1.0)
    assert type(v1.train.Saver()._builder) is tf_internals.BulkSaverBuilder


def test_the_builder_calls_what_ours_overrides(graph):
    called = []

    class Builder(tf_internals.BulkSaverBuilder):
        def save_op(self, filename_tensor, saveables):
            called.append(("save_op", [s.name for s in saveables]))
            return super().save_op(filename_tensor, saveables)

        def bulk_restore(self, filename_tensor, saveables, preferred_shard, restore_sequentially):
            called.append(("bulk_restore", [s.name for s in saveables]))
            return super().bulk_restore(
                filename_tensor, saveables, preferred_shard, restore_sequentially
            )

        def _AddRestoreOps(self, filename_tensor, saveables, *args, **kwargs):  # noqa: N802
            called.append(("_AddRestoreOps", [s.name for s in saveables]))
            return super()._AddRestoreOps(filename_tensor, saveables, *args, **kwargs)

    variable("a", 1.0)
    v1.train.Saver(sharded=True, builder=Builder())
    assert called == [("save_op", ["a"]), ("_AddRestoreOps", ["a"]), ("bulk_restore", ["a"])]


# --- objects ---


def test_frozen_saveables_have_the_keys_of_an_eager_checkpoint(tmp_path):
    def build():
        return {"a": tf.Variable(1.0), "b": [tf.Variable(2.0), tf.Variable(3.0)]}

    prefix = tf.train.Checkpoint(**build()).save(tmp_path / "eager")
    with tf.Graph().as_default():
        saveables = tf_internals.frozen_saveables(tf.train.Checkpoint(**build()))
    names = {spec.name for saveable in saveables for spec in saveable.specs}
    names.add("save_counter/.ATTRIBUTES/VARIABLE_VALUE")
    assert names == {name for name, _ in tf.train.list_variables(prefix)}


def test_object_graph_bytes_are_those_of_an_eager_checkpoint(tmp_path):
    prefix = tf.train.Checkpoint(a=tf.Variable(1.0, name="a")).write(str(tmp_path / "eager"))
    with tf.Graph().as_default():
        root = tf.train.Checkpoint(a=tf.Variable(1.0, name="a"))
        found = [tf_internals.object_graph_bytes(s) for s in tf_internals.frozen_saveables(root)]
    assert found.count(None) == len(found) - 1
    (data,) = (one for one in found if one is not None)
    stored = tf.train.load_checkpoint(prefix).get_tensor(OBJECT_GRAPH_KEY)
    assert ObjectGraph.parse(data).nodes == ObjectGraph.parse(stored).nodes


def test_never_restored_is_true_of_python_state_and_the_object_graph(graph):
    class State(tf.train.experimental.PythonState):
        def serialize(self):
            return ""

        def deserialize(self, string_value):
            raise NotImplementedError

    root = tf.train.Checkpoint(a=tf.Variable(1.0), state=State())
    saveables = tf_internals.frozen_saveables(root)
    assert {s.specs[0].name: tf_internals.never_restored(s) for s in saveables} == {
        "a/.ATTRIBUTES/VARIABLE_VALUE": False,
        "state/.ATTRIBUTES/py_state": True,
        OBJECT_GRAPH_KEY: True,
    }


def test_written_only_is_written_by_a_stock_saver_and_not_restored(tmp_path, graph):
    a = variable("a", 1.0)
    ((saveable,),) = tf_internals.saveables_by_name([a]).values()
    copy = tf_internals.written_only(saveable.specs[0])
    assert tf_internals.never_restored(copy)
    saver = v1.train.Saver([copy])
    with v1.Session() as session:
        session.run(a.initializer)
        prefix = saver.save(session, str(tmp_path / "model"), write_meta_graph=False)
        session.run(a.assign(5.0))
        saver.restore(session, prefix)
        assert session.run(a) == 5.0
    assert tf.train.load_variable(prefix, "a") == 1.0


# --- savers ---


def test_saver_settings_are_what_the_constructor_got(graph):
    a = variable("a", 1.0)
    given = {
        "reshape": True,
        "max_to_keep": 7,
        "keep_checkpoint_every_n_hours": 2.5,
        "pad_step_number": True,
    }
    for var_list, extra in (
        ({"x": a}, {"sharded": True}),
        ([a], {}),
        (None, {"defer_build": True}),
    ):
        settings = tf_internals.saver_settings(v1.train.Saver(var_list, **given, **extra))
        assert settings._asdict() == {"plain": True, "var_list": var_list, **given}


def test_saver_settings_know_what_is_not_plain(graph):
    class Subclass(v1.train.Saver):
        pass

    class Builder(tf_internals.BulkSaverBuilder):
        pass

    variable("a", 1.0)
    saver_def = v1.train.Saver().as_saver_def()
    for saver in (
        Subclass(),
        v1.train.Saver(builder=Builder()),
        v1.train.Saver(saver_def=saver_def),
        tf.train.Checkpoint(),
    ):
        assert not tf_internals.saver_settings(saver).plain


def run_scaffold(scaffold, *fetches):
    creator = v1.train.ChiefSessionCreator(scaffold)
    with v1.train.MonitoredSession(creator) as session:
        return session.run(list(fetches))


def test_put_saver_is_the_saver_that_the_scaffold_then_has(graph):
    a = variable("a", 1.0)
    scaffold = v1.train.Scaffold(saver=v1.train.Saver())
    saver = v1.train.Saver({"x": a})
    tf_internals.put_saver(scaffold, saver)
    assert run_scaffold(scaffold, a) == [1.0]
    assert scaffold.saver is saver


class _Holder(v1.train.SessionRunHook):
    """A hook of a user's, which saves something now and then."""

    def __init__(self, saver):
        self.saver = saver


def test_stock_savers_are_those_of_one_graph_whoever_holds_them(graph):
    a = variable("a", 1.0)
    held = [v1.train.Saver([a]), v1.train.Saver({"x": a}), v1.train.Saver()]
    with tf.Graph().as_default():
        variable("b", 1.0)
        elsewhere = v1.train.Saver()
        assert tf_internals.stock_savers(tf.compat.v1.get_default_graph()) == [elsewhere]
    assert set(map(id, tf_internals.stock_savers(graph))) == set(map(id, held))


def test_hooks_with_finds_the_hook_that_holds_a_saver(graph):
    a = variable("a", 1.0)
    held, other = _Holder(v1.train.Saver([a])), _Holder(v1.train.Saver([a]))
    assert tf_internals.hooks_with([held.saver]) == [held]
    assert tf_internals.hooks_with([]) == []
    assert other.saver is not held.saver


def test_checkpoint_hooks_are_those_that_have_begun_on_a_graph(tmp_path, graph):
    a = variable("a", 1.0)
    v1.train.get_or_create_global_step()
    saver, scaffold = v1.train.Saver([a]), v1.train.Scaffold(saver=v1.train.Saver([a]))
    own, of_scaffold, of_graph, waiting = (
        v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, **options)
        for options in ({"saver": saver}, {"scaffold": scaffold}, {}, {"saver": saver})
    )
    for hook in (own, of_scaffold, of_graph):
        hook.begin()
    objects = tf_internals.objects_of(v1.train.CheckpointSaverHook)
    found = {id(hook): rest for hook, *rest in tf_internals.checkpoint_hooks(graph, objects)}
    assert found == {
        id(own): [str(tmp_path), saver],
        id(of_scaffold): [str(tmp_path), scaffold.saver],
        id(of_graph): [str(tmp_path), None],
    }
    assert id(waiting) not in found


def test_last_steps_are_those_that_are_known_on_a_graph(graph):
    v1.train.get_or_create_global_step()
    stops = [v1.train.StopAtStepHook(last_step=7), v1.train.StopAtStepHook(num_steps=1)]
    for hook in stops:
        hook.begin()
    assert tf_internals.last_steps(graph) == [7]


def test_resuming_directory_and_local_init_op_are_known_while_a_job_restores(tmp_path, graph):
    variable("a", 1.0)
    seen, runs = [], []
    local_init = v1.local_variables_initializer()

    class Restores(v1.train.Saver):
        def restore(self, sess, save_path):
            seen.append(tf_internals.resuming_directory())
            runs.append(tf_data_internals.resuming_local_init_op())
            super().restore(sess, save_path)

        def recover_last_checkpoints(self, checkpoint_paths):
            seen.append(tf_internals.resuming_directory())

    saver = Restores()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        prefix = saver.save(session, str(tmp_path / "model"))
        saver.restore(session, prefix)
    manager = v1.train.SessionManager(local_init_op=local_init)
    manager.prepare_session("", saver=saver, checkpoint_dir=str(tmp_path))
    manager.prepare_session("", saver=saver, checkpoint_filename_with_path=prefix)
    assert seen == [None, str(tmp_path), str(tmp_path), None]
    assert runs == [None, local_init, local_init]


def test_is_in_init_fn_where_a_session_that_restores_nothing_is_prepared(tmp_path, graph):
    variable("a", 1.0)
    seen = []

    class Restores(v1.train.Saver):
        def restore(self, sess, save_path):
            seen.append(tf_internals.is_in_init_fn())
            super().restore(sess, save_path)

    saver = Restores()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        prefix = saver.save(session, str(tmp_path / "model"))
        saver.restore(session, prefix)
    manager = v1.train.SessionManager()
    manager.prepare_session("", saver=saver, checkpoint_dir=str(tmp_path))
    manager.prepare_session("", init_fn=lambda session: saver.restore(session, prefix))
    assert seen == [False, False, True]


def test_resuming_local_init_op_is_none_where_nothing_is_restored():
    assert tf_data_internals.resuming_local_init_op() is None


def test_frame_of_is_the_one_that_calls():
    def outer():
        return inner()

    def inner():
        return tf_internals.frame_of(outer.__code__)

    assert outer().f_code is outer.__code__
    assert inner() is None


def test_is_needed_at_once_where_a_hook_has_listeners_or_the_session_ends(tmp_path):
    seen = []

    class Asks(v1.train.Saver):
        def save(self, *args, **kwargs):
            seen.append((tf_internals.is_needed_at_once(), tf_internals.is_ending()))
            return super().save(*args, **kwargs)

    class Ends(v1.train.SessionRunHook):
        def end(self, session):
            saver.save(session, str(tmp_path / "end"))

    for listeners in ([], [v1.train.CheckpointSaverListener()]):
        with tf.Graph().as_default():
            v1.train.get_or_create_global_step()
            saver = Asks()
            hook = v1.train.CheckpointSaverHook(
                str(tmp_path), save_steps=9, saver=saver, listeners=listeners
            )
            with v1.train.MonitoredSession(hooks=[hook, Ends()]):
                pass
    assert seen == [(False, False), (True, True), (True, False), (True, True)]


def test_is_ending_is_false_where_no_session_ends():
    assert not tf_internals.is_ending()


def test_drops_errors_of_close_is_true_where_a_monitored_session_closes(graph):
    seen = []

    def close():
        seen.append(tf_internals.drops_errors_of_close())
        raise ValueError("dropped")

    v1.train.get_or_create_global_step()
    with v1.train.MonitoredSession() as session:
        tf_internals.before_run_and_close(session._tf_sess(), lambda: None, close)
    with pytest.raises(ValueError, match="dropped"), v1.Session() as plain:
        tf_internals.before_run_and_close(plain, lambda: None, close)
    # The first one's, and when nobody held it any more.
    assert seen == [True, True, False]
    alone = v1.Session()
    tf_internals.before_run_and_close(alone, lambda: None, close)
    del alone
    assert seen == [True, True, False, True]


def test_before_run_and_close_come_first_and_keep_no_session_alive(graph):
    one, seen = tf.constant(1), []
    session = v1.Session()
    for name in "ab":  # of two savers
        tf_internals.before_run_and_close(
            session,
            lambda name=name: seen.append(f"run {name}"),
            lambda name=name: seen.append(f"close {name}"),
        )
    assert session.run(one) == 1
    assert seen == ["run b", "run a"]
    session.close()
    assert seen[2:] == ["close b", "close a"]
    with pytest.raises(RuntimeError, match="closed"):
        session.run(one)
    alive = weakref.ref(session)
    del session
    assert alive() is None


def test_put_start_is_how_the_scaffold_then_starts(graph):
    a, b = variable("a", 1.0), variable("b", 1.0)
    later = v1.placeholder(tf.float32, [])
    init = tf.group(a.assign(7.0), b.initializer)
    assign = b.assign(later)
    scaffold = v1.train.Scaffold()
    started = []

    def start(given, session):
        started.append(given)
        session.run(assign, {later: 9.0})

    tf_internals.put_start(scaffold, init, start)
    assert run_scaffold(scaffold, a, b) == [7.0, 9.0]
    assert started == [scaffold]


def test_put_start_keeps_the_scaffolds_init_op_where_none_is_given(graph):
    a = variable("a", 1.0)
    scaffold = v1.train.Scaffold()
    tf_internals.put_start(scaffold, None, lambda scaffold, session: None)
    assert run_scaffold(scaffold, a) == [1.0]


def test_initialize_shared_resources_is_part_of_what_a_scaffold_runs(graph):
    op = tf_internals.initialize_shared_resources()
    assert isinstance(op, tf.Operation)
    with v1.Session() as session:
        session.run(op)


# --- variables ---


def test_full_name_is_the_key_of_a_stock_saver(tmp_path, graph):
    variables = [variable("scope/a", 1.0), *partitioned("scope/w", 3)]
    names = {tf_internals.full_name(v) for v in variables}
    assert names == keys_of_a_stock_saver(tmp_path, variables) == {"scope/a", "scope/w"}


def test_slice_offset_is_where_a_slice_begins(graph):
    offsets = [tf_internals.slice_offset(part) for part in partitioned("w", 3)]
    assert offsets == [(0, 0), (4, 0), (8, 0)]
    assert tf_internals.slice_offset(variable("whole", 1.0)) is None


def test_full_shape_is_that_in_a_stock_checkpoint(tmp_path, graph):
    variables = [variable("a", [1.0, 2.0]), *partitioned("w", 3)]
    unknown = v1.placeholder_with_default(1.0, None)
    assert tf_internals.full_shape(v1.Variable(unknown, validate_shape=False)) is None
    prefix = save(make_saver("saver", var_list=variables), tmp_path)
    shapes = {name: tuple(shape) for name, shape in tf.train.list_variables(prefix)}
    found = {tf_internals.full_name(v): tf_internals.full_shape(v) for v in variables}
    assert found == shapes == {"a": (2,), "w": COUNT.shape}


# --- graphs and strategies ---


@pytest.mark.parametrize("use_resource", [True, False])
def test_put_input_is_what_a_new_session_runs_with(graph, use_resource):
    a = variable("a", 1.0, use_resource=use_resource)
    index = [t.name for t in a.initializer.inputs].index("Const:0")
    tf_internals.put_input(a.initializer, index, tf.constant(7.0))
    with v1.Session() as session:
        session.run(a.initializer)
        assert session.run(a) == 7.0


def test_function_graph_has_the_ops_and_the_inputs_of_a_function(graph):
    a, b = variable("a", 1.0), variable("b", 1.0)
    tf.function(lambda: (a.assign_add(1.0), b.read_value()))()
    (call,) = (op for op in graph.get_operations() if op.type == "StatefulPartitionedCall")
    found = tf_internals.function_graph(graph, call.get_attr("f").name)
    assert len(found.inputs) == len(call.inputs) == 2
    types = {op.type for tensor in found.inputs for op in tensor.consumers()}
    assert types == {"AssignAddVariableOp", "ReadVariableOp"}
    assert tf_internals.function_graph(graph, "no such function") is None


def a_strategys(graph, synchronization):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        return v1.get_variable(
            "a",
            initializer=1.0,
            trainable=False,
            synchronization=synchronization,
            aggregation=tf.VariableAggregation.SUM,
        )


@pytest.mark.parametrize("synchronization", ["ON_READ", "ON_WRITE"])
def test_distributed_variable_is_the_one_that_is_saved(graph, synchronization):
    a = a_strategys(graph, getattr(tf.VariableSynchronization, synchronization))
    ((saveable,),) = tf_internals.saveables_by_name([a]).values()
    assert tf_internals.distributed_variable(saveable) is a
    ((saveable,),) = tf_internals.saveables_by_name([variable("b", 1.0)]).values()
    assert tf_internals.distributed_variable(saveable) is None


@pytest.mark.parametrize("synchronization", ["ON_READ", "ON_WRITE"])
def test_op_name_adds_nothing_to_the_graph(graph, synchronization):
    a = a_strategys(graph, getattr(tf.VariableSynchronization, synchronization))
    b = variable("b", 1.0)
    graph.finalize()
    assert [tf_internals.op_name(a), tf_internals.op_name(b)] == ["a", "b"]


def test_replicas_are_the_variables_of_a_strategy_or_the_variable_itself(graph):
    a, b = a_strategys(graph, tf.VariableSynchronization.AUTO), variable("b", 1.0)
    assert [replica.op.name for replica in tf_internals.replicas(a)] == ["a"]
    assert isinstance(tf_internals.replicas(a)[0].op, tf.Operation)
    assert tf_internals.replicas(b)[0] is b


# --- tf.data ---


def test_iterators_are_those_that_were_made(graph):
    dataset = tf.data.Dataset.range(2)
    first = v1.data.make_initializable_iterator(dataset)
    second = v1.data.make_one_shot_iterator(dataset)
    handles = tf_data_internals.iterators(graph)
    assert [one.op.type for one in handles] == ["IteratorV2", "OneShotIterator"]
    assert second.get_next().op.inputs[0] is handles[1]
    assert first.initializer.inputs[1] is handles[0]


def test_is_stateful_as_a_graph_has_it(graph):
    ops = [tf.random.uniform([]).op, tf.constant(1).op]
    assert [tf_data_internals.is_stateful(op.type) for op in ops] == [
        op.op_def.is_stateful for op in ops
    ]
    assert not tf_data_internals.is_stateful("NoSuchOp")


def test_default_attributes_are_those_of_an_op_to_which_nothing_is_said(graph):
    op = tf.raw_ops.StridedSlice(input=[1, 2], begin=[0], end=[1], strides=[1]).op
    defaults = tf_data_internals.default_attributes(op.type)
    assert {name: op.get_attr(name) for name in defaults} == dict.fromkeys(defaults, 0)
    assert "begin_mask" in defaults


def test_input_names_are_one_for_each_input(graph):
    zipped = tf.raw_ops.ConcatV2(values=[[1], [2]], axis=0).op
    printed = tf.raw_ops.PrintV2(input="x")
    assert tf_data_internals.input_names(zipped.node_def) == ["values", "values", "axis"]
    assert tf_data_internals.input_names(printed.node_def) == ["input"]


def test_put_local_init_is_what_a_session_runs(graph):
    fed = v1.placeholder_with_default(1, [])
    v = v1.get_variable("v", initializer=0, trainable=False)
    scaffold = v1.train.Scaffold()
    feeds = {fed: 2}
    tf_data_internals.put_local_init(scaffold, v.assign(fed).op, feeds)
    creator = v1.train.ChiefSessionCreator(scaffold)
    feeds[fed] = 3  # also what is said after
    with v1.train.MonitoredSession(creator) as session:
        assert session.run(v) == 3


# --- model functions and Estimators ---


def test_argument_names_are_those_that_are_left_to_pass():
    def plain(features, labels, mode, params=None, *, config=None):
        raise NotImplementedError

    class Model:
        def method(self, features, mode):
            raise NotImplementedError

        def __call__(self, features, labels):
            raise NotImplementedError

    names = tf_internals.argument_names
    assert names(plain)[:4] == ("features", "labels", "mode", "params")
    assert names(Model().method) == ("features", "mode")
    assert names(Model()) == ("features", "labels")
    assert "params" not in names(functools.partial(plain, params=1))


@pytest.mark.estimator
def test_own_model_fn_is_the_one_that_the_estimator_was_given(tmp_path):
    def model_fn(features, labels, mode):
        raise AssertionError("nothing builds the model")

    estimator = tf.estimator.Estimator(model_fn, str(tmp_path))
    assert tf_internals.own_model_fn(estimator) is model_fn


@pytest.mark.estimator
def test_on_model_fn_keeps_all_but_the_model_fn(tmp_path):
    def model_fn(features, labels, mode, params):
        step = v1.train.get_or_create_global_step()
        value = v1.get_variable("v", initializer=params["start"])
        return tf.estimator.EstimatorSpec(
            mode, loss=value, train_op=step.assign_add(1), predictions={"v": value}
        )

    def other(features, labels, mode, params):
        return model_fn(features, labels, mode, {"start": params["start"] + 1})

    estimator = tf.estimator.Estimator(model_fn, str(tmp_path), params={"start": 1.0})
    assert tf_internals.own_model_fn(estimator) is model_fn
    copy = tf_internals.on_model_fn(estimator, other)
    copy.train(lambda: tf.data.Dataset.from_tensors(([0.0], [0.0])).repeat(), steps=1)
    assert estimator.get_variable_value("v") == 2.0
    assert copy.params == estimator.params
    assert copy.config.model_dir == estimator.config.model_dir
    assert type(copy) is type(estimator)


def test_whole_values_of_the_helper_are_right(graph):
    w = whole(partitioned("w", 3))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(w), COUNT)


def test_create_slots_makes_what_the_first_step_would():
    is_keras_3 = getattr(tf.keras, "__version__", "2.15").startswith("3.")
    keras = __import__("tf_keras") if is_keras_3 else tf.keras
    optimizer, weight = keras.optimizers.legacy.Adam(), tf.Variable([1.0, 2.0])
    tf_internals.create_slots(optimizer, [weight])
    assert optimizer.get_slot_names() == ["m", "v"]
    np.testing.assert_array_equal(optimizer.get_slot(weight, "v"), [0.0, 0.0])
    assert int(optimizer.iterations) == 0
    np.testing.assert_array_equal(weight, [1.0, 2.0])


# --- how a session starts ---


def test_creator_of_own_session(graph):
    """It is asked while a Scaffold builds its saver."""
    found = []

    class Asking(v1.train.Saver):
        def build(self):
            found.append(session_internals.creator_of_own_session(self))
            found.append(session_internals.creator_of_own_session(object()))
            super().build()

    v1.train.get_or_create_global_step()
    scaffold = v1.train.Scaffold(saver=Asking(defer_build=True))
    creator = v1.train.ChiefSessionCreator(scaffold)
    assert session_internals.scaffold_of(creator) is scaffold
    creator.create_session().close()
    assert found == [creator, None]
    server = v1.train.Server.create_local_server()
    v1.train.ChiefSessionCreator(scaffold, server.target).create_session().close()
    scaffold.finalize()
    assert found == [creator, None] + [None] * 4


def test_creator_of_own_session_where_finalize_is_another_function(graph, monkeypatch):
    finalize = v1.train.Scaffold.finalize
    monkeypatch.setattr(v1.train.Scaffold, "finalize", lambda *args: finalize(*args))
    v1.train.get_or_create_global_step()
    found = []

    class Asking(v1.train.Saver):
        def build(self):
            found.append(session_internals.creator_of_own_session(self))
            super().build()

    scaffold = v1.train.Scaffold(saver=Asking(defer_build=True))
    v1.train.ChiefSessionCreator(scaffold).create_session().close()
    assert found == [None]


def test_scaffold_of_a_creator_that_was_given_none():
    creator = v1.train.ChiefSessionCreator()
    assert isinstance(session_internals.scaffold_of(creator), v1.train.Scaffold)


def test_put_session_manager(graph):
    v1.train.get_or_create_global_step()
    creator = v1.train.ChiefSessionCreator()
    manager = v1.train.SessionManager(ready_op=tf.constant(["what it asks"]))
    session_internals.put_session_manager(creator, manager)
    with pytest.raises(RuntimeError, match="not initialized: what it asks"):
        creator.create_session()


def test_is_scaffolds_own_check(graph):
    v1.train.get_or_create_global_step()
    users = v1.report_uninitialized_variables()
    scaffold = v1.train.Scaffold().finalize()
    checks = (scaffold.ready_op, scaffold.ready_for_local_init_op, users, None)
    own = [session_internals.is_scaffolds_own_check(check) for check in checks]
    assert own == [True, True, False, False]


def test_report_resources(graph):
    assert session_internals.report_resources(local=True) is None
    shared, local = (v1.get_variable(name, initializer=1.0) for name in ("shared", "local"))
    for one, is_shared in ((shared, True), (local, False)):
        tf_internals.resources.register_resource(
            one.handle, one.initializer, one.is_initialized(), is_shared
        )
    reports = [session_internals.report_resources(local=one) for one in (False, True)]
    with v1.Session() as session:
        session.run(shared.initializer)
        found = [session.run(report).tolist() for report in reports]
    assert found == [[], [local.handle.name.encode()]]


def test_is_conditional(graph):
    made = []
    v1.disable_control_flow_v2()
    try:
        v1.cond(v1.placeholder(tf.bool), lambda: made.append(tf.no_op()) or 1.0, lambda: 0.0)
    finally:
        v1.enable_control_flow_v2()
    found = [session_internals.is_conditional(op) for op in (*made, tf.no_op())]
    assert found == [True, False]


def test_reader_gives_values_in_the_memory_of_the_variables():
    with tf.Graph().as_default():
        v = v1.get_variable("v", initializer=tf.zeros([100]), use_resource=True)
        add = v1.assign_add(v, tf.ones([100]))
        with v1.Session() as session:
            session.run(v.initializer)
            session.run(add)  # out of the memory of the constant
            read = session_internals.reader(session, [v.read_value()])
            before = read()[0].ctypes.data
            session.run(add)
            (value,) = read()
            assert value.tolist() == [2.0] * 100
            assert value.ctypes.data == before
            assert not value.flags.owndata

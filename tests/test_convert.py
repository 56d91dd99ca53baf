"""Conversion as such: formats, layouts, what stock TensorFlow reads, what stays where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conversion_files import contents, names_in, stock_values, v1, variables_like, write_bundle
from golden_files import golden_case, golden_cases, texts
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state

VALUES = {
    "dense/bias": np.arange(3, dtype=np.float32),
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "global_step": np.array(7, np.int64),
    "odd.name.S/x": np.array([1.5, -2.5]),
}
COUNTER_KEY = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


# --- Names to objects ---


def test_a_stock_checkpoint_consumes_the_result_and_finds_every_value(source, tmp_path):
    convert_checkpoint(source, tmp_path / "out", "checkpoint")
    variables = variables_like(VALUES)
    tf.train.Checkpoint(var_list=variables).restore(str(tmp_path / "out")).assert_consumed()
    for name, variable in variables.items():
        assert variable.numpy().tolist() == VALUES[name].tolist()


def test_the_guides_reader_gets_its_step(source, tmp_path):
    convert_checkpoint(source, tmp_path / "out", "checkpoint")
    variables = variables_like(VALUES)
    step = variables["global_step"]
    reader = tf.train.Checkpoint(var_list=variables, step=step)
    reader.restore(str(tmp_path / "out")).assert_consumed()
    assert step.numpy() == 7


def test_a_tree_of_modules_restores_the_layout_of_scopes(tmp_path):
    values = {
        "encoder/layer/kernel": np.ones((2, 2), np.float32),
        "encoder/layer/bias": np.full(2, 3, np.float32),
        "head": np.full(3, 5, np.float32),
    }
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", layout="scopes")
    model = tf.Module()
    model.encoder = tf.Module()
    model.encoder.layer = tf.Module()
    model.encoder.layer.kernel = tf.Variable(tf.zeros((2, 2)))
    model.encoder.layer.bias = tf.Variable(tf.zeros(2))
    model.head = tf.Variable(tf.zeros(3))
    reader = tf.train.Checkpoint(encoder=model.encoder, head=model.head)
    reader.restore(str(tmp_path / "out")).assert_consumed()
    assert model.encoder.layer.kernel.numpy().tolist() == [[1, 1], [1, 1]]
    assert model.encoder.layer.bias.numpy().tolist() == [3, 3]
    assert model.head.numpy().tolist() == [5, 5, 5]


def test_in_the_layout_of_scopes_a_variable_may_be_a_scope_too(tmp_path):
    values = {"a": np.float32(1), "a/b": np.float32(2), "a/b/.ATTRIBUTES/c": np.float32(3)}
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", layout="scopes")
    found = open_checkpoint(tmp_path / "out")
    assert {n: v.object_path for n, v in found.variables.items() if n != "save_counter"} == {
        "a": "a",
        "a/b": "a/b",
        "a/b/.ATTRIBUTES/c": "a/b/..ATTRIBUTES/c",
    }


@pytest.mark.parametrize("case", golden_cases("name_based", "partitioned", "multi_shard"), ids=str)
def test_goldens_are_consumed_by_a_stock_checkpoint(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "out", "checkpoint")
    values = {variable.name: variable.value for variable in case.variables}
    variables = variables_like(values)
    tf.train.Checkpoint(var_list=variables).restore(str(tmp_path / "out")).assert_consumed()
    for name, variable in variables.items():
        assert texts(variable.numpy()) == texts(values[name])


@pytest.mark.parametrize("case", golden_cases("table_tf1"), ids=str)
def test_the_tensors_of_a_lookup_table_become_one_object(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "out", "checkpoint")
    new_table = tf.lookup.experimental.MutableHashTable
    words = new_table(tf.string, tf.int64, -1)
    vectors = new_table(tf.int64, tf.float32, [0.0, 0.0])
    others = variables_like({"weight": np.zeros(2, np.float32), "global_step": np.int64(0)})
    reader = tf.train.Checkpoint(var_list={"words": words, "vectors": vectors, **others})
    reader.restore(str(tmp_path / "out")).assert_consumed()
    assert words.lookup(tf.constant(["b", "a", "", "c"])).numpy().tolist() == [2, 1, 0, -1]
    assert vectors.lookup(tf.constant([9], tf.int64)).numpy().tolist() == [[3.0, 4.5]]


def test_what_only_ends_like_a_lookup_table_stays_variables(tmp_path):
    values = {
        "attention-keys": np.zeros(3, np.float32),
        "attention-values": np.zeros(3, np.float32),
        "lengths-keys": np.zeros(3, np.int64),
        "lengths-values": np.zeros(2, np.int64),
        "alone-keys": np.zeros(3, np.int64),
    }
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint")
    reader = tf.train.Checkpoint(var_list=variables_like(values))
    reader.restore(str(tmp_path / "out")).assert_consumed()


def test_a_save_counter_of_its_own_is_used(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32(1), "save_counter": np.array(12, np.int64)})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint")
    reader = tf.train.Checkpoint(var_list={"x": tf.Variable(0.0)})
    reader.restore(str(tmp_path / "out")).assert_consumed()
    assert reader.save_counter.numpy() == 12


def test_a_name_that_is_no_utf8_is_refused_for_objects_alone(tmp_path):
    from estimator_ckpt.bundle.entries import Entry
    from estimator_ckpt.bundle.index import Index, write_index

    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(4))
    entry = Entry(1, (), 0, 0, 4, 1214729159)
    write_index(str(tmp_path / "m"), Index(1, {b"caf\xe9": entry}))
    convert_checkpoint(tmp_path / "m", tmp_path / "names", "saver")
    with pytest.raises(CheckpointError, match="no UTF-8"):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint")
    assert contents(tmp_path / "names") == contents(tmp_path / "m")


# --- Objects to names ---


@pytest.mark.parametrize("case", golden_cases("guide", "saved_model", "keras_weights"), ids=str)
def test_objects_get_their_full_names(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "out", "saver")
    expected = {variable.name: variable.value.tolist() for variable in case.variables}
    assert stock_values(tmp_path / "out") == expected


def test_a_stock_saver_restores_the_result(tmp_path):
    case = golden_case("2.15", "guide")
    convert_checkpoint(case.prefix, tmp_path / "out", "saver")
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("dense/kernel", (2, 3))
        step = v1.train.create_global_step()
        v1.train.Saver().restore(session, str(tmp_path / "out"))
        assert session.run(step) == 7
        assert session.run(kernel).tolist() == [[10, 11, 12], [13, 14, 15]]


def test_names_that_clash_or_are_empty_come_from_the_object_path_and_it_is_said(tmp_path):
    case = golden_case("2.15", "object_based")
    result = convert_checkpoint(case.prefix, tmp_path / "out", "saver")
    whys = {row.targets[0]: row.why for row in result.rows if row.targets}
    assert whys["model/nested/a/b/0"] == ("its object path, as 2 have the full name 'Variable'")
    assert whys["odd/.S"] == "its object path, as 2 have the full name 'Variable'"
    assert whys["words"] == "its object path, as it has no full name"
    assert whys["second/kernel"] == "its full name"


def eager_adam(directory, count=1):
    """A checkpoint of an eager TF1 optimizer, the `count`-th one of its variables."""
    one, two = tf.Variable([1.0]), tf.Variable([2.0, 3.0])
    for _ in range(count):
        optimizer = v1.train.AdamOptimizer()
        optimizer.apply_gradients([(tf.ones_like(v), v) for v in (one, two)])
    objects = tf.train.Checkpoint(model={"one": one, "two": two}, optimizer=optimizer)
    return objects.write(str(directory / "m"))


@pytest.mark.parametrize("count", [1, 2])
def test_slots_of_eager_tf1_optimizers_get_the_names_of_a_graph(count, tmp_path):
    convert_checkpoint(eager_adam(tmp_path, count), tmp_path / "out", "saver")
    assert stock_values(tmp_path / "out").keys() == {
        "beta1_power",
        "beta2_power",
        "model/one",
        "model/one/Adam",
        "model/one/Adam_1",
        "model/two",
        "model/two/Adam",
        "model/two/Adam_1",
    }


def test_two_optimizers_of_one_variable_share_no_name(tmp_path):
    variable = tf.Variable([1.0])
    optimizers = [v1.train.MomentumOptimizer(0.1, 0.9) for _ in range(2)]
    for factor, optimizer in enumerate(optimizers, start=1):
        optimizer.apply_gradients([(tf.constant([float(factor)]), variable)])
    objects = tf.train.Checkpoint(x=variable, one=optimizers[0], two=optimizers[1])
    source = objects.write(str(tmp_path / "m"))
    for name, settings in (("plain", {}), ("renamed", {"rename": {"Variable": "y"}})):
        convert_checkpoint(source, tmp_path / name, "saver", **settings)
        values = sorted(value[0] for value in stock_values(tmp_path / name).values())
        assert values == pytest.approx([0.7, 1.0, 2.0])


def test_a_save_counter_of_zero_has_no_name(source, tmp_path):
    convert_checkpoint(source, tmp_path / "objects", "checkpoint")
    result = convert_checkpoint(tmp_path / "objects", tmp_path / "names", "saver")
    assert stock_values(tmp_path / "names").keys() == VALUES.keys()
    assert ("left out", COUNTER_KEY) in [(row.action, row.source) for row in result.rows]


# --- Both ---


def test_both_kinds_of_stock_reader_read_both(source, tmp_path):
    result = convert_checkpoint(source, tmp_path / "out", "both")
    assert open_checkpoint(tmp_path / "out").format == "both"
    variables = variables_like(VALUES)
    tf.train.Checkpoint(var_list=variables).restore(str(tmp_path / "out")).assert_consumed()
    found = stock_values(tmp_path / "out")
    for name, value in VALUES.items():
        assert variables[name].numpy().tolist() == value.tolist() == found[name]
    assert result.checkpoint_format == "both"


def test_objects_keep_their_structure_and_get_names_beside(tmp_path):
    case = golden_case("2.15", "object_based")
    convert_checkpoint(case.prefix, tmp_path / "out", "both")
    before, after = open_checkpoint(case.prefix), open_checkpoint(tmp_path / "out")
    assert after.object_graph.nodes == before.object_graph.nodes
    assert {v.object_path for v in after.variables.values()} == {
        v.object_path for v in before.variables.values()
    }
    assert "first/kernel" in stock_values(tmp_path / "out")


@pytest.mark.parametrize("case", golden_cases(), ids=str)
@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_every_golden_becomes_a_whole_checkpoint_of_each_format(case, checkpoint_format, tmp_path):
    result = convert_checkpoint(case.prefix, tmp_path / "out", checkpoint_format)
    assert result.written
    assert verify_checkpoint(tmp_path / "out").faults == ()
    assert open_checkpoint(tmp_path / "out").format == checkpoint_format
    values = {row.source: row.targets for row in result.rows if row.targets and row.source}
    before, after = contents(case.prefix), contents(tmp_path / "out")
    for key, targets in values.items():
        if key != OBJECT_GRAPH_KEY:
            assert {after[target] for target in targets} == {before[key]}


# --- The files ---


def test_the_data_files_are_the_sources_under_other_names(source, tmp_path):
    result = convert_checkpoint(source, tmp_path / "out", "checkpoint")
    linked, new = tmp_path / "out.data-00000-of-00002", tmp_path / "out.data-00001-of-00002"
    assert result.data_files == ((str(linked), "link"), (str(new), "write"))
    assert os.path.samefile(linked, f"{source}.data-00000-of-00001")
    assert names_in(tmp_path) == [
        "checkpoint",
        linked.name,
        new.name,
        "out.index",
        "source",
    ]


def test_a_name_based_result_has_no_data_file_of_the_object_graph_alone(source, tmp_path):
    convert_checkpoint(source, tmp_path / "objects", "checkpoint")
    result = convert_checkpoint(tmp_path / "objects", tmp_path / "names", "saver")
    assert [how for _, how in result.data_files] == ["link"]
    assert Path(f"{tmp_path}/names.index").read_bytes() == Path(f"{source}.index").read_bytes()


def test_copies_are_independent_files_and_are_compared(source, tmp_path):
    result = convert_checkpoint(source, tmp_path / "out", "both", copy=True)
    assert result.data_files[0][1] in ("copy", "reflink")
    assert not os.path.samefile(result.data_files[0][0], f"{source}.data-00000-of-00001")
    assert result.verified == 10  # 4 names, 4 objects, the save_counter, the object graph


def test_the_source_is_never_touched(source, tmp_path):
    def everything():
        return {path: path.read_bytes() for path in Path(source).parent.iterdir()}

    before = everything()
    for checkpoint_format in ("saver", "checkpoint", "both"):
        convert_checkpoint(source, tmp_path / checkpoint_format, checkpoint_format)
    assert everything() == before


def test_a_directory_as_destination_keeps_the_name_and_gets_a_state_file(source, tmp_path):
    directory = Path(source).parent
    times = CheckpointState(source, (str(directory / "other-1"), source), (1000.5, 2000.25))
    write_state(str(directory), times)
    result = convert_checkpoint(source, f"{tmp_path}/new/dir/", "both")
    new = str(tmp_path / "new" / "dir" / "model.ckpt-7")
    assert result.destination == new
    assert tf.train.latest_checkpoint(str(tmp_path / "new" / "dir")) == new
    assert read_state(str(tmp_path / "new" / "dir")) == CheckpointState(new, (new,), (2000.25,))


def test_a_directory_with_other_checkpoints_gets_no_state_file(source, tmp_path):
    beside = f"{source}-both"
    convert_checkpoint(source, beside, "both")
    assert "checkpoint" not in names_in(Path(source).parent)


def test_the_graph_beside_a_checkpoint_goes_along_where_its_names_do(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("x", initializer=5.0)
        v1.get_variable("z", initializer=6.0)
        session.run(v1.global_variables_initializer())
        source = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=3)
    convert_checkpoint(source, tmp_path / "both", "both")
    for name, settings in (
        ("objects", {"checkpoint_format": "checkpoint"}),
        ("renamed", {"checkpoint_format": "saver", "rename": {"x": "y"}}),
        ("less", {"checkpoint_format": "saver", "exclude": ["x"]}),
        ("cast", {"checkpoint_format": "saver", "dtype": "float64"}),
    ):
        convert_checkpoint(source, tmp_path / name, **settings)
        assert f"{name}.meta" not in names_in(tmp_path)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(str(tmp_path / "both.meta"))
        saver.restore(session, str(tmp_path / "both"))
        assert session.run(graph.get_tensor_by_name("x/Read/ReadVariableOp:0")) == 5.0


def test_a_state_file_that_is_there_is_left_alone(source, tmp_path):
    (tmp_path / "new").mkdir()
    there = tmp_path / "new" / "checkpoint"
    there.write_text('model_checkpoint_path: "mine"\n')
    convert_checkpoint(source, tmp_path / "new", "both")
    assert there.read_text() == 'model_checkpoint_path: "mine"\n'


def test_a_model_dir_stands_for_its_newest_checkpoint_and_becomes_a_directory(tmp_path):
    case = golden_case("2.15", "estimator")
    result = convert_checkpoint(case.directory, tmp_path / "out", "checkpoint")
    assert result.source == case.prefix
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == str(tmp_path / "out/model.ckpt-3")


def test_the_variables_of_a_saved_model(tmp_path):
    case = golden_case("2.15", "saved_model")
    result = convert_checkpoint(case.directory, tmp_path / "out", "saver")
    assert (result.source, result.destination) == (case.prefix, str(tmp_path / "out"))

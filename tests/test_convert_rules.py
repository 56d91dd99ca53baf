"""What is renamed, left out, cast and made compact; structures like another's; the dry run."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from convert_helper import contents, names_in, stock_values, v1, variables_like, write_bundle
from goldens_helper import golden_case, golden_cases

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import ConflictError, MismatchError, SettingsError
from estimator_ckpt.object_graph import OBJECT_GRAPH_KEY

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
VALUES = {
    "model/dense/kernel": KERNEL,
    "model/dense/kernel/Adam": KERNEL / 2,
    "model/dense/kernel/Adam_1": KERNEL / 4,
    "beta1_power": np.float32(0.5),
    "beta2_power": np.float32(0.25),
    "global_step": np.array(7, np.int64),
}
COUNTER_KEY = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"


def key_of(path):
    return f"{path}/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


def plan(source, checkpoint_format="saver", **settings):
    result = convert_checkpoint(source, "/nowhere/out", checkpoint_format, dry_run=True, **settings)
    return {row.source: (row.action, row.targets) for row in result.rows if row.source}


# --- Renames, maps, exclusions ---


def test_rules_change_names_in_the_keys_of_a_name_based_result(source, tmp_path):
    convert_checkpoint(
        source,
        tmp_path / "out",
        "saver",
        rename={"model/(.*)": r"net/\1"},
        exclude=[".*Adam.*", "beta._power"],
    )
    assert stock_values(tmp_path / "out") == {"net/dense/kernel": KERNEL.tolist(), "global_step": 7}


def test_rules_change_names_before_they_become_objects(source, tmp_path):
    convert_checkpoint(
        source, tmp_path / "out", "checkpoint", assignment_map={"model/": "/"}, layout="scopes"
    )
    found = open_checkpoint(tmp_path / "out").variables
    assert found["dense/kernel"].object_path == "dense/kernel"
    assert found["dense/kernel/Adam_1"].object_path == "dense/kernel/Adam_1"


def test_slices_of_a_partitioned_variable_are_renamed_with_it(tmp_path):
    case = golden_case("2.15", "partitioned")
    convert_checkpoint(case.prefix, tmp_path / "out", "saver", rename={"rows/(.*)": r"new/\1"})
    assert verify_checkpoint(tmp_path / "out").faults == ()
    assert (
        stock_values(tmp_path / "out")["new/embedding"]
        == (stock_values(case.prefix)["rows/embedding"])
    )


def test_one_variable_can_go_to_two_names(source, tmp_path):
    twice = [("model/dense/kernel", "a"), ("model/dense/kernel", "b")]
    convert_checkpoint(source, tmp_path / "out", "both", assignment_map=twice)
    reader = tf.train.load_checkpoint(str(tmp_path / "out"))
    for key in ("a", "b", key_of("var_list/a"), key_of("var_list/b")):
        assert reader.get_tensor(key).tolist() == KERNEL.tolist()


def test_an_assignment_map_may_name_objects_by_their_path(tmp_path):
    case = golden_case("2.15", "saved_model")
    convert_checkpoint(
        case.prefix, tmp_path / "out", "saver", assignment_map={"layers/0/": "bottom/"}
    )
    assert stock_values(tmp_path / "out").keys() == {
        "bottom/kernel",
        "bottom/bias",
        "second/kernel",
        "second/bias",
    }


def test_where_objects_stay_rules_change_the_names_that_they_tell(tmp_path):
    case = golden_case("2.15", "saved_model")
    convert_checkpoint(case.prefix, tmp_path / "out", "both", rename={"first/(.*)": r"1st/\1"})
    kernel = open_checkpoint(tmp_path / "out").variables["1st/kernel"]
    assert kernel.keys == ("1st/kernel", key_of("layers/0/kernel"))
    assert verify_checkpoint(tmp_path / "out").faults == ()


def test_where_objects_stay_what_is_left_out_loses_its_value_alone(tmp_path):
    case = golden_case("2.15", "saved_model")
    convert_checkpoint(case.prefix, tmp_path / "out", "checkpoint", exclude=[".*/bias"])
    assert contents(tmp_path / "out").keys() == {
        key_of("layers/0/kernel"),
        key_of("layers/1/kernel"),
    }
    assert verify_checkpoint(tmp_path / "out").faults == ()
    module = tf.Module()
    module.layers = [tf.Module(), tf.Module()]
    for layer in module.layers:
        layer.kernel = tf.Variable(tf.zeros((2, 3)))
    tf.train.Checkpoint(root=module).read(str(tmp_path / "out")).assert_consumed()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rename": {"nothing": "x"}}, "rename[0]"),
        ({"exclude": ["dense"]}, "exclude[0]"),
        ({"assignment_map": {"dense/": "x/"}}, "assignment_map[0]"),
        ({"dtype": "float32"}, "dtype"),
        ({"dtype": {"int32": "int64"}}, "dtype"),
    ],
)
def test_what_applies_to_nothing_is_an_error(settings, key, source, tmp_path):
    with pytest.raises(SettingsError) as raised:
        convert_checkpoint(source, tmp_path / "out", "both", **settings)
    assert raised.value.key == key
    assert names_in(tmp_path) == ["source"]


def test_two_sources_for_one_target_are_an_error(source, tmp_path):
    with pytest.raises(ConflictError, match=r"'beta1_power' .* and 'beta2_power' .* would both"):
        convert_checkpoint(source, tmp_path / "out", "both", rename={"beta._power": "beta_power"})
    assert names_in(tmp_path) == ["source"]


def test_a_name_that_is_the_key_of_the_object_graph_is_a_conflict(source, tmp_path):
    with pytest.raises(ConflictError):
        convert_checkpoint(
            source, tmp_path / "out", "both", rename={"beta1_power": OBJECT_GRAPH_KEY}
        )


def test_nothing_left_is_an_error(source, tmp_path):
    with pytest.raises(SettingsError, match="nothing would be left"):
        convert_checkpoint(source, tmp_path / "out", "saver", exclude=[".*"])


# --- Slots left out ---


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("slots_tf1", {"dense/bias", "dense/kernel", "embedding", "global_step"}),
        ("slots_object", {"dense/bias", "dense/kernel", "save_counter"}),
        ("slots_keras_legacy", {"dense/bias", "dense/kernel", "save_counter"}),
        ("optimizer_keras", {"dense/bias", "dense/kernel", "save_counter"}),
        ("estimator_guide", {"dense/bias", "dense/kernel", "global_step"}),
        ("guide", {"dense/bias", "dense/kernel", "odd.name.S/x", "global_step", "save_counter"}),
    ],
)
def test_drop_slots_leaves_out_all_that_is_the_optimizers(kind, left, tmp_path):
    for case in golden_cases(kind):
        out = tmp_path / case.version
        convert_checkpoint(case.prefix, out, "saver", drop_slots=True)
        assert stock_values(out).keys() == left
        assert verify_checkpoint(out).faults == ()


def test_drop_slots_where_objects_stay(tmp_path):
    case = golden_case("2.15", "slots_keras_legacy")
    convert_checkpoint(case.prefix, tmp_path / "out", "checkpoint", drop_slots=True)
    assert verify_checkpoint(tmp_path / "out").faults == ()
    model = tf.Module()
    model.kernel, model.bias = tf.Variable(tf.zeros((2, 3))), tf.Variable(tf.zeros(3))
    tf.train.Checkpoint(model=model).restore(str(tmp_path / "out")).assert_consumed()


def test_a_variable_that_only_ends_like_a_slot_stays(tmp_path):
    values = {
        "Adam": np.float32(1),
        "x/Adam": np.zeros(2, np.float32),
        "x": np.zeros(3, np.float32),
    }
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver", drop_slots=True)
    assert stock_values(tmp_path / "out").keys() == values.keys()


# --- Like another ---


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros((2, 3)), name="net/dense/kernel")
        self.extra = tf.Variable(tf.zeros(2), name="net/extra")


def write_template(tmp_path, **objects):
    return tf.train.Checkpoint(**objects).save(str(tmp_path / "template"))


def test_like_a_checkpoint_takes_its_structure_and_the_sources_values(tmp_path):
    write_bundle(
        tmp_path / "m", {"model/dense/kernel": KERNEL, "model/extra": np.ones(2, np.float32)}
    )
    net = Net()
    template = write_template(tmp_path, blocks=[net])
    convert_checkpoint(
        tmp_path / "m",
        tmp_path / "out",
        "checkpoint",
        like=template,
        rename={"model/(.*)": r"net/\1"},
    )
    tf.train.Checkpoint(blocks=[net]).restore(str(tmp_path / "out")).assert_consumed()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()
    assert net.extra.numpy().tolist() == [1, 1]


def test_like_a_checkpoint_given_in_python(tmp_path):
    write_bundle(tmp_path / "m", {"net/dense/kernel": KERNEL, "net/extra": np.ones(2, np.float32)})
    net = Net()
    objects = tf.train.Checkpoint(net=net)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "both", like=objects)
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()
    assert open_checkpoint(tmp_path / "out").format == "both"


def test_places_are_found_by_their_object_path_too_and_the_step_by_its_place(tmp_path):
    values = {"a/0": np.ones(2, np.float32), "a/1": np.zeros(2, np.float32)}
    write_bundle(tmp_path / "m", {**values, "global_step": np.array(9, np.int64)})
    one, two = tf.Variable(tf.zeros(2)), tf.Variable(tf.zeros(2))  # both are named Variable
    step = tf.Variable(0, dtype=tf.int64)
    objects = tf.train.Checkpoint(a=[one, two], step=step)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=objects)
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert (one.numpy().tolist(), step.numpy()) == ([1, 1], 9)


def test_one_variable_for_two_places_is_told(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32(1)})
    objects = {"x": tf.Variable(1.0, name="y"), "z": tf.Variable(1.0, name="x")}
    template = write_template(tmp_path, **objects)
    with pytest.raises(MismatchError, match=r"two places +x +y and x|two places +x +x and y"):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=template)


def test_all_that_does_not_fit_the_other_structure_is_listed(source, tmp_path):
    template = write_template(tmp_path, net=Net())
    before = names_in(tmp_path)
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=template)
    message = str(raised.value)
    assert message.splitlines()[0].endswith(f"8 variables do not fit the objects of {template}:")
    assert "missing   net/dense/kernel" in message
    assert "did you mean model/dense/kernel?" in message
    assert "missing   net/extra" in message
    assert "no place  model/dense/kernel/Adam_1" in message
    assert names_in(tmp_path) == before


def test_another_shape_or_dtype_does_not_fit(tmp_path):
    values = {"net/dense/kernel": KERNEL.T.copy(), "net/extra": np.ones(2, np.float64)}
    write_bundle(tmp_path / "m", values)
    template = write_template(tmp_path, net=Net())
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=template)
    assert "shape    net/dense/kernel  float32[2,3]  float32[3,2]" in str(raised.value)
    assert "dtype    net/extra         float32       float64" in str(raised.value)


def test_like_a_name_based_checkpoint_is_an_error(source, tmp_path):
    with pytest.raises(SettingsError, match="found a name-based one") as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=source)
    assert raised.value.key == "like"


def test_like_and_without_slots(source, tmp_path):
    kernel = tf.Variable(tf.zeros((2, 3)), name="model/dense/kernel")
    optimizer = v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.ones_like(kernel), kernel)])
    template = write_template(tmp_path, kernel=kernel, optimizer=optimizer)
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=template,
        drop_slots=True,
        exclude=["global_step"],
    )
    assert contents(tmp_path / "out").keys() == {key_of("kernel"), COUNTER_KEY}


# --- Casts ---


def test_a_cast_streams_values_into_new_data_files(source, tmp_path):
    result = convert_checkpoint(source, tmp_path / "out", "both", dtype="bfloat16")
    found = open_checkpoint(tmp_path / "out")
    assert found.variables["model/dense/kernel"].dtype == "bfloat16"
    assert found.variables["global_step"].dtype == "int64"
    assert stock_values(tmp_path / "out")["model/dense/kernel/Adam_1"] == [
        [0, 0.25, 0.5],
        [0.75, 1, 1.25],
    ]
    assert {how for _, how in result.data_files} == {"write"}
    assert result.verified == 14
    assert verify_checkpoint(tmp_path / "out").unused_bytes == 0


@pytest.mark.parametrize(
    ("source_dtype", "target"),
    [
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("float32", "float64"),
        ("float64", "float32"),
        ("int64", "int32"),
        ("int32", "int64"),
    ],
)
def test_casts_are_those_of_numpy(source_dtype, target, tmp_path):
    values = np.array([0, 1, -2, 100, 3.14159, -1e-3]).astype(source_dtype)
    write_bundle(tmp_path / "m", {"x": values, "empty": values[:0]})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver", dtype={source_dtype: target})
    expected = values.astype(getattr(ml_dtypes, target, target))
    found = open_checkpoint(tmp_path / "out").get_tensor("x")
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


def test_slices_are_cast_too(tmp_path):
    case = golden_case("2.15", "partitioned")
    convert_checkpoint(case.prefix, tmp_path / "out", "both", dtype={"float32": "float64"})
    assert verify_checkpoint(tmp_path / "out").faults == ()
    assert (
        stock_values(tmp_path / "out")["columns/kernel"]
        == (stock_values(case.prefix)["columns/kernel"])
    )


def test_a_large_tensor_is_cast_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("estimator_ckpt.transfer._CHUNK", 64)
    values = np.arange(1001, dtype=np.float32)
    write_bundle(tmp_path / "m", {"x": values})
    seen = []
    convert_checkpoint(
        tmp_path / "m",
        tmp_path / "out",
        "saver",
        dtype="float64",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert open_checkpoint(tmp_path / "out").get_tensor("x").tolist() == values.tolist()
    assert seen[-1] == (8008, 8008)
    assert len(seen) == 63


@pytest.mark.parametrize(
    ("values", "target", "message"),
    [
        (np.float32([1, 1e6]), "float16", "1000000.0 is beyond the range of float16"),
        (np.float64([1, -1e300]), "float32", "is beyond the range of float32"),
        (np.int64([1, 2**31]), "int32", "2147483648 is beyond the range of int32"),
        (np.int64([-1]), "uint32", "-1 is beyond the range of uint32"),
    ],
)
def test_a_number_beyond_the_range_is_an_error_with_its_key(values, target, message, tmp_path):
    write_bundle(tmp_path / "m", {"x": values})
    with pytest.raises(MismatchError, match=message) as raised:
        convert_checkpoint(
            tmp_path / "m", tmp_path / "out", "saver", dtype={values.dtype.name: target}
        )
    assert raised.value.key == "x"
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_infinities_and_nan_are_cast(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32([np.inf, -np.inf, np.nan])})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver", dtype="float16")
    assert list(map(str, open_checkpoint(tmp_path / "out").get_tensor("x"))) == [
        "inf",
        "-inf",
        "nan",
    ]


# --- Compact ---


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_compact_writes_the_same_values_and_no_byte_more(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "linked", "both")
    result = convert_checkpoint(case.prefix, tmp_path / "out", "both", compact=True)
    report = verify_checkpoint(tmp_path / "out")
    assert (report.faults, report.unused_bytes) == ((), 0)
    assert result.verified is not None
    assert contents(tmp_path / "out") == contents(tmp_path / "linked")


def test_compact_keeps_the_number_of_data_files(tmp_path):
    case = golden_case("2.15", "multi_shard")
    result = convert_checkpoint(case.prefix, tmp_path / "out", "both", compact=True)
    assert [how for _, how in result.data_files] == ["write"] * 3


def test_what_is_left_out_stays_in_linked_data_files_and_not_in_compact_ones(source, tmp_path):
    settings = {"exclude": [".*Adam.*"]}
    convert_checkpoint(source, tmp_path / "linked", "saver", **settings)
    convert_checkpoint(source, tmp_path / "compact", "saver", compact=True, **settings)
    assert verify_checkpoint(tmp_path / "linked").unused_bytes == 48
    assert verify_checkpoint(tmp_path / "compact").unused_bytes == 0


# --- The dry run ---


def test_a_dry_run_tells_the_whole_plan_and_touches_nothing(source, tmp_path):
    before = names_in(tmp_path)
    result = convert_checkpoint(
        source,
        tmp_path / "out",
        "both",
        rename={"model/(.*)": r"net/\1"},
        exclude=["beta1_power"],
        dry_run=True,
    )
    assert names_in(tmp_path) == before
    assert not result.written
    rows = {row.source or row.targets[-1]: row[:1] + row[2:] for row in result.rows}
    assert rows["model/dense/kernel"] == (
        "renamed",
        ("net/dense/kernel", key_of("var_list/net.Sdense.Skernel")),
        r"rename model/(.*) -> net/\1",
        24,
    )
    assert rows["beta1_power"] == ("left out", (), "exclude beta1_power", 4)
    assert rows["global_step"] == ("kept", ("global_step", key_of("var_list/global_step")), "", 8)
    assert rows[COUNTER_KEY] == ("added", (COUNTER_KEY,), "wanted by tf.train.Checkpoint", 8)
    assert rows[OBJECT_GRAPH_KEY][0] == "added"
    assert len(rows) == len(VALUES) + 2


def test_a_dry_run_finds_the_same_errors(source, tmp_path):
    with pytest.raises(SettingsError):
        plan(source, exclude=["nothing"])
    write_bundle(tmp_path / "out", {"x": np.float32(1)})
    with pytest.raises(Exception, match="there already"):
        convert_checkpoint(source, tmp_path / "out", "both", dry_run=True)


def test_the_plan_of_a_cast(source):
    found = plan(source, dtype="float16", drop_slots=True)
    assert found["model/dense/kernel"] == ("cast", ("model/dense/kernel",))
    assert found["model/dense/kernel/Adam"] == ("left out", ())
    assert found["beta2_power"] == ("left out", ())


def test_the_plan_of_objects_left_behind(tmp_path):
    convert_checkpoint(
        write_bundle(tmp_path / "m", {"x": np.float32(1)}), tmp_path / "objects", "checkpoint"
    )
    found = plan(tmp_path / "objects")
    assert found == {
        key_of("var_list/x"): ("renamed", ("x",)),
        COUNTER_KEY: ("left out", ()),
        OBJECT_GRAPH_KEY: ("left out", ()),
    }


def test_the_values_are_the_same_under_every_rule(source, tmp_path):
    convert_checkpoint(source, tmp_path / "out", "both", assignment_map={"/": "all/"})
    reader = tf.train.Checkpoint(
        var_list=variables_like({f"all/{name}": value for name, value in VALUES.items()})
    )
    reader.restore(str(tmp_path / "out")).assert_consumed()
    found = stock_values(tmp_path / "out")
    assert {name: found[f"all/{name}"] for name in VALUES} == {
        name: value.tolist() for name, value in VALUES.items()
    }

"""What is renamed and left out, and the dry run that tells it."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import contents, names_in, stock_values, v1, variables_like, write_bundle
from golden_files import golden_case, golden_cases
from stock_files import save, value
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.objects.nodes import Node
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph

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


def test_an_exclusion_may_name_objects_by_their_path_and_a_rename_may_not(tmp_path):
    case = golden_case("2.15", "saved_model")
    found = plan(case.prefix, exclude=["layers/0/.*"])
    assert found[key_of("layers/0/kernel")] == ("left out", ())
    assert found[key_of("layers/1/kernel")] == ("renamed", ("second/kernel",))
    with pytest.raises(SettingsError, match="matches none"):
        plan(case.prefix, rename={"layers/0/(.*)": r"bottom/\1"})


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


def test_where_objects_stay_a_new_name_means_one_of_them_alone(tmp_path):
    layers = [tf.Module(), tf.Module()]
    for number, layer in enumerate(layers):
        layer.kernel = tf.Variable([float(number)], name="kernel")
    prefix = tf.train.Checkpoint(a=layers[0], b=layers[1]).save(str(tmp_path / "m"))
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", rename={"a/kernel": "kernel"})
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("kernel", [1])
        v1.train.Saver([kernel]).restore(session, str(tmp_path / "out"))
        assert session.run(kernel).tolist() == [0]
    assert open_checkpoint(tmp_path / "out").get_tensor("b/kernel").tolist() == [1]


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_where_objects_stay_what_none_of_them_has_is_renamed_by_its_key(
    checkpoint_format, tmp_path
):
    source = save(
        tmp_path / "m",
        {key_of("x"): [1.0], "a": [2.0], "b": [3.0]},
        ObjectGraph([Node({"x": 1}), Node({}, (value("x", key_of("x")),))]),
    )
    rename = {"a": "b", "b": "c"}
    convert_checkpoint(source, tmp_path / "out", checkpoint_format, rename=rename)
    found = stock_values(tmp_path / "out")
    names = {"x": [1]} if checkpoint_format == "both" else {}
    assert found == {key_of("x"): [1], "b": [2], "c": [3], **names}


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
@pytest.mark.parametrize("reader", ["paths", "var_list"])
def test_where_objects_stay_no_reader_takes_what_is_left_out_for_restored(
    reader, checkpoint_format, tmp_path
):
    def objects(kernel, bias):
        model = tf.Module()
        model.kernel, model.bias = tf.Variable(kernel), tf.Variable(bias)
        return model, {"kernel": model.kernel, "bias": model.bias}

    model, names = objects([1.0], [2.0])
    prefix = tf.train.Checkpoint(model=model, var_list=names).save(str(tmp_path / "m"))
    convert_checkpoint(prefix, tmp_path / "out", checkpoint_format, exclude=["bias"])
    model, names = objects([0.0], [0.0])
    whole = {"model": model} if reader == "paths" else {"var_list": names}
    status = tf.train.Checkpoint(**whole).restore(str(tmp_path / "out"))
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        status.assert_existing_objects_matched()
    del model.bias, names["bias"]
    tf.train.Checkpoint(**whole).restore(str(tmp_path / "out")).assert_consumed()
    assert model.kernel.numpy().tolist() == [1]


@pytest.mark.parametrize("objects_stay", [True, False])
@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ({}, False),  # slots go along
        ({"rename": {"(.*)/rows": r"\1/row"}}, True),
    ],
)
def test_a_scope_is_not_left_in_the_place_of_a_variable(rules, refused, objects_stay, tmp_path):
    values = {
        "net/kernel": np.float32([1, 2]),
        "net/kernel/Adam": np.float32([3, 3]),
        "net/kernel/rows": np.float32([4]),
        "net/bias": np.float32([9]),
    }
    source, layout = write_bundle(tmp_path / "m", values), "scopes"
    if objects_stay:
        convert_checkpoint(source, tmp_path / "objects", "checkpoint", layout=layout)
        source, layout = tmp_path / "objects", None

    def convert(**settings):
        convert_checkpoint(source, tmp_path / "out", "checkpoint", layout=layout, **settings)

    if refused:
        with pytest.raises(ConflictError, match="count as restored") as raised:
            convert(exclude=["net/kernel"], **rules)
        assert (raised.value.key, (tmp_path / "out.index").exists()) == ("net/kernel", False)
    convert(exclude=["net/kernel"])
    net = tf.Module()
    net.kernel, net.bias = tf.Variable([0.0, 0.0]), tf.Variable([0.0])
    status = tf.train.Checkpoint(net=net).restore(str(tmp_path / "out"))
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        status.assert_existing_objects_matched()
    del net.kernel
    tf.train.Checkpoint(net=net).restore(str(tmp_path / "out")).assert_consumed()
    assert net.bias.numpy().tolist() == [9]


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


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"exclude": ["words-values"]}, "is left out"),
        ({"rename": {"words-keys": "terms-keys"}}, "becomes 'terms-keys'"),
        ({"rename": {"words-(keys)": r"terms-\1", "words-(values)": r"other-\1"}}, "other-values"),
        (
            {
                "assignment_map": [("words-keys", f"{to}-keys") for to in "ab"]
                + [("words-values", "b-values")]
            },
            "'words-keys' becomes 'a-keys'",
        ),
    ],
)
def test_a_rule_takes_both_tensors_of_a_lookup_table(rules, words, tmp_path):
    table = {"words-keys": np.array([b"a", b"b"], object), "words-values": np.array([1, 2])}
    source = write_bundle(tmp_path / "m", table)
    with pytest.raises(ConflictError, match=words) as raised:
        plan(source, **rules)
    assert "'words-keys'" in str(raised.value)
    assert "'words-values'" in str(raised.value)
    both = plan(source, rename={"words-(.*)": r"terms-\1"})
    assert both["words-values"] == ("renamed", ("terms-values",))


def test_a_lookup_table_may_go_to_two_places(tmp_path):
    table = {"words-keys": np.array([b"a", b"b"], object), "words-values": np.array([1, 2])}
    source = write_bundle(tmp_path / "m", table)
    twice = [("words-keys", "a-keys"), ("words-keys", "b-keys")]
    twice += [("words-values", "b-values"), ("words-values", "a-values")]
    convert_checkpoint(source, tmp_path / "out", "saver", assignment_map=twice)
    assert stock_values(tmp_path / "out") == {
        **{f"{to}-keys": [b"a", b"b"] for to in "ab"},
        **{f"{to}-values": [1, 2] for to in "ab"},
    }

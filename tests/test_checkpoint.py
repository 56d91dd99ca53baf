"""open_checkpoint: what it accepts, what it says of the variables, how it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import logging
from golden_files import GoldenCase, golden_cases
from own_files import add_keys
from stock_files import data_file, edit_index, rename, save, value
from tensorflow_party import tf

from estimator_ckpt import open_checkpoint
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, write_index
from estimator_ckpt.errors import (
    CheckpointError,
    MissingTensorError,
)
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import (
    OBJECT_GRAPH_KEY,
    ObjectGraph,
    flat_graph,
    flat_key,
    object_key,
    path_string,
)

TENSORS = {"dense/bias": np.float32([1, 2]), "dense/kernel": np.float32([[3, 4], [5, 6]])}


def flat_tensors(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the default object-based structure."""
    keyed = {flat_key(name): tensor for name, tensor in tensors.items()}
    return {**keyed, object_key("save_counter"): np.int64(0)}


def save_flat(prefix: Path, tensors: dict[str, Any], **names: Any) -> str:
    return save(
        prefix,
        {**flat_tensors(tensors), **names},
        flat_graph(dict.fromkeys(tensors, VARIABLE_VALUE)),
    )


def error_of(path: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return caught.value


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as a warning."""
    found: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: found.append(text % args))
    return found


# --- goldens ---


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_goldens(case: GoldenCase) -> None:
    with open_checkpoint(case.prefix) as checkpoint:
        assert checkpoint.format == case.format
        assert checkpoint.global_step == case.global_step
        by_key = {key: one for one in checkpoint.variables.values() for key in one.keys}
        assert by_key.keys() == {k for golden in case.variables for k in (golden.key, *golden.also)}
        for golden in case.variables:
            variable = by_key[golden.key]
            assert checkpoint.variables[variable.name] is variable
            assert (variable.shape, variable.dtype) == (golden.shape, golden.dtype)
            assert variable.slices == golden.slices
            if golden.object_path is not None:
                assert variable.object_path == path_string(golden.object_path)
            if golden.name not in (None, "Variable"):  # which several of them have
                assert variable.name == golden.name
            if golden.slot_of is not None:
                assert variable.slot_of == by_key[golden.slot_of].name
                assert variable.slot_name == golden.slot_name
            if golden.value is not None:
                found, expected = checkpoint.get_tensor(variable.name), golden.value
                if found.dtype.isbuiltin != 1:  # NumPy cannot compare NaN of these
                    found, expected = found.astype(np.float64), expected.astype(np.float64)
                np.testing.assert_array_equal(found, expected)


# --- formats ---


def test_a_name_based_checkpoint_is_of_format_saver(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tmp_path / "m", TENSORS))
    assert checkpoint.format == "saver"
    assert checkpoint.object_graph is None


def test_an_object_based_checkpoint_is_of_format_checkpoint(tmp_path: Path) -> None:
    assert open_checkpoint(save_flat(tmp_path / "m", TENSORS)).format == "checkpoint"


@pytest.mark.parametrize("sliced", [False, True])
def test_names_for_all_variables_make_it_both(sliced: bool, tmp_path: Path) -> None:
    slices = {flat_key("dense/kernel"): 2} if sliced else {}
    graph = flat_graph(dict.fromkeys(TENSORS, VARIABLE_VALUE))
    prefix = save(tmp_path / "m", flat_tensors(TENSORS), graph, slices)
    add_keys(prefix, {flat_key("dense/kernel"): "dense/kernel"})
    assert open_checkpoint(prefix).format == "checkpoint"  # one name is still missing
    add_keys(prefix, {flat_key("dense/bias"): "dense/bias"})
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.format == "both"
    assert list(checkpoint.variables) == ["dense/bias", "dense/kernel", "save_counter"]
    kernel = checkpoint.variables["dense/kernel"]
    assert (kernel.key, kernel.keys) == ("dense/kernel", ("dense/kernel", flat_key("dense/kernel")))
    assert kernel.object_path == "var_list/dense.Skernel"
    assert kernel.nbytes == 16
    np.testing.assert_array_equal(checkpoint.get_tensor("dense/kernel"), TENSORS["dense/kernel"])


def test_a_foreign_key_beside_the_objects_is_a_variable_too(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_flat(tmp_path / "m", TENSORS, extra=np.float32(7)))
    assert checkpoint.format == "checkpoint"
    assert checkpoint.variables["extra"].object_path is None
    assert checkpoint.get_tensor("extra") == 7


def test_a_name_with_other_bytes_stays_with_its_key(tmp_path: Path) -> None:
    other = {"dense/bias": np.float32([8, 9])}
    checkpoint = open_checkpoint(save_flat(tmp_path / "m", TENSORS, **other))
    assert checkpoint.format == "checkpoint"
    np.testing.assert_array_equal(checkpoint.get_tensor("dense/bias"), [8, 9])
    np.testing.assert_array_equal(checkpoint.get_tensor("var_list/dense.Sbias"), [1, 2])
    assert checkpoint.variables["dense/bias"].object_path is None


# --- names ---


def named(tmp_path: Path, build: Any) -> dict[str, str]:
    """Name -> key of the variables of a graph that `build` makes."""
    graph = ObjectGraph()
    build(graph)
    keys = [a.checkpoint_key for node in graph.nodes for a in node.attributes]
    prefix = save(tmp_path / "m", {key: np.float32(n) for n, key in enumerate(keys)}, graph)
    return {one.name: one.key for one in open_checkpoint(prefix).variables.values()}


def test_var_list_names_before_full_names(tmp_path: Path) -> None:
    def build(graph: ObjectGraph) -> None:
        var_list = graph.add(0, "var_list")
        graph.add(
            var_list, "dense/kernel", value("old/name", "var_list/dense.Skernel/.ATTRIBUTES/V")
        )
        graph.add(0, "other", value("dense/kernel", "other/.ATTRIBUTES/V"))

    assert named(tmp_path, build) == {
        "dense/kernel": "var_list/dense.Skernel/.ATTRIBUTES/V",
        "other": "other/.ATTRIBUTES/V",
    }


def test_a_tables_name_in_var_list_is_no_name_of_a_variable(tmp_path: Path) -> None:
    graph = ObjectGraph()
    table = Attribute("table", "", flat_key("words", "table"))
    graph.add(graph.add(0, "var_list"), "words", table)
    graph.add(0, "other", value("words", object_key("other")))
    keys = [flat_key("words", "table-keys"), flat_key("words", "table-values"), object_key("other")]
    prefix = save(tmp_path / "m", {key: np.float32([1]) for key in keys}, graph)
    assert {one.name: one.key for one in open_checkpoint(prefix).variables.values()} == {
        "words": object_key("other"),
        "words-keys": flat_key("words", "table-keys"),
        "words-values": flat_key("words", "table-values"),
    }


def test_a_path_that_is_anothers_name_gives_way(tmp_path: Path) -> None:
    def build(graph: ObjectGraph) -> None:
        dense = graph.add(0, "dense")
        graph.add(dense, "kernel", value("", "dense/kernel/.ATTRIBUTES/V"))
        var_list = graph.add(0, "var_list")
        graph.add(var_list, "dense/kernel", value("", "var_list/dense.Skernel/.ATTRIBUTES/V"))

    assert named(tmp_path, build) == {
        "dense/kernel": "var_list/dense.Skernel/.ATTRIBUTES/V",
        "dense/kernel/.ATTRIBUTES/V": "dense/kernel/.ATTRIBUTES/V",
    }


def test_full_names_that_two_share_give_way_to_paths(tmp_path: Path) -> None:
    def build(graph: ObjectGraph) -> None:
        graph.add(0, "a", value("Variable", "a/.ATTRIBUTES/V"))
        graph.add(0, "b", value("Variable", "b/.ATTRIBUTES/V"))
        graph.add(0, "c", value("w", "c/.ATTRIBUTES/V"))
        graph.add(0, "d", value("", "d/.ATTRIBUTES/V"))

    assert named(tmp_path, build) == {
        "a": "a/.ATTRIBUTES/V",
        "b": "b/.ATTRIBUTES/V",
        "w": "c/.ATTRIBUTES/V",
        "d": "d/.ATTRIBUTES/V",
    }


def test_several_values_of_one_object_are_told_apart(tmp_path: Path) -> None:
    def build(graph: ObjectGraph) -> None:
        graph.add(
            0,
            "two",
            Attribute("left", "", "two/.ATTRIBUTES/left"),
            Attribute("right", "", "two/.ATTRIBUTES/right"),
        )

    assert named(tmp_path, build) == {
        "two/left": "two/.ATTRIBUTES/left",
        "two/right": "two/.ATTRIBUTES/right",
    }


def test_an_attribute_may_stand_for_several_keys(tmp_path: Path) -> None:
    graph = ObjectGraph()
    graph.add(0, "t", Attribute("table", "", "t/.ATTRIBUTES/table"))
    graph.add(0, "t2", Attribute("table2", "", "t/.ATTRIBUTES/table2"))
    keys = ["table-keys", "table-values", "table2"]
    prefix = save(tmp_path / "m", {f"t/.ATTRIBUTES/{key}": np.float32([1]) for key in keys}, graph)
    assert list(open_checkpoint(prefix).variables) == ["t-keys", "t-values", "t2"]


def test_two_names_of_one_variable_both_lead_to_it(tmp_path: Path) -> None:
    graph = ObjectGraph()
    shared = graph.add(0, "model", value("full", "model/.ATTRIBUTES/V"))
    var_list = graph.add(0, "var_list")
    for name in ("embedding", "softmax"):
        graph.link(var_list, name, shared)
    checkpoint = open_checkpoint(
        save(tmp_path / "m", {"model/.ATTRIBUTES/V": np.float32(5)}, graph)
    )
    assert list(checkpoint.variables) == ["embedding"]
    for name in (
        "embedding",
        "softmax",
        "model",
        "var_list/softmax",
        "full",
        "model/.ATTRIBUTES/V",
    ):
        assert checkpoint.variable(name).name == "embedding"
        assert checkpoint.get_tensor(name) == 5


# --- values ---


def test_values_by_name_key_and_path(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_flat(tmp_path / "m", TENSORS))
    for name in ("dense/kernel", flat_key("dense/kernel"), "var_list/dense.Skernel"):
        np.testing.assert_array_equal(checkpoint.get_tensor(name), TENSORS["dense/kernel"])
    assert ObjectGraph.parse(checkpoint.get_tensor(OBJECT_GRAPH_KEY).item()).nodes


def test_a_checkpoint_is_a_mapping_of_names_to_values(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_flat(tmp_path / "m", TENSORS))
    assert isinstance(checkpoint, Mapping)
    names = [*TENSORS, "save_counter"]
    assert list(checkpoint) == list(checkpoint.keys()) == names
    assert len(checkpoint) == len(checkpoint.items()) == len(checkpoint.values()) == len(names)
    for (name, tensor), same in zip(checkpoint.items(), checkpoint.values()):
        np.testing.assert_array_equal(tensor, {**TENSORS, "save_counter": 0}[name])
        np.testing.assert_array_equal(tensor, same)
    assert [name in checkpoint for name in ("dense/kernel", "dense/kernels", 3)] == [
        True,
        False,
        False,
    ]
    assert checkpoint.get("dense/kernels") is None
    np.testing.assert_array_equal(checkpoint.get("dense/bias", 3), TENSORS["dense/bias"])
    assert {**checkpoint}.keys() == dict(checkpoint).keys() == set(names)
    other = open_checkpoint(checkpoint.prefix)
    assert checkpoint == checkpoint != other
    assert len({checkpoint, other}) == 2


def test_a_missing_name_is_answered_with_near_ones(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tmp_path / "m", TENSORS))
    with pytest.raises(MissingTensorError, match="did you mean 'dense/kernel'") as caught:
        checkpoint.get_tensor("model/dense/weights")
    assert caught.value.key == "model/dense/weights"


def test_the_path_of_two_tensors_is_answered_with_their_names(tmp_path: Path) -> None:
    graph = flat_graph({"words": "table"})
    keys = [flat_key("words", "table-keys"), flat_key("words", "table-values")]
    prefix = save(tmp_path / "m", {key: np.float32([1]) for key in keys}, graph)
    with pytest.raises(MissingTensorError, match="did you mean 'words-keys' or 'words-values'"):
        open_checkpoint(prefix).get_tensor("var_list/words")


def test_values_outlive_the_checkpoint(tmp_path: Path) -> None:
    with open_checkpoint(save(tmp_path / "m", TENSORS)) as checkpoint:
        bias = checkpoint.get_tensor("dense/bias")
    np.testing.assert_array_equal(bias, [1, 2])


def test_one_value_of_a_hundred_gigabytes(tmp_path: Path) -> None:
    size = 100 << 30
    large = Entry(1, (size // 4,), 0, 0, size, 0)
    small = Entry(3, (2,), 0, size, 8, 0x8A9136AA ^ 0)
    write_index(str(tmp_path / "m"), Index(1, {b"large": large, b"small": small}))
    with open(data_file(str(tmp_path / "m")), "wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(np.int32([5, 6]).tobytes())
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.variables["large"].nbytes == size
    np.testing.assert_array_equal(checkpoint.reader.read(b"small", check=False), [5, 6])


# --- the global step ---


@pytest.mark.parametrize(
    ("tensors", "step"),
    [
        ({"global_step": np.int64(7)}, 7),
        ({"global_step": np.int32(7)}, 7),
        ({"global_step": np.float32(7)}, None),
        ({"global_step": np.int64([7])}, None),
        ({"step": np.int64(7)}, None),
        (TENSORS, None),
    ],
)
def test_the_global_step_by_name(tensors: Any, step: int | None, tmp_path: Path) -> None:
    assert open_checkpoint(save(tmp_path / "m", tensors)).global_step == step


def test_the_global_step_by_object(tmp_path: Path) -> None:
    step = tf.Variable(7, dtype=tf.int64, name="counter")
    prefix = tf.train.Checkpoint(step=step, w=tf.Variable(1.0)).save(str(tmp_path / "m"))
    assert open_checkpoint(prefix).global_step == 7


def test_a_step_that_is_no_value_does_not_count(tmp_path: Path) -> None:
    step = tf.train.Checkpoint(w=tf.Variable(1, dtype=tf.int64))
    assert (
        open_checkpoint(tf.train.Checkpoint(step=step).save(str(tmp_path / "m"))).global_step
        is None
    )


# --- odd, but whole ---


def test_a_cyclic_object_graph_is_read(tmp_path: Path) -> None:
    graph = ObjectGraph()
    child = graph.add(0, "child", value("w", "child/.ATTRIBUTES/V"))
    graph.link(child, "parent", 0)
    graph.link(child, "self", child)
    checkpoint = open_checkpoint(save(tmp_path / "m", {"child/.ATTRIBUTES/V": [1.0]}, graph))
    assert checkpoint.variables["w"].object_path == "child"


def test_a_value_that_only_the_object_graph_has_is_no_variable(tmp_path: Path) -> None:
    graph = flat_graph(dict.fromkeys(["there", "gone"], VARIABLE_VALUE))
    tensors = flat_tensors({"there": np.float32(1)})
    checkpoint = open_checkpoint(save(tmp_path / "m", tensors, graph))
    assert list(checkpoint.variables) == ["save_counter", "there"]


def test_keys_that_are_no_text_are_kept(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"a": np.float32(1)})
    edit_index(prefix, lambda entries: entries.update({b"\xff": entries[b"a"]}))
    checkpoint = open_checkpoint(prefix)
    assert list(checkpoint.variables) == ["a", "\udcff"]
    assert checkpoint.get_tensor("\udcff") == 1


def test_a_checkpoint_describes_itself(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    assert repr(open_checkpoint(prefix)) == f"<saver checkpoint {prefix}: 2 variables>"


def test_renamed_files_are_the_same_checkpoint(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    rename(prefix, str(tmp_path / "n"))
    assert list(open_checkpoint(tmp_path / "n").variables) == list(TENSORS)


# --- names and paths that a person would choose ---


def test_what_a_dictionary_holds_is_called_by_its_plain_names(tmp_path: Path) -> None:
    """As TensorFlow's guide keeps the variables of a TF1 checkpoint."""
    variables = {"a": tf.Variable(1.0), "scope/c.d": tf.Variable(3.0)}
    prefix = tf.train.Checkpoint(vars=variables).write(str(tmp_path / "ckpt"))
    with open_checkpoint(prefix) as checkpoint:
        assert [*checkpoint.variables] == ["vars/a", "vars/scope/c.d"]
        assert checkpoint.variables["vars/scope/c.d"].object_path == "vars/scope.Sc..d"
        assert checkpoint.get_tensor("vars/scope/c.d") == 3


def test_a_plain_name_that_means_two_gives_way_to_the_path(tmp_path: Path) -> None:
    inner = tf.train.Checkpoint(c=tf.Variable(2.0))
    objects = {"scope/c": tf.Variable(1.0), "scope": inner}
    prefix = tf.train.Checkpoint(vars=objects).write(str(tmp_path / "ckpt"))
    with open_checkpoint(prefix) as checkpoint:
        values = {float(checkpoint.get_tensor(name)) for name in checkpoint.variables}
        assert len(checkpoint.variables) == 2
        assert values == {1.0, 2.0}


def test_a_weights_path_leads_through_its_model_and_not_through_the_optimizer() -> None:
    """Keras 3's optimizers list the weights that they train, nearer to the root."""
    graph = ObjectGraph()
    optimizer, model = graph.add(0, "optimizer"), graph.add(0, "model")
    weights, state = (
        graph.add(optimizer, "_trainable_variables"),
        graph.add(optimizer, "_variables"),
    )
    weight = graph.add(weights, "0")
    alone = graph.add(weights, "1")
    momentum = graph.add(state, "0")
    graph.link(graph.add(graph.add(model, "layers"), "0"), "kernel", weight)
    places = graph.object_paths()
    assert places[weight] == "model/layers/0/kernel"
    assert places[alone] == "optimizer/_trainable_variables/1"
    assert places[momentum] == "optimizer/_variables/0"

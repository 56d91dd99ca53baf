"""Checkpoints written by real TensorFlow versions, and read by the running TensorFlow and by us."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import GOLDENS, KINDS, V1, GoldenCase, golden_case, golden_cases, texts
from tensorflow_party import WITH_TENSORFLOW, tf

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.index import encode_index, read_index
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import UnsupportedCheckpointError
from estimator_ckpt.objects.object_graph import OBJECT_CONFIG
from estimator_ckpt.reading.state import read_state

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

cases = pytest.mark.parametrize("case", golden_cases(), ids=str)
object_cases = pytest.mark.parametrize(
    "case", [case for case in golden_cases() if case.format != "saver"], ids=str
)
v1_cases = pytest.mark.parametrize(
    "case", [golden_case(version, kind) for kind in V1 for version in KINDS[kind]], ids=str
)


def known_to_stock(case: GoldenCase) -> bool:
    """Whether the running TensorFlow has every dtype of a checkpoint."""
    if not WITH_TENSORFLOW:
        return True
    types = {tf.dtypes.as_dtype(name).name for name in tf_type_names()}
    return all(variable.dtype in types for variable in case.variables)


def tf_type_names() -> list[str]:
    experimental = [n for n, t in vars(tf.dtypes.experimental).items() if isinstance(t, tf.DType)]
    return [n for n, t in vars(tf.dtypes).items() if isinstance(t, tf.DType)] + experimental


stock_cases = pytest.mark.parametrize(
    "case",
    [
        case
        for case in [
            *golden_cases(),
            *(golden_case(version, "v1_format") for version in KINDS["v1_format"]),
        ]
        if known_to_stock(case)
    ],
    ids=str,
)


def expected_keys(case: GoldenCase) -> set[str]:
    keys = {key for variable in case.variables for key in (variable.key, *variable.also)}
    if case.kind == "layer_configs":
        keys |= {f"{path}/.ATTRIBUTES/{OBJECT_CONFIG}" for path in ("", "inner")}
    return keys if case.format in ("saver", "v1") else keys | {OBJECT_GRAPH_KEY}


def stock_object_graph(case: GoldenCase) -> Any:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    data = tf.train.load_checkpoint(case.prefix).get_tensor(OBJECT_GRAPH_KEY)
    return TrackableObjectGraph.FromString(data)


# --- The goldens are complete, and small -----------------------------------------------------


def test_every_kind_has_a_golden_of_every_version_that_can_write_it():
    found = {(path.parent.name, path.name) for path in GOLDENS.glob("tf*/*")}
    assert found == {(f"tf{v}", kind) for kind, versions in KINDS.items() for v in versions}


def test_goldens_are_small_and_leave_out_what_no_test_needs():
    files = [path for path in GOLDENS.glob("tf*/**/*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000
    assert not [path for path in files if path.suffix == ".meta" or "events" in path.name]


def test_goldens_hold_no_path_of_the_machine_that_made_them():
    here = str(Path(__file__).parent.parent).encode()
    for path in GOLDENS.glob("tf*/**/*"):
        if path.is_file():
            data = path.read_bytes()
            assert here not in data
            assert b"/home/" not in data
            assert b"/tmp/" not in data
            if path.name == "checkpoint":
                assert b'"/' not in data


@cases
def test_values_within_a_golden_are_distinct(case):
    """Otherwise a swap of two variables would pass every other test."""
    seen = [
        (v.dtype, texts(v.value)) for v in case.variables if v.value is not None and v.value.size
    ]
    assert len(seen) == len(set(seen))


# --- Stock TensorFlow finds in them what expected.json says ----------------------------------


@stock_cases
def test_stock_reader_finds_the_expected_tensors(case):
    reader = tf.train.load_checkpoint(case.prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert set(shapes) == expected_keys(case)
    for variable in case.variables:
        assert tuple(shapes[variable.key]) == variable.shape
        assert types[variable.key].name == variable.dtype
        if variable.dtype != "variant":  # Which its reader cannot turn into an array.
            assert texts(reader.get_tensor(variable.key)) == texts(variable.value)


@object_cases
def test_stock_object_graph_has_the_expected_names_and_paths(case):
    graph = stock_object_graph(case)
    found = {}
    for variable in case.variables:
        if variable.object_path is not None:
            node = graph.nodes[0]
            for local_name in variable.object_path:
                (child,) = (child for child in node.children if child.local_name == local_name)
                node = graph.nodes[child.node_id]
            (attribute,) = node.attributes
            found[attribute.checkpoint_key] = attribute.full_name
            assert variable.key.startswith(attribute.checkpoint_key)
            assert attribute.full_name == (variable.name or "")
    slots = {
        graph.nodes[slot.slot_variable_node_id].attributes[0].checkpoint_key: (
            graph.nodes[slot.original_variable_node_id].attributes[0].checkpoint_key,
            slot.slot_name,
            graph.nodes[slot.slot_variable_node_id].attributes[0].full_name,
        )
        for node in graph.nodes
        for slot in node.slot_variables
    }
    expected_slots = [v for v in case.variables if v.slot_of]
    assert slots == {v.key: (v.slot_of, v.slot_name, v.name) for v in expected_slots}
    attributes = [a for node in graph.nodes for a in node.attributes if a.name != OBJECT_CONFIG]
    all_keys = {attribute.checkpoint_key for attribute in attributes}
    assert all_keys == set(found) | set(slots)


@pytest.mark.parametrize("case", [c for c in golden_cases() if c.state], ids=str)
def test_stock_state_file_names_the_checkpoint(case):
    state = tf.train.get_checkpoint_state(case.directory)
    assert state.model_checkpoint_path == case.prefix
    assert [os.path.relpath(path, case.directory) for path in state.all_model_checkpoint_paths] == (
        case.state["all_model_checkpoint_paths"]
    )


# --- Our readers find the same ---------------------------------------------------------------


@cases
def test_index_has_the_expected_entries(case):
    index = read_index(case.prefix)
    entries = {k.decode(): e for k, e in index.entries.items() if not k.startswith(b"\0")}
    assert set(entries) == expected_keys(case)
    for variable in case.variables:
        for key in (variable.key, *variable.also):
            assert entries[key].shape == variable.shape
            assert dtype_name(entries[key].dtype) == variable.dtype
            assert len(entries[key].slices) == variable.slices


@cases
def test_index_knows_its_shards(case):
    files = list(Path(case.prefix).parent.glob(Path(case.prefix).name + ".data-*"))
    assert read_index(case.prefix).num_shards == len(files)


@pytest.mark.parametrize("case", [c for c in golden_cases() if c.kind != "snappy"], ids=str)
def test_encoded_index_is_byte_identical(case):
    assert encode_index(read_index(case.prefix)) == Path(case.prefix + ".index").read_bytes()


@cases
def test_tensor_reader_reads_the_expected_values(case):
    reader = TensorReader(case.prefix, read_index(case.prefix))
    for variable in case.variables:
        if variable.value is None:
            with pytest.raises(UnsupportedCheckpointError, match=variable.dtype):
                reader.read(variable.key.encode())
        else:
            value = reader.read(variable.key.encode())
            assert value.dtype == variable.value.dtype
            assert texts(value) == texts(variable.value)
    reader.close()


@cases
def test_every_checksum_is_right(case):
    index = read_index(case.prefix)
    reader = TensorReader(case.prefix, index)
    for entry in index.entries.values():
        reader.check(entry)
    reader.close()


@pytest.mark.parametrize("case", [c for c in golden_cases() if c.state], ids=str)
def test_state_file_is_read(case):
    state = read_state(case.directory)
    assert state.model_checkpoint_path == case.prefix
    assert state.all_model_checkpoint_paths == tuple(
        os.path.join(case.directory, path) for path in case.state["all_model_checkpoint_paths"]
    )


@cases
def test_open_checkpoint_finds_format_and_step(case):
    with open_checkpoint(case.prefix) as checkpoint:
        assert checkpoint.format == case.format
        assert checkpoint.global_step == case.global_step
        assert (checkpoint.object_graph is not None) == (case.format != "saver")


@cases
def test_open_checkpoint_takes_the_directory_and_the_index(case):
    for path in (case.directory, case.prefix + ".index"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.prefix == case.prefix


@cases
def test_open_checkpoint_lists_every_variable(case):
    with open_checkpoint(case.prefix) as checkpoint:
        listed = {key: one for one in checkpoint.variables.values() for key in one.keys}
        names = {key: variable.name for key, variable in listed.items()}
    assert len(checkpoint.variables) == len(case.variables)
    for variable in case.variables:
        found = listed[variable.key]
        assert (found.shape, found.dtype) == (variable.shape, variable.dtype)
        assert found.slices == variable.slices
        assert set(found.keys) == {variable.key, *variable.also}
        if variable.object_path is not None:
            escaped = [n.replace(".", "..").replace("/", ".S") for n in variable.object_path]
            assert found.object_path == "/".join(escaped)
        if variable.slot_of:
            assert found.slot_of == names[variable.slot_of]
            assert found.slot_name == variable.slot_name
        shared = [other for other in case.variables if other.name == variable.name]
        if variable.name and len(shared) == 1:
            assert found.name == variable.name


@cases
def test_open_checkpoint_reads_the_expected_values(case):
    with open_checkpoint(case.prefix) as checkpoint:
        for name, listed in checkpoint.variables.items():
            (variable,) = (v for v in case.variables if v.key in listed.keys)
            if variable.value is not None:
                assert texts(checkpoint.get_tensor(variable.key)) == texts(variable.value)
                assert texts(checkpoint.get_tensor(name)) == texts(variable.value)


@v1_cases
def test_v1_format_has_the_expected_variables_and_values(case):
    for path in (case.prefix, case.directory):
        with open_checkpoint(path) as checkpoint:
            assert (checkpoint.prefix, checkpoint.format) == (case.prefix, "saver")
            assert checkpoint.global_step == case.global_step
            assert set(checkpoint.variables) == {variable.name for variable in case.variables}
            for variable in case.variables:
                found = checkpoint.variables[variable.name]
                assert (found.shape, found.dtype) == (variable.shape, variable.dtype)
                assert found.slices == variable.slices
                assert texts(checkpoint.get_tensor(variable.name)) == texts(variable.value)


def test_texts_tells_values_apart_that_are_equal():
    assert texts(np.array([0.0])) != texts(np.array([-0.0]))
    assert texts(np.array([1.0])) != texts(np.array([1.0]).reshape(1, 1))
    assert texts(np.array([np.nan])) == texts(np.array([np.nan]))

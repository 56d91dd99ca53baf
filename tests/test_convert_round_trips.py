"""There and back: the same keys, the same bytes, for every golden and for names of any kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from conversion_files import contents, variables_like, write_bundle
from golden_files import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.bundle.index import encode_index, read_index
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import (
    OBJECT_CONFIG,
    OBJECT_GRAPH_KEY,
    STEP,
    flat_key,
    object_key,
)

NAME_BASED = [case for case in golden_cases() if case.format == "saver"]
OBJECT_BASED = [case for case in golden_cases() if case.format == "checkpoint"]
STEP_KEYS = (flat_key(GLOBAL_STEP), object_key(STEP))


@pytest.mark.parametrize("case", NAME_BASED, ids=str)
@pytest.mark.parametrize("layout", ["var_list", "scopes"])
def test_from_names_to_objects_and_back(case, layout, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "objects", "checkpoint", layout=layout)
    convert_checkpoint(tmp_path / "objects", tmp_path / "names", "saver")
    # What we write is plain, also where the source's index is compressed.
    plain = encode_index(read_index(case.prefix))
    assert (tmp_path / "names.index").read_bytes() == plain
    assert (plain == Path(f"{case.prefix}.index").read_bytes()) == (case.kind != "snappy")
    assert contents(tmp_path / "names") == contents(case.prefix)


@pytest.mark.parametrize("case", NAME_BASED, ids=str)
def test_from_names_to_both_and_back(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "both", "both")
    convert_checkpoint(tmp_path / "both", tmp_path / "names", "saver")
    convert_checkpoint(tmp_path / "both", tmp_path / "objects", "checkpoint")
    convert_checkpoint(case.prefix, tmp_path / "at_once", "checkpoint")
    assert contents(tmp_path / "names") == contents(case.prefix)
    assert contents(tmp_path / "objects") == contents(tmp_path / "at_once")


def with_step(tensors):
    """The tensors of objects, with the plain key that the global step has in all that we write."""
    found = dict(tensors)
    for key in STEP_KEYS:
        if key in tensors:
            found[GLOBAL_STEP] = tensors[key]
    return found


@pytest.mark.parametrize("case", OBJECT_BASED, ids=str)
def test_from_objects_to_names_and_back(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "names", "saver")
    convert_checkpoint(tmp_path / "names", tmp_path / "objects", "checkpoint", like=case.prefix)
    before, after = open_checkpoint(case.prefix), open_checkpoint(tmp_path / "objects")
    # The layers' configs, which are no variables, are lost among names.
    variables = {
        key: content
        for key, content in contents(case.prefix).items()
        if not key.endswith(OBJECT_CONFIG)
    }
    assert contents(tmp_path / "objects") == with_step(variables)
    if len(variables) < len(contents(case.prefix)):
        return
    assert after.object_graph.nodes == before.object_graph.nodes


@pytest.mark.parametrize("case", OBJECT_BASED, ids=str)
def test_from_objects_to_both_and_back(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "both", "both")
    convert_checkpoint(tmp_path / "both", tmp_path / "objects", "checkpoint")
    assert contents(tmp_path / "objects") == with_step(contents(case.prefix))


# --- Names of any kind ---

# Whatever a key can be but what is no UTF-8: dots, escapes, empty scopes, other alphabets.
pieces = st.one_of(
    st.sampled_from([".", "/", "..", "//", ".S", ".ATTRIBUTES", "-keys", "-values", "_1", " "]),
    st.sampled_from(["a", "kernel", "Adam", "m", "var_list", "step", "save_counter", "é", "字"]),
    st.text(max_size=4),
)
names = (
    st.lists(pieces, min_size=1, max_size=6)
    .map("".join)
    .filter(lambda name: name and name[0] != "\0" and name != OBJECT_GRAPH_KEY)
    .filter(lambda name: name.encode("utf-8", "replace").decode() == name)
)
tensors = st.dictionaries(
    names, st.integers(0, 3).map(lambda size: np.arange(size, dtype=np.float32)), min_size=1
)


def unlike_its_own_keys(values):
    """No name that is the object key of another, and no scope `var_list`, which are conflicts."""
    return not any("/.ATTRIBUTES/" in f"/{n}/" or n.startswith("var_list/") for n in values)


@settings(max_examples=100, deadline=None)
@given(
    tensors.filter(unlike_its_own_keys).filter(lambda values: "save_counter" not in values),
    st.sampled_from(["var_list", "scopes"]),
    st.sampled_from(["checkpoint", "both"]),
    st.integers(1, 3),
)
def test_any_names_to_objects_and_back(values, layout, checkpoint_format, shards):
    with tempfile.TemporaryDirectory() as directory:
        source = write_bundle(f"{directory}/source", values, shards=shards)
        convert_checkpoint(source, f"{directory}/objects", checkpoint_format, layout=layout)
        convert_checkpoint(f"{directory}/objects", f"{directory}/names", "saver")
        assert contents(f"{directory}/names") == contents(source)


@settings(max_examples=25, deadline=None)
@given(tensors.filter(lambda values: "save_counter" not in values))
def test_a_stock_checkpoint_reads_any_names(values):
    with tempfile.TemporaryDirectory() as directory:
        source = write_bundle(f"{directory}/source", values)
        convert_checkpoint(source, f"{directory}/objects", "checkpoint")
        variables = variables_like(values)
        reader = tf.train.Checkpoint(var_list=variables)
        reader.restore(f"{directory}/objects").assert_consumed()
        for name, variable in variables.items():
            assert variable.numpy().tolist() == values[name].tolist()


def readable_by_stock(name):
    """TensorFlow cannot read back what it writes for a name that ends so."""
    return not name.endswith(".ATTRIBUTES")


trees = st.recursive(
    st.integers(0, 3).map(lambda size: np.arange(size, dtype=np.float32)),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(names.filter(readable_by_stock), children, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(trees, st.sampled_from(["names of their own", "one name for all"]))
def test_any_objects_to_names_and_back(tree, naming):
    count = iter(range(1000))

    def build(value):
        if isinstance(value, dict):
            return {name: build(child) for name, child in value.items()}
        if isinstance(value, list):
            return [build(child) for child in value]
        return tf.Variable(value, name=f"v{next(count)}" if naming[0] == "n" else None)

    with tempfile.TemporaryDirectory() as directory:
        objects = tf.train.Checkpoint(root_of_all=build({"tree": tree}))
        source = objects.save(f"{directory}/source")
        convert_checkpoint(source, f"{directory}/names", "saver")
        convert_checkpoint(f"{directory}/names", f"{directory}/objects", "checkpoint", like=source)
        assert contents(f"{directory}/objects") == contents(source)
        # The values come back under the same objects, told apart by their sizes and order.
        again = objects.restore(f"{directory}/objects")
        again.assert_consumed()

"""verify_checkpoint: whole checkpoints are whole, and each kind of damage is found and named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import GoldenCase, golden_case, golden_cases
from hypothesis import given
from hypothesis import strategies as st
from own_files import add_keys
from stock_files import (
    data_file,
    edit_index,
    flip,
    save,
    save_in_shards,
    save_slots_of_parts,
    value,
)
from tensorflow_party import tf

from estimator_ckpt import verify_checkpoint
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, shard_path, write_index
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.bundle.tensors import encode_strings
from estimator_ckpt.errors import NotACheckpointError, UnsupportedCheckpointError
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Node
from estimator_ckpt.objects.object_graph import (
    OBJECT_GRAPH_KEY,
    ObjectGraph,
    flat_graph,
    flat_key,
    object_key,
)
from estimator_ckpt.verify import Fault, structure_faults

# In the data file: a at bytes 0 to 7, b at 8 to 23, c at 24 to 35.
TENSORS = {"a": np.float32([1, 2]), "b": np.int64([3, 4]), "c": np.int32([5, 6, 7])}


def faults_of(path: Any) -> list[tuple[str, str | None, int | None]]:
    return [(one.kind, one.key, one.offset) for one in verify_checkpoint(path).faults]


def only_fault(path: Any) -> Fault:
    (fault,) = verify_checkpoint(path).faults
    return fault


# --- nothing wrong ---


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_goldens_are_whole(case: GoldenCase) -> None:
    report = verify_checkpoint(case.prefix)
    assert report.ok
    assert report.notes == ()
    assert report.unused_bytes == 0
    sizes = [
        p.stat().st_size for p in Path(case.prefix).parent.glob(f"{Path(case.prefix).name}.data-*")
    ]
    assert report.checked_bytes == sum(sizes)


def test_two_keys_for_the_same_bytes_are_meant(tmp_path: Path) -> None:
    graph = flat_graph({"w": VARIABLE_VALUE})
    tensors = {flat_key("w"): np.float32([1, 2]), object_key("save_counter"): np.int64(0)}
    prefix = save(tmp_path / "m", tensors, graph, {flat_key("w"): 2})
    add_keys(prefix, {flat_key("w"): "w"})
    report = verify_checkpoint(prefix)
    assert report.ok
    assert report.notes == ()


def test_empty_tensors_share_their_place_with_others(tmp_path: Path) -> None:
    tensors = {"a": np.zeros([0, 3], np.float32), "b": np.float32([1]), "c": np.zeros([0])}
    assert verify_checkpoint(save(tmp_path / "m", tensors)).ok


def test_bytes_that_no_key_names_are_a_note(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    edit_index(prefix, lambda entries: entries.pop(b"b"))
    with open(data_file(prefix), "ab") as file:
        file.write(bytes(10))
    report = verify_checkpoint(prefix)
    assert report.ok
    assert (report.keys, report.checked_bytes, report.unused_bytes) == (2, 20, 26)
    assert report.notes == (
        f"{data_file(prefix)}: 26 bytes, the first at byte 8, belong to no key",
    )


def test_data_files_that_the_index_does_not_count_are_named(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    save(tmp_path / "m-2", TENSORS)  # another checkpoint
    others = [f"{prefix}.data-0000{n}-of-0000{of}" for n, of in ((0, 3), (1, 1))]
    for path in others:
        Path(path).write_bytes(b"")
    report = verify_checkpoint(prefix)
    assert report.ok
    assert [note.partition(" is not of this checkpoint")[0] for note in report.notes] == others


def test_keys_of_objects_outside_the_graph_are_a_note(tmp_path: Path) -> None:
    tensors = {object_key(name): np.float32(1) for name in ("w", "x", "y")}
    graph = ObjectGraph()
    graph.add(0, "w", value("w", object_key("w")))
    report = verify_checkpoint(save(tmp_path / "m", tensors, graph))
    assert report.ok
    assert report.notes == (
        f"{object_key('x')}, {object_key('y')}: 2 are keys of objects that the object graph does "
        "not name",
    )


def test_keys_of_objects_without_a_graph_are_a_note(tmp_path: Path) -> None:
    report = verify_checkpoint(save(tmp_path / "m", {object_key("w"): np.float32(1)}))
    assert report.ok
    assert "but there is no object graph" in report.notes[0]


def test_a_saver_of_its_own_is_a_note(tmp_path: Path) -> None:
    graph = ObjectGraph([Node(children={"e": 1}), Node(registered_saver=("Custom.E", "e"))])
    report = verify_checkpoint(save(tmp_path / "m", {"x": np.float32(1)}, graph))
    assert report.ok
    assert report.notes == ("object 1 ('e') has a saver of its own, 'Custom.E'",)


def test_large_tensors_are_checked_in_chunks(tmp_path: Path) -> None:
    data = np.arange(5 << 17, dtype=np.float64)  # 5 MiB
    prefix = save(tmp_path / "m", {"large": data, "small": np.float32(1)})
    seen: list[tuple[int, int]] = []
    report = verify_checkpoint(prefix, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    chunk, size = 2 << 20, 5 << 20
    assert seen == [(n, size + 4) for n in (chunk, 2 * chunk, size, size + 4)]
    flip(data_file(prefix), 3 << 20)
    assert faults_of(prefix) == [("checksum", "large", 0)]


# --- damage ---


@pytest.mark.parametrize(
    ("offset", "fault"),
    [(0, ("a", 0)), (7, ("a", 0)), (8, ("b", 8)), (23, ("b", 8)), (35, ("c", 24))],
)
def test_a_wrong_byte_in_a_data_file(offset: int, fault: tuple[str, int], tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    flip(data_file(prefix), offset, 0x01)
    found = only_fault(prefix)
    assert (found.kind, found.key, found.offset) == ("checksum", *fault)
    assert found.file == data_file(prefix)
    assert found.message.startswith("checksum: stored ")


def test_every_fault_is_found_not_only_the_first(tmp_path: Path) -> None:
    prefix = save_in_shards(tmp_path / "m", TENSORS, {"d": [1.0]}, {"e": np.array([b"text"])})
    for shard, offset in ((0, 0), (0, 30), (2, 8)):
        flip(data_file(prefix, shard, 3), offset)
    os.remove(data_file(prefix, 1, 3))
    assert [
        (one.kind, one.key, one.offset, one.file[-14:]) for one in verify_checkpoint(prefix).faults
    ] == [
        ("data file", None, None, "00001-of-00003"),
        ("checksum", "a", 0, "00000-of-00003"),
        ("checksum", "c", 24, "00000-of-00003"),
        ("checksum", "e", 0, "00002-of-00003"),
    ]


def test_any_wrong_byte_of_a_data_file_is_found(tmp_path: Path) -> None:
    tensors = {"strings": np.array([b"ab", b"", b"c" * 200]), "numbers": np.float32([1, 2])}
    prefix = save(tmp_path / "m", tensors)
    for offset in range(os.path.getsize(data_file(prefix))):
        flip(data_file(prefix), offset, 1 << offset % 8)
        assert only_fault(prefix).kind == "checksum"
        flip(data_file(prefix), offset, 1 << offset % 8)


def test_a_wrong_byte_in_a_variant(tmp_path: Path) -> None:
    source = golden_case("2.15", "iterator").prefix
    prefix = str(tmp_path / "m")
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"m{suffix}").write_bytes(Path(source + suffix).read_bytes())
    assert verify_checkpoint(prefix).ok
    flip(data_file(prefix), 3)
    assert [one.kind for one in verify_checkpoint(prefix).faults] == ["checksum"]


def test_any_wrong_byte_of_an_index_is_a_fault(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    index = f"{prefix}.index"
    for offset in range(os.path.getsize(index)):
        flip(index, offset)
        try:
            report = verify_checkpoint(prefix)
        except (NotACheckpointError, UnsupportedCheckpointError):
            pass  # the magic number is wrong: no index any more
        else:
            assert [(one.kind, one.file) for one in report.faults] == [("index", index)]
            assert report.notes[0].startswith("the data files were not checked")
        flip(index, offset)
    assert verify_checkpoint(prefix).ok


def test_a_missing_data_file_is_named_with_what_it_held(tmp_path: Path) -> None:
    prefix = save_in_shards(tmp_path / "m", TENSORS, {"d": [1.0]})
    os.remove(data_file(prefix, 0, 2))
    found = only_fault(prefix)
    assert (found.kind, found.file) == ("data file", data_file(prefix, 0, 2))
    assert found.message == "missing, with 3 of the 4 keys, 'a' among them"


def test_slices_are_named_with_their_variable(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"e": np.zeros([4, 2], np.float32)}, slices={"e": 2})
    entry = Entry(1, (1,), 0, 12, 4, masked_crc32c(bytes(4)))
    edit_index(prefix, lambda entries: entries.update({b"z": entry}))
    assert only_fault(prefix).message == "its 4 bytes overlap those of 'e[0:2,0:2]'"
    os.remove(data_file(prefix))
    assert only_fault(prefix).message == "missing, with 3 of the 4 keys, 'e[0:2,0:2]' among them"


def test_a_data_file_that_is_cut_off(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    os.truncate(data_file(prefix), 10)
    assert faults_of(prefix) == [("range", "b", 8), ("range", "c", 24)]


@pytest.mark.parametrize(
    ("offset", "size", "shape", "faults"),
    [
        (0, 8, (2,), []),  # the same bytes
        (4, 8, (2,), [("overlap", "z", 4), ("overlap", "b", 8)]),
        (0, 4, (1,), [("overlap", "a", 0)]),
        (12, 4, (1,), [("overlap", "z", 12)]),
        (32, 8, (2,), [("range", "z", 32)]),
        (1 << 60, 8, (2,), [("range", "z", 1 << 60)]),
    ],
)
def test_ranges_that_overlap_or_do_not_fit(
    offset: int,
    size: int,
    shape: tuple[int, ...],
    faults: list[tuple[str, str, int]],
    tmp_path: Path,
) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    data = Path(data_file(prefix)).read_bytes()[offset : offset + size]
    entry = Entry(1, shape, 0, offset, size, masked_crc32c(data))
    edit_index(prefix, lambda entries: entries.update({b"z": entry}))
    assert faults_of(prefix) == faults


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=2).filter(lambda key: key[0] != 0),
        st.builds(
            lambda shard, offset, size, crc: Entry(4, (size,), shard, offset, size, crc),
            *(st.integers(0, most) for most in (1, 12, 3, 1)),
        ),
        max_size=6,
    )
)
def test_a_glance_at_the_ranges_finds_what_a_close_look_does(entries: dict[bytes, Entry]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        prefix = str(Path(directory, "m"))
        for shard in range(2):
            Path(shard_path(prefix, shard, 2)).write_bytes(bytes(10))
        write_index(prefix, Index(2, entries))
        close = [one for one in verify_checkpoint(prefix).faults if one.kind != "checksum"]
        assert list(structure_faults(prefix, read_index(prefix), None)) == close


@pytest.mark.parametrize(
    "change", [{"dtype": 3}, {"shape": (1, 2)}, {"crc32c": 5}], ids=["dtype", "shape", "crc32c"]
)
def test_two_keys_that_disagree_about_the_same_bytes(change: Any, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    edit_index(prefix, lambda entries: entries.update({b"z": entries[b"a"]._replace(**change)}))
    found = only_fault(prefix)
    assert (found.kind, found.key, found.offset) == ("overlap", "z", 0)
    assert "the bytes of 'a' (float32[2], checksum" in found.message


def test_a_wrong_byte_in_a_slice(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"e": np.zeros([4, 2], np.float32)}, slices={"e": 2})
    flip(data_file(prefix), 17)
    assert faults_of(prefix) == [("checksum", "e[2:4,0:2]", 16)]


def test_slices_that_do_not_cover_the_variable(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"e": np.zeros([4, 2], np.float32)}, slices={"e": 2})

    def drop(entries: dict[bytes, Entry]) -> None:
        first, second = entries[b"e"].slices
        entries[b"e"] = entries[b"e"]._replace(slices=(first,))
        del entries[slice_key("e", second)]

    found = only_fault(edit_index(prefix, drop))
    assert (found.kind, found.key) == ("slices", "e")
    assert found.message == "its slice has 4 of its 8 values"


def test_parts_of_a_variable_may_have_slots_of_their_own(tmp_path: Path) -> None:
    prefix = save_slots_of_parts(tmp_path / "m")
    report = verify_checkpoint(prefix)
    assert (report.faults, report.notes) == ((), ())

    def drop(entries: dict[bytes, Entry]) -> None:
        (extents,) = entries.pop(b"dnn/w/t_1/Adam").slices
        del entries[slice_key("dnn/w/t_1/Adam", extents)]

    found = only_fault(edit_index(prefix, drop))
    assert (found.kind, found.key) == ("slices", "dnn/w/t_0/Adam")
    assert found.message == "its slice has 2 of its 4 values"


def test_a_slice_of_no_variable(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"e": np.zeros([4, 2], np.float32)}, slices={"e": 2})
    found = verify_checkpoint(edit_index(prefix, lambda entries: entries.pop(b"e"))).faults
    assert {(one.kind, one.key) for one in found} == {("slices", "e")}
    assert len(found) == 2


# --- object graphs ---


def flat() -> tuple[dict[str, Any], ObjectGraph]:
    tensors = {flat_key("w"): np.float32([1, 2]), object_key("save_counter"): np.int64(0)}
    return tensors, flat_graph({"w": VARIABLE_VALUE})


def missing_value(tensors: dict[str, Any], graph: ObjectGraph) -> None:
    del tensors[flat_key("w")]


def unreachable(tensors: dict[str, Any], graph: ObjectGraph) -> None:
    del graph.nodes[graph.nodes[0].children["var_list"]].children["w"]


def one_key_for_two(tensors: dict[str, Any], graph: ObjectGraph) -> None:
    graph.add(0, "twin", value("w", flat_key("w")))


def plain_key(tensors: dict[str, Any], graph: ObjectGraph) -> None:
    tensors["plain"] = np.float32(1)
    graph.add(0, "plain", value("plain", "plain"))


def other_bytes(tensors: dict[str, Any], graph: ObjectGraph) -> None:
    tensors["w"] = np.float32([3, 4])


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (missing_value, flat_key("w"), "'var_list/w') is not in the index"),
        (unreachable, flat_key("w"), "no path and no slot leads to it"),
        (one_key_for_two, flat_key("w"), "has the key of 'var_list/w': only one of them"),
        (plain_key, "plain", "a key without .ATTRIBUTES/"),
        (other_bytes, "w", f"{flat_key('w')!r} has other bytes for that name"),
    ],
)
def test_an_object_graph_that_contradicts_the_keys(
    change: Callable[..., None], key: str, message: str, tmp_path: Path
) -> None:
    tensors, graph = flat()
    change(tensors, graph)
    found = only_fault(save(tmp_path / "m", tensors, graph))
    assert (found.kind, found.key) == ("object graph", key)
    assert message in found.message


def test_an_object_graph_that_names_nodes_it_does_not_have(tmp_path: Path) -> None:
    tensors, graph = flat()
    graph.nodes[0].children["nowhere"] = 99
    prefix = save(tmp_path / "m", tensors, ObjectGraph([Node()]))
    data = _serialized_without_check(graph)
    with open(data_file(prefix), "ab") as file:
        offset = file.tell()
        stored, crc = encode_strings([data])
        file.write(stored)
    entry = Entry(7, (), 0, offset, len(stored), crc)
    edit_index(prefix, lambda entries: entries.update({OBJECT_GRAPH_KEY.encode(): entry}))
    found = only_fault(prefix)
    assert (found.kind, found.key, found.offset) == ("object graph", OBJECT_GRAPH_KEY, offset)
    assert "'nowhere' that is node 99, of 4" in found.message


def _serialized_without_check(graph: ObjectGraph) -> bytes:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    message = TrackableObjectGraph()
    for node in graph.nodes:
        proto = message.nodes.add()
        for name, child in node.children.items():
            proto.children.add(node_id=child, local_name=name)
    return message.SerializeToString()


def test_a_broken_object_graph_is_one_fault_among_others(tmp_path: Path) -> None:
    tensors, graph = flat()
    prefix = save(tmp_path / "m", tensors, graph)
    flip(data_file(prefix), os.path.getsize(data_file(prefix)) - 1)
    flip(data_file(prefix), 0)
    assert {key for _, key, _ in faults_of(prefix)} == {OBJECT_GRAPH_KEY, flat_key("w")}


# --- paths ---


def test_what_is_no_checkpoint_is_an_error_not_a_fault(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpointError):
        verify_checkpoint(tmp_path / "nothing")


def test_a_directory_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(w=tf.Variable([1.0])).save(str(tmp_path / "ckpt"))
    report = verify_checkpoint(tmp_path)
    assert (report.path, report.prefix, report.ok) == (str(tmp_path), prefix, True)


def test_an_index_of_very_many_keys(tmp_path: Path) -> None:
    crc = masked_crc32c(bytes(4))
    entries = {b"w%05d" % n: Entry(1, (), 0, 4 * n, 4, crc) for n in range(20_000)}
    write_index(str(tmp_path / "m"), Index(1, entries))
    Path(data_file(str(tmp_path / "m"))).write_bytes(bytes(4 * 20_000))
    report = verify_checkpoint(tmp_path / "m")
    assert (report.ok, report.keys, report.checked_bytes) == (True, 20_000, 80_000)

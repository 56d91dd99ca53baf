"""compare_checkpoints: same, close, changed, and by how much; in any formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from golden_files import GoldenCase, golden_case, golden_cases
from own_files import add_keys
from stock_files import data_file, edit_index, flip, save, value
from tensorflow_party import tf

from estimator_ckpt import compare_checkpoints, convert_checkpoint, open_checkpoint
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.checking.difference import Difference
from estimator_ckpt.compare import Comparison
from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import ObjectGraph, flat_graph, flat_key, object_key
from estimator_ckpt.text.rows import Row

NAN, INF = float("nan"), float("inf")
KERNEL = np.float32([[1, 2, 3], [4, 5, 6]])


def statuses(comparison: Comparison) -> dict[str, str]:
    return {one.name: one.status for one in comparison.variables}


def compared(tmp_path: Path, a: Any, b: Any, **options: float) -> Any:
    """What is found of one variable with two values."""
    paths = save(tmp_path / "a", {"v": a}), save(tmp_path / "b", {"v": b})
    (one,) = compare_checkpoints(*paths, **options).variables
    return one


def save_flat(prefix: Path, tensors: dict[str, Any], slices: int = 0) -> str:
    keyed = {flat_key(name): tensor for name, tensor in tensors.items()}
    return save(
        prefix,
        {**keyed, object_key("save_counter"): np.int64(0)},
        flat_graph(dict.fromkeys(tensors, VARIABLE_VALUE)),
        dict.fromkeys(keyed, slices),
    )


def save_columns(prefix: Path, data: Any, cut: int) -> str:
    """Saves one variable `v` in two slices, cut between columns."""
    rows, columns = data.shape
    parts = [f"{rows} {columns} 0,{rows}:{s},{n}" for s, n in ((0, cut), (cut, columns - cut))]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["v", "v"],
        shape_and_slices=parts,
        tensors=[data[:, :cut], data[:, cut:]],
    )
    return str(prefix)


# --- the same ---


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_a_checkpoint_is_the_same_as_itself(case: GoldenCase) -> None:
    comparison = compare_checkpoints(case.prefix, case.prefix)
    assert comparison.equal
    assert len(comparison.variables) == len(case.variables)
    assert {one.status for one in comparison.variables} == {"same"}


def test_what_two_versions_wrote_of_the_same_values_is_the_same() -> None:
    for kind in ("name_based", "partitioned", "strings"):
        prefixes = [golden_case(version, kind).prefix for version in ("2.12", "2.21")]
        assert compare_checkpoints(*prefixes).equal


@pytest.mark.parametrize("slices", [0, 2])
def test_formats_do_not_matter(slices: int, tmp_path: Path) -> None:
    tensors = {"dense/kernel": KERNEL, "dense/bias": np.float32([1, 2])}
    by_name = save(tmp_path / "saver", tensors)
    by_object = save_flat(tmp_path / "checkpoint", tensors, slices)
    both = save_flat(tmp_path / "both", tensors)
    add_keys(both, {flat_key(name): name for name in tensors})
    for other in (by_object, both):
        comparison = compare_checkpoints(by_name, other)
        assert statuses(comparison) == {"dense/bias": "same", "dense/kernel": "same"}
        assert comparison.notes == (
            "save_counter, which counts the saves of a program, is in one of them alone",
        )
    assert compare_checkpoints(by_object, both).equal


def test_objects_that_were_written_without_a_save_counter_equal_their_conversion_and_back(
    tmp_path: Path,
) -> None:
    objects = tf.train.Checkpoint(w=tf.Variable(1.0, name="w"), b=tf.Variable(2.0, name="b"))
    source = objects.write(str(tmp_path / "ckpt"))
    convert_checkpoint(source, tmp_path / "names", "saver")
    convert_checkpoint(tmp_path / "names", tmp_path / "objects", "checkpoint")
    comparison = compare_checkpoints(source, tmp_path / "objects")
    assert statuses(comparison) == {"w": "same", "b": "same"}


def test_save_counters_of_two_object_based_checkpoints_count(tmp_path: Path) -> None:
    paths = []
    for count in (1, 2):
        graph = flat_graph({})
        prefix = tmp_path / str(count)
        paths.append(save(prefix, {object_key("save_counter"): np.int64(count)}, graph))
    assert statuses(compare_checkpoints(*paths)) == {"save_counter": "changed"}


def test_variables_without_a_common_name_are_matched_by_object_path(tmp_path: Path) -> None:
    paths = []
    for name in ("old/kernel", "new/kernel"):
        graph = ObjectGraph()
        graph.add(0, "kernel", value(name, object_key("kernel")))
        graph.add(0, "bias", value("bias", object_key("bias")))
        tensors = {object_key("kernel"): KERNEL, object_key("bias"): KERNEL[0]}
        paths.append(save(tmp_path / name[:3], tensors, graph))
    comparison = compare_checkpoints(*paths)
    assert comparison.equal
    assert [(one.a.name, one.b.name) for one in comparison.variables if one.a and one.b] == [
        ("bias", "bias"),
        ("old/kernel", "new/kernel"),
    ]
    assert [row.note for row in comparison.rows()] == ["", "in B: new/kernel"]


def test_names_that_are_at_other_object_paths_are_a_note(tmp_path: Path) -> None:
    paths = []
    for names in (("dense", "dense_1"), ("dense_1", "dense_2")):
        graph = ObjectGraph()
        keys = [object_key("first"), object_key("second")]
        for key, name in zip(keys, names):
            graph.add(0, key.partition("/")[0], value(name, key))
        paths.append(save(tmp_path / names[0], dict.fromkeys(keys, KERNEL), graph))
    comparison = compare_checkpoints(*paths)
    assert statuses(comparison) == {
        "dense": "only in A",
        "dense_1": "same",
        "dense_2": "only in B",
    }
    assert comparison.notes == (
        "dense_1: 1 matched by name, though in B another variable has the object path",
    )


def test_both_tensors_of_a_table_are_matched_by_object_path(tmp_path: Path) -> None:
    paths = []
    for name in ("old", "new"):
        graph = ObjectGraph()
        graph.add(0, "words", Attribute("table", name, object_key("words", "table")))
        tensors = {
            object_key("words", "table-keys"): np.int64([1, 2]),
            object_key("words", "table-values"): np.int64([3, 4]),
        }
        paths.append(save(tmp_path / name, tensors, graph))
    pairs = [(one.a, one.b) for one in compare_checkpoints(*paths).variables]
    assert [(a and a.name, b and b.name) for a, b in pairs] == [
        ("old-keys", "new-keys"),
        ("old-values", "new-values"),
    ]


def test_open_checkpoints_are_compared_and_stay_open(tmp_path: Path) -> None:
    with open_checkpoint(save(tmp_path / "a", {"v": KERNEL})) as a:
        assert compare_checkpoints(a, a).equal
        np.testing.assert_array_equal(a.get_tensor("v"), KERNEL)


# --- differences ---


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.float32([1, 2, 3]), np.float32([1, 2.5, 2]), Difference(3, 2, 1.0, 1 / 3)),
        (np.float32(2), np.float32(-2), Difference(1, 1, 4.0, 2.0)),
        (np.float32([0, 1]), np.float32([-0.0, 1]), Difference(2, 1, 0.0, 0.0)),
        (np.float32([NAN, 1]), np.float32([NAN, 2]), Difference(2, 1, 1.0, 0.5, 1, 1)),
        (np.float32([1, INF]), np.float32([NAN, INF]), Difference(2, 1, 0.0, 0.0, 0, 1, 1, 1)),
        (np.float32([INF, 4]), np.float32([1, 2]), Difference(2, 2, 2.0, 0.5, 0, 0, 1, 0)),
        (np.float32([INF]), np.float32([-INF]), Difference(1, 1, 0.0, 0.0, 0, 0, 1, 1)),
        (np.int64([2**62, 5]), np.int64([2**62 + 1, 5]), Difference(2, 1, 1.0, 2.0**-62)),
        (np.int64([-(2**63)]), np.int64([2**63 - 1]), Difference(1, 1, 2.0**64, 2.0)),
        (np.uint8([1, 255]), np.uint8([2, 0]), Difference(2, 2, 255.0, 1.0)),
        (np.int8([-128]), np.int8([127]), Difference(1, 1, 255.0, 255 / 128)),
        (np.uint64([2**64 - 1]), np.uint64([0]), Difference(1, 1, 2.0**64, 1.0)),
        (np.array([True, False]), np.array([True, True]), Difference(2, 1, 1.0, 1.0)),
        (np.float64([1e308]), np.float64([-1e308]), Difference(1, 1, sys.float_info.max, 2.0)),
        (np.complex64([3 + 4j]), np.complex64([0]), Difference(1, 1, 5.0, 1.0)),
        (np.float16([1, 2]), np.float16([1, 4]), Difference(2, 1, 2.0, 0.5)),
        (
            np.array([1, 2], ml_dtypes.bfloat16),
            np.array([1, 4], ml_dtypes.bfloat16),
            Difference(2, 1, 2.0, 0.5),
        ),
        (np.array([b"a", b"b"]), np.array([b"a", b"bb"]), Difference(2, 1)),
        (np.float32([[1, 2], [3, 4]]), np.float32([[1, 2], [3, 5]]), Difference(4, 1, 1.0, 0.2)),
    ],
    ids=lambda value: f"{value.dtype}-{value.tolist()}" if isinstance(value, np.ndarray) else "",
)
def test_how_far_values_differ(a: Any, b: Any, expected: Difference, tmp_path: Path) -> None:
    found = compared(tmp_path, a, b)
    assert (found.status, found.difference) == ("changed", expected)


@pytest.mark.parametrize(
    ("a", "b", "options", "status"),
    [
        ([1.0, NAN], [1.0, NAN], {}, "same"),
        ([1.0, NAN], [1.01, NAN], {"atol": 0.02}, "close"),
        ([1.0, NAN], [1.01, NAN], {"rtol": 0.02}, "close"),
        ([1.0, NAN], [1.01, NAN], {"atol": 0.001}, "changed"),
        ([1.0, NAN], [1.0, 1.0], {"atol": 9.0}, "changed"),
        ([0.0, INF], [-0.0, INF], {"atol": 1e-9}, "close"),
        ([INF], [-INF], {"rtol": 1.0}, "changed"),
        ([1.0], [2.0], {"rtol": 0.5}, "close"),  # relative to B
        ([2.0], [1.0], {"rtol": 0.5}, "changed"),
    ],
)
def test_tolerances(a: Any, b: Any, options: Any, status: str, tmp_path: Path) -> None:
    found = compared(tmp_path, np.float32(a), np.float32(b), **options)
    assert found.status == status


def test_other_bits_for_nan_are_a_change(tmp_path: Path) -> None:
    a, b = np.uint32([0x7FC00000]).view(np.float32), np.uint32([0x7FC00001]).view(np.float32)
    found = compared(tmp_path, a, b)
    assert (found.status, found.difference) == ("changed", Difference(1, 1, 0.0, 0.0, 1, 1))


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        (np.zeros([2, 3], np.float32), np.zeros([3, 2], np.float32), "shape"),
        (np.zeros([2], np.float32), np.zeros([2], np.float64), "dtype"),
        (np.zeros([2], np.float32), np.zeros([3], np.int32), "dtype"),
        (np.zeros([0, 2], np.float32), np.zeros([0, 2], np.float32), "same"),
    ],
)
def test_shapes_and_dtypes(a: Any, b: Any, status: str, tmp_path: Path) -> None:
    assert compared(tmp_path, a, b).status == status


def test_variables_of_one_side_only(tmp_path: Path) -> None:
    a = save(tmp_path / "a", {"x": KERNEL, "y": KERNEL})
    b = save(tmp_path / "b", {"y": KERNEL, "z": KERNEL})
    comparison = compare_checkpoints(a, b)
    assert not comparison.equal
    assert statuses(comparison) == {"x": "only in A", "y": "same", "z": "only in B"}


def test_dtypes_that_numpy_lacks_are_compared_by_their_bits(tmp_path: Path) -> None:
    paths = []
    for name, last in (("a", 2), ("b", 3)):
        paths.append(save(tmp_path / name, {"v": np.int8([1, last])}))
        edit_index(paths[-1], lambda e: e.update({b"v": e[b"v"]._replace(dtype=31)}))  # int2
    (one,) = compare_checkpoints(*paths).variables
    assert one.status == "changed"
    assert one.difference is not None
    assert one.difference.differing == 1


# --- partitioned variables, chunks ---


@pytest.mark.parametrize("other", [0, 2, 3, 6])
def test_partitions_do_not_matter(other: int, tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(6, 4)
    a = save(tmp_path / "a", {"v": data}, slices={"v": 3})
    assert compare_checkpoints(a, save(tmp_path / "b", {"v": data}, slices={"v": other})).equal
    changed = data.copy()
    changed[4, 1] += 0.5
    b = save(tmp_path / "c", {"v": changed}, slices={"v": other})
    (one,) = compare_checkpoints(a, b).variables
    assert one.difference == Difference(24, 1, 0.5, pytest.approx(0.5 / 17.5))


def test_partitions_along_another_axis(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(6, 4)
    a = save(tmp_path / "a", {"v": data}, slices={"v": 3})
    assert compare_checkpoints(a, save_columns(tmp_path / "b", data, 1)).equal


@pytest.mark.parametrize(
    ("kept", "expected"),
    [([0], Difference(6, 4, 0, 0)), ([0, 1], Difference(6, 2, 0, 0)), ([1, 2], None)],
)
def test_values_in_the_slices_of_one_side_alone_differ(kept, expected, tmp_path: Path) -> None:
    """Slices need not cover a variable: TF1 has slots of single parts."""
    data = np.arange(6, dtype=np.float32)

    def keep(slices: list[int]) -> Any:
        def change(entries: dict[bytes, Entry]) -> None:
            every = entries[b"v"].slices
            entries[b"v"] = entries[b"v"]._replace(slices=tuple(every[n] for n in slices))
            for n in {0, 1, 2} - set(slices):
                del entries[slice_key("v", every[n])]

        return change

    a = edit_index(save(tmp_path / "a", {"v": data}, slices={"v": 3}), keep(kept))
    other = [1, 2] if expected is None else [0, 1, 2]
    b = edit_index(save(tmp_path / "b", {"v": data}, slices={"v": 3}), keep(other))
    (one,) = compare_checkpoints(a, b).variables
    assert one.difference == expected
    (same,) = compare_checkpoints(b, a).variables
    assert same.difference == expected


@pytest.mark.parametrize("shape", [(3 << 20,), (3, 1 << 20), (1 << 20, 3), (1, 3 << 20)])
@pytest.mark.parametrize("columns", [False, True])
def test_large_variables_are_compared_in_chunks(
    shape: tuple[int, ...], columns: bool, tmp_path: Path
) -> None:
    a = np.arange(3 << 20, dtype=np.int32)
    b = a.copy()
    b[[5, (3 << 20) - 1]] += 1
    paths = [save(tmp_path / name, {"v": v.reshape(shape)}) for name, v in (("a", a), ("b", b))]
    if columns and len(shape) == 2:
        paths[1] = save_columns(tmp_path / "c", b.reshape(shape), 1)
    (one,) = compare_checkpoints(*paths).variables
    assert one.difference is not None
    assert (one.difference.differing, one.difference.max_abs) == (2, 1.0)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    prefix = save(tmp_path / "a", {"large": np.zeros(5 << 18, np.float32), "small": KERNEL})
    seen: list[tuple[int, int]] = []
    compare_checkpoints(prefix, prefix, progress=lambda done, total: seen.append((done, total)))
    size = 5 << 20
    assert seen == [(n, size + 24) for n in (2 << 20, 4 << 20, size, size + 24)]


# --- reports ---


def test_rows_are_folded_with_the_largest_difference(tmp_path: Path) -> None:
    names = [f"layer_{n}/kernel" for n in range(12)]
    a = save(tmp_path / "a", {**dict.fromkeys(names, KERNEL), "head": KERNEL, "same": KERNEL})
    changed = {name: KERNEL + n for n, name in enumerate(names, 1)}
    b = save(tmp_path / "b", {**changed, "head": KERNEL[0], "same": KERNEL})
    comparison = compare_checkpoints(a, b)
    assert comparison.folded_rows() == [
        Row("shape", "head", "float32[2,3]", "float32[3]"),
        Row(
            "changed",
            "layer_{0…11}/kernel",
            "float32[2,3]",
            "float32[2,3]",
            "72 of 72 differ, max abs 12, max rel 0.9231",
        ),
    ]
    assert len(comparison.rows()) == 14


def test_a_row_counts_nan_and_inf(tmp_path: Path) -> None:
    a = save(tmp_path / "a", {"v": np.float32([1, 2, 3])})
    b = save(tmp_path / "b", {"v": np.float32([NAN, INF, 3])})
    (row,) = compare_checkpoints(a, b).rows()
    assert row.note == "2 of 3 differ, max abs 0, max rel 0, NaN 0 -> 1, Inf 0 -> 1"


# --- damage ---


def test_a_difference_that_is_damage_is_an_error(tmp_path: Path) -> None:
    a, b = (save(tmp_path / name, {"v": KERNEL}) for name in "ab")
    flip(data_file(b), 5)
    with pytest.raises(CorruptCheckpointError, match="checksum") as caught:
        compare_checkpoints(a, b)
    assert (caught.value.path, caught.value.key) == (data_file(b), "v")


def test_what_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpointError):
        compare_checkpoints(save(tmp_path / "a", {"v": KERNEL}), tmp_path / "b")

"""Damaged checkpoints: always a CheckpointError or a reported fault, never anything else."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import golden_cases
from stock_files import data_file, edit_index, flip, save, save_in_shards

from estimator_ckpt import compare_checkpoints, open_checkpoint, verify_checkpoint
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, shard_path, write_index
from estimator_ckpt.bundle.tensors import TensorReader, encode_strings
from estimator_ckpt.commands.tree import tree_lines
from estimator_ckpt.errors import CheckpointError, CorruptCheckpointError
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, flat_graph, flat_key, object_key

TENSORS = {"dense/bias": np.float32([1, 2]), "dense/kernel": np.float32([[3, 4], [5, 6]])}


def save_flat(prefix: Path, tensors: dict[str, Any]) -> str:
    keyed = {flat_key(name): tensor for name, tensor in tensors.items()}
    return save(
        prefix,
        {**keyed, object_key("save_counter"): np.int64(0)},
        flat_graph(dict.fromkeys(tensors, VARIABLE_VALUE)),
    )


def error_of(path: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return caught.value


def test_missing_data_files_are_found_when_opening(tmp_path: Path) -> None:
    prefix = save_in_shards(tmp_path / "m", {"a": np.float32(1)}, {"b": np.float32(2)}, {"c": [3]})
    os.remove(data_file(prefix, 1, 3))
    error = error_of(prefix)
    assert isinstance(error, CorruptCheckpointError)
    assert f"1 of 3 data files is missing: {data_file(prefix, 1, 3)}" in str(error)


def test_many_missing_data_files_are_counted(tmp_path: Path) -> None:
    entries = {b"a": Entry(1, (), 11, 0, 4, 0)}
    write_index(str(tmp_path / "m"), Index(12, entries))
    Path(data_file(str(tmp_path / "m"), 11, 12)).write_bytes(bytes(4))
    assert "11 of 12 data files are missing: " in str(error_of(str(tmp_path / "m")))


def test_a_data_file_that_is_cut_off_is_found_when_opening(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    os.truncate(data_file(prefix), 23)
    error = error_of(prefix)
    assert isinstance(error, CorruptCheckpointError)
    assert "expected 24 bytes or more in the data file, found 23" in str(error)
    assert error.key == "dense/kernel"


def test_a_slice_that_is_cut_off_is_named_with_its_variable(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"e": np.zeros([4, 2], np.float32)}, slices={"e": 2})
    os.truncate(data_file(prefix), 31)
    assert error_of(prefix).key == "e[2:4,0:2]"


def test_a_wrong_byte_of_a_value_is_found_when_reading(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    flip(data_file(prefix), 9)
    checkpoint = open_checkpoint(prefix)
    np.testing.assert_array_equal(checkpoint.get_tensor("dense/bias"), [1, 2])
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        checkpoint.get_tensor("dense/kernel")


def test_any_wrong_byte_of_an_index_is_found_when_opening(tmp_path: Path) -> None:
    prefix = save_flat(tmp_path / "m", TENSORS)
    for offset in range(os.path.getsize(f"{prefix}.index")):
        flip(f"{prefix}.index", offset)
        assert isinstance(error_of(prefix), CheckpointError)
        flip(f"{prefix}.index", offset)
    assert open_checkpoint(prefix).format == "checkpoint"


def test_an_index_of_any_other_length_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", TENSORS)
    data = Path(f"{prefix}.index").read_bytes()
    for size in range(len(data)):
        Path(f"{prefix}.index").write_bytes(data[:size])
        assert isinstance(error_of(prefix), CheckpointError)


def test_a_wrong_byte_of_the_object_graph_is_found_when_opening(tmp_path: Path) -> None:
    prefix = save_flat(tmp_path / "m", TENSORS)
    flip(data_file(prefix), os.path.getsize(data_file(prefix)) - 1)
    error = error_of(prefix)
    assert isinstance(error, CorruptCheckpointError)
    assert "checksum" in str(error)


def test_an_object_graph_that_is_no_string_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {OBJECT_GRAPH_KEY: np.float32([1])})
    assert "a string scalar, found another tensor" in str(error_of(prefix))


# --- at random ---


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few bytes changed, dropped or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed) or 1)
        kind = chance.random()
        if kind < 0.6:
            changed[at : at + 1] = bytes((chance.randrange(256),))
        elif kind < 0.8:
            del changed[at : at + chance.randint(1, 9)]
        else:
            changed[at:at] = changed[chance.randrange(len(changed) or 1) :][:40]
    return bytes(changed)


def mutate_object_graph(prefix: str, chance: random.Random) -> None:
    """Another object graph, with the right checksum."""
    index = read_index(prefix)
    entry = index.entries[OBJECT_GRAPH_KEY.encode()]
    (data,) = TensorReader(prefix, index).strings(entry)
    stored, crc = encode_strings([mutated(data, chance)])
    path = shard_path(prefix, 0, index.num_shards)
    changed = Entry(entry.dtype, (), 0, os.path.getsize(path), len(stored), crc)
    with open(path, "ab") as file:
        file.write(stored)
    edit_index(prefix, lambda entries: entries.update({OBJECT_GRAPH_KEY.encode(): changed}))


CHANGES: list[dict[str, Any]] = [
    *({"offset": offset} for offset in (0, 1, 1 << 40)),
    *({"dtype": dtype} for dtype in (1, 2, 3, 7, 9, 20, 21, 31, 99)),
    *({"shape": shape} for shape in ((), (0,), (3,), (2, 2), (1 << 40,))),
    *({"size": size} for size in (0, 1, 8, 1 << 50)),
    *({"shard": shard} for shard in (1, 2)),
]


def mutate_entries(prefix: str, chance: random.Random) -> None:
    """Entries that say something else, are gone, or stand for another's bytes."""
    index = read_index(prefix)
    for _ in range(chance.randint(1, 3)):
        key = chance.choice([*index.entries])
        kind = chance.random()
        if kind < 0.2 and len(index.entries) > 1:
            del index.entries[key]
        elif kind < 0.4:
            index.entries[key] = chance.choice([*index.entries.values()])
        else:
            index.entries[key] = index.entries[key]._replace(**chance.choice(CHANGES))
    write_index(prefix, Index(index.num_shards, index.entries))


def mutate_bytes(prefix: str, chance: random.Random) -> None:
    """One bit of the index or of a data file."""
    shards = read_index(prefix).num_shards
    paths = [f"{prefix}.index", shard_path(prefix, 0, shards)]
    path = chance.choice([path for path in paths if os.path.getsize(path)])
    flip(path, chance.randrange(os.path.getsize(path)), 1 << chance.randrange(8))


def use(prefix: str, original: str) -> None:
    """Everything that reads a checkpoint."""
    with open_checkpoint(prefix) as checkpoint:
        assert checkpoint.format in ("saver", "checkpoint", "both")
        assert checkpoint.global_step is None or checkpoint.global_step >= 0
        if checkpoint.object_graph is not None:
            assert len(list(tree_lines(checkpoint))) > 0
        for name in checkpoint.variables:
            with contextlib.suppress(CheckpointError):
                assert checkpoint.get_tensor(name).shape == checkpoint.variables[name].shape
        compare_checkpoints(checkpoint, original)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_but_checkpoint_errors(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for case in golden_cases():
        if case.version != "2.15":
            continue
        for path in Path(case.prefix).parent.glob(f"{Path(case.prefix).name}.*"):
            shutil.copyfile(path, tmp_path / path.name.replace(Path(case.prefix).name, "m"))
        prefix = str(tmp_path / "m")
        ways = [mutate_entries, mutate_bytes]
        if case.format == "checkpoint":
            ways += [mutate_object_graph] * 3
        with contextlib.suppress(CheckpointError):  # or else the writer refuses such an index
            chance.choice(ways)(prefix, chance)
        with contextlib.suppress(CheckpointError):
            verify_checkpoint(prefix)
        with contextlib.suppress(CheckpointError):
            use(prefix, case.prefix)

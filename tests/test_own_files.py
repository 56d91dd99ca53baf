"""What own_files writes is, byte by byte, what TensorFlow's ops write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import own_files
import stock_files
import tensorflow as tf  # noqa: F401 (the other party: without it there is nothing to compare with)

from estimator_ckpt.objects.nodes import Node
from estimator_ckpt.objects.object_graph import ObjectGraph

TENSORS = {
    "z/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "parts": np.arange(8, dtype=np.int64).reshape(4, 2),
    "a/names": np.array(["x", b"yy", ""], object),
    "step": np.int64(7),
    "text": b"bytes",
    "empty": np.zeros((0, 3), np.float16),
}


def files_of(prefix: str) -> dict[str, bytes]:
    start = Path(prefix)
    found = start.parent.glob(f"{start.name}.*")
    return {path.name.removeprefix(start.name): path.read_bytes() for path in found}


def test_one_data_file(tmp_path: Path) -> None:
    graph = ObjectGraph([Node()])
    ours = own_files.save(tmp_path / "ours", TENSORS, graph, {"parts": 2})
    theirs = stock_files.save(tmp_path / "theirs", TENSORS, graph, {"parts": 2})
    assert files_of(ours) == files_of(theirs)


def test_several_data_files(tmp_path: Path) -> None:
    shards = [{"a": np.float32([1, 2])}, {"b": np.int32(3), "c": np.float64([4])}]
    ours = own_files.save_in_shards(tmp_path / "ours", *shards)
    theirs = stock_files.save_in_shards(tmp_path / "theirs", *shards)
    assert files_of(ours) == files_of(theirs)

"""How fast a checkpoint in TensorFlow's first file format is read, beside TensorFlow's own reader.

    PYTHONPATH=. python benchmarks/v1_speed.py

Writes checkpoints of floats and of integers with `SaveSlices` and reads all tensors of each, by
`tf.train.load_checkpoint` and by `open_checkpoint`. Prints the best of five, in milliseconds, and
the ratio; ours may take four times as long at most. Both find the files in the page cache.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from estimator_ckpt import open_checkpoint

TIMES = 5
MOST = 4.0


def write(path: str, tensors: dict[str, np.ndarray]) -> None:
    tf.raw_ops.SaveSlices(
        filename=path,
        tensor_names=list(tensors),
        shapes_and_slices=[""] * len(tensors),
        data=list(tensors.values()),
    )


def stock(path: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def ours(path: str) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.get_tensor(name) for name in checkpoint.variables}


def best(read: Callable[[str], dict[str, np.ndarray]], path: str) -> float:
    """The shortest of some times, in seconds."""
    found = []
    for _ in range(TIMES):
        start = time.perf_counter()
        read(path)
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> int:
    random = np.random.default_rng(0)
    cases = {
        "floats, 8 x 16 MB": {
            f"w{n}": random.normal(size=4_000_000).astype(np.float32) for n in range(8)
        },
        "int64 of all sizes, 4 million": {
            "n": np.left_shift(np.int64(1), random.integers(0, 63, 4_000_000))
        },
        "small int32, 8 million": {"n": random.integers(0, 100, 8_000_000, np.int32)},
        "negative int32, 2 million": {"n": random.integers(-100, 0, 2_000_000, np.int32)},
        "negative int64, 2 million": {"n": -random.integers(1, 1 << 62, 2_000_000)},
        "1,000 small variables": {
            f"layer_{n}/bias": np.full(100, n, np.float32) for n in range(1000)
        },
    }
    slow = False
    print(f"{'':32} {'stock':>8} {'ours':>8} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as directory:
        for name, tensors in cases.items():
            path = os.path.join(directory, name.replace(" ", "_"))
            write(path, tensors)
            for key, value in ours(path).items():
                np.testing.assert_array_equal(value, tensors[key])
            theirs, own = best(stock, path), best(ours, path)
            print(f"{name:32} {theirs * 1e3:8.1f} {own * 1e3:8.1f} {own / theirs:6.2f}")
            slow |= own > MOST * theirs
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())

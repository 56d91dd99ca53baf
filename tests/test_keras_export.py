"""A model starts from what Keras' model.export() wrote, each variable by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_party import tf

from estimator_ckpt import WarmStart


def network(seed: int) -> Any:
    """Layers of one class and shape, so that names alone could not tell them apart."""
    tf.keras.utils.set_random_seed(seed)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((3,)),
            layers.Dense(3),
            layers.BatchNormalization(),
            layers.Dense(3),
            layers.Dense(3),
        ]
    )


def test_a_model_starts_from_an_exported_one(tmp_path: Path) -> None:
    if not hasattr(tf.keras.Model, "export"):
        pytest.skip("Keras exports since 2.13")
    source = network(1)
    source.compile("adam", "mse")
    inputs = np.random.default_rng(0).random((8, 3), np.float32)
    source.fit(inputs, inputs, verbose=0)  # which moves the batch norm's statistics, too
    source.export(str(tmp_path / "exported"))
    model = network(2)
    report = WarmStart(str(tmp_path / "exported")).apply(model)
    assert len(model.weights) == len(source.weights) == 10
    for ours, theirs in zip(model.weights, source.weights):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert {row.status for row in report.rows()} == {"warm-started"}

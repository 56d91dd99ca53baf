"""Settings and names that are wrong: errors before anything is written."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conversion_files import names_in, write_bundle

from estimator_ckpt import convert_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError

VALUES = {
    "dense/bias": np.arange(3, dtype=np.float32),
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "global_step": np.array(7, np.int64),
    "odd.name.S/x": np.array([1.5, -2.5]),
}


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"checkpoint_format": "tf2"}, "checkpoint_format"),
        ({"layout": "tree"}, "layout"),
        ({"checkpoint_format": "saver", "layout": "scopes"}, "layout"),
        ({"checkpoint_format": "saver", "like": "x"}, "like"),
        ({"checkpoint_format": "saver", "optimizer": "keras"}, "optimizer"),
        ({"like": "x", "layout": "scopes"}, "layout"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"optimizer": "keras", "drop_slots": True}, "drop_slots"),
        ({"hyperparameters": {"beta_1": 0.9}}, "hyperparameters"),
        ({"optimizer": "keras", "hyperparameters": {"beta_1": "0.9"}}, "hyperparameters"),
        ({"dtype": "string"}, "dtype"),
        ({"dtype": {"float32": "int32"}}, "dtype"),
        ({"dtype": "bfloat"}, "dtype"),
        ({"rename": {"(": ""}}, "rename[0]"),
        ({"in_place": True}, "destination"),
        ({"in_place": True, "copy": True}, "copy"),
        ({"in_place": True, "compact": True}, "compact"),
        ({"in_place": True, "dtype": "bfloat16"}, "dtype"),
    ],
)
def test_settings_that_are_wrong_are_errors_before_anything_is_written(
    settings, key, source, tmp_path
):
    settings = {"checkpoint_format": "both", **settings}
    with pytest.raises(SettingsError) as raised:
        convert_checkpoint(source, tmp_path / "out", **settings)
    assert raised.value.key == key
    assert names_in(tmp_path) == ["source"]


def test_a_variable_named_like_the_key_of_another_is_a_conflict(tmp_path):
    write_bundle(
        tmp_path / "m",
        {"x": np.float32(1), "var_list/x/.ATTRIBUTES/VARIABLE_VALUE": np.float32(2)},
    )
    with pytest.raises(ConflictError, match="would both have this key"):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "both")
    assert not os.path.exists(tmp_path / "out.index")


def test_two_names_for_one_object_are_a_conflict(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32(1), "save_counter": np.float32(2)})
    with pytest.raises(ConflictError):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", layout="scopes")

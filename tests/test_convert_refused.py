"""Optimizer state that is refused with the reason, or that the step and the powers decide."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from convert_helper import contents, write_bundle
from goldens_helper import golden_cases

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    ConflictError,
    SettingsError,
    UnsupportedCheckpointError,
)

KERNEL = np.ones((2, 3), np.float32)


def slots(*names, **more):
    values = {"kernel": KERNEL, **{f"kernel/{name}": KERNEL for name in names}, **more}
    return {"global_step": np.array(10, np.int64), **values}


@pytest.mark.parametrize(
    ("values", "numbers", "error", "message"),
    [
        (slots("Momentum"), {}, SettingsError, "-learning_rate times what TF1's Momentum keeps"),
        (slots("Momentum"), {"learning_rate": 0}, SettingsError, "give the learning_rate"),
        (slots("RMSProp", "RMSProp_1"), {}, SettingsError, "epsilon outside of the root"),
        (
            slots("RMSProp", "RMSProp_1", "RMSProp_2"),
            {"momentum": 0},
            SettingsError,
            "epsilon outside of the root",
        ),
        (slots("AdamW", "AdamW_1"), {}, UnsupportedCheckpointError, "the state of AdamW cannot"),
        (slots("AdaMax", "AdaMax_1"), {}, UnsupportedCheckpointError, "the state of AdaMax"),
        (slots("LazyAdam"), {}, UnsupportedCheckpointError, "the state of LazyAdam"),
        (
            slots("adam_m", "adam_v"),
            {},
            UnsupportedCheckpointError,
            "the state of AdamWeightDecayOptimizer",
        ),
        (
            slots("Adam", "Adam_1", "Adam_2", "Adam_3"),
            {},
            UnsupportedCheckpointError,
            "there are several optimizers Adam",
        ),
        (
            slots(
                "Adam",
                "Adam_1",
                beta1_power=np.float32(0.1),
                beta2_power=np.float32(0.1),
                beta1_power_1=np.float32(0.1),
            ),
            {},
            UnsupportedCheckpointError,
            "there are several optimizers Adam",
        ),
        (slots(), {}, UnsupportedCheckpointError, "found no optimizer's slots"),
        (slots("Adam", "Adam_1"), {"rho": 0.9}, SettingsError, "rho: no such variable in Adam"),
        (
            {"kernel": KERNEL, "kernel/Adam": KERNEL},
            {},
            SettingsError,
            "no global_step to take it from",
        ),
    ],
)
def test_what_cannot_become_keras_state_is_refused_by_name_with_the_reason(
    values, numbers, error, message, tmp_path
):
    write_bundle(tmp_path / "m", values)
    with pytest.raises(error, match=message):
        convert_checkpoint(
            tmp_path / "m", tmp_path / "out", "both", optimizer="keras", hyperparameters=numbers
        )
    assert not (tmp_path / "out.index").exists()


def powers(steps, beta_1=0.9, beta_2=0.999):
    return {
        "beta1_power": np.float32(beta_1 ** (steps + 1)),
        "beta2_power": np.float32(beta_2 ** (steps + 1)),
    }


@pytest.mark.parametrize(
    ("own", "numbers", "message"),
    [
        (powers(3), {}, "has made 3 steps, the global step says 10; give iter=3"),
        (powers(3), {"beta_1": 0.9}, "beta_1 0.9 after 3.0 steps, not after 10"),
        (powers(10), {"beta_1": 0.8}, "give the right beta_1"),
        (powers(10), {"iter": 11}, "the global step says 11"),
    ],
)
def test_powers_of_beta_that_contradict_the_step_are_a_conflict(own, numbers, message, tmp_path):
    write_bundle(tmp_path / "m", slots("Adam", "Adam_1", **own))
    with pytest.raises(ConflictError, match=message):
        convert_checkpoint(
            tmp_path / "m", tmp_path / "out", "both", optimizer="keras", hyperparameters=numbers
        )


@pytest.mark.parametrize(
    ("own", "numbers", "expected"),
    [
        (powers(10), {}, 10),
        (powers(3), {"iter": 3}, 3),
        (powers(10, 0.8, 0.95), {}, 10),
        (powers(10, 0.8, 0.95), {"beta_1": 0.8, "beta_2": 0.95}, 10),
        ({"beta1_power": np.float32(0), "beta2_power": np.float32(0)}, {}, 10),
        ({}, {}, 10),
    ],
)
def test_iter_is_the_global_step_unless_it_is_given(own, numbers, expected, tmp_path):
    write_bundle(tmp_path / "m", slots("Adam", "Adam_1", **own))
    convert_checkpoint(
        tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras", hyperparameters=numbers
    )
    found = open_checkpoint(tmp_path / "out")
    assert found.get_tensor("optimizer/iter") == expected


def test_an_int32_global_step_becomes_an_int64_iter(tmp_path):
    write_bundle(tmp_path / "m", {**slots("Adam"), "global_step": np.array(10, np.int32)})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras")
    found = open_checkpoint(tmp_path / "out").get_tensor("optimizer/iter")
    assert (found, found.dtype) == (10, np.int64)


def test_a_scope_around_the_optimizer_is_known(tmp_path):
    values = {
        "global_step": np.array(10, np.int64),
        "kernel": KERNEL,
        "train/kernel/Adam": KERNEL * 2,
        "train/kernel/Adam_1": KERNEL * 3,
        "train/beta1_power": np.float32(0.9**11),
    }
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras")
    found = open_checkpoint(tmp_path / "out").variables
    assert found["train/kernel/Adam_1"].object_path == (
        "var_list/kernel/.OPTIMIZER_SLOT/optimizer/v"
    )


def test_an_optimizer_of_another_name_is_known_once_it_is_renamed(tmp_path):
    values = slots("Mine", "Mine_1", **powers(10))
    write_bundle(tmp_path / "m", values)
    rename = {r"(.*)/Mine(_1)?": r"\1/Adam\2"}
    convert_checkpoint(
        tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras", rename=rename
    )
    assert "var_list/kernel/.OPTIMIZER_SLOT/optimizer/v/.ATTRIBUTES/VARIABLE_VALUE" in (
        contents(tmp_path / "out")
    )


def test_two_optimizers_become_two_objects(tmp_path):
    values = {
        "wide": KERNEL,
        "wide/Ftrl": KERNEL * 2,
        "wide/Ftrl_1": KERNEL * 3,
        "deep": KERNEL * 4,
        "deep/Adagrad": KERNEL * 5,
        "global_step": np.array(3, np.int64),
    }
    write_bundle(tmp_path / "m", values)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras")
    found = open_checkpoint(tmp_path / "out")
    assert {
        v.object_path: float(found.get_tensor(v.key).ravel()[0]) for v in found.variables.values()
    } == {
        "save_counter": 0,
        "var_list/deep": 4,
        "var_list/deep/.OPTIMIZER_SLOT/optimizer_Adagrad/accumulator": 5,
        "step": 3,
        "var_list/wide": 1,
        "var_list/wide/.OPTIMIZER_SLOT/optimizer_Ftrl/accumulator": 2,
        "var_list/wide/.OPTIMIZER_SLOT/optimizer_Ftrl/linear": 3,
        "optimizer_Adagrad/iter": 3,
        "optimizer_Ftrl/iter": 3,
    }


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda legacy: legacy.Adamax(), "Keras' Adamax"),
        (lambda legacy: legacy.Nadam(), "Keras' Nadam"),
        (lambda legacy: legacy.Adam(amsgrad=True), "m, v, vhat"),
        (lambda legacy: legacy.RMSprop(), "epsilon outside of the root"),
        (lambda legacy: legacy.SGD(0.1, 0.9), "give the learning_rate"),
        (lambda legacy: legacy.SGD(0.1), "it has no slots"),
        (lambda legacy: tf.keras.optimizers.Adam(), "after Keras 2.10"),
    ],
)
def test_what_cannot_become_tf1_state_is_refused_by_name_with_the_reason(make, message, tmp_path):
    variable = tf.Variable(KERNEL, name="kernel")
    optimizer = make(tf.keras.optimizers.legacy)
    optimizer.apply_gradients([(tf.ones_like(variable), variable)])
    objects = tf.train.Checkpoint(model=[variable], optimizer=optimizer)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(
            objects.save(str(tmp_path / "m")), tmp_path / "out", "saver", optimizer="tf1"
        )
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize("by_names", [True, False])
@pytest.mark.parametrize("target", ["keras", "tf1"])
def test_state_of_keras_newer_optimizers_is_refused_with_the_reason(target, by_names, tmp_path):
    source = golden_cases("optimizer_keras")[0].prefix
    if by_names:
        convert_checkpoint(source, tmp_path / "names", "saver")
        source = tmp_path / "names"
    settings = {"layout": "var_list", "optimizer": target}
    with pytest.raises(UnsupportedCheckpointError, match="after Keras 2"):
        convert_checkpoint(source, tmp_path / "out", "both", **settings)


def test_objects_that_stay_cannot_get_another_optimizer(tmp_path):
    case = golden_cases("slots_object")[0]
    with pytest.raises(SettingsError, match="say which") as raised:
        convert_checkpoint(case.prefix, tmp_path / "out", "both", optimizer="tf1")
    assert raised.value.key == "layout"

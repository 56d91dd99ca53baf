"""Optimizer state that is refused with the reason, or that the step and the powers decide."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import contents, write_bundle
from golden_files import golden_cases
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.conversion.adam_steps import Power, count_steps
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
        (slots("Nadam", "Nadam_1"), {}, UnsupportedCheckpointError, "the state of Nadam"),
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
    """As AdamOptimizer keeps them: beta to begin with, times beta in every step, in float32."""
    return {
        name: np.multiply.reduce(np.full(steps + 1, beta, np.float32))
        for name, beta in (("beta1_power", beta_1), ("beta2_power", beta_2))
    }


def adam(own, global_step):
    return {**slots("Adam", "Adam_1", **own), "global_step": np.array(global_step, np.int64)}


@pytest.mark.parametrize(
    ("own", "global_step", "numbers", "error", "message"),
    [
        # beta_1's power is 0 after 828 steps, and nobody has said what beta_2 is.
        (powers(1200), 2400, {}, SettingsError, "beta_2 0.999 after 1200.0 steps.*2400.*as iter"),
        (powers(10, 0.8, 0.95), 10, {}, SettingsError, "give the steps.*as iter"),
        (powers(90_000), 20, {}, SettingsError, "beta_1 0.9 after at least 827.* is 20"),
        ({"beta1_power": np.float32(0.9**4)}, 10, {}, SettingsError, "after 3.0 steps"),
        (powers(10), 20, {"beta_1": 0.8}, ConflictError, "no whole number; give the right beta_1"),
        (powers(10), 10, {"beta_1": 0.8}, ConflictError, "no whole number; give the right beta_1"),
        (powers(9), 9, {"beta_1": 0.81}, ConflictError, "give the right beta_1, or iter"),
        (powers(10), 10, {"iter": 11}, ConflictError, "iter 11 was given, but beta1_power"),
        (powers(10), 10, {"beta_1": 1.5}, SettingsError, "beta_1 between 0 and 1, found 1.5"),
    ],
)
def test_steps_that_the_powers_of_beta_leave_in_doubt_are_asked_for(
    own, global_step, numbers, error, message, tmp_path
):
    write_bundle(tmp_path / "m", adam(own, global_step))
    with pytest.raises(error, match=message):
        convert_checkpoint(
            tmp_path / "m", tmp_path / "out", "both", optimizer="keras", hyperparameters=numbers
        )
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize(
    ("own", "global_step", "numbers", "expected"),
    [
        (powers(10), 10, {}, 10),
        (powers(3), 10, {}, 3),  # two powers that agree; the step of a GAN counts for both
        (powers(3), 10, {"iter": 3}, 3),
        (powers(3, 0.5), 10, {"beta_1": 0.5}, 3),
        (powers(1200), 2400, {"beta_2": 0.999}, 1200),
        (powers(1200), 1200, {}, 1200),
        (powers(10, 0.5), 10, {}, 10),  # beta_2's default confirms the global step
        (powers(10, 0.8, 0.95), 10, {"beta_1": 0.8, "beta_2": 0.95}, 10),
        (powers(80_000), 80_000, {}, 80_000),
        (powers(90_000), 100_000, {}, 100_000),
        ({}, 10, {}, 10),
    ],
)
def test_iter_is_the_count_of_steps_that_is_certain(own, global_step, numbers, expected, tmp_path):
    write_bundle(tmp_path / "m", adam(own, global_step))
    convert_checkpoint(
        tmp_path / "m", tmp_path / "out", "checkpoint", optimizer="keras", hyperparameters=numbers
    )
    found = open_checkpoint(tmp_path / "out")
    assert found.get_tensor("optimizer/iter") == expected


@given(
    steps=st.integers(0, 2000),
    betas=st.tuples(st.floats(0.3, 0.95), st.floats(0.96, 0.9999)),
    factor=st.integers(2, 4),
)
def test_given_betas_tell_the_steps_whatever_the_global_step_says(steps, betas, factor):
    held = [
        Power(name, beta_name, float(value), given=beta)
        for (name, value), beta_name, beta in zip(
            powers(steps, *betas).items(), ("beta_1", "beta_2"), betas
        )
    ]
    assert count_steps(held, factor * steps + 5)[0] == steps


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
        (lambda legacy: legacy.Nadam(), "Keras' Nadam"),
        (lambda legacy: legacy.Adam(amsgrad=True), "m, v, vhat"),
        (lambda legacy: legacy.RMSprop(), "epsilon outside of the root"),
        (lambda legacy: legacy.SGD(0.1, 0.9), "give the learning_rate"),
        (lambda legacy: legacy.SGD(0.1), "it has no slots"),
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
def test_state_of_keras_newer_optimizers_is_refused_with_the_reason(by_names, tmp_path):
    source = golden_cases("optimizer_keras")[0].prefix
    if by_names:
        convert_checkpoint(source, tmp_path / "names", "saver")
        source = tmp_path / "names"
    settings = {"layout": "var_list", "optimizer": "keras"}
    with pytest.raises(UnsupportedCheckpointError, match="after Keras 2"):
        convert_checkpoint(source, tmp_path / "out", "both", **settings)


def test_objects_that_stay_cannot_get_another_optimizer(tmp_path):
    case = golden_cases("slots_object")[0]
    with pytest.raises(SettingsError, match="say which") as raised:
        convert_checkpoint(case.prefix, tmp_path / "out", "both", optimizer="tf1")
    assert raised.value.key == "layout"

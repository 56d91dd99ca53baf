"""Casts and compact results: values that are written anew."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conversion_files import contents, names_in, stock_values, v1, write_bundle
from golden_files import golden_case, golden_cases
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
VALUES = {
    "model/dense/kernel": KERNEL,
    "model/dense/kernel/Adam": KERNEL / 2,
    "model/dense/kernel/Adam_1": KERNEL / 4,
    "beta1_power": np.float32(0.5),
    "beta2_power": np.float32(0.25),
    "global_step": np.array(7, np.int64),
}


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


# --- Casts ---


def test_a_cast_streams_values_into_new_data_files(source, tmp_path):
    result = convert_checkpoint(source, tmp_path / "out", "both", dtype="bfloat16")
    found = open_checkpoint(tmp_path / "out")
    assert found.variables["model/dense/kernel"].dtype == "bfloat16"
    assert found.variables["global_step"].dtype == "int64"
    assert stock_values(tmp_path / "out")["model/dense/kernel/Adam_1"] == [
        [0, 0.25, 0.5],
        [0.75, 1, 1.25],
    ]
    assert {how for _, how in result.data_files} == {"write"}
    assert result.verified == 14
    assert verify_checkpoint(tmp_path / "out").unused_bytes == 0


@pytest.mark.parametrize(
    ("source_dtype", "target"),
    [
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("float32", "float64"),
        ("float64", "float32"),
        ("int64", "int32"),
        ("int32", "int64"),
    ],
)
def test_casts_are_those_of_numpy(source_dtype, target, tmp_path):
    values = np.array([0, 1, -2, 100, 3.14159, -1e-3]).astype(source_dtype)
    write_bundle(tmp_path / "m", {"x": values, "empty": values[:0]})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver", dtype={source_dtype: target})
    expected = values.astype(getattr(ml_dtypes, target, target))
    found = open_checkpoint(tmp_path / "out").get_tensor("x")
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


def test_slices_are_cast_too(tmp_path):
    case = golden_case("2.15", "partitioned")
    convert_checkpoint(case.prefix, tmp_path / "out", "both", dtype={"float32": "float64"})
    assert verify_checkpoint(tmp_path / "out").faults == ()
    assert (
        stock_values(tmp_path / "out")["columns/kernel"]
        == (stock_values(case.prefix)["columns/kernel"])
    )


def test_a_large_tensor_is_cast_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("estimator_ckpt.bundle.data_files._CHUNK", 64)
    values = np.arange(1001, dtype=np.float32)
    write_bundle(tmp_path / "m", {"x": values})
    seen = []
    convert_checkpoint(
        tmp_path / "m",
        tmp_path / "out",
        "saver",
        dtype="float64",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert open_checkpoint(tmp_path / "out").get_tensor("x").tolist() == values.tolist()
    assert seen[-1] == (8008, 8008)
    assert len(seen) == 63


@pytest.mark.parametrize(
    ("values", "target", "message"),
    [
        (np.float32([1, 1e6]), "float16", "1000000.0 is beyond the range of float16"),
        (np.float64([1, -1e300]), "float32", "is beyond the range of float32"),
        (np.int64([1, 2**31]), "int32", "2147483648 is beyond the range of int32"),
        (np.int64([-1]), "uint32", "-1 is beyond the range of uint32"),
    ],
)
def test_a_number_beyond_the_range_is_an_error_with_its_key(values, target, message, tmp_path):
    write_bundle(tmp_path / "m", {"x": values})
    with pytest.raises(MismatchError, match=message) as raised:
        convert_checkpoint(
            tmp_path / "m", tmp_path / "out", "saver", dtype={values.dtype.name: target}
        )
    assert raised.value.key == "x"
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def train(dtype, prefix, *, restore):
    """Losses of a TF1 job with Adam, from a checkpoint or from one that it saves."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", initializer=np.array([1, -2], dtype))
        loss = tf.reduce_sum(tf.square(variable * 3 - 4))
        train_op = v1.train.AdamOptimizer(0.1).minimize(loss, v1.train.create_global_step())
        saver = v1.train.Saver()
        if restore:
            saver.restore(session, prefix)
        else:
            session.run(v1.global_variables_initializer())
            for _ in range(4):
                session.run(train_op)
            saver.save(session, prefix, write_meta_graph=False)
        return [session.run([loss, train_op])[0] for _ in range(4)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-5), ("float16", 3e-3)])
def test_a_job_of_another_dtype_goes_on_with_slots_of_that_dtype(dtype, tolerance, tmp_path):
    source, out = str(tmp_path / "m"), str(tmp_path / "out")
    expected = train("float32", source, restore=False)
    convert_checkpoint(source, out, "saver", dtype=dtype)
    found = train(dtype, out, restore=True)
    np.testing.assert_allclose(found, expected, rtol=tolerance)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("slots_tf1", {"beta1_power", "beta2_power"}),
        ("slots_object", {"beta1_power", "beta2_power"}),
        ("slots_keras_legacy", {f"Adam/{n}" for n in ("beta_1", "beta_2", "decay")}),
    ],
)
def test_the_optimizers_own_numbers_keep_their_dtype(kind, own, tmp_path):
    case = golden_case("2.15", kind)
    convert_checkpoint(case.prefix, tmp_path / "out", "saver", dtype="bfloat16")
    found = {v.name: v.dtype for v in open_checkpoint(tmp_path / "out").variables.values()}
    kept = {name for name, dtype in found.items() if dtype == "float32"}
    assert kept == own | ({"Adam/learning_rate"} if kind == "slots_keras_legacy" else set())


def test_steps_keep_their_dtype(tmp_path):
    values = {"x": np.int64([1]), "global_step": np.array(7, np.int64)}
    source = write_bundle(tmp_path / "m", values)
    convert_checkpoint(source, tmp_path / "out", "both", dtype={"int64": "int32"})
    found = {v.name: v.dtype for v in open_checkpoint(tmp_path / "out").variables.values()}
    assert found == {"x": "int32", "global_step": "int64", "save_counter": "int64"}
    with pytest.raises(SettingsError, match="applies to no variable"):
        convert_checkpoint(source, tmp_path / "no", "both", dtype={"int64": "int32"}, exclude=["x"])


def test_values_that_are_too_small_become_0_and_are_counted(tmp_path):
    small = np.float32([1e-8, -1e-9, 1e-3, 0, 1e-40])
    source = write_bundle(tmp_path / "m", {"x": small, "y": np.float32([1]), "z": small[:1]})
    result = convert_checkpoint(source, tmp_path / "out", "saver", dtype="float16")
    assert result.underflows == (("x", 2), ("z", 1))
    assert result.warning == "values too small for their new dtype became 0: 2 of x, 1 of z"
    wide = convert_checkpoint(source, tmp_path / "wide", "saver", dtype="bfloat16")
    assert (wide.underflows, wide.warning) == ((), "")


@pytest.mark.parametrize("slot", ["x/Adam_1", "x/Adagrad", "Adam/x/v", "x/adam_v"])
def test_a_slots_value_that_would_become_0_is_an_error(slot, tmp_path):
    source = write_bundle(tmp_path / "m", {"x": np.float32([1]), slot: np.float32([1e-10])})
    with pytest.raises(MismatchError, match=r"the value 1e-10 .* would be 0 as float16") as raised:
        convert_checkpoint(source, tmp_path / "out", "saver", dtype="float16")
    assert (raised.value.path, raised.value.key) == (source, slot)
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]
    convert_checkpoint(source, tmp_path / "out", "saver", dtype="float16", drop_slots=True)
    assert stock_values(tmp_path / "out") == {"x": [1]}


def test_infinities_and_nan_are_cast(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32([np.inf, -np.inf, np.nan])})
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver", dtype="float16")
    assert list(map(str, open_checkpoint(tmp_path / "out").get_tensor("x"))) == [
        "inf",
        "-inf",
        "nan",
    ]


@pytest.mark.parametrize(
    ("dtype", "value", "rate"),
    [("float16", 100, 1000), ("float32", 1e35, 1e5), ("bfloat16", 1e35, 1e5)],
)
def test_what_is_computed_is_no_infinity_in_silence(dtype, value, rate, tmp_path):
    source = tmp_path / "m"
    values = {"w": [1.0], "w/Momentum": [value]}
    tensors = [tf.constant(one, dtype) for one in values.values()]
    tf.raw_ops.SaveV2(
        prefix=str(source),
        tensor_names=list(values),
        shape_and_slices=["", ""],
        tensors=tensors,
    )

    def convert(name, rate):
        numbers = {"learning_rate": rate, "iter": 1}
        return convert_checkpoint(
            source, tmp_path / name, "both", optimizer="keras", hyperparameters=numbers
        )

    with pytest.raises(MismatchError, match=f"is beyond the range of {dtype}") as raised:
        convert("out", rate)
    assert raised.value.key == "w/Momentum"
    assert not (tmp_path / "out.index").exists()
    assert convert("small", 0.5).underflows == ()
    found = open_checkpoint(tmp_path / "small").get_tensor("SGD/w/momentum")
    expected = (-tensors[1] / 2).numpy()
    assert found.dtype.name == expected.dtype.name
    assert found.astype(float).tolist() == expected.astype(float).tolist()
    if dtype == "float16":
        assert convert("tiny", 1e-10).underflows == (("w/Momentum", 1),)


# --- Compact ---


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_compact_writes_the_same_values_and_no_byte_more(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "linked", "both")
    result = convert_checkpoint(case.prefix, tmp_path / "out", "both", compact=True)
    report = verify_checkpoint(tmp_path / "out")
    assert (report.faults, report.unused_bytes) == ((), 0)
    assert result.verified is not None
    assert contents(tmp_path / "out") == contents(tmp_path / "linked")


def test_compact_keeps_the_number_of_data_files(tmp_path):
    case = golden_case("2.15", "multi_shard")
    result = convert_checkpoint(case.prefix, tmp_path / "out", "both", compact=True)
    assert [how for _, how in result.data_files] == ["write"] * 3


def test_what_is_left_out_stays_in_linked_data_files_and_not_in_compact_ones(source, tmp_path):
    settings = {"exclude": [".*Adam.*"]}
    convert_checkpoint(source, tmp_path / "linked", "saver", **settings)
    convert_checkpoint(source, tmp_path / "compact", "saver", compact=True, **settings)
    assert verify_checkpoint(tmp_path / "linked").unused_bytes == 48
    assert verify_checkpoint(tmp_path / "compact").unused_bytes == 0

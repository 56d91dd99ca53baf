"""What does not fit a template is told at once, with the flags that give each."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conversion_files import write_bundle
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint
from estimator_ckpt.cli import main
from estimator_ckpt.errors import MismatchError, SettingsError

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
JOB = {
    "model/dense/kernel": KERNEL,
    "model/dense/kernel/Momentum": KERNEL / 2,
    "model/dense/bias": np.float32([1, 2, 3]),
    "model/dense/bias/Momentum": np.float32([4, 5, 6]),
    "old/scale": np.float32([7]),
}
IS_KERAS_3 = getattr(tf.keras, "__version__", "2").startswith("3")


class Net(tf.Module):
    def __init__(self, dtype=tf.float32):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros((2, 3), dtype), name="net/dense/kernel")
        self.bias = tf.Variable(tf.zeros(3, dtype), name="net/dense/bias")


def told(capsys, source, like, *flags):
    """What a conversion tells that ends in an error; nothing may have been written."""
    out = f"{source}-out"
    code = main(
        ["convert", source, out, f"--like={like}", "--checkpoint_format=checkpoint", *flags]
    )
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.estimator
def test_what_the_table_asks_for_is_enough(tmp_path, capsys):
    source = write_bundle(tmp_path / "job", JOB)
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    net, optimizer = Net(), tf.keras.optimizers.legacy.SGD(schedule, momentum=0.9)
    optimizer.apply_gradients([(tf.ones_like(one), one) for one in (net.kernel, net.bias)])
    objects = tf.train.Checkpoint(model=net, optimizer=optimizer)
    like = objects.write(str(tmp_path / "template"))
    table = told(capsys, source, like, "--optimizer=keras")
    assert f"do not fit the objects of {like}:\n" in table
    assert [line.split("  ")[0] for line in table.splitlines()[3:10]] == [
        *["needed"] * 2,
        *["missing"] * 2,
        *["no place"] * 3,
    ]
    assert told(capsys, source, like, "--optimizer=keras", "--dry_run") == table

    flags = re.findall(r"--(?:rename='[^']+|\w+=\S+)", table)
    flags = [flag.replace("'", "").replace("=NUMBER", "=0.5") for flag in flags]
    flags = [flag.replace("iter=0.5", "iter=3") for flag in flags]
    assert r"--rename=model/(.*):net/\1" in flags
    arguments = ["convert", source, str(tmp_path / "out"), "--checkpoint_format=checkpoint"]
    assert main([*arguments, f"--like={like}", "--optimizer=keras", *flags]) == 0
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()
    assert optimizer.get_slot(net.bias, "momentum").numpy().tolist() == [-2.0, -2.5, -3.0]
    assert optimizer.iterations.numpy() == 3


@pytest.mark.estimator
def test_all_numbers_that_are_needed_are_asked_for_at_once(tmp_path):
    source = write_bundle(tmp_path / "job", JOB)
    with pytest.raises(SettingsError) as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", optimizer="keras")
    assert re.search(r"give the learning_rate (.|\n)*give iter$", str(raised.value))


@pytest.mark.estimator
def test_a_template_of_several_optimizers_has_the_numbers_of_each(tmp_path):
    values = {"a": [1], "a/Momentum": [2], "b": [3], "b/Adagrad": [4]}
    values = {name: np.float32(value) for name, value in values.items()}
    source = write_bundle(tmp_path / "job", {**values, "global_step": np.array(5, np.int64)})
    legacy = tf.keras.optimizers.legacy
    a, b = tf.Variable([0.0], name="a"), tf.Variable([0.0], name="b")
    sgd, adagrad = legacy.SGD(0.25, momentum=0.9), legacy.Adagrad(0.5)
    sgd.apply_gradients([(tf.ones_like(a), a)])
    adagrad.apply_gradients([(tf.ones_like(b), b)])
    objects = tf.train.Checkpoint(a=a, b=b, sgd=sgd, adagrad=adagrad)
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=objects, optimizer="keras")
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert sgd.get_slot(a, "momentum").numpy().tolist() == [-0.5]  # of the template's 0.25
    assert adagrad.get_slot(b, "accumulator").numpy().tolist() == [4.0]
    assert (sgd.iterations.numpy(), adagrad.iterations.numpy()) == (5, 5)


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        ("Adam", "Adam", True),
        ("Adagrad", "Adam", False),
        (None, "Adam", False),
        ("Adam", None, None),
    ],
)
def test_an_optimizer_is_offered_where_one_makes_it(ours, theirs, word, tmp_path, capsys):
    slots = {"net/dense/kernel/Adam": KERNEL, "net/dense/kernel/Adam_1": KERNEL} if theirs else {}
    step = {"global_step": np.array(3, np.int64)}
    values = {"net/dense/kernel": KERNEL, "net/dense/bias": np.float32([1, 2, 3])}
    source = write_bundle(tmp_path / "job", {**values, **slots, **step})
    net, objects = Net(), {}
    if ours:
        objects["optimizer"] = getattr(tf.keras.optimizers, ours)(0.125)
        objects["optimizer"].build([net.kernel])
    like = tf.train.Checkpoint(net=net, **objects).write(str(tmp_path / "template"))
    table = told(capsys, source, like)
    offered = f"--optimizer={'keras3' if IS_KERAS_3 else 'keras2'}"
    assert (offered in table) is bool(word)
    assert "--drop_slots" in table
    if word is None:
        assert "the source has no optimizer" in table
    elif not word and ours:
        assert f"the source has {theirs}" in table


def test_hints_are_of_the_same_shape_and_never_what_has_its_place_or_is_a_slot(tmp_path, capsys):
    values = {
        "dense/kernel": KERNEL.T.copy(),  # of another shape
        "dense/bias": np.float32([1, 2, 3]),
        "net/dense/bias/Adam": np.float32([1, 2, 3]),  # a slot of a variable that is there
        "net/dense/bias": np.float32([1, 2, 3]),
    }
    source = write_bundle(tmp_path / "job", values)
    like = tf.train.Checkpoint(net=Net()).write(str(tmp_path / "template"))
    table = told(capsys, source, like)
    assert re.search(r"missing +net/dense/kernel +float32\[2,3\] *\n", table)
    assert "did you mean" not in table
    assert re.search(r"no place +dense/bias +float32\[3\] +--exclude=dense/bias\n", table)


def test_a_dtype_is_told_with_the_name(tmp_path, capsys):
    values = {"model/dense/kernel": KERNEL, "model/dense/bias": np.float32([1, 2, 3])}
    source = write_bundle(tmp_path / "job", values)
    net = Net(tf.float16)
    objects = tf.train.Checkpoint(net=net)
    like = objects.write(str(tmp_path / "template"))
    table = told(capsys, source, like)
    assert "did you mean model/dense/kernel? --dtype=float32:float16" in table
    flags = [r"--rename=model/(.*):net/\1", "--dtype=float32:float16"]
    arguments = ["convert", source, str(tmp_path / "out"), "--checkpoint_format=checkpoint"]
    assert main([*arguments, f"--like={like}", *flags]) == 0
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()


@pytest.mark.estimator
def test_a_number_that_is_given_and_has_no_place_is_told(tmp_path):
    slots = {"w": [1], "w/Adam": [2], "w/Adam_1": [3]}
    values = {name: np.float32(value) for name, value in slots.items()}
    source = write_bundle(tmp_path / "job", {**values, "global_step": np.array(3, np.int64)})
    w = tf.Variable([0.0], name="w")
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    optimizer = tf.keras.optimizers.legacy.Adam(schedule)
    optimizer.apply_gradients([(tf.ones_like(w), w)])
    objects = tf.train.Checkpoint(w=w, optimizer=optimizer)
    done = convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=objects,
        optimizer="keras",
        hyperparameters={"learning_rate": 0.5},
    )
    assert "the template has no variable for Adam/learning_rate" in done.warning
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert optimizer.get_slot(w, "v").numpy().tolist() == [3.0]


def test_many_layers_are_a_row_and_one_rule(tmp_path, capsys):
    layers = {f"m/layer_{n}/w": np.float32([n]) for n in range(150)}
    slots = {f"{name}/Adagrad": value for name, value in layers.items()}
    source = write_bundle(tmp_path / "job", {**layers, **slots})
    ours = {name.replace("m/", "net/"): value for name, value in layers.items()}
    like = str(tmp_path / "template")
    convert_checkpoint(write_bundle(tmp_path / "n", ours), like, "checkpoint", layout="scopes")
    lines = told(capsys, source, like).splitlines()
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "missing net/layer_{0…149}/w float32[1] did you mean m/layer_{0…149}/w?",
        "no place m/layer_{0…149}/w float32[1] as above",
        "no place m/layer_{0…149}/w/Adagrad float32[1] goes with its variable",
        r"--rename='m/(.*):net/\1' places 150 of these.",
    ]


def test_a_lookup_table_has_as_many_rows_as_it_has(tmp_path):
    values = {"words-keys": np.array([3, 5], np.int64), "words-values": np.float32([0.5, 0.25])}
    source = write_bundle(tmp_path / "job", values)
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)
    objects = tf.train.Checkpoint(table=table)
    rename = {"words(-keys|-values)": r"table\1"}
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=objects, rename=rename)
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert table.lookup(tf.constant([3, 5, 7], tf.int64)).numpy().tolist() == [0.5, 0.25, -1.0]


def test_a_template_in_python_is_called_what_it_is(tmp_path):
    source = write_bundle(tmp_path / "job", {"x": np.float32(1)})
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(
            source, tmp_path / "out", "checkpoint", like=tf.train.Checkpoint(y=tf.Variable(0.0))
        )
    assert "the objects of the tf.train.Checkpoint given as `like`:\n" in str(raised.value)

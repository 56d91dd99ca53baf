"""Structures like another checkpoint's: what fits, what is told where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import contents, names_in, v1, write_bundle
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
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
COUNTER_KEY = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"


def key_of(path):
    return f"{path}/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


# --- Like another ---


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros((2, 3)), name="net/dense/kernel")
        self.extra = tf.Variable(tf.zeros(2), name="net/extra")


def write_template(tmp_path, **objects):
    return tf.train.Checkpoint(**objects).save(str(tmp_path / "template"))


def test_like_a_checkpoint_takes_its_structure_and_the_sources_values(tmp_path):
    write_bundle(
        tmp_path / "m", {"model/dense/kernel": KERNEL, "model/extra": np.ones(2, np.float32)}
    )
    net = Net()
    template = write_template(tmp_path, blocks=[net])
    convert_checkpoint(
        tmp_path / "m",
        tmp_path / "out",
        "checkpoint",
        like=template,
        rename={"model/(.*)": r"net/\1"},
    )
    tf.train.Checkpoint(blocks=[net]).restore(str(tmp_path / "out")).assert_consumed()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()
    assert net.extra.numpy().tolist() == [1, 1]


def test_like_a_checkpoint_given_in_python(tmp_path):
    write_bundle(tmp_path / "m", {"net/dense/kernel": KERNEL, "net/extra": np.ones(2, np.float32)})
    net = Net()
    objects = tf.train.Checkpoint(net=net)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "both", like=objects)
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert net.kernel.numpy().tolist() == KERNEL.tolist()
    assert open_checkpoint(tmp_path / "out").format == "both"


def test_places_are_found_by_their_object_path_too_and_the_step_by_its_place(tmp_path):
    values = {"a/0": np.ones(2, np.float32), "a/1": np.zeros(2, np.float32)}
    write_bundle(tmp_path / "m", {**values, "global_step": np.array(9, np.int64)})
    one, two = tf.Variable(tf.zeros(2)), tf.Variable(tf.zeros(2))  # both are named Variable
    step = tf.Variable(0, dtype=tf.int64)
    objects = tf.train.Checkpoint(a=[one, two], step=step)
    convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=objects)
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert (one.numpy().tolist(), step.numpy()) == ([1, 1], 9)


def test_one_variable_for_two_places_is_told(tmp_path):
    write_bundle(tmp_path / "m", {"x": np.float32(1)})
    objects = {"x": tf.Variable(1.0, name="y"), "z": tf.Variable(1.0, name="x")}
    template = write_template(tmp_path, **objects)
    with pytest.raises(
        MismatchError, match=r"two places +x .*(y and x|x and y): --assignment_map=x:PLACE"
    ):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=template)


def test_all_that_does_not_fit_the_other_structure_is_listed(source, tmp_path):
    template = write_template(tmp_path, net=Net())
    before = names_in(tmp_path)
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=template)
    message = str(raised.value)
    assert message.splitlines()[0].endswith(f"8 variables do not fit the objects of {template}:")
    assert "missing   net/dense/kernel" in message
    assert "did you mean model/dense/kernel?" in message
    assert "missing   net/extra" in message
    assert "no place  model/dense/kernel/Adam_1" in message
    assert names_in(tmp_path) == before


def test_another_shape_or_dtype_does_not_fit(tmp_path):
    values = {"net/dense/kernel": KERNEL.T.copy(), "net/extra": np.ones(2, np.float64)}
    write_bundle(tmp_path / "m", values)
    template = write_template(tmp_path, net=Net())
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "checkpoint", like=template)
    assert "shape    net/dense/kernel  float32[2,3]  float32[3,2]" in str(raised.value)
    assert "dtype    net/extra         float32[2]    float64[2]    --dtype=float64:float32" in str(
        raised.value
    )


def test_like_a_name_based_checkpoint_is_an_error(source, tmp_path):
    with pytest.raises(SettingsError, match="found a name-based one") as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=source)
    assert raised.value.key == "like"


def test_like_and_without_slots(source, tmp_path):
    kernel = tf.Variable(tf.zeros((2, 3)), name="model/dense/kernel")
    optimizer = v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.ones_like(kernel), kernel)])
    template = write_template(tmp_path, kernel=kernel, optimizer=optimizer)
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=template,
        drop_slots=True,
        exclude=["global_step"],
    )
    assert contents(tmp_path / "out").keys() == {key_of("kernel"), COUNTER_KEY}


# --- Optimizers ---

ADAGRAD_AND_FTRL = {
    "a": [1],
    "a/Adagrad": [2],
    "a/Ftrl": [3],
    "a/Ftrl_1": [4],
    "b": [5],
    "b/Ftrl": [6],
    "b/Ftrl_1": [7],
}
FTRL_NUMBERS = ["l1_regularization_strength", "l2_regularization_strength", "beta"]


def write_floats(tmp_path, values):
    values = {name: np.float32(value) for name, value in values.items()}
    return write_bundle(tmp_path / "m", values)


def apply(optimizer, *variables):
    optimizer.apply_gradients([(tf.ones_like(one), one) for one in variables])
    return optimizer


@pytest.mark.estimator
@pytest.mark.parametrize("names", [("Adagrad", "Ftrl"), ("mine", "other")])
def test_each_of_two_optimizers_takes_its_own_slots_and_numbers(names, tmp_path):
    source = write_floats(tmp_path, ADAGRAD_AND_FTRL)
    legacy = tf.keras.optimizers.legacy
    a, b = tf.Variable([0.0], name="a"), tf.Variable([0.0], name="b")
    adagrad = apply(legacy.Adagrad(name=names[0]), a)
    ftrl = apply(legacy.Ftrl(name=names[1]), a, b)
    objects = tf.train.Checkpoint(a=a, b=b, optimizers=[adagrad, ftrl])
    numbers = {
        "Adagrad/learning_rate": 0.125,
        "Adagrad/decay": 0,
        "Adagrad/iter": 2,
        "Ftrl/learning_rate": 0.25,
        "Ftrl/decay": 0.5,
        "Ftrl/iter": 3,
        "Ftrl/learning_rate_power": -0.5,
        **{f"Ftrl/{name}": 0 for name in FTRL_NUMBERS},
    }
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=objects,
        optimizer="keras",
        hyperparameters=numbers,
    )
    objects.restore(str(tmp_path / "out")).assert_consumed()
    slots = [(adagrad, a, "accumulator")]
    slots += [(ftrl, one, name) for one in (a, b) for name in ("accumulator", "linear")]
    assert [one.get_slot(of, name).numpy()[0] for one, of, name in slots] == [2, 3, 4, 6, 7]
    assert [one.iterations.numpy() for one in (adagrad, ftrl)] == [2, 3]
    assert [one.learning_rate.numpy() for one in (adagrad, ftrl)] == [0.125, 0.25]


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("kind", "name", "fits"),
    [
        ("Adam", "Adam", True),
        ("Adamax", "Adamax", False),
        ("Nadam", "Nadam", False),
        ("Adamax", "mine", False),  # nothing tells that it is no Adam
    ],
)
def test_an_optimizer_of_another_class_does_not_take_slots_of_the_same_names(
    kind, name, fits, tmp_path
):
    source = write_floats(tmp_path, {"w": [1], "w/Adam": [2], "w/Adam_1": [3]})
    w = tf.Variable([0.0], name="w")
    optimizer = apply(getattr(tf.keras.optimizers.legacy, kind)(name=name), w)
    objects = tf.train.Checkpoint(w=w, optimizer=optimizer)
    numbers = {"iter": 3, "learning_rate": 0.1, "decay": 0, "beta_1": 0.9, "beta_2": 0.999}

    def convert():
        convert_checkpoint(
            source,
            tmp_path / "out",
            "checkpoint",
            like=objects,
            optimizer="keras",
            hyperparameters=numbers,
        )

    if not fits:
        with pytest.raises(
            MismatchError, match=rf"{name}/iter +int64\[\] +of {name}; there is Adam"
        ):
            convert()
        return
    convert()
    objects.restore(str(tmp_path / "out")).assert_consumed()
    assert [optimizer.get_slot(w, slot).numpy()[0] for slot in ("m", "v")] == [2, 3]


# --- The objects of the source ---


class Dense(tf.Module):
    def __init__(self, value, name):
        super().__init__()
        self.kernel = tf.Variable([float(value)], name=f"{name}/kernel")


def dense_layers(*names):
    return [Dense(value, name) for value, name in enumerate(names, 1)]


def like_layers(tmp_path, theirs, ours, *, is_live, **options):
    """The kernels of layers with our names, from a source with theirs."""
    source = tf.train.Checkpoint(layers=theirs).write(str(tmp_path / "source"))
    objects = tf.train.Checkpoint(layers=ours)
    like = objects if is_live else objects.write(str(tmp_path / "template"))
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like, **options)
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    return [float(layer.kernel[0]) for layer in ours]


@pytest.mark.parametrize("is_live", [False, True])
def test_the_sources_objects_decide_before_names_that_a_counter_made(tmp_path, is_live):
    theirs = dense_layers("dense", "dense_1")
    ours = dense_layers("dense_1", "dense")
    assert like_layers(tmp_path, theirs, ours, is_live=is_live) == [1.0, 2.0]


@pytest.mark.parametrize("is_live", [False, True])
def test_names_that_were_given_and_say_otherwise_are_refused_until_a_rule_says_so(
    tmp_path, is_live
):
    theirs, names = dense_layers("one", "two"), ("two", "one")
    with pytest.raises(MismatchError, match=r"ambiguous +one/kernel(.|\n)*--rename rule"):
        like_layers(tmp_path, theirs, dense_layers(*names), is_live=is_live)
    rename = {"(.*kernel)": r"\1"}
    found = like_layers(tmp_path, theirs, dense_layers(*names), is_live=is_live, rename=rename)
    assert found == [2.0, 1.0]


def test_a_counted_name_is_refused_where_no_object_of_the_template_is_there(tmp_path):
    source = tf.train.Checkpoint(net=dense_layers("dense", "dense_1")).write(str(tmp_path / "s"))
    like = tf.train.Checkpoint(layers=dense_layers("dense", "dense_1")).write(str(tmp_path / "t"))
    with pytest.raises(MismatchError, match="a counter may have made this name"):
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like)
    assert not (tmp_path / "out.index").exists()


def test_a_source_of_names_alone_gives_them_counted_or_not(tmp_path):
    values = {"dense/kernel": np.float32([1]), "dense_1/kernel": np.float32([2])}
    source = write_bundle(tmp_path / "names", values)
    objects = tf.train.Checkpoint(layers=dense_layers("dense_1", "dense"))
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=objects)
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert [float(layer.kernel[0]) for layer in objects.layers] == [2.0, 1.0]

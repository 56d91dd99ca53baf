"""A slot goes where its variable goes: under rules that name the variable, the slot, or both."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import stock_values, v1, write_bundle
from golden_files import golden_cases
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.errors import ConflictError

# Two variables of one shape with all that belongs to them; every value tells whose it is.
VALUES = {
    "a": 1,
    "a/Adam": 2,
    "a/Adam_1": 3,
    "a/ExponentialMovingAverage": 4,
    "net/b": 5,
    "net/b/Adam": 6,
    "net/b/Adam_1": 7,
    "other": 8,
    "beta1_power": 0.9,
}


def write(prefix, values=VALUES):
    """Two equal numbers for each name; one for a power of beta."""
    return write_bundle(
        prefix,
        {
            name: np.full(() if "power" in name else 2, value, np.float32)
            for name, value in values.items()
        },
    )


def first_values(prefix):
    found = stock_values(prefix)
    return {name: np.ravel(value)[0] for name, value in found.items() if np.ndim(value)}


def renamed(**names):
    """What VALUES is when these are called otherwise, and the rest as it was."""
    names = {name.replace("__", "/"): new for name, new in names.items()}
    return {
        names.get(name, name): value
        for name, value in VALUES.items()
        if names.get(name, name) and name != "beta1_power"
    }


def moved(*pairs):
    """What VALUES is when variables are called otherwise, with all that belongs to them."""
    names = {}
    for old, new in pairs:
        for name in VALUES:
            if name == old or name.startswith(f"{old}/"):
                names[name.replace("/", "__")] = new + name[len(old) :]
    return renamed(**names)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # A rule that names the variable alone.
        ({"rename": {"a": "x/y"}}, moved(("a", "x/y"))),
        ({"assignment_map": {"a": "x"}}, moved(("a", "x"))),
        ({"rename": [("a", "net/b"), ("net/b", "a")]}, moved(("a", "net/b"), ("net/b", "a"))),
        ({"assignment_map": {"a": "other", "other": "a"}}, moved(("a", "other"), ("other", "a"))),
        ({"exclude": ["net/b"]}, renamed(net__b="", net__b__Adam="", net__b__Adam_1="")),
        # A rule that matches both, though not in a way that would keep them together.
        ({"rename": {"(a.*)": r"\1_old"}}, moved(("a", "a_old"))),
        ({"rename": [("net/b", "fc/w"), ("net/(.*)", r"fc/\1")]}, moved(("net/b", "fc/w"))),
        # Rules for the slots.
        ({"rename": [("a", "x"), (r"a/Adam(.*)", r"x/Adam\1")]}, moved(("a", "x"))),
        ({"exclude": ["a/Adam.*"]}, renamed(a__Adam="", a__Adam_1="")),
        (
            {"rename": {"(.*)/Adam": r"\1/Mine"}},
            renamed(a__Adam="a/Mine", net__b__Adam="net/b/Mine"),
        ),
        # An average in the place of its variable.
        (
            {"exclude": ["a"], "rename": {"(.*)/ExponentialMovingAverage": r"\1"}},
            renamed(a="", a__Adam="", a__Adam_1="", a__ExponentialMovingAverage="a"),
        ),
    ],
)
def test_slots_and_averages_keep_the_name_of_their_variable(rules, expected, tmp_path):
    convert_checkpoint(write(tmp_path / "m"), tmp_path / "out", "saver", **rules)
    assert first_values(tmp_path / "out") == expected


def test_a_variable_that_goes_to_two_places_takes_its_slots_to_both(tmp_path):
    twice = [("a", "x"), ("a", "y")]
    convert_checkpoint(write(tmp_path / "m"), tmp_path / "out", "saver", assignment_map=twice)
    found = first_values(tmp_path / "out")
    ends = ["", "/Adam", "/Adam_1", "/ExponentialMovingAverage"]
    assert [found[f"x{end}"] for end in ends] == [1, 2, 3, 4]
    assert [found[f"y{end}"] for end in ends] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("slot", "moved_slot"),
    [
        ("train/net/b/Adam", "train/fc/w/Adam"),
        ("net/b/t_0/Adam", "fc/w/t_0/Adam"),
        ("Adam/net/b/m", "Adam/fc/w/m"),
        ("training/Adam/net/b/v", "training/Adam/fc/w/v"),
        ("net/b/adam_m", "fc/w/adam_m"),
        ("net/b/LAMBOptimizer", "fc/w/LAMBOptimizer"),
        ("train/net/b/ExponentialMovingAverage", "train/fc/w/ExponentialMovingAverage"),
    ],
)
def test_slots_follow_however_an_optimizer_names_them(slot, moved_slot, tmp_path):
    source = write(tmp_path / "m", {"net/b": 1, slot: 2})
    convert_checkpoint(source, tmp_path / "out", "saver", rename={"net/b": "fc/w"})
    assert first_values(tmp_path / "out") == {"fc/w": 1, moved_slot: 2}


def test_what_is_below_a_variables_name_follows_whatever_its_shape(tmp_path):
    values = {"a": [[1, 2], [3, 4]], "a/Adafactor": [5], "a/mean/biased": 6, "b": [[7, 8], [9, 0]]}
    source = write_bundle(tmp_path / "m", {k: np.float32(value) for k, value in values.items()})
    convert_checkpoint(source, tmp_path / "out", "saver", rename={"a": "b", "b": "a"})
    assert stock_values(tmp_path / "out") == {
        "b": values["a"],
        "b/Adafactor": [5],
        "b/mean/biased": 6,
        "a": values["b"],
    }


@pytest.mark.parametrize("name", ["Adam", "other"])
@pytest.mark.estimator
def test_slots_of_keras_newer_optimizers_follow(name, tmp_path):
    a, b = tf.Variable([1.0, 1.0], name="net/a"), tf.Variable([2.0, 2.0], name="a")
    optimizer = tf.keras.optimizers.Adam(name=name)
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), a), (tf.constant([2.0, 2.0]), b)])
    objects = tf.train.Checkpoint(a=a, b=b, optimizer=optimizer)
    prefix = objects.save(str(tmp_path / "m"))
    swap = {"net/a": "a", "a": "net/a"}
    convert_checkpoint(prefix, tmp_path / "names", "saver")
    convert_checkpoint(prefix, tmp_path / "out", "saver", rename=swap)
    convert_checkpoint(tmp_path / "names", tmp_path / "by_names", "saver", rename=swap)
    assert stock_values(tmp_path / "by_names") == stock_values(tmp_path / "out")
    before, after = first_values(tmp_path / "names"), first_values(tmp_path / "out")
    slots = [one for one in before if one.endswith("/net/a")]
    assert len(slots) == 2
    for slot in [*slots, "net/a"]:
        other = slot.replace("net/a", "a")
        assert (after[slot], after[other]) == (before[other], before[slot])
        assert before[slot] != before[other]


@pytest.mark.parametrize("case", golden_cases("optimizer_keras"), ids=str)
@pytest.mark.parametrize("by_names", [True, False])
def test_slots_of_keras_newer_optimizers_follow_by_names_too(by_names, case, tmp_path):
    source = case.prefix
    if by_names:
        source = tmp_path / "names"
        convert_checkpoint(case.prefix, source, "saver")
    convert_checkpoint(source, tmp_path / "out", "saver", rename={"dense/kernel": "net/fc/w"})
    convert_checkpoint(case.prefix, tmp_path / "there", "saver")
    before, after = stock_values(tmp_path / "there"), stock_values(tmp_path / "out")
    renames = [("dense/kernel", "net/fc/w"), ("dense_kernel", "net_fc_w")]
    for name, value in before.items():
        for old, new in renames:
            name = name.replace(old, new)
        assert after.pop(name) == value
    assert after == {}
    convert_checkpoint(source, tmp_path / "dropped", "saver", drop_slots=True)
    assert stock_values(tmp_path / "dropped").keys() == (
        {"dense/kernel", "dense/bias", "save_counter"}
    )


def test_slots_of_keras_3_follow_two_variables_that_change_names(tmp_path):
    names = {
        "net/a": "b",
        "b": "net/a",
        "x/y": "z",
        "x_y": "x_y",
        "adam/net_a_momentum": "adam/b_momentum",
        "adam/b_momentum": "adam/net_a_momentum",
        "adam_1/net_a_0_velocity_hat": "adam_1/b_0_velocity_hat",
        "adam/x_y_momentum": "adam/x_y_momentum",  # of which of the two its name does not tell
    }
    values = {name: np.full(2, number, np.float32) for number, name in enumerate(names)}
    counts = {f"{one}/iteration": np.array(7, np.int64) for one in ("adam", "adam_1")}
    source = write_bundle(tmp_path / "m", {**values, **counts})
    swap = {"net/a": "b", "b": "net/a", "x/y": "z"}
    convert_checkpoint(source, tmp_path / "out", "saver", rename=swap)
    assert first_values(tmp_path / "out") == {new: n for n, new in enumerate(names.values())}


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"iteration": np.array(7, np.int64)},
        {"learning_rate": np.float32(1)},
        {"iteration": np.float32(7), "learning_rate": np.float32(1)},
        {"x/iteration": np.array(7, np.int64), "y/learning_rate": np.float32(1)},
    ],
)
def test_what_is_only_named_like_slots_of_keras_newer_optimizers_stays(own, tmp_path):
    values = {"net/a": [1, 2], "m/net/a": [3, 4], "momentum/net/a": [5, 6], "net_a_norm": [7, 8]}
    arrays = {name: np.float32(value) for name, value in values.items()}
    source = write_bundle(tmp_path / "m", {**arrays, **own})
    convert_checkpoint(source, tmp_path / "out", "saver", rename={"net/a": "b"})
    after = stock_values(tmp_path / "out")
    assert {name: after[name] for name in values if name != "net/a"} | {"net/a": after["b"]} == (
        values
    )
    convert_checkpoint(source, tmp_path / "dropped", "saver", drop_slots=True)
    assert stock_values(tmp_path / "dropped").keys() == stock_values(source).keys()


def test_a_scope_that_only_slots_have_may_be_renamed_beside_the_variable(tmp_path):
    source = write(tmp_path / "m", {"net/b": 1, "train/net/b/Adam": 2})
    convert_checkpoint(
        source,
        tmp_path / "out",
        "saver",
        rename={"train/(.*)": r"\1"},
        assignment_map={"net/b": "fc/w"},
    )
    assert first_values(tmp_path / "out") == {"fc/w": 1, "fc/w/Adam": 2}


def test_a_slot_that_is_left_without_its_variable_falls_to_no_other(tmp_path):
    source = write(tmp_path / "m", {"net/b": 1, "b": 2, "net/b/Adam": 3, "b/Adam": 4})
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        exclude=["net/b"],
        optimizer="keras",
        hyperparameters={"iter": 5},
    )
    found = open_checkpoint(tmp_path / "out")
    slot = found.get_tensor("var_list/b/.OPTIMIZER_SLOT/optimizer/m")
    assert (slot.tolist(), sorted(found.variables)) == (
        [4, 4],
        ["Adam/iter", "b", "b/Adam", "save_counter"],
    )


@pytest.mark.parametrize(
    ("rules", "texts"),
    [
        (
            {"rename": {"a/Adam": "other/Adam"}},
            ["'a/Adam' is the slot m of 'a'", "the slot m of 'other'"],
        ),
        ({"rename": {"a": "other", "other": "x", "a/Adam": "x/Adam"}}, ["the slot m of 'x'"]),
        ({"rename": {"a/Adam": "a/Adam_1", "a/Adam_1": "a/Adam"}}, ["the slot v of 'a'"]),
        (
            {"exclude": ["a"], "rename": {"a/Adam": "mine"}},
            ["'a/Adam' is the slot m of 'a', which is left out (exclude a)"],
        ),
    ],
)
def test_a_rule_that_pulls_a_slot_from_its_variable_is_refused_with_both_names(
    rules, texts, tmp_path
):
    with pytest.raises(ConflictError) as caught:
        convert_checkpoint(write(tmp_path / "m"), tmp_path / "out", "saver", **rules)
    assert [text for text in texts if text not in str(caught.value)] == []
    assert not (tmp_path / "out.index").exists()


def test_a_slot_whose_new_name_does_not_tell_its_variable_cannot_become_an_object(tmp_path):
    source = write(tmp_path / "m")
    convert_checkpoint(source, tmp_path / "names", "saver", rename={"a/Adam_1": "squares"})
    assert first_values(tmp_path / "names")["squares"] == 3
    with pytest.raises(ConflictError, match="is the slot v of 'a', which 'squares' would not tell"):
        convert_checkpoint(
            source, tmp_path / "out", "both", rename={"a/Adam_1": "squares"}, optimizer="tf1"
        )


def test_what_was_no_slot_does_not_become_one_by_another_variables_new_name(tmp_path):
    source = write(tmp_path / "m", {"x/Adam": 1, "y": 2})
    with pytest.raises(ConflictError, match="'x/Adam' is no slot, but would be the slot m of"):
        convert_checkpoint(source, tmp_path / "out", "saver", rename={"y": "x"})


def test_the_plan_says_what_goes_with_which_variable(tmp_path):
    result = convert_checkpoint(
        write(tmp_path / "m"),
        tmp_path / "out",
        "saver",
        rename={"a": "x"},
        exclude=["net/b"],
        dry_run=True,
    )
    rows = {row.source: (row.action, row.targets, row.why) for row in result.rows}
    assert rows["a"] == ("renamed", ("x",), "rename a -> x")
    assert rows["a/Adam_1"] == ("renamed", ("x/Adam_1",), "with a, rename a -> x")
    assert rows["net/b/Adam"] == ("left out", (), "with net/b, exclude net/b")
    assert rows["other"] == ("kept", ("other",), "")


# --- Readers of what was converted ---


def train(names, prefix, *, restore):
    """Losses of a TF1 graph of two variables, which it treats unequally; or those after a save."""
    with tf.Graph().as_default(), v1.Session() as session:
        one, two = (v1.get_variable(name, [2]) for name in names)
        loss = tf.reduce_sum(tf.square(one * 3 - 1)) + tf.reduce_sum(tf.square(two + 5))
        train_op = v1.train.AdamOptimizer(0.1).minimize(loss)
        saver = v1.train.Saver()
        if restore:
            saver.restore(session, prefix)
        else:
            session.run(v1.global_variables_initializer())
            for _ in range(4):
                session.run(train_op)
            saver.save(session, prefix, write_meta_graph=False)
        return [session.run([loss, train_op])[0] for _ in range(4)]


def test_training_goes_on_under_swapped_names(tmp_path):
    source, out = str(tmp_path / "m"), str(tmp_path / "out")
    expected = train(["net/one", "net/two"], source, restore=False)
    swap = {"net/one": "net/two", "net/two": "net/one"}
    convert_checkpoint(source, out, "saver", rename=swap)
    assert train(["net/two", "net/one"], out, restore=True) == expected


def moments(prefix, optimizer, *names):
    """The first number of each variable and of its slots, as an optimizer object finds them."""
    variables = {name: tf.Variable([0.0, 0.0]) for name in names}
    reader = tf.keras.optimizers.legacy.Adam() if optimizer == "keras" else v1.train.AdamOptimizer()
    reader.apply_gradients([(tf.zeros(2), variable) for variable in variables.values()])
    tf.train.Checkpoint(var_list=variables, optimizer=reader).restore(str(prefix))
    return {
        name: [float(t[0]) for t in (v, reader.get_slot(v, "m"), reader.get_slot(v, "v"))]
        for name, v in variables.items()
    }


@pytest.mark.estimator
@pytest.mark.parametrize("optimizer", ["keras", "tf1"])
def test_an_optimizer_object_finds_the_moments_of_a_renamed_variable(optimizer, tmp_path):
    values = {"a": 1, "a/Adam": 2, "a/Adam_1": 3, "b": 4, "b/Adam": 5, "b/Adam_1": 6}
    source = write(tmp_path / "m", values)
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        rename={"a": "b", "b": "new"},
        optimizer=optimizer,
        hyperparameters={"iter": 7} if optimizer == "keras" else {},
    )
    assert moments(tmp_path / "out", optimizer, "b", "new") == {"b": [1, 2, 3], "new": [4, 5, 6]}


@pytest.mark.estimator
@pytest.mark.parametrize("optimizer", ["keras", "tf1"])
@pytest.mark.parametrize("objects", [None, "keras", "tf1"])
def test_an_optimizer_object_finds_the_moments_of_a_variable_that_goes_to_two_places(
    objects, optimizer, tmp_path
):
    values = {"a": 1, "a/Adam": 2, "a/Adam_1": 3, "b": 4, "b/Adam": 5, "b/Adam_1": 6}
    source = write(tmp_path / "m", values)
    numbers = {"iter": 7, "beta_1": 0.8, "beta_2": 0.9}
    if objects is not None:
        own = numbers if objects == "keras" else {}
        convert_checkpoint(
            source, tmp_path / "objects", "checkpoint", optimizer=objects, hyperparameters=own
        )
        source = tmp_path / "objects"
    convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        layout="var_list",
        assignment_map=[("a", "x"), ("a", "y/x")],
        optimizer=optimizer,
        hyperparameters=numbers if optimizer == "keras" else {},
    )
    assert moments(tmp_path / "out", optimizer, "x", "y/x", "b") == (
        {"x": [1, 2, 3], "y/x": [1, 2, 3], "b": [4, 5, 6]}
    )


def test_an_optimizers_own_variable_does_not_go_to_two_places(tmp_path):
    source = write(tmp_path / "m")
    twice = {"assignment_map": [("/", "x/"), ("/", "y/")]}
    convert_checkpoint(source, tmp_path / "names", "saver", **twice)
    with pytest.raises(ConflictError, match="the optimizer Adam has one variable") as caught:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", optimizer="tf1", **twice)
    assert caught.value.key == "beta1_power"
    for text in ("'x/beta1_power' (assignment_map / -> x/)", "'y/beta1_power'"):
        assert text in str(caught.value)

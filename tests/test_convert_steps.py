"""The global step, and an optimizer's count of steps: one tensor or two, by whatever name."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import stock_values, v1, write_bundle
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError, UnsupportedCheckpointError

STEPS = 5
INITIAL = np.float32([1, -2])


def loss_of(variable):
    return tf.reduce_sum(tf.square(variable * [1.0, 3.0] - 4.0))


def keras_adam():
    return tf.keras.optimizers.legacy.Adam(0.05, 0.8, 0.95, epsilon=1e-3)


def train_eagerly(variable, optimizer):
    losses = []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = loss_of(variable)
        losses.append(loss.numpy())
        optimizer.apply_gradients(zip(tape.gradient(loss, [variable]), [variable]))
    return losses


def train_in_tf1(prefix):
    """The global step that a TF1 job resumes at, and the losses of the steps that follow."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", initializer=INITIAL)
        loss, step = loss_of(variable), v1.train.create_global_step()
        optimizer = v1.train.AdamOptimizer(0.05, 0.8, 0.95, epsilon=1e-3)
        train_op = optimizer.minimize(loss, global_step=step)
        v1.train.Saver().restore(session, str(prefix))
        start = session.run(step)
        return start, [session.run([loss, train_op])[0] for _ in range(STEPS)]


@pytest.mark.estimator
@pytest.mark.parametrize("counter", ["iterations are the step", "step is the iterations"])
@pytest.mark.parametrize("named", [True, False])
def test_one_counter_for_step_and_optimizer_goes_to_a_tf1_job(counter, named, tmp_path):
    variable, optimizer = tf.Variable(INITIAL, name="w"), keras_adam()
    if counter == "iterations are the step":
        optimizer.iterations = tf.Variable(0, dtype=tf.int64, name="global_step")
    step = optimizer.iterations
    train_eagerly(variable, optimizer)
    names = {"var_list": {"w": variable, "global_step": step}} if named else {"w": variable}
    objects = tf.train.Checkpoint(step=step, optimizer=optimizer, **names)
    prefix = objects.save(str(tmp_path / "m"))
    expected = train_eagerly(variable, optimizer)
    convert_checkpoint(prefix, tmp_path / "out", "saver", optimizer="tf1")
    start, losses = train_in_tf1(tmp_path / "out")
    assert start == STEPS
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    assert stock_values(tmp_path / "out").keys() == (
        {"w", "w/Adam", "w/Adam_1", "beta1_power", "beta2_power", "global_step", "save_counter"}
    )


@pytest.mark.estimator
@pytest.mark.parametrize("layout", [None, "var_list"])
def test_a_step_that_is_the_optimizers_too_stays_where_slots_are_dropped(layout, tmp_path):
    variable, optimizer = tf.Variable(INITIAL, name="w"), keras_adam()
    train_eagerly(variable, optimizer)
    objects = tf.train.Checkpoint(w=variable, step=optimizer.iterations, optimizer=optimizer)
    prefix = objects.save(str(tmp_path / "m"))
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", layout=layout, drop_slots=True)
    step = tf.Variable(0, dtype=tf.int64)
    tf.train.Checkpoint(step=step).restore(str(tmp_path / "out")).expect_partial()
    assert step.numpy() == STEPS
    assert len(open_checkpoint(tmp_path / "out").variables) == 3


@pytest.mark.estimator
def test_keras_state_without_a_count_of_its_own_gets_the_global_step(tmp_path):
    variable, optimizer = tf.Variable(INITIAL, name="w"), keras_adam()
    optimizer.iterations = step = tf.Variable(0, dtype=tf.int64, name="global_step")
    train_eagerly(variable, optimizer)
    prefix = tf.train.Checkpoint(w=variable, step=step, optimizer=optimizer).save(
        str(tmp_path / "m")
    )
    expected = train_eagerly(variable, optimizer)
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", optimizer="keras", layout="scopes")
    variable, optimizer = tf.Variable(INITIAL), keras_adam()
    reader = tf.train.Checkpoint(w=variable, optimizer=optimizer)
    reader.restore(str(tmp_path / "out"))
    np.testing.assert_allclose(train_eagerly(variable, optimizer), expected, rtol=2e-6)
    assert optimizer.iterations.numpy() == 2 * STEPS


@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
@pytest.mark.parametrize("name", [None, "my/step", "step.v1"])
@pytest.mark.estimator
def test_a_programs_own_step_keeps_its_name_and_the_plan_tells_the_rule_for_tf1(
    name, checkpoint_format, tmp_path
):
    variable, optimizer = tf.Variable(INITIAL, name="w"), keras_adam()
    train_eagerly(variable, optimizer)
    step = tf.Variable(STEPS, dtype=tf.int64, name=name)
    objects = tf.train.Checkpoint(step=step, w=variable, optimizer=optimizer)
    prefix = objects.save(str(tmp_path / "m"))
    expected = train_eagerly(variable, optimizer)

    def convert(**settings):
        layout = "var_list" if checkpoint_format == "both" else None
        settings = {"layout": layout, "optimizer": "tf1", **settings}
        return convert_checkpoint(prefix, tmp_path / "out", checkpoint_format, **settings)

    rows = {row.source.partition("/.")[0]: row for row in convert(dry_run=True).rows}
    why = rows["step"].why
    assert rows["step"].targets[0] == (name or "Variable")
    assert rows["optimizer/iter"].why == (
        f"no variable in TF1, which counts steps in {name or 'Variable'}"
    )
    rule, found, _ = why.partition(" makes it TF1's global step")
    assert found
    old, new = rule.rpartition("rename ")[2].split(" -> ")
    convert(rename={old: new})
    start, losses = train_in_tf1(tmp_path / "out")
    assert start == STEPS
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


def test_a_step_beside_a_global_step_is_a_variable_like_any_other(tmp_path):
    names = {"step": np.array(3, np.int64), "global_step": np.array(7, np.int64)}
    variables = {name: tf.Variable(value, name=name) for name, value in names.items()}
    prefix = tf.train.Checkpoint(**variables).save(str(tmp_path / "m"))
    result = convert_checkpoint(prefix, tmp_path / "out", "saver")
    assert [row.why for row in result.rows if "TF1" in row.why] == []
    assert stock_values(tmp_path / "out") == {"step": 3, "global_step": 7, "save_counter": 1}


# --- Several optimizers ---

TWO = {
    "wide": np.float32([1]),
    "wide/Momentum": np.float32([2]),
    "deep": np.float32([3]),
    "deep/Adagrad": np.float32([4]),
    "global_step": np.array(3, np.int64),
}


def test_numbers_are_written_into_the_optimizer_whose_they_are(tmp_path):
    source = write_bundle(tmp_path / "m", TWO)
    numbers = {"Momentum/learning_rate": 0.5, "Adagrad/decay": 0.25, "Adagrad/iter": 2}
    convert_checkpoint(
        source, tmp_path / "out", "checkpoint", optimizer="keras", hyperparameters=numbers
    )
    found = open_checkpoint(tmp_path / "out")
    values = {v.object_path: found.get_tensor(v.name).tolist() for v in found.variables.values()}
    assert {path: value for path, value in values.items() if "optimizer" in path} == {
        "var_list/wide/.OPTIMIZER_SLOT/optimizer_Momentum/momentum": [-1],
        "var_list/deep/.OPTIMIZER_SLOT/optimizer_Adagrad/accumulator": [4],
        "optimizer_Momentum/iter": 3,
        "optimizer_Momentum/learning_rate": 0.5,
        "optimizer_Adagrad/iter": 2,
        "optimizer_Adagrad/decay": 0.25,
    }


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"learning_rate": 0.5}, "there are 2 optimizers, Adagrad, Momentum; say whose it is"),
        ({"Adagrad/decay": 0.5}, "give the Momentum/learning_rate"),
        ({"Momentum/learning_rate": 0.5, "Adagrad/rho": 1}, "Adagrad/rho: no such variable"),
        ({"Momentum/learning_rate": 0.5, "Adam/decay": 1}, "Adam/decay: no such variable"),
    ],
)
def test_numbers_of_no_certain_optimizer_are_refused(numbers, message, tmp_path):
    source = write_bundle(tmp_path / "m", TWO)
    with pytest.raises(SettingsError, match=message):
        convert_checkpoint(
            source, tmp_path / "out", "both", optimizer="keras", hyperparameters=numbers
        )
    assert not (tmp_path / "out.index").exists()


@pytest.mark.estimator
def test_two_optimizers_of_one_kind_are_refused(tmp_path):
    variables = [tf.Variable(INITIAL, name=name) for name in ("a", "b")]
    optimizers = [keras_adam(), keras_adam()]
    for variable, optimizer in zip(variables, optimizers):
        train_eagerly(variable, optimizer)
    objects = tf.train.Checkpoint(model=variables, one=optimizers[0], two=optimizers[1])
    prefix = objects.save(str(tmp_path / "m"))
    with pytest.raises(UnsupportedCheckpointError, match="there are several optimizers"):
        convert_checkpoint(prefix, tmp_path / "out", "saver", optimizer="tf1")


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("rules", "expected"), [({}, None), ({"rename": {"SGD/iter": "global_step"}}, STEPS)]
)
def test_of_two_counts_without_a_global_step_a_rule_says_which_is_it(rules, expected, tmp_path):
    legacy = tf.keras.optimizers.legacy
    variables = [tf.Variable(INITIAL, name=name) for name in ("a", "b")]
    optimizers = [legacy.SGD(0.1, 0.9), legacy.Adagrad(0.1)]
    for variable, optimizer in zip(variables, optimizers):
        train_eagerly(variable, optimizer)
    train_eagerly(variables[1], optimizers[1])
    prefix = tf.train.Checkpoint(model=variables, optimizers=optimizers).save(str(tmp_path / "m"))

    def convert():
        numbers = {"SGD/learning_rate": 0.1}
        settings = {"optimizer": "tf1", "hyperparameters": numbers, **rules}
        convert_checkpoint(prefix, tmp_path / "out", "saver", **settings)

    if expected is None:
        with pytest.raises(ConflictError, match="the optimizers count 5 and 10 steps"):
            convert()
    else:
        convert()
        assert stock_values(tmp_path / "out")["global_step"] == expected

"""Optimizers from outside TensorFlow, and losses scaled for float16: they go on, or are refused.

Each optimizer is written here after its published rule, so that its checkpoints are real.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from conversion_files import stock_values, v1
from keras_session import KerasSession
from tf1_session import Tf1Session

from estimator_ckpt import WarmStart, convert_checkpoint, verify_checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError, UnsupportedCheckpointError

IS_KERAS_3 = getattr(tf.keras, "__version__", "2").startswith("3")
WORD = "keras3" if IS_KERAS_3 else "keras2"
K = tf.keras.optimizers
STEPS = 3
SHAPES = {"net/a": (3, 3), "net/b": (3, 3)}
INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
RATE, DECAY = 0.05, 0.01


def loss_of(a, b):
    return tf.reduce_mean(tf.square(tf.matmul(tf.matmul(INPUTS, a), b) - 1))


def initial(name):
    return np.cos(np.arange(9, dtype=np.float32) + len(name)).reshape(SHAPES[name]) / 2


class AdamWeightDecay(v1.train.Optimizer):
    """BERT's: no correction of bias, weight decay beside the step, slots X/adam_m and X/adam_v."""

    def __init__(self, end="adam"):
        super().__init__(False, "AdamWeightDecayOptimizer")
        self.end = end

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        updates = [global_step.assign_add(1)]
        for gradient, variable in grads_and_vars:
            m, v = (
                v1.get_variable(
                    f"{variable.op.name}/{self.end}_{slot}",
                    variable.shape,
                    initializer=v1.zeros_initializer(),
                    trainable=False,
                )
                for slot in "mv"
            )
            next_m = 0.9 * m + 0.1 * gradient
            next_v = 0.999 * v + 0.001 * tf.square(gradient)
            step = next_m / (tf.sqrt(next_v) + 1e-6) + DECAY * variable
            updates += [
                variable.assign(variable - RATE * step),
                m.assign(next_m),
                v.assign(next_v),
            ]
        return tf.group(*updates)


class Decoupled:
    """As contrib has it: the weights decay by themselves, not times the learning rate."""

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        with tf.control_dependencies([gradient for gradient, _ in grads_and_vars]):
            decays = [v.assign_sub(DECAY * v.read_value()) for _, v in grads_and_vars]
        with tf.control_dependencies(decays):
            return super().apply_gradients(grads_and_vars, global_step, name)


class AdamW(Decoupled, v1.train.AdamOptimizer):
    def __init__(self):
        super().__init__(RATE, name="AdamW")


class MomentumW(Decoupled, v1.train.MomentumOptimizer):
    def __init__(self):
        super().__init__(RATE, 0.9, name="MomentumW")


class LazyAdam(v1.train.AdamOptimizer):
    """With dense gradients an Adam."""

    def __init__(self):
        super().__init__(RATE, name="LazyAdam")


class Tf1Job(Tf1Session):
    """A TF1 graph with its session."""

    STEPS = STEPS

    def __init__(self, make, start=0):
        with tf.Graph().as_default() as self.graph:
            variables = [
                v1.get_variable(name, initializer=initial(name), use_resource=True)
                for name in SHAPES
            ]
            step = v1.get_variable(
                "global_step", initializer=np.int64(start), trainable=False, use_resource=True
            )
            self.loss = loss_of(*variables)
            self.train_op = make().minimize(self.loss, step)
            self.start()


class KerasJob(KerasSession):
    """The same model as objects; the optimizers are built in the other order."""

    STEPS = STEPS
    loss = staticmethod(loss_of)

    def __init__(self, optimizer):
        self.variables = {name: tf.Variable(initial(name), name=name) for name in SHAPES}
        self.optimizer = optimizer
        self.ordered = list(self.variables.values())[::-1]
        optimizer.build(self.ordered)
        self.objects = tf.train.Checkpoint(model=self.variables, optimizer=optimizer)


def in_keras(source, job, tmp_path, **options):
    """Converts to the objects of a job, and restores them."""
    like = job.save(tmp_path / "like")
    result = convert_checkpoint(
        source, tmp_path / "out", "checkpoint", like=like, optimizer=WORD, **options
    )
    assert verify_checkpoint(tmp_path / "out").faults == ()
    job.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    return result


# --- BERT's Adam and LAMB ---


def bert_in_keras():
    return KerasJob(K.AdamW(RATE, weight_decay=DECAY, epsilon=1e-6))


def test_berts_adam_goes_on_in_keras_once_no_bias_is_left_to_correct(tmp_path):
    tf1 = Tf1Job(AdamWeightDecay, start=20_000)
    tf1.train()
    source = tf1.save(tmp_path / "tf1")
    job = bert_in_keras()
    in_keras(source, job, tmp_path, from_optimizer="AdamWeightDecayOptimizer")
    assert int(job.optimizer.iterations) == 20_000 + STEPS
    np.testing.assert_allclose(job.train(), tf1.train(), rtol=1e-5)


def test_before_that_it_is_refused_with_the_number_of_steps(tmp_path):
    source = Tf1Job(AdamWeightDecay, start=100).save(tmp_path / "tf1")
    options = {"from_optimizer": "AdamWeightDecayOptimizer"}
    with pytest.raises(UnsupportedCheckpointError, match=r"from 16,6\d\d steps on.*has made 100"):
        in_keras(source, bert_in_keras(), tmp_path, **options)
    assert not (tmp_path / "out.index").exists()
    numbers = {"iter": 20_000}
    in_keras(source, bert_in_keras(), tmp_path, hyperparameters=numbers, **options)


@pytest.mark.parametrize(
    ("end", "given", "error", "message"),
    [
        (
            "adam",
            None,
            SettingsError,
            "AdamWeightDecayOptimizer and LAMBOptimizer call",
        ),
        ("adam", "LAMBOptimizer", UnsupportedCheckpointError, "part of its trust ratio"),
        ("adam", "Momentum", SettingsError, "expected AdamWeightDecayOptimizer or LAMBOptimizer"),
    ],
)
def test_whose_adam_m_is_has_to_be_said_and_lamb_is_refused(end, given, error, message, tmp_path):
    source = Tf1Job(lambda: AdamWeightDecay(end), start=20_000).save(tmp_path / "tf1")
    with pytest.raises(error, match=message):
        in_keras(source, bert_in_keras(), tmp_path, from_optimizer=given)


# --- AdamW ---


@pytest.mark.parametrize(
    ("make", "make_in_keras", "slot", "warning"),
    [
        (
            AdamW,
            lambda: K.AdamW(RATE, weight_decay=DECAY / RATE, epsilon=1e-8),
            "AdamW_1",
            "the weight decay is the program's",
        ),
        (
            MomentumW,
            lambda: K.SGD(RATE, 0.9, weight_decay=DECAY / RATE),
            "MomentumW",
            "the weight decay is the program's",
        ),
        (LazyAdam, lambda: K.Adam(RATE, epsilon=1e-8), "LazyAdam", "where gradients are dense"),
    ],
)
def test_contribs_optimizers_go_on_in_keras(make, make_in_keras, slot, warning, tmp_path):
    tf1 = Tf1Job(make)
    tf1.train()
    source = tf1.save(tmp_path / "tf1")
    assert f"net/a/{slot}" in stock_values(source)
    job = KerasJob(make_in_keras())
    result = in_keras(source, job, tmp_path)
    assert warning in result.warning
    np.testing.assert_allclose(job.train(), tf1.train(), rtol=1e-5)


def test_keras_adamw_goes_on_as_contribs(tmp_path):
    job = KerasJob(K.AdamW(RATE, weight_decay=DECAY / RATE, epsilon=1e-8, name="adamw"))
    job.train()
    source = job.save(tmp_path / "keras")
    numbers = {"beta_1": 0.9, "beta_2": 0.999}
    options = {"optimizer": "tf1", "from_optimizer": "AdamW", "hyperparameters": numbers}
    convert_checkpoint(source, tmp_path / "out", "saver", **options)
    tf1 = Tf1Job(AdamW)
    tf1.restore(tmp_path / "out")
    np.testing.assert_allclose(tf1.train(), job.train(), rtol=1e-5)


# --- scaled losses ---


def with_scale_in_tf1():
    from tensorflow.python.training.experimental import loss_scale_optimizer

    return loss_scale_optimizer.MixedPrecisionLossScaleOptimizer(
        v1.train.AdamOptimizer(RATE, epsilon=1e-3), "dynamic"
    )


def with_scale_in_keras():
    adam = K.Adam(RATE, epsilon=1e-3)
    return tf.keras.mixed_precision.LossScaleOptimizer(adam, initial_scale=8)


def scale_in_keras(optimizer):
    if IS_KERAS_3:
        return float(optimizer.dynamic_scale), int(optimizer.step_counter)
    return float(optimizer.loss_scale), int(optimizer.dynamic_counter)


def test_a_loss_scale_goes_along_to_keras(tmp_path):
    tf1 = Tf1Job(with_scale_in_tf1)
    tf1.train()
    source = tf1.save(tmp_path / "tf1")
    assert stock_values(source)["good_steps"] == STEPS
    job = KerasJob(with_scale_in_keras())
    in_keras(source, job, tmp_path)
    assert scale_in_keras(job.optimizer) == (2.0**15, STEPS)
    np.testing.assert_allclose(job.train(), tf1.train(), rtol=1e-5)


def test_a_loss_scale_goes_along_from_keras(tmp_path):
    job = KerasJob(with_scale_in_keras())
    job.train()
    source = job.save(tmp_path / "keras")
    numbers = {"beta_1": 0.9, "beta_2": 0.999}
    options = {"optimizer": "tf1", "from_optimizer": "Adam", "hyperparameters": numbers}
    convert_checkpoint(source, tmp_path / "out", "saver", **options)
    values = stock_values(tmp_path / "out")
    assert (values["current_loss_scale"], values["good_steps"]) == (8.0, STEPS)
    tf1 = Tf1Job(with_scale_in_tf1)
    tf1.restore(tmp_path / "out")
    np.testing.assert_allclose(tf1.train(), job.train(), rtol=1e-5)
    convert_checkpoint(source, tmp_path / "model", "saver", drop_slots=True)
    assert len(stock_values(tmp_path / "model")) == len(SHAPES)


def test_a_template_that_scales_no_losses_takes_the_state_without_the_scale(tmp_path):
    tf1 = Tf1Job(with_scale_in_tf1)
    tf1.train()
    source = tf1.save(tmp_path / "tf1")
    job = KerasJob(K.Adam(RATE, epsilon=1e-3))
    in_keras(source, job, tmp_path)
    np.testing.assert_allclose(job.train(), tf1.train(), rtol=1e-5)


# --- sparse gradients ---

TABLE = np.cos(np.arange(12, dtype=np.float32)).reshape(4, 3)
ROWS = ([0, 2], [1, 2])  # first and afterwards; the table says what becomes of the rows not hit


def sparse_loss(table, rows):
    return tf.reduce_mean(tf.square(tf.nn.embedding_lookup(table, rows) - 1))


SPARSE = {
    "Adam": (lambda: v1.train.AdamOptimizer(RATE), lambda: K.Adam(RATE, epsilon=1e-8)),
    "Adagrad": (lambda: v1.train.AdagradOptimizer(RATE), lambda: K.Adagrad(RATE, epsilon=1e-30)),
    "Ftrl": (lambda: v1.train.FtrlOptimizer(RATE), lambda: K.Ftrl(RATE)),
    "Momentum": (lambda: v1.train.MomentumOptimizer(RATE, 0.9), lambda: K.SGD(RATE, 0.9)),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_with_sparse_gradients_it_goes_on_alike_or_the_report_warns(kind, tmp_path):
    in_tf1, in_keras = SPARSE[kind]
    with tf.Graph().as_default(), v1.Session() as session:
        table = v1.get_variable("table", initializer=TABLE, use_resource=True)
        step, optimizer = v1.train.get_or_create_global_step(), in_tf1()
        losses = [sparse_loss(table, rows) for rows in ROWS]
        train_ops = [optimizer.minimize(loss, step) for loss in losses]
        session.run(v1.global_variables_initializer())
        for number in (0, 0, 1, 0):
            session.run(train_ops[number])
        source = v1.train.Saver().save(session, str(tmp_path / "tf1"), write_meta_graph=False)
        for number in (1, 1, 1, 0, 0):
            session.run(train_ops[number])
        expected = session.run(table)
    variable, optimizer = tf.Variable(TABLE, name="table"), in_keras()
    optimizer.build([variable])
    objects = tf.train.Checkpoint(model=[variable], optimizer=optimizer)
    numbers = {"learning_rate": RATE} if kind == "Momentum" else {}
    result = convert_checkpoint(
        source,
        tmp_path / "out",
        "checkpoint",
        like=objects,
        optimizer=WORD,
        hyperparameters=numbers,
    )
    objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    for number in (1, 1, 1, 0, 0):
        with tf.GradientTape() as tape:
            loss = sparse_loss(variable, ROWS[number])
        optimizer.apply_gradients([(tape.gradient(loss, variable), variable)])
    is_alike = np.allclose(variable.numpy(), expected, rtol=1e-5)
    assert is_alike == (kind in ("Adam", "Adagrad"))
    assert is_alike != ("exact where gradients are dense" in result.warning)


SPARSE_IN_KERAS = {
    "Adam": lambda k: k.Adam(RATE, epsilon=1e-3),
    "Adamax": lambda k: k.Adamax(RATE, epsilon=1e-3),
    "Adagrad": lambda k: k.Adagrad(RATE, epsilon=1e-30),
    "Ftrl": lambda k: k.Ftrl(RATE),
    "SGD": lambda k: k.SGD(RATE, 0.9),
    "RMSprop": lambda k: k.RMSprop(RATE, 0.8, 0.5, epsilon=1e-3),
    "Adadelta": lambda k: k.Adadelta(RATE, epsilon=1e-3),
}


@pytest.mark.parametrize("kind", SPARSE_IN_KERAS)
def test_with_sparse_gradients_keras_goes_on_alike_or_the_report_warns(kind, tmp_path):
    keras = pytest.importorskip("tf_keras").optimizers if IS_KERAS_3 else K

    def train(optimizer, variable, *numbers):
        for number in numbers:
            with tf.GradientTape() as tape:
                loss = sparse_loss(variable, ROWS[number])
            optimizer.apply_gradients([(tape.gradient(loss, variable), variable)])

    old, table = SPARSE_IN_KERAS[kind](keras.legacy), tf.Variable(TABLE, name="table")
    train(old, table, 0, 0, 1, 0)
    prefix = tf.train.Checkpoint(table=table, optimizer=old).write(str(tmp_path / "legacy"))
    train(old, table, 1, 1, 1, 0, 0)
    new, variable = SPARSE_IN_KERAS[kind](keras), tf.Variable(TABLE, name="table")
    new.build([variable])
    objects = tf.train.Checkpoint(table=variable, optimizer=new)
    report = WarmStart(prefix, from_optimizer=kind).apply(objects)
    train(new, variable, 1, 1, 1, 0, 0)
    is_alike = np.allclose(variable.numpy(), table.numpy(), rtol=1e-5)
    assert is_alike == (kind in ("Adam", "Adagrad"))
    assert is_alike != any("exact where gradients are dense" in note for note in report.notes)


# --- Keras' legacy ones to the newer ones ---


def decoupled(base):
    """As addons have it."""

    class Decoupled(base):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self._set_hyper("weight_decay", DECAY)

        def _resource_apply_dense(self, grad, var, apply_state=None):
            with tf.control_dependencies([var.assign_sub(DECAY * var.read_value())]):
                return super()._resource_apply_dense(grad, var, apply_state)

    return Decoupled


# The legacy optimizer, and where it is not called so the newer one.
OF_ADDONS = {
    "AdamW": (
        lambda k: decoupled(k.legacy.Adam)(RATE, epsilon=1e-3, name="AdamW"),
        lambda k: k.AdamW(RATE, weight_decay=DECAY / RATE, epsilon=1e-3),
    ),
    "SGDW": (
        lambda k: decoupled(k.legacy.SGD)(RATE, 0.9, name="SGDW"),
        lambda k: k.SGD(RATE, 0.9, weight_decay=DECAY / RATE),
    ),
    "LazyAdam": (
        lambda k: k.legacy.Adam(RATE, epsilon=1e-3, name="LazyAdam"),
        lambda k: k.Adam(RATE, epsilon=1e-3),
    ),
}
LEGACY = {
    "Adam": lambda k: k.Adam(RATE, 0.8, 0.95, epsilon=1e-3),
    "Adam with amsgrad": lambda k: k.Adam(RATE, 0.8, 0.95, epsilon=1e-3, amsgrad=True),
    "SGD": lambda k: k.SGD(RATE, 0.9),
}


@pytest.mark.parametrize("kind", [*LEGACY, *OF_ADDONS])
def test_a_legacy_optimizer_goes_on_in_the_newer_one(kind, tmp_path):
    # On later TensorFlows both are in the package tf_keras.
    keras = pytest.importorskip("tf_keras").optimizers if IS_KERAS_3 else K
    make, make_newer = OF_ADDONS.get(kind, (lambda k: LEGACY[kind](k.legacy), LEGACY.get(kind)))
    old = KerasJob.__new__(KerasJob)
    old.variables = {name: tf.Variable(initial(name), name=name) for name in SHAPES}
    old.ordered, old.optimizer = list(old.variables.values()), make(keras)
    old.objects = tf.train.Checkpoint(model=old.variables, optimizer=old.optimizer)
    old.train()
    source = old.save(tmp_path / "legacy")
    job = KerasJob(make_newer(keras))
    like = job.save(tmp_path / "like")
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like, optimizer="keras2")
    job.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert int(job.optimizer.iterations) == STEPS
    np.testing.assert_allclose(job.train(), old.train(), rtol=1e-5)


# --- several ---


def test_one_rate_does_not_scale_the_slots_of_two(tmp_path):
    source = Tf1Job(lambda: v1.train.MomentumOptimizer(RATE, 0.9)).save(tmp_path / "tf1")
    a, b = (tf.Variable(initial(name), name=name) for name in SHAPES)
    optimizers = [K.SGD(0.1, 0.9), K.SGD(0.2, 0.9)]
    for variable, optimizer in zip((a, b), optimizers):
        optimizer.build([variable])
    objects = tf.train.Checkpoint(
        model={"net/a": a, "net/b": b}, one=optimizers[0], two=optimizers[1]
    )
    with pytest.raises(MismatchError, match="one learning rate cannot scale the slots of both"):
        convert_checkpoint(
            source,
            tmp_path / "out",
            "checkpoint",
            like=objects,
            optimizer=WORD,
            hyperparameters={"learning_rate": 0.1},
        )
    assert not (tmp_path / "out.index").exists()

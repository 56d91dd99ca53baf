"""Optimizer state from TF1 to Keras and back: training goes on with the same losses."""

from __future__ import annotations

import numpy as np
import pytest
from conversion_files import contents, stock_values, v1
from golden_files import golden_cases
from stock_files import save_slots_of_parts
from tensorflow_party import tf
from tf1_session import Tf1Session

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import ConflictError, UnsupportedCheckpointError

# The same optimizers in TF1 and in Keras: equal numbers, equal epsilon where there is one. TF1's
# Adagrad has none; Keras takes 0 for its default, and 1e-30 does nothing to a float32.
TF1 = {
    "Adam": lambda: v1.train.AdamOptimizer(0.05, 0.8, 0.95, epsilon=1e-3),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(0.5, rho=0.9, epsilon=1e-3),
    "Ftrl": lambda: v1.train.FtrlOptimizer(
        0.2, l1_regularization_strength=0.01, l2_regularization_strength=0.02
    ),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9),
    "Nesterov": lambda: v1.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.02, decay=0.8, momentum=0.5, epsilon=1e-3),
    "Centered": lambda: v1.train.RMSPropOptimizer(
        0.02, decay=0.8, momentum=0.5, epsilon=1e-3, centered=True
    ),
}
KERAS = {
    "Adam": lambda legacy: legacy.Adam(0.05, 0.8, 0.95, epsilon=1e-3),
    "Adagrad": lambda legacy: legacy.Adagrad(0.1, epsilon=1e-30),
    "Adadelta": lambda legacy: legacy.Adadelta(0.5, rho=0.9, epsilon=1e-3),
    "Ftrl": lambda legacy: legacy.Ftrl(
        0.2, l1_regularization_strength=0.01, l2_regularization_strength=0.02
    ),
    "Momentum": lambda legacy: legacy.SGD(0.05, 0.9),
    "Nesterov": lambda legacy: legacy.SGD(0.05, 0.9, nesterov=True),
    "RMSProp": lambda legacy: legacy.RMSprop(0.02, rho=0.8, momentum=0.5, epsilon=1e-3),
    "Centered": lambda legacy: legacy.RMSprop(
        0.02, rho=0.8, momentum=0.5, epsilon=1e-3, centered=True
    ),
}
# All of Keras' hyperparameters; those of Momentum and RMSProp are needed to convert.
NUMBERS = {
    "Adam": {"learning_rate": 0.05, "decay": 0, "beta_1": 0.8, "beta_2": 0.95},
    "Adagrad": {"learning_rate": 0.1, "decay": 0},
    "Adadelta": {"learning_rate": 0.5, "decay": 0, "rho": 0.9},
    "Ftrl": {
        "learning_rate": 0.2,
        "decay": 0,
        "learning_rate_power": -0.5,
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
        "beta": 0,
    },
    "Momentum": {"learning_rate": 0.05, "decay": 0, "momentum": 0.9},
    "Nesterov": {"learning_rate": 0.05, "decay": 0, "momentum": 0.9},
    "RMSProp": {"learning_rate": 0.02, "decay": 0, "rho": 0.8, "momentum": 0.5},
    "Centered": {"learning_rate": 0.02, "decay": 0, "rho": 0.8, "momentum": 0.5},
}
kinds = pytest.mark.parametrize("kind", TF1)
exact_kinds = pytest.mark.parametrize("kind", ["Adam", "Adagrad", "Adadelta", "Ftrl"])

INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
ROWS = np.array([0, 3, 3, 1])
LABELS = np.linspace(2, -1, 8, dtype=np.float32).reshape(4, 2)
SHAPES = {"net/dense/kernel": (3, 2), "net/dense/bias": (2,), "net/embedding": (5, 2)}
STEPS = 6


def loss_of(variables):
    kernel, bias, embedding = variables
    outputs = tf.matmul(INPUTS, kernel) + bias + tf.nn.embedding_lookup(embedding, ROWS)
    return tf.reduce_mean(tf.square(outputs - LABELS))


def initializer(name):
    """Of a variable or of a slice of it."""

    def values(shape, dtype=None, partition_info=None):
        offset = partition_info.var_offset if partition_info else [0] * len(shape)
        part = tuple(slice(start, start + size) for start, size in zip(offset, shape))
        return tf.constant(initial(name)[part], dtype)

    return values


def initial(name):
    count = int(np.prod(SHAPES[name]))
    return np.cos(np.arange(count, dtype=np.float32)).reshape(SHAPES[name])


class Tf1Job(Tf1Session):
    """A TF1 graph with its session."""

    STEPS = STEPS

    def __init__(self, kind, slices=None, scope=""):
        with tf.Graph().as_default() as self.graph:
            variables = []
            for name, shape in SHAPES.items():
                variables.append(
                    v1.get_variable(
                        name,
                        shape,
                        initializer=initializer(name),
                        partitioner=v1.fixed_size_partitioner(slices)
                        if slices and name == "net/embedding"
                        else None,
                    )
                )
            self.loss = loss_of(variables)
            step = v1.train.create_global_step()
            with v1.variable_scope(scope):
                self.train_op = TF1[kind]().minimize(self.loss, global_step=step)
            self.start()


class EagerJob:
    """The same model as eager objects."""

    def __init__(self, optimizer):
        self.variables = [tf.Variable(initial(name), name=name) for name in SHAPES]
        self.optimizer = optimizer
        self.step = tf.Variable(0, dtype=tf.int64, name="global_step")
        self.reader = tf.train.Checkpoint(
            var_list={**dict(zip(SHAPES, self.variables)), "global_step": self.step},
            step=self.step,
            optimizer=optimizer,
        )

    def train(self):
        losses = []
        for _ in range(STEPS):
            with tf.GradientTape() as tape:
                loss = loss_of(self.variables)
            losses.append(loss.numpy())
            gradients = tape.gradient(loss, self.variables)
            self.optimizer.apply_gradients(zip(gradients, self.variables))
        return losses


def keras(kind):
    return KERAS[kind](tf.keras.optimizers.legacy)


def trained_in_tf1(kind, tmp_path, **options):
    """A checkpoint after some steps, and the losses of the steps that follow."""
    job = Tf1Job(kind, **options)
    job.train()
    prefix = job.save(tmp_path / "tf1")
    return prefix, job.train()


# --- TF1 to Keras ---


@pytest.mark.estimator
@kinds
@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_training_goes_on_in_keras_with_the_same_losses(kind, checkpoint_format, tmp_path):
    prefix, expected = trained_in_tf1(kind, tmp_path)
    numbers = NUMBERS[kind]
    convert_checkpoint(
        prefix, tmp_path / "out", checkpoint_format, optimizer="keras", hyperparameters=numbers
    )
    assert verify_checkpoint(tmp_path / "out").faults == ()
    job = EagerJob(keras(kind))
    status = job.reader.restore(str(tmp_path / "out"))
    losses = job.train()
    status.assert_consumed()
    assert job.optimizer.iterations.numpy() == 2 * STEPS
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


@pytest.mark.estimator
@exact_kinds
def test_without_other_hyperparameters_keras_keeps_its_own(kind, tmp_path):
    prefix, expected = trained_in_tf1(kind, tmp_path)
    # Betas that are not the defaults: Adam's powers do not tell its steps.
    numbers = {"iter": STEPS} if kind == "Adam" else {}
    convert_checkpoint(
        prefix, tmp_path / "out", "checkpoint", optimizer="keras", hyperparameters=numbers
    )
    job = EagerJob(keras(kind))
    job.reader.restore(str(tmp_path / "out"))
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)
    found = open_checkpoint(tmp_path / "out").variables
    own = {v.object_path for v in found.values() if v.object_path.startswith("optimizer/")}
    assert own == {"optimizer/iter"}


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("slices", "scope", "slot"),
    [
        (2, "", "net/embedding/Adam"),
        (None, "net", "net/net/embedding/Adam"),
        (1, "net", "net/embedding/t_0/Adam"),
        (1, "linear", "net/embedding/part_0/Adam"),
    ],
)
def test_slots_go_along_whatever_their_names(slices, scope, slot, tmp_path):
    prefix, expected = trained_in_tf1("Adam", tmp_path, slices=slices, scope=scope)
    before = stock_values(prefix)
    assert slot in before
    convert_checkpoint(
        prefix, tmp_path / "out", "both", optimizer="keras", hyperparameters=NUMBERS["Adam"]
    )
    job = EagerJob(keras("Adam"))
    job.reader.restore(str(tmp_path / "out"))
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)
    convert_checkpoint(tmp_path / "out", tmp_path / "objects", "checkpoint")
    convert_checkpoint(tmp_path / "objects", tmp_path / "back", "saver", optimizer="tf1")
    powers = {"net/beta1_power", "net/beta2_power", "linear/beta1_power", "linear/beta2_power"}
    assert before.keys() - stock_values(tmp_path / "back").keys() <= powers


def test_slots_of_parts_are_variables_like_any_other_or_left_out(tmp_path):
    prefix = save_slots_of_parts(tmp_path / "tf1")
    with pytest.raises(UnsupportedCheckpointError) as caught:
        convert_checkpoint(prefix, tmp_path / "out", "checkpoint", optimizer="tf1")
    assert "'dnn/w/t_0/Adam' and 'dnn/w/t_1/Adam' both have the slot m" in str(caught.value)
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint")
    convert_checkpoint(tmp_path / "out", tmp_path / "back", "saver")
    assert contents(tmp_path / "back") == contents(prefix)
    assert verify_checkpoint(tmp_path / "out").ok
    convert_checkpoint(prefix, tmp_path / "model", "saver", drop_slots=True)
    assert list(stock_values(tmp_path / "model")) == ["dnn/w"]


@pytest.mark.estimator
def test_a_canned_estimator_with_a_partitioner_goes_on_from_what_was_converted(tmp_path):
    words = v1.feature_column.categorical_column_with_vocabulary_list("word", ["a", "b", "c", "d"])
    column = v1.feature_column.embedding_column(words, 2)

    def estimator(model_dir):
        return v1.estimator.DNNClassifier(
            [3],
            [column],
            model_dir=str(tmp_path / model_dir),
            config=tf.estimator.RunConfig(tf_random_seed=1),
            input_layer_partitioner=v1.fixed_size_partitioner(2),
        )

    def input_fn():
        return tf.data.Dataset.from_tensors(({"word": ["a", "d"]}, [0, 1])).repeat()

    estimator("tf1").train(input_fn, steps=2)
    convert_checkpoint(tmp_path / "tf1", tmp_path / "both", "both")
    for model_dir in ("tf1", "both"):
        estimator(model_dir).train(input_fn, steps=2)
    expected, found = (contents(tmp_path / one / "model.ckpt-4") for one in ("tf1", "both"))
    assert any(name.endswith("embedding_weights/t_1/Adagrad") for name in expected)
    assert found == expected


@pytest.mark.estimator
def test_like_a_keras_model_with_its_optimizer(tmp_path):
    prefix, expected = trained_in_tf1("Adam", tmp_path)
    job = EagerJob(keras("Adam"))
    job.train()
    objects = tf.train.Checkpoint(weights=job.variables, optimizer=job.optimizer)
    convert_checkpoint(
        prefix,
        tmp_path / "out",
        "checkpoint",
        like=objects,
        optimizer="keras",
        hyperparameters={**NUMBERS["Adam"], "iter": STEPS},
        exclude=["global_step"],
    )
    objects.restore(str(tmp_path / "out")).assert_consumed()
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)


@pytest.mark.estimator
@kinds
def test_both_serves_the_tf1_job_as_before(kind, tmp_path):
    prefix, expected = trained_in_tf1(kind, tmp_path)
    numbers = NUMBERS[kind]
    convert_checkpoint(prefix, tmp_path / "out", "both", optimizer="keras", hyperparameters=numbers)
    job = Tf1Job(kind)
    job.restore(tmp_path / "out")
    assert job.train() == expected


# --- Keras to TF1 ---


@pytest.mark.estimator
@kinds
def test_training_goes_on_in_tf1_with_the_same_losses(kind, tmp_path):
    eager = EagerJob(keras(kind))
    eager.train()
    objects = tf.train.Checkpoint(model=eager.variables, optimizer=eager.optimizer)
    prefix = objects.save(str(tmp_path / "keras"))
    expected = eager.train()
    numbers = {"learning_rate": 0.05} if kind in ("Momentum", "Nesterov") else {}
    convert_checkpoint(prefix, tmp_path / "out", "saver", optimizer="tf1", hyperparameters=numbers)
    job = Tf1Job(kind)
    job.restore(tmp_path / "out")
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)


@pytest.mark.estimator
@kinds
def test_from_tf1_to_keras_and_back(kind, tmp_path):
    prefix, expected = trained_in_tf1(kind, tmp_path)
    numbers = NUMBERS[kind]
    convert_checkpoint(
        prefix, tmp_path / "keras", "checkpoint", optimizer="keras", hyperparameters=numbers
    )
    rate = {name: numbers[name] for name in ("learning_rate",) if kind in ("Momentum", "Nesterov")}
    convert_checkpoint(
        tmp_path / "keras", tmp_path / "out", "saver", optimizer="tf1", hyperparameters=rate
    )
    before, after = stock_values(prefix), stock_values(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=2e-6)
    job = Tf1Job(kind)
    job.restore(tmp_path / "out")
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)


@pytest.mark.parametrize("case", golden_cases("slots_keras_legacy"), ids=str)
def test_keras_state_under_its_own_names_becomes_objects_again(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "names", "saver")
    assert "Adam/dense/kernel/m" in stock_values(tmp_path / "names")
    convert_checkpoint(
        tmp_path / "names", tmp_path / "out", "checkpoint", optimizer="keras", layout="scopes"
    )
    found = open_checkpoint(tmp_path / "out")
    expected = {variable.name: variable.value for variable in case.variables}
    for name, path in {
        "Adam/dense/kernel/m": "dense/kernel/.OPTIMIZER_SLOT/optimizer/m",
        "Adam/dense/bias/v": "dense/bias/.OPTIMIZER_SLOT/optimizer/v",
        "Adam/iter": "optimizer/iter",
        "Adam/beta_1": "optimizer/beta_1",
    }.items():
        assert found.get_tensor(path).tolist() == expected[name].tolist()


# --- TF1 to TF1's objects ---


@kinds
@pytest.mark.parametrize("layout", ["var_list", "scopes"])
def test_tf1_optimizers_as_objects_go_on_with_the_same_losses(kind, layout, tmp_path):
    prefix, expected = trained_in_tf1(kind, tmp_path)
    convert_checkpoint(prefix, tmp_path / "out", "both", optimizer="tf1", layout=layout)
    job = EagerJob(TF1[kind]())
    if layout == "scopes":
        kernel, bias, embedding = job.variables
        net = {"dense": {"kernel": kernel, "bias": bias}, "embedding": embedding}
        reader = tf.train.Checkpoint(net=net, global_step=job.step, optimizer=job.optimizer)
    else:
        reader = job.reader
    status = reader.restore(str(tmp_path / "out"))
    losses = job.train()
    status.assert_consumed()
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


def test_tf1_objects_become_names_and_a_tf1_job_goes_on(tmp_path):
    eager = EagerJob(TF1["Adam"]())
    eager.train()
    objects = tf.train.Checkpoint(net=eager.variables, optimizer=eager.optimizer, step=eager.step)
    prefix = objects.save(str(tmp_path / "eager"))
    expected = eager.train()
    convert_checkpoint(prefix, tmp_path / "out", "saver")
    job = Tf1Job("Adam")
    job.restore(tmp_path / "out")
    np.testing.assert_allclose(job.train(), expected, rtol=2e-6)


def test_a_rule_does_not_leave_the_old_name_in_var_list(tmp_path):
    prefix = save_slots_of_parts(tmp_path / "tf1")
    convert_checkpoint(prefix, tmp_path / "tf2", "checkpoint")
    rename = [("dnn/(.*)", r"net/\1")]
    with pytest.raises(ConflictError, match="ask for the layout 'var_list'"):
        convert_checkpoint(tmp_path / "tf2", tmp_path / "out", "checkpoint", rename=rename)
    convert_checkpoint(
        tmp_path / "tf2", tmp_path / "out", "checkpoint", rename=rename, layout="var_list"
    )
    assert "net/w" in open_checkpoint(tmp_path / "out").variables

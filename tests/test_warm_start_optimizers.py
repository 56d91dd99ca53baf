"""Optimizer state in memory: a program's optimizer goes on where one of another kind ended."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from conversion_files import v1, write_bundle
from optimizer_jobs import (
    BETAS,
    FAMILIES,
    INPUTS,
    KERAS,
    LABELS,
    SHAPES,
    STEPS,
    TF1,
    EagerTf1Job,
    KerasJob,
    KerasJobInAGraph,
    Tf1Job,
    initial,
    loss_of,
)
from tensorflow_party import tf

from estimator_ckpt import (
    WarmStart,
    convert_checkpoint,
    open_checkpoint,
    saver_scaffold,
    wrap_model_fn,
)
from estimator_ckpt.errors import (
    CheckpointError,
    ConflictError,
    MismatchError,
    SettingsError,
    UnsupportedCheckpointError,
)

families = pytest.mark.parametrize("family", FAMILIES)
NEWEST = list(FAMILIES)[-1]
NEWER = FAMILIES[NEWEST]
KERAS_2 = list(FAMILIES)[1]  # since 2.11
REVERSED = tuple(reversed(SHAPES))
# Those of which no graph is needed for each dialect.
KINDS = ["Adam", "AdaMax", "Momentum", "Adagrad", "RMSProp with momentum", "Ftrl", "Adadelta"]


# TF1's, with names of their own.
NAMED = {
    "Adam": lambda: v1.train.AdamOptimizer(0.05, 0.8, 0.95, epsilon=1e-3, name="opt"),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.05, 0.9, name="my/opt_2"),
    "Centered": lambda: v1.train.RMSPropOptimizer(0.02, 0.8, 0.5, 1e-3, False, True, "opt"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By kind and dialect: a checkpoint after some steps, and the losses of the steps after it."""

    @functools.cache
    def run(kind, family="tf1", **options):
        directory = tmp_path_factory.mktemp("trained")
        if family == "tf1":
            job = Tf1Job(kind, **options)
        else:
            job = KerasJob(KERAS[kind](FAMILIES[family]))
        job.train()
        return job.save(directory / "ckpt"), job.train()

    return run


def rate_of(optimizer):
    return float(np.array(optimizer.learning_rate))


@families
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_with_the_losses_of_tf1(kind, family, trained):
    """Built in another order, so that slots of one shape would be swapped by their positions."""
    prefix, expected = trained(kind)
    job = KerasJob(KERAS[kind](FAMILIES[family]), order=REVERSED)
    rate = rate_of(job.optimizer)
    report = WarmStart(prefix).apply(job.objects)
    assert int(job.optimizer.iterations) == STEPS
    assert rate_of(job.optimizer) == rate
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)
    assert report.refused == []


@pytest.mark.parametrize("source_format", ["checkpoint", "both"])
def test_a_source_of_every_format_has_the_same_state(source_format, trained, tmp_path):
    prefix, expected = trained("Adam", slices=2)  # of a partitioned variable, too
    convert_checkpoint(prefix, tmp_path / "source", source_format)
    job = KerasJob(KERAS["Adam"](NEWER), order=REVERSED)
    WarmStart(str(tmp_path / "source")).apply(job.objects)
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "Centered"])
@pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in FAMILIES for b in FAMILIES if b != "legacy"]
)
def test_training_goes_on_from_one_keras_to_another(kind, source, target, trained):
    prefix, expected = trained(kind, source)
    job = KerasJob(KERAS[kind](FAMILIES[target]), order=REVERSED)
    name = type(job.optimizer).__name__
    WarmStart(prefix, from_optimizer=name).apply(job.objects)
    assert int(job.optimizer.iterations) == STEPS
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


def test_every_variable_of_the_optimizer_is_in_the_report(trained):
    prefix, _ = trained("Momentum")
    job = KerasJob(KERAS["Momentum"](NEWER))
    report = WarmStart(prefix).apply(job.objects)
    slots = job.optimizer.momentums
    assert len(report.values) == len(SHAPES) + len(slots) + 2
    started = {value.target: value for value in report.values if value.starts}
    kept = [value for value in report.values if not value.starts]
    assert [value.rule for value in kept] == ["a number of the program's own, which stays"]
    scaled = [value for value in started.values() if value.content is not None]
    assert sorted(value.source for value in scaled) == sorted(f"{n}/Momentum" for n in SHAPES)
    assert {value.rule.rpartition(", ")[2] for value in scaled} == {"-0.05 times"}
    assert "note: Momentum: times -learning_rate, exact while that is constant" in str(report)
    assert report.as_json()["notes"] == list(report.notes)
    assert set(report.unexpected) == set()


class Adafactor(v1.train.Optimizer):
    """As tensor2tensor has it, with its defaults."""

    def __init__(self):
        super().__init__(False, "Adafactor")

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        step = tf.cast(global_step, tf.float32) + 1
        decay, rate = 1 - step**-0.8, tf.minimum(0.01, step**-0.5)
        updates = []
        for gradient, variable in grads_and_vars:
            old, squared = variable.read_value(), tf.square(gradient) + 1e-30
            names, means = ("v",), (squared,)
            if len(variable.shape) > 1:
                names = ("vr", "vc")
                means = (tf.reduce_mean(squared, -1), tf.reduce_mean(squared, -2))
            slots = [
                self._get_or_make_slot(variable, tf.zeros(mean.shape), name, self._name)
                for name, mean in zip(names, means)
            ]
            new = [decay * s.read_value() + (1 - decay) * m for s, m in zip(slots, means)]
            scaled = gradient * tf.math.rsqrt(new[-1])
            if len(new) > 1:
                row = new[0] / tf.reduce_mean(new[0], -1, keepdims=True)
                scaled *= tf.math.rsqrt(row)[:, None]
            scaled /= tf.maximum(1.0, tf.sqrt(tf.reduce_mean(tf.square(scaled))))
            size = tf.maximum(1e-3, tf.sqrt(tf.reduce_mean(tf.square(old))))
            with tf.control_dependencies([scaled, size, *new]):
                updates += [variable.assign(old - rate * size * scaled)]
                updates += [slot.assign(value) for slot, value in zip(slots, new)]
        with tf.control_dependencies(updates):
            return global_step.assign_add(1)


def test_adafactor_goes_on_in_keras_by_the_defaults_of_both(tmp_path, monkeypatch):
    monkeypatch.setitem(TF1, "Adafactor", Adafactor)
    source = Tf1Job("Adafactor")
    source.train()
    prefix = source.save(tmp_path / "ckpt")
    expected = source.train()
    model = compiled(NEWEST, NEWER.Adafactor(0.01))
    report = WarmStart(prefix, **NAMES).apply(model)
    assert report.refused == []
    np.testing.assert_allclose(fitted(model), expected, rtol=1e-5)
    job = KerasJob(FAMILIES[KERAS_2].Adafactor(0.01), order=REVERSED)
    options = {"like": job.objects, "optimizer": "keras2"}
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", **options)
    job.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"Adafactor": [4], "Adafactor_1": [4], "Adafactor_2": [3]}, "there is no slot m"),
        ({"Adafactor": [4, 3]}, r"only those; 'w' of shape \[4, 3\] has v"),
    ],
)
def test_an_adafactor_that_factors_otherwise_is_refused(slots, message, tmp_path):
    shapes = {"w": [4, 3], **{f"w/{name}": shape for name, shape in slots.items()}}
    values = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    if len(slots) == 3:
        values["w/Adafactor"] = np.ones([4, 3], np.float32)
    values["global_step"] = np.array(5, np.int64)
    prefix = write_bundle(tmp_path / "ckpt", values)
    w = tf.Variable(tf.ones([4, 3]), name="w")
    optimizer = FAMILIES[KERAS_2].Adafactor(0.01)
    optimizer.build([w])
    report = WarmStart(prefix).apply(tf.train.Checkpoint(w=w, optimizer=optimizer))
    assert re.search(message, report.refused[0])


# --- what is not built yet ---


def compiled(family, optimizer):
    """The model of the jobs, by Keras; the optimizer has no slots yet."""
    keras = tf.keras if family == NEWEST else __import__("tf_keras")
    layers = [keras.layers.Dense(3, use_bias=False, name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential(layers, name="net")
    model.build((None, 3))
    if optimizer is not None:
        model.compile(optimizer, "mse")
    return model


def fitted(model):
    history = model.fit(INPUTS, LABELS, batch_size=4, shuffle=False, epochs=STEPS, verbose=0)
    return history.history["loss"]


# Keras 2 calls a variable by its layer alone.
NAMES = {} if NEWEST == "keras3" else {"rename": [("net/(.*)", r"\1")]}


@pytest.mark.parametrize("given", ["the model", "both"])
def test_a_compiled_models_optimizer_is_built_first(given, trained):
    prefix, expected = trained("Adam")
    model = compiled(NEWEST, KERAS["Adam"](NEWER))
    both = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    report = WarmStart(prefix, **NAMES).apply(model if given == "the model" else both)
    assert report.refused == []
    np.testing.assert_allclose(fitted(model), expected, rtol=1e-5)


def test_an_optimizer_starts_when_the_block_ends_that_builds_its_model(trained):
    prefix, expected = trained("Adam")
    layers = [
        tf.keras.layers.Dense(3, use_bias=False, name="a"),
        tf.keras.layers.Dense(3, name="b"),
    ]
    model = tf.keras.Sequential(layers, name="net")
    model.compile(KERAS["Adam"](NEWER), "mse")
    with WarmStart(prefix, **NAMES).deferred(model):
        model(INPUTS)
    np.testing.assert_allclose(fitted(model), expected, rtol=1e-5)


def test_an_optimizer_beside_the_only_model_is_built_first(trained):
    prefix, expected = trained("Momentum")
    model, optimizer = compiled(NEWEST, None), KERAS["Momentum"](NEWER)
    WarmStart(prefix, **NAMES).apply(tf.train.Checkpoint(model=model, optimizer=optimizer))
    losses = []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(INPUTS) - LABELS))
        losses.append(float(loss))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@families
def test_where_it_is_not_clear_what_an_optimizer_trains_it_has_to_be_built(family, trained):
    prefix, _ = trained("Adam")
    job = KerasJob(KERAS["Adam"](FAMILIES[family]))
    unbuilt = tf.train.Checkpoint(model=job.variables, optimizer=KERAS["Adam"](FAMILIES[family]))
    before = [np.array(variable) for variable in job.variables.values()]
    with pytest.raises(SettingsError, match=r"Adam has no slots yet: (call its build|apply grad)"):
        WarmStart(prefix).apply(unbuilt)
    for variable, value in zip(job.variables.values(), before):
        np.testing.assert_array_equal(variable, value)


# --- what does not mean the same ---

LEGACY = FAMILIES["legacy"]
REFUSED = {
    "another class": ("Adam", "tf1", lambda: NEWER.Adagrad(0.1), {}, "is Adagrad, .* of Adam"),
    "a slot more": (
        "Adam",
        "tf1",
        lambda: NEWER.Adam(0.1, 0.8, 0.95, amsgrad=True),
        {},
        "no slot vhat of",
    ),
    "AdamW, which looks like Adam": (
        *("Adam", "tf1", lambda: NEWER.AdamW(0.1), {}),
        "keeps the same: from_optimizer='AdamW' takes it",
    ),
    "no momentum, no state": (
        *("RMSProp", "tf1", lambda: LEGACY.RMSprop(0.1), {}),
        "only with a momentum above 0",
    ),
    "a learning rate that a schedule changes": (
        *("Momentum", "tf1", lambda: LEGACY.SGD(0.1, 0.9, decay=0.1), {}),
        "give the learning_rate with which",
    ),
    "one that Keras cannot go back to": (
        *("Adagrad", NEWEST, lambda: LEGACY.Adagrad(0.1), {}),
        "cannot be turned into that of a legacy Keras optimizer",
    ),
    "a class that nobody knows": (
        *("Adam", "tf1", lambda: type("MyAdam", (NEWER.Adam,), {})(0.1), {}),
        "MyAdam is no optimizer that is known",
    ),
    "averages, which nothing would start": (
        *("Adagrad", "tf1", lambda: NEWER.Adagrad(0.1, use_ema=True), {}),
        "nothing says what .* of Adagrad is to start from",
    ),
    "slots without a class": (
        *("Adam", "legacy", lambda: NEWER.Adam(0.1), {}),
        "may be Adam or Adamax .*; say which",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_optimizer_that_cannot_go_on_begins_anew_and_the_report_says_why(case, trained, caplog):
    kind, source, make, settings, reason = REFUSED[case]
    prefix, _ = trained(kind, source)
    job = KerasJob(make())
    state = job.optimizer.variables
    state = state() if callable(state) else state
    before = [np.array(variable) for variable in state]
    report = WarmStart(prefix, **settings).apply(job.objects)
    with open_checkpoint(prefix) as checkpoint:
        for name, variable in job.variables.items():
            np.testing.assert_array_equal(
                variable, checkpoint.get_tensor(report_source(report, name))
            )
    for variable, value in zip(state, before):
        np.testing.assert_array_equal(np.array(variable), value)
    (refused,) = report.refused
    assert re.search(reason, refused)
    assert "drop_slots" not in refused
    assert {v.rule for v in report.values if not v.starts} == {refused.partition(": ")[2]}
    with pytest.raises(CheckpointError, match=reason):
        WarmStart(prefix, hyperparameters={"iter": STEPS}).apply(job.objects)


def report_source(report, name):
    (source,) = (value.source for value in report.values if value.target == name)
    return source


def test_what_has_the_objects_of_another_class_is_refused(tmp_path):
    """Adamax has slots and numbers of the same names, and means others by them."""

    class Named(KerasJob):
        def __init__(self, optimizer):
            with tf.name_scope(type(optimizer).__name__):  # as a model's fit() does
                super().__init__(optimizer)

    source = Named(LEGACY.Adamax(0.1))
    source.train()
    job = Named(LEGACY.Adam(0.1))
    report = WarmStart(source.save(tmp_path / "ckpt")).apply(job.objects)
    assert re.search("is Adam, and the state is of Adamax", report.refused[0])
    assert int(job.optimizer.iterations) == 0


# --- numbers ---


def test_steps_that_the_powers_of_beta_contradict_are_asked_for(trained):
    prefix, _ = trained("Adam")
    job = KerasJob(NEWER.Adam(0.05, epsilon=1e-3))  # its betas are none of the checkpoint's
    (refused,) = WarmStart(prefix).apply(job.objects).refused
    assert "give the steps that Adam has made as iter, or its own beta_1 and beta_2" in refused
    assert int(job.optimizer.iterations) == 0
    for numbers in ({"iter": STEPS + 2}, BETAS):
        WarmStart(prefix, hyperparameters=numbers).apply(job.objects)
        assert int(job.optimizer.iterations) == numbers.get("iter", STEPS)
    with pytest.raises(ConflictError, match="give the right iter or beta_1"):
        WarmStart(prefix, hyperparameters={**BETAS, "iter": 3}).apply(job.objects)


def test_the_learning_rate_that_is_given_scales_the_slots_and_stays_out_of_the_program(trained):
    prefix, _ = trained("Momentum")
    job = KerasJob(NEWER.SGD(0.1, 0.9))
    WarmStart(prefix, hyperparameters={"learning_rate": 0.05}).apply(job.objects)
    assert rate_of(job.optimizer) == pytest.approx(0.1)
    with open_checkpoint(prefix) as checkpoint:
        for name, slot in zip(SHAPES, job.optimizer.momentums):
            expected = checkpoint[f"{name}/Momentum"] * np.float32(-0.05)
            np.testing.assert_allclose(np.array(slot), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"other/iter": 1}, "the model has no such optimizer; it has optimizer"),
        ({"rho": 0.9}, "rho: no such variable in Adam"),
        ({"iter": "1"}, "expected a number for iter, found '1'"),
        ([1], "expected a mapping from names to numbers"),
    ],
)
def test_numbers_for_nothing_are_an_error(numbers, message, trained):
    prefix, _ = trained("Adam")
    job = KerasJob(KERAS["Adam"](NEWER))
    with pytest.raises(SettingsError, match=message):
        WarmStart(prefix, hyperparameters=numbers).apply(job.objects)


def test_the_class_that_is_given_decides_where_two_keep_the_same(trained):
    prefix, expected = trained("Adam")
    job = KerasJob(NEWER.AdamW(0.05, 0.0, 0.8, 0.95, epsilon=1e-3), order=REVERSED)
    WarmStart(prefix, from_optimizer="AdamW").apply(job.objects)
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)
    with pytest.raises(SettingsError, match=r"expected one of .*, found 'Adm'"):
        WarmStart(prefix, from_optimizer="Adm")


# --- several, and wrapped ones ---


class TwoInTf1(Tf1Job):
    """Two optimizers, each with a part of the variables."""

    def minimize(self, kind, step):
        a, *others = [v for name, v in self.variables.items()]
        first, second = kind
        return tf.group(
            first().minimize(self.loss, step, [a]), second().minimize(self.loss, None, others)
        )


class TwoInKeras:
    def __init__(self, first, second):
        self.variables = {name: tf.Variable(initial(name), name=name) for name in SHAPES}
        a, *others = self.variables.values()
        self.parts = [(first, [a]), (second, others[::-1])]
        for optimizer, variables in self.parts:
            build = getattr(optimizer, "build", None) or optimizer._create_all_weights
            with tf.name_scope(type(optimizer).__name__):  # as training does it
                build(variables)
        self.objects = tf.train.Checkpoint(model=self.variables, first=first, second=second)

    def train(self):
        losses = []
        for _ in range(STEPS):
            with tf.GradientTape(persistent=True) as tape:
                loss = loss_of(*self.variables.values())
            losses.append(loss.numpy())
            for optimizer, variables in self.parts:
                optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return losses


@pytest.mark.parametrize(
    ("first", "second", "numbers"),
    [
        (TF1["Adam"], TF1["Momentum"], {"first/beta_1": 0.8, "Adam/beta_2": 0.95}),
        # Of one class, and slots of one name: each is scaled by the rate of its own.
        (TF1["Momentum"], lambda: v1.train.MomentumOptimizer(0.01, 0.9), {}),
    ],
)
def test_each_of_two_optimizers_goes_on_with_its_own(first, second, numbers, tmp_path):
    source = TwoInTf1((first, second))
    source.train()
    prefix = source.save(tmp_path / "ckpt")
    kind = "Adam" if numbers else "Momentum"
    job = TwoInKeras(KERAS[kind](NEWER), NEWER.SGD(0.05 if numbers else 0.01, 0.9))
    report = WarmStart(prefix, hyperparameters=numbers).apply(job.objects)
    assert report.refused == []
    np.testing.assert_allclose(job.train(), source.train(), rtol=1e-5)


def test_two_adams_whose_powers_nothing_tells_apart_are_refused(tmp_path):
    source = TwoInTf1((TF1["Adam"], TF1["Adam"]))
    prefix = source.save(tmp_path / "ckpt")
    job = TwoInKeras(KERAS["Adam"](NEWER), KERAS["Adam"](NEWER))
    report = WarmStart(prefix).apply(job.objects)
    assert len(report.refused) == 2
    assert all("there are several optimizers Adam" in one for one in report.refused)


ADAMS = (TF1["Adam"], lambda: v1.train.AdamOptimizer(0.02, 0.5, 0.9, epsilon=1e-3))
IN_KERAS = (KERAS["Adam"], lambda keras: keras.Adam(0.02, 0.5, 0.9, epsilon=1e-3))
OF_BOTH = {
    f"{adam}/{name}": value
    for adam, values in (("Adam", (0.8, 0.95)), ("Adam_1", (0.5, 0.9)))
    for name, value in zip(BETAS, values)
}
# Which of two templates' it is, nothing tells.
RATES = {
    "Adam/learning_rate": 0.05,
    "Adam/decay": 0,
    "Adam_1/learning_rate": 0.02,
    "Adam_1/decay": 0,
}


@pytest.fixture(scope="module")
def of_two_adams(tmp_path_factory):
    """As a GAN has them: one counts its steps, the other does not."""
    source = TwoInTf1(ADAMS)
    source.train()
    prefix = source.save(tmp_path_factory.mktemp("adams") / "ckpt", write_meta_graph=True)
    return prefix, source.train()


def test_the_ops_of_a_meta_file_tell_two_adams_apart(of_two_adams):
    prefix, expected = of_two_adams
    job = TwoInKeras(*(make(NEWER) for make in IN_KERAS))
    numbers = {
        name.replace("Adam_1", "second").replace("Adam", "first"): value
        for name, value in OF_BOTH.items()
    }
    report = WarmStart(prefix, hyperparameters=numbers).apply(job.objects)
    assert report.refused == []
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize("family", ["legacy", NEWEST])
def test_a_conversion_of_two_adams_gives_each_its_own(family, of_two_adams, tmp_path):
    prefix, expected = of_two_adams
    job = TwoInKeras(*(make(FAMILIES[family]) for make in IN_KERAS))
    word = "keras" if family == "legacy" else NEWEST
    numbers = {**OF_BOTH, **RATES} if family == "legacy" else OF_BOTH
    options = {"like": job.objects, "optimizer": word, "hyperparameters": numbers}
    too_few = {name: OF_BOTH[name] for name in OF_BOTH if name.startswith("Adam/")}
    with pytest.raises(SettingsError, match=r"give the steps .* as Adam_1/iter"):
        convert_checkpoint(
            prefix, tmp_path / "out", "checkpoint", **{**options, "hyperparameters": too_few}
        )
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", **options)
    job.objects.read(str(tmp_path / "out")).assert_existing_objects_matched()
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize("source", ["legacy", KERAS_2])
def test_two_of_keras_are_known_by_the_variables_that_they_train(source, tmp_path):
    old = TwoInKeras(*(make(FAMILIES[source]) for make in IN_KERAS))
    old.train()
    prefix = old.objects.write(str(tmp_path / "ckpt"))
    # The template has the second one first.
    second, first = (make(FAMILIES[KERAS_2]) for make in reversed(IN_KERAS))
    job = TwoInKeras(first, second)
    like = tf.train.Checkpoint(model=job.variables, a=second, b=first)
    options = {"like": like, "optimizer": "keras2", "from_optimizer": "Adam"}
    convert_checkpoint(prefix, tmp_path / "out", "checkpoint", **options)
    like.read(str(tmp_path / "out")).assert_existing_objects_matched()
    np.testing.assert_allclose(job.train(), old.train(), rtol=1e-5)


def test_two_adams_keep_their_slots_by_other_names(of_two_adams, tmp_path):
    prefix, _ = of_two_adams
    convert_checkpoint(
        prefix, tmp_path / "out", "checkpoint", optimizer="tf1", rename={r"net/(.*)": r"gan/\1"}
    )
    with open_checkpoint(tmp_path / "out") as found, open_checkpoint(prefix) as source:
        for name, power in (("Adam", "beta1_power"), ("Adam_1", "beta1_power_1")):
            value = found.get_tensor(f"optimizer_{name}/beta1_power")
            assert value == source.get_tensor(power)
        slot = found.get_tensor("var_list/gan.Sb.Sbias/.OPTIMIZER_SLOT/optimizer_Adam_1/m")
        np.testing.assert_array_equal(slot, source.get_tensor("net/b/bias/Adam"))
    numbers = {**OF_BOTH, **RATES}
    convert_checkpoint(
        prefix, tmp_path / "keras", "both", optimizer="keras", hyperparameters=numbers
    )
    with open_checkpoint(tmp_path / "keras") as found:
        for name in ("Adam", "Adam_1"):
            rate = np.float32(RATES[f"{name}/learning_rate"])
            assert found.get_tensor(f"{name}/iter") == STEPS
            assert found.get_tensor(f"{name}/learning_rate") == rate


def test_a_job_with_two_adams_goes_on_with_those_of_keras(of_two_adams, tmp_path, monkeypatch):
    source = TwoInKeras(*(make(NEWER) for make in IN_KERAS))
    source.train()
    prefix = source.objects.write(str(tmp_path / "ckpt"))
    monkeypatch.setattr(Tf1Job, "minimize", TwoInTf1.minimize)
    settings = WarmStart(prefix, from_optimizer="Adam", **STATE_TOO)
    losses, _ = started_job(ADAMS, settings)
    np.testing.assert_allclose(losses, source.train(), rtol=1e-5)


def test_a_number_of_one_of_several_optimizers_says_whose_it_is(trained):
    prefix, _ = trained("Adam")
    job = TwoInKeras(KERAS["Adam"](NEWER), KERAS["Momentum"](NEWER))
    with pytest.raises(SettingsError, match="say whose it is: first/iter, second/iter"):
        WarmStart(prefix, hyperparameters={"iter": 1}).apply(job.objects)


def scaled_in_tf1():
    from tensorflow.python.training.experimental import loss_scale_optimizer

    adam = v1.train.AdamOptimizer(0.05, 0.8, 0.95, epsilon=1e-3)
    return loss_scale_optimizer.MixedPrecisionLossScaleOptimizer(adam, "dynamic")


def test_the_scale_of_losses_goes_along(tmp_path, monkeypatch):
    monkeypatch.setitem(TF1, "scaled", scaled_in_tf1)
    source = Tf1Job("scaled")
    source.train()
    adam = KERAS["Adam"](NEWER)
    job = KerasJob(tf.keras.mixed_precision.LossScaleOptimizer(adam, initial_scale=8))
    report = WarmStart(source.save(tmp_path / "ckpt")).apply(job.objects)
    assert report.refused == []
    if NEWEST == "keras3":
        found = float(job.optimizer.dynamic_scale), int(job.optimizer.step_counter)
    else:
        found = float(job.optimizer.loss_scale), int(job.optimizer.dynamic_counter)
    assert found == (2.0**15, STEPS)
    np.testing.assert_allclose(job.train(), source.train(), rtol=1e-5)


# --- into a job ---

STATE_TOO = {"vars_to_warm_start": [".*"]}


def started_job(kind, warm_start, **options):
    """A job of tf.compat.v1 with a warm start: its losses, its step, and what came from where."""
    job = Tf1Job(kind, session=False, **options)
    with job.graph.as_default():
        scaffold = saver_scaffold(warm_start=warm_start)
        creator = v1.train.ChiefSessionCreator(scaffold)
        with v1.train.MonitoredSession(creator) as job.session:
            losses = job.train()
            return losses, job.session.run(v1.train.get_global_step())


@pytest.mark.parametrize("kind", KINDS)
@families
def test_a_job_goes_on_with_the_losses_of_keras(kind, family, trained):
    prefix, expected = trained(kind, family)
    # Others have slots of the same names.
    given = {"Adam": "Adam", "AdaMax": "Adamax", "Momentum": "SGD"}.get(kind)
    settings = WarmStart(prefix, from_optimizer=given, **STATE_TOO)
    losses, step = started_job(kind, settings, slices=2 if kind == "Momentum" else None)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert step == 2 * STEPS


def test_a_slot_of_another_kind_is_no_place_for_one_of_the_same_name(trained, tmp_path):
    prefix, _ = trained("Momentum", "legacy")
    job = EagerTf1Job(NAMED["Momentum"]())
    options = {"like": job.objects, "exclude": ["iter", "decay", "learning_rate", "momentum"]}
    with pytest.raises(MismatchError, match=r"missing +net/a/kernel/my/opt_2 .*--drop_slots"):
        convert_checkpoint(prefix, tmp_path / "out", "checkpoint", **options)
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize("kind", ["Adam", "Momentum", "Centered"])
@families
def test_an_eager_program_with_a_tf1_optimizer_goes_on_as_keras_and_back(
    kind, family, trained, tmp_path
):
    """A slot that has the objects of Keras' SGD is none of Momentum: it is scaled all the same."""
    prefix, expected = trained(kind, family)
    job = EagerTf1Job(NAMED[kind]())
    numbers = {"Adam": BETAS, "Momentum": {"learning_rate": 0.05}}.get(kind, {})
    given = type(KERAS[kind](FAMILIES[family])).__name__
    WarmStart(prefix, from_optimizer=given, hyperparameters=numbers).apply(job.objects)
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)
    back = KerasJob(KERAS[kind](FAMILIES[family]), order=REVERSED)
    source = job.save(tmp_path / "eager")
    steps = {"iter": 2 * STEPS}  # there is no global step
    record = {"Centered": "CenteredRMSProp"}.get(kind, kind)
    if kind == "Momentum":  # the others are known by their powers and slots
        (refused,) = WarmStart(source).apply(back.objects).refused
        assert "say it (from_optimizer)" in refused
    WarmStart(source, from_optimizer=record, hyperparameters=steps).apply(back.objects)
    np.testing.assert_allclose(back.train(), job.train(), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "numbers"), [("Adam", BETAS), ("Momentum", {"learning_rate": 0.05})]
)
def test_a_job_whose_own_optimizer_is_keras_newer_one(kind, numbers, trained, monkeypatch):
    prefix, expected = trained(kind)
    monkeypatch.setattr(Tf1Job, "minimize", KerasJobInAGraph.minimize)
    make = functools.partial(KERAS[kind], FAMILIES[KERAS_2])
    with pytest.raises(MismatchError, match=r"by the names .* is \w+ or .*; say the class"):
        started_job(make, WarmStart(prefix, **STATE_TOO))
    settings = WarmStart(prefix, from_optimizer=kind, hyperparameters=numbers, **STATE_TOO)
    losses, step = started_job(make, settings)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert step == 2 * STEPS


def test_a_job_that_asks_for_weights_alone_begins_its_optimizer_anew(trained):
    prefix, _ = trained("Adagrad", NEWEST)
    _, step = started_job("Adagrad", WarmStart(prefix))
    assert step == STEPS


class Scheduled(Tf1Job):
    """Its learning rate changes."""

    def minimize(self, kind, step):
        rate = v1.train.exponential_decay(0.05, step, 100, 0.5)
        return v1.train.MomentumOptimizer(rate, 0.9).minimize(self.loss, step)


def test_what_a_job_cannot_go_on_with_is_an_error_that_says_why(trained, monkeypatch):
    prefix, _ = trained("Adam", "legacy")
    with pytest.raises(MismatchError, match=r"net/a/kernel/Adam .* may be Adam or Adamax"):
        started_job("Adam", WarmStart(prefix, **STATE_TOO))
    with pytest.raises(UnsupportedCheckpointError, match="is Adagrad, and the state is of Adam"):
        started_job("Adagrad", WarmStart(prefix, from_optimizer="Adam", **STATE_TOO))
    prefix, _ = trained("Momentum", "legacy")
    monkeypatch.setitem(TF1, "scheduled", None)
    monkeypatch.setattr(Tf1Job, "minimize", Scheduled.minimize)
    with pytest.raises(SettingsError, match="give the learning_rate with which"):
        started_job("scheduled", WarmStart(prefix, from_optimizer="SGD", **STATE_TOO))
    given = {"hyperparameters": {"learning_rate": 0.05}, "from_optimizer": "SGD"}
    _, step = started_job("scheduled", WarmStart(prefix, **given, **STATE_TOO))
    assert step == 2 * STEPS


@pytest.mark.parametrize("kind", NAMED)
def test_an_optimizer_with_a_name_of_its_own_is_known_by_its_ops(
    kind, trained, monkeypatch, tmp_path
):
    prefix, expected = trained(kind, NEWEST)
    monkeypatch.setitem(TF1, "named", NAMED[kind])
    slices = 2 if kind == "Momentum" else None
    given = {"from_optimizer": "SGD"} if kind == "Momentum" else {"from_optimizer": None}
    losses, _ = started_job("named", WarmStart(prefix, **given, **STATE_TOO), slices=slices)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    source = Tf1Job("named", slices=slices)
    source.train()
    job = KerasJob(KERAS[kind](NEWER), order=REVERSED)
    report = WarmStart(source.save(tmp_path / "ckpt", write_meta_graph=True)).apply(job.objects)
    assert report.refused == []
    np.testing.assert_allclose(job.train(), source.train(), rtol=1e-5)


@pytest.mark.estimator
def test_an_estimator_goes_on_from_a_compiled_model_once(tmp_path):
    model = compiled(NEWEST, KERAS["Adam"](NEWER))
    fitted(model)
    prefix = tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "k"))
    expected = fitted(model)

    def model_fn(features, labels, mode):
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            a = v1.layers.dense(features, 3, use_bias=False, name="a")
            loss = tf.reduce_mean(tf.square(v1.layers.dense(a, 3, name="b") - labels))
        step = v1.train.get_or_create_global_step()
        train_op = TF1["Adam"]().minimize(loss, step)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)

    wrapped = wrap_model_fn(model_fn, "both", warm_start=WarmStart(prefix, **STATE_TOO))
    estimator = tf.estimator.Estimator(wrapped, str(tmp_path / "run"))
    losses = []

    class Losses(v1.train.SessionRunHook):
        def before_run(self, run_context):
            loss = run_context.session.graph.get_tensor_by_name("Mean:0")
            return v1.train.SessionRunArgs(loss)

        def after_run(self, run_context, run_values):
            losses.append(run_values.results)

    for _ in range(2):  # the second resumes, and starts from nothing else
        data = lambda: tf.data.Dataset.from_tensors((INPUTS, LABELS)).repeat()  # noqa: E731
        estimator.train(data, hooks=[Losses()], steps=STEPS)
    np.testing.assert_allclose(losses[:STEPS], expected, rtol=1e-5)
    np.testing.assert_allclose(losses[STEPS:], fitted(model), rtol=1e-5)
    assert estimator.get_variable_value("global_step") == 3 * STEPS
    written = json.loads(next((tmp_path / "run").glob("*warm_start.json")).read_text())
    assert {one["status"] for one in written["variables"]} == {"warm-started"}


# --- orders ---


@pytest.mark.parametrize("names", [("k", "w"), ("w", "w")])
@families
def test_slots_go_to_their_variables_whatever_the_order(names, family, tmp_path):
    """Variables of one shape: a restore by positions would swap their slots without a word."""

    def job(is_reversed):
        variables = [tf.Variable(tf.ones(3) * n, name=name) for n, name in zip((1, 2), names)]
        optimizer = FAMILIES[family].Adam(0.1)
        build = getattr(optimizer, "build", None) or optimizer._create_all_weights
        build(variables[::-1] if is_reversed else variables)
        a, b = variables
        return a, b, optimizer, tf.train.Checkpoint(a=a, b=b, optimizer=optimizer)

    a, b, optimizer, objects = job(False)
    optimizer.apply_gradients([(tf.ones(3), a), (-tf.ones(3), b)])
    prefix = objects.write(str(tmp_path / "ckpt"))
    is_by_order = names == ("w", "w") and family in ("keras2", "tf_keras")
    a, b, optimizer, objects = job(not is_by_order)
    report = WarmStart(prefix).apply(objects)
    # Nothing else tells in Keras 2: it counts, as in stock TensorFlow, and the report says so.
    assert any("by the order of its lists alone" in note for note in report.notes) == is_by_order
    before = a.numpy(), b.numpy()
    optimizer.apply_gradients([(tf.zeros(3), a), (tf.zeros(3), b)])
    assert (a.numpy() < before[0]).all()
    assert (b.numpy() > before[1]).all()

"""What a warm start accounts for: objects that start from nothing are refused, whatever they are,
and every object with state stands in the reports."""

import json

import pytest
import tensorflow as tf
from graph_jobs import run_job, v1

from estimator_ckpt import WarmStart, check_checkpoint, make_scaffold
from estimator_ckpt.errors import MismatchError, SettingsError


class Words(tf.train.experimental.PythonState):
    def serialize(self):
        return "words"

    def deserialize(self, string_value):
        raise AssertionError("a warm start leaves it alone")


def table():
    return tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)


def alpha(value):
    module = tf.Module()
    module.alpha = tf.Variable([value, value], name="alpha")
    return module


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Checkpoints with a variable that none of the objects below has: by names, and by objects."""
    directory = tmp_path_factory.mktemp("sources")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("net/alpha", initializer=[5.0, 5.0])
        session.run(v1.global_variables_initializer())
        names = v1.train.Saver().save(session, str(directory / "names"), write_meta_graph=False)
    objects = tf.train.Checkpoint(net=alpha(5.0)).write(str(directory / "objects"))
    return {"names": names, "objects": objects}


def trained_optimizer():
    optimizer = tf.keras.optimizers.SGD(0.1, momentum=0.5)
    variable = tf.Variable([1.0, 1.0], name="w")
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), variable)])
    return tf.train.Checkpoint(optimizer=optimizer)


def metric():
    module = tf.Module()
    module.total = tf.Variable(0.0, name="total", trainable=False)
    return module


def zeta():
    module = tf.Module()
    module.zeta = tf.Variable([1.0], name="zeta")
    return module


NOTHING = {
    "a module": zeta,
    "a metric's state": metric,
    "an optimizer": trained_optimizer,
    "a generator of random numbers": lambda: tf.random.Generator.from_seed(1),
    "a step": lambda: tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64)),
    "a lookup table": table,
    "a list": lambda: [tf.Variable(0, dtype=tf.int64, name="global_step")],
    "a mapping": lambda: {"beta": tf.Variable([1.0, 1.0])},
}


@pytest.mark.parametrize("kind", NOTHING)
def test_an_object_of_which_nothing_is_there_is_refused_whatever_may_be_missing(sources, kind):
    given = NOTHING[kind]()
    for path in sources.values():
        for options in (
            {"on_missing": "init"},
            {"on_missing": "init", "vars_to_warm_start": [".*"]},
        ):
            with pytest.raises(MismatchError, match="Nothing of the model is there"):
                WarmStart(path, **options).apply(given)
    lenient = WarmStart(
        sources["names"],
        vars_to_warm_start=[".*"],
        on_missing="init",
        require_all_rules_match=False,
    )
    assert not any(value.source for value in lenient.apply(given).values)


def test_variables_that_a_block_makes_are_refused_where_none_of_them_is_there(sources):
    settings = WarmStart(sources["objects"], on_missing="init")
    with pytest.raises(MismatchError, match="Nothing of the model is there"), settings.deferred():
        tf.Variable(0.0, name="total", trainable=False)


def test_settings_that_exclude_all_are_refused(sources):
    with pytest.raises(SettingsError, match="exclude every variable"):
        WarmStart(sources["objects"], exclude=[".*"]).apply(tf.train.Checkpoint(net=alpha(0.0)))


def test_what_would_help_is_told(sources):
    """By root, by the nearest name, by match_by: and only what then starts."""
    parts = {"student": alpha(1.0), "teacher": alpha(2.0)}
    path = tf.train.Checkpoint(**parts).write(f"{sources['objects']}-parts")
    module = alpha(0.0)
    module.beta = tf.Variable([0.0], name="beta")  # so it fits nowhere as a whole
    with pytest.raises(MismatchError, match='This rule would find 1 of 2:\nroot: "student"'):
        WarmStart(path).apply(module)
    WarmStart(path, root="student", on_missing="init").apply(module)
    assert module.alpha.numpy().tolist() == [1.0, 1.0]
    with pytest.raises(MismatchError, match=r"missing +alpha .*did you mean net/alpha\?"):
        WarmStart(sources["names"]).apply(alpha(0.0))


# --- objects with state of other kinds ---


def state_of_all_kinds():
    """A start of its `net` leaves the others alone."""
    iterator = iter(tf.data.Dataset.range(3))
    return tf.train.Checkpoint(net=alpha(0.0), iterator=iterator, words=Words())


OTHERS = {"iterator": "OwnedIterator", "words": "Words"}


def test_every_object_with_state_is_in_every_report(sources, caplog):
    made = state_of_all_kinds()
    caplog.set_level("INFO", logger="absl")
    report = WarmStart(sources["objects"]).apply(made)
    assert {v.target: v.kind for v in report.values} == {"alpha": "", **OTHERS}
    assert "1 of 1 variable, 8 bytes" in str(report)
    assert str(report).endswith("; 2 other objects with state")
    assert all(name in caplog.text for name in OTHERS)
    listed = json.loads(json.dumps(report.as_json()))["variables"]
    assert {one["variable"]: one["status"] for one in listed} == {
        "alpha": "warm-started",
        "iterator": "not selected",
        "words": "not selected",
    }
    fit = check_checkpoint(sources["objects"], made)
    assert {row.name: row.status for row in fit.rows} == {
        "alpha": "matched",
        "iterator": "not selected",
        "words": "not selected",
    }
    assert fit.fits
    assert int(next(made.iterator)) == 0
    with WarmStart(sources["objects"]).deferred(made) as start:
        pass
    assert {v.target for v in start.report.values} == {"alpha", *OTHERS}


def test_what_a_jobs_saver_has_beside_variables_is_in_its_report(sources, tmp_path):
    def build():
        made["alpha"] = v1.get_variable("alpha", initializer=[0.0, 0.0])
        collections = [v1.GraphKeys.LOCAL_VARIABLES]
        made["local"] = v1.get_variable("local", initializer=1.0, collections=collections)
        tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1, name="numbers")
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    made = {}
    settings = WarmStart(sources["names"], assignment_map=[("net/alpha", "alpha")])
    start, _ = run_job(
        tmp_path,
        lambda: make_scaffold("both", {**made, "words": Words()}, warm_start=settings),
        build=build,
    )
    assert start["alpha"].tolist() == [5.0, 5.0]
    written = json.loads((tmp_path / "warm_start.json").read_text())
    found = {one["variable"]: (one["status"], one["rule"]) for one in written["variables"]}
    for name, kind in {
        "local": "local variable",
        "numbers": "MutableHashTableV2",
        "words": "PythonState",
    }.items():
        status, rule = found[name]
        assert status == "not selected"
        assert kind in rule


@pytest.mark.parametrize("kind", [Words, lambda: iter(tf.data.Dataset.range(3))])
def test_state_without_variables_is_no_model(sources, kind):
    with pytest.raises(SettingsError, match="neither variables nor lookup tables"):
        WarmStart(sources["objects"]).apply(kind())

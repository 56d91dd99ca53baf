"""What a training without a checkpoint of its own starts from."""

import contextlib
import json

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS, build_model, global_values, run_job, v1

from estimator_ckpt import make_scaffold
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.warm_start import WarmStart


def counting(name="x", start=10.0, by=2.0):
    """The guide's model: a variable that grows by two with each step."""

    def build():
        variable = v1.get_variable(name, initializer=start)
        step = v1.train.get_or_create_global_step()
        return tf.group(v1.assign_add(variable, by), v1.assign_add(step, 1))

    return build


def scaffold(checkpoint_format="checkpoint", **options):
    return lambda: make_scaffold(checkpoint_format, **options)


@pytest.mark.parametrize("source_format", [None, *FORMATS])
def test_the_guides_case_gives_sixteen(tmp_path, source_format):
    source, target = tmp_path / "source", tmp_path / "target"
    zero = counting(start=0.0)
    run_job(source, scaffold(source_format) if source_format else None, build=zero, steps=3)
    start, end = run_job(target, scaffold(warm_start=str(source)), build=zero, steps=5)
    assert (start["x"], start["global_step"]) == (6.0, 0)
    assert (end["x"], end["global_step"]) == (16.0, 5)


def test_the_global_step_carries_over_when_asked(tmp_path):
    run_job(tmp_path / "source", build=counting(), steps=3)
    settings = WarmStart(str(tmp_path / "source"), vars_to_warm_start=[".*"])
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings), build=counting())
    assert (start["x"], start["global_step"]) == (16.0, 3)


def test_a_job_that_resumes_is_not_warm_started_again(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    run_job(source, build=counting(), steps=3)
    run_job(target, scaffold(warm_start=str(source)), build=counting(), steps=5)
    for path in source.iterdir():
        path.unlink()
    start, _ = run_job(target, scaffold(warm_start=str(source)), build=counting())
    assert (start["x"], start["global_step"]) == (26.0, 5)


@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize("source_format", FORMATS)
def test_a_partitioned_variable_starts_under_another_partitioning(tmp_path, source_format, slices):
    def build():
        parts = v1.get_variable(
            "scope/parts", [10, 2], partitioner=v1.fixed_size_partitioner(slices)
        )
        step = v1.train.get_or_create_global_step()
        with tf.control_dependencies([tf.identity(tf.convert_to_tensor(parts))]):
            return v1.assign_add(step, 1)

    _, end = run_job(tmp_path / "source", scaffold(source_format), build=build_model)
    start, _ = run_job(
        tmp_path / "target", scaffold(warm_start=str(tmp_path / "source")), build=build
    )
    np.testing.assert_array_equal(start["scope/parts"], end["scope/parts"])


def two_scopes():
    a = v1.get_variable("new/a/w", initializer=[0.0, 0.0])
    b = v1.get_variable("new/b/w", initializer=[0.0, 0.0])
    step = v1.train.get_or_create_global_step()
    with tf.control_dependencies([a + b]):
        return v1.assign_add(step, 1)


def old_scopes():
    a = v1.get_variable("old/a/w", initializer=[1.0, 2.0])
    b = v1.get_variable("old/b/w", initializer=[3.0, 4.0])
    step = v1.train.get_or_create_global_step()
    with tf.control_dependencies([a + b]):
        return v1.assign_add(step, 1)


def variable_of(name):
    return next(v for v in v1.global_variables() if v.op.name == name)


ASSIGNMENTS = {
    "scope to scope": (lambda: [("old/", "new/")], [1, 2], [3, 4]),
    "name to name": (lambda: [("old/b/w", "new/a/w")], [3, 4], [0, 0]),
    "one source for two": (
        lambda: [("old/b/w", "new/a/w"), ("old/b/w", "new/b/w")],
        [3, 4],
        [3, 4],
    ),
    "name to variable": (lambda: [("old/b/w", variable_of("new/a/w"))], [3, 4], [0, 0]),
    "name to parts": (lambda: [("old/a/w", [variable_of("new/b/w")])], [0, 0], [1, 2]),
    "inner scope": (lambda: [("old/a/", "new/b/")], [0, 0], [1, 2]),
    "a mapping": (lambda: {"old/": "new/"}, [1, 2], [3, 4]),
}


@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("case", ASSIGNMENTS)
def test_assignment_maps(tmp_path, case, source_format):
    assignment_map, a, b = ASSIGNMENTS[case]
    run_job(tmp_path / "source", scaffold(source_format), build=old_scopes)

    def start_scaffold():
        settings = WarmStart(str(tmp_path / "source"), assignment_map=assignment_map())
        return make_scaffold("checkpoint", warm_start=settings)

    start, _ = run_job(tmp_path / "target", start_scaffold, build=two_scopes)
    np.testing.assert_array_equal(start["new/a/w"], a)
    np.testing.assert_array_equal(start["new/b/w"], b)


def test_the_root_goes_to_a_scope(tmp_path):
    run_job(tmp_path / "source", build=counting(), steps=3)
    settings = WarmStart(str(tmp_path / "source"), assignment_map=[("/", "model/")])
    start, _ = run_job(
        tmp_path / "target", scaffold(warm_start=settings), build=counting("model/x")
    )
    assert start["model/x"] == 16.0


def trained(scope, rate=0.1):
    """A weight and a moving mean below `scope`, an optimizer of each kind, and the step."""

    def build():
        with v1.variable_scope(scope) if scope else contextlib.nullcontext():
            w = v1.get_variable("w", initializer=[1.0, 2.0])
            mean = v1.get_variable("mean", initializer=[3.0], trainable=False)
            step = v1.train.get_or_create_global_step()
            keras = tf.keras.optimizers.legacy.Adam(rate, amsgrad=True)
            return tf.group(
                v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(w**2), global_step=step),
                keras.get_updates(tf.reduce_sum(w**3), [w]),
                mean.assign_add([1.0]),
            )

    return build


@pytest.mark.estimator  # the TensorFlow that has Keras' legacy optimizers
@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("pair", [("old/", "new/"), ("/", "new/"), ("old/", "/"), ("/", "/")])
def test_a_scope_leaves_the_state_of_the_training_alone(tmp_path, pair, source_format):
    old, new = (scope.rstrip("/") for scope in pair)
    run_job(tmp_path / "source", scaffold(source_format), build=trained(old, 0.7), steps=3)
    settings = WarmStart(str(tmp_path / "source"), assignment_map=[pair])
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings), build=trained(new))
    fresh, _ = run_job(tmp_path / "fresh", build=trained(new))
    moved = {pair[1].lstrip("/") + name for name in ("w", "mean")}
    assert start[pair[1].lstrip("/") + "mean"] == [6.0]
    for name, value in fresh.items():
        assert np.array_equal(start[name], value) == (name not in moved), name


def test_the_state_of_the_training_starts_where_it_is_named(tmp_path):
    _, end = run_job(tmp_path / "source", build=build_model)
    names = ["beta1_power", "beta2_power", "scope/w/Adam"]
    settings = WarmStart(
        str(tmp_path / "source"), assignment_map=[("/", "/"), *((name, name) for name in names)]
    )
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings))
    for name in [*names, "scope/w", "scope/parts"]:
        np.testing.assert_array_equal(start[name], end[name])
    assert start["global_step"] == 0
    assert not np.any(start["scope/w/Adam_1"])


@pytest.mark.parametrize("whole", [True, False])
def test_a_partitioned_variable_is_named_by_all_of_its_parts(tmp_path, whole):
    _, end = run_job(tmp_path / "source", build=build_model)

    def start_scaffold():
        parts = [v for v in v1.global_variables() if v.op.name.startswith("scope/parts/part_")]
        parts = [v for v in parts if "Adam" not in v.op.name][: None if whole else 2]
        settings = WarmStart(str(tmp_path / "source"), assignment_map=[("scope/parts", parts)])
        return make_scaffold("both", warm_start=settings)

    if not whole:
        with pytest.raises(SettingsError, match="expected all 3 parts of 'scope/parts', found"):
            run_job(tmp_path / "target", start_scaffold)
        return
    start, _ = run_job(tmp_path / "target", start_scaffold)
    np.testing.assert_array_equal(start["scope/parts"], end["scope/parts"])


REFUSED = {
    "map against previous name": (
        {
            "assignment_map": [("old/", "new/")],
            "var_name_to_prev_var_name": {"new/a/w": "old/b/w"},
        },
        SettingsError,
        "two rules for 'new/a/w'",
    ),
    "a rule for nothing": (
        {"assignment_map": [("old/", "new/"), ("old/", "nowhere/")]},
        SettingsError,
        r"assignment_map\[1\].*applies to no variable",
    ),
    "no such variable": (
        {"assignment_map": [("old/a/w", "new/a/ww")]},
        SettingsError,
        "did you mean 'new/a/w'",
    ),
    "all missing": (
        {},
        MismatchError,
        r"(?s)missing.*new/.*assignment_map: \[\[\"old/\", \"new/\"\]\]",
    ),
    "nothing selected": (
        {"vars_to_warm_start": None},
        SettingsError,
        "select no variable of the model",
    ),
    "unexpected": (
        {"assignment_map": [("old/a/", "new/a/")], "on_unexpected": "error"},
        MismatchError,
        "(?s)unexpected.*old/b/w",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why_and_leaves_no_checkpoint(tmp_path, case):
    fields, kind, message = REFUSED[case]
    run_job(tmp_path / "source", build=old_scopes)
    settings = WarmStart(str(tmp_path / "source"), **fields)
    with pytest.raises(kind, match=message):
        run_job(tmp_path / "target", scaffold(warm_start=settings), build=two_scopes)
    assert not list((tmp_path / "target").glob("*.index"))


@pytest.mark.parametrize(
    ("pairs", "values"),
    [
        ([("old/", "new/"), ("old/b/w", "new/a/w")], ([3, 4], [3, 4])),
        ([("old/b/w", "new/a/w"), ("old/", "new/")], ([1, 2], [3, 4])),
        ([("old/a/w", "new/a/w"), ("old/b/w", "new/a/w")], ([3, 4], [0, 0])),
    ],
)
def test_of_several_pairs_for_one_variable_the_last_decides(tmp_path, pairs, values):
    """As tf.compat.v1.train.init_from_checkpoint has it."""
    run_job(tmp_path / "source", build=old_scopes)
    settings = WarmStart(str(tmp_path / "source"), assignment_map=pairs)
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings), build=two_scopes)
    np.testing.assert_array_equal([start["new/a/w"], start["new/b/w"]], values)


def test_missing_variables_keep_their_initial_values_where_that_is_asked(tmp_path):
    run_job(tmp_path / "source", build=counting(), steps=3)

    def with_head():
        v1.get_variable("head/w", initializer=[7.0])
        return counting()()

    settings = WarmStart(str(tmp_path / "source"), on_missing={"head/.*": "init"})
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings), build=with_head)
    assert (start["x"], start["head/w"]) == (16.0, 7.0)
    with pytest.raises(MismatchError, match="head/w"):
        run_job(tmp_path / "other", scaffold(warm_start=str(tmp_path / "source")), build=with_head)


def test_another_shape_is_an_error_unless_it_may_be_initialized(tmp_path):
    run_job(tmp_path / "source", build=old_scopes)

    def build():
        v1.get_variable("old/a/w", initializer=[5.0, 6.0, 7.0])
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    refused = WarmStart(str(tmp_path / "source"))
    with pytest.raises(MismatchError, match=r"shape.*old/a/w.*float32\[3\].*float32\[2\]"):
        run_job(tmp_path / "target", scaffold(warm_start=refused), build=build)
    allowed = WarmStart(str(tmp_path / "source"), on_shape_mismatch="init")
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=allowed), build=build)
    np.testing.assert_array_equal(start["old/a/w"], [5, 6, 7])


def test_excluded_and_renamed(tmp_path):
    run_job(tmp_path / "source", build=old_scopes)
    settings = WarmStart(
        str(tmp_path / "source"), rename=[("old/(.*)", r"new/\1")], exclude=["new/b/.*"]
    )
    start, _ = run_job(tmp_path / "target", scaffold(warm_start=settings), build=two_scopes)
    np.testing.assert_array_equal(start["new/a/w"], [1, 2])
    np.testing.assert_array_equal(start["new/b/w"], [0, 0])


def test_a_renamed_variable_is_not_found_by_its_object_path_either(tmp_path):
    module = tf.Module()
    module.old = tf.Module()
    module.old.w = tf.Variable([1.0, 2.0], name="old/w")
    prefix = tf.train.Checkpoint(old=module.old).save(str(tmp_path / "ckpt"))

    def build():
        v1.get_variable("old/w", initializer=[0.0, 0.0])
        v1.get_variable("new/w", initializer=[0.0, 0.0])
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    rename = [("old/(.*)", r"new/\1")]
    with pytest.raises(MismatchError, match=r"missing +old/w"):
        run_job(tmp_path / "a", scaffold(warm_start=WarmStart(prefix, rename=rename)), build=build)
    settings = WarmStart(prefix, rename=rename, on_missing={"old/w": "init"})
    start, _ = run_job(tmp_path / "b", scaffold(warm_start=settings), build=build)
    np.testing.assert_array_equal(start["new/w"], [1, 2])
    np.testing.assert_array_equal(start["old/w"], [0, 0])


def test_what_came_from_where_stands_beside_the_first_checkpoint(tmp_path):
    run_job(tmp_path / "source", build=counting(), steps=3)
    run_job(tmp_path / "target", scaffold(warm_start=str(tmp_path / "source")), build=counting())
    written = json.loads((tmp_path / "target" / "warm_start.json").read_text())
    assert written["checkpoint"] == tf.train.latest_checkpoint(str(tmp_path / "source"))
    assert written["variables"] == [
        {
            "variable": "x",
            "status": "warm-started",
            "source": "x",
            "rule": "same name",
            "shape": [],
            "bytes": 4,
        },
        {
            "variable": "global_step",
            "status": "not selected",
            "source": None,
            "rule": "step of the training",
            "shape": [],
            "bytes": 0,
        },
    ]
    assert written["unexpected"] == ["global_step"]
    assert written["not_trainable"] == []


def test_moving_statistics_that_keep_their_initial_values_are_told(tmp_path, caplog):
    """TensorFlow's default takes trainable variables alone, and says nothing of the others."""

    def build(value):
        def normalized():
            v1.get_variable("bn/gamma", initializer=[value])
            v1.get_variable("bn/moving_mean", initializer=[value], trainable=False)
            v1.get_variable("bn/new", initializer=[value], trainable=False) if value else None
            return counting(start=value)()

        return normalized

    run_job(tmp_path / "source", build=build(0.0))
    source = str(tmp_path / "source")
    start, _ = run_job(tmp_path / "a", scaffold(warm_start=source), build=build(1.0))
    assert (start["bn/gamma"], start["bn/moving_mean"]) == ([0.0], [1.0])
    written = json.loads((tmp_path / "a" / "warm_start.json").read_text())
    assert written["not_trainable"] == ["bn/moving_mean"]
    assert "from its checkpoint: bn/moving_mean" in caplog.text
    caplog.clear()
    settings = WarmStart(source, assignment_map=[("/", "/")], on_missing={"bn/new": "init"})
    start, _ = run_job(tmp_path / "b", scaffold(warm_start=settings), build=build(1.0))
    assert (start["bn/gamma"], start["bn/moving_mean"]) == ([0.0], [0.0])
    assert "not trainable" not in caplog.text


def test_the_users_own_init_op_and_init_fn_still_run(tmp_path):
    run_job(tmp_path / "source", build=counting(), steps=3)
    seen = []

    def with_base():
        base = v1.train.Scaffold(
            init_op=v1.global_variables_initializer(),
            init_fn=lambda scaffold, session: seen.append(global_values(session)["x"]),
        )
        return make_scaffold("checkpoint", base=base, warm_start=str(tmp_path / "source"))

    start, _ = run_job(tmp_path / "target", with_base, build=counting())
    assert seen == [16.0]
    assert start["x"] == 16.0


def embedding(value):
    """An embedding with its average."""

    def build():
        w = v1.get_variable("embedding", initializer=np.float32(value))
        average = tf.train.ExponentialMovingAverage(0.5).apply([w])
        return tf.group(average, v1.assign_add(v1.train.get_or_create_global_step(), 1))

    return build


@pytest.mark.parametrize("own_init_op", [False, True])
@pytest.mark.parametrize("source_format", FORMATS)
def test_a_vocabulary_is_remapped(tmp_path, source_format, own_init_op):
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("a\nb\nc\n")
    new.write_text("c\nd\na\n")
    source = tmp_path / "source"
    run_job(source, scaffold(source_format), build=embedding([[1, 1], [2, 2], [3, 3]]))
    info = {
        "new_vocab": str(new),
        "new_vocab_size": 3,
        "num_oov_buckets": 0,
        "old_vocab": str(old),
        "backup_initializer": None,
    }

    def start_scaffold():
        init_op = v1.global_variables_initializer() if own_init_op else None
        settings = WarmStart(str(source), var_name_to_vocab_info={"embedding": info})
        base = v1.train.Scaffold(init_op=init_op)
        return make_scaffold("checkpoint", base=base, warm_start=settings)

    start, _ = run_job(tmp_path / "target", start_scaffold, build=embedding(np.full([3, 2], 9)))
    for name in ("embedding", "embedding/ExponentialMovingAverage"):
        np.testing.assert_array_equal(start[name], [[3, 3], [0, 0], [1, 1]])


VOCABULARY = {"new_vocab": "a", "new_vocab_size": 3, "num_oov_buckets": 1, "old_vocab": "b"}


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (3, "expected a VocabInfo or a mapping with its fields, found 3"),
        ({"new_vocab": "a"}, "expected new_vocab_size, num_oov_buckets, old_vocab as well"),
        ({**VOCABULARY, "new_vocabb": "a"}, "no such field; did you mean 'new_vocab'"),
    ],
)
def test_a_vocabulary_has_its_fields(info, message):
    with pytest.raises(SettingsError, match=message) as caught:
        WarmStart("source", var_name_to_vocab_info={"w": info})
    assert caught.value.key.startswith("var_name_to_vocab_info['w']")


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((3, 2), SettingsError, r"= 3 \+ 1 for the size of axis 0, found the shape \[3, 2\]"),
        ((4,), SettingsError, r"found the shape \[4\]"),
        ((4, 3), MismatchError, r"shape .*embedding .*float32\[4,3\] .*float32\[3,2\]"),
    ],
)
def test_a_vocabulary_must_fit_the_variable(tmp_path, shape, kind, message):
    run_job(tmp_path / "source", build=embedding(np.ones([3, 2])))
    settings = WarmStart(str(tmp_path / "source"), var_name_to_vocab_info={"embedding": VOCABULARY})
    with pytest.raises(kind, match=message):
        run_job(tmp_path / "target", scaffold(warm_start=settings), build=embedding(np.ones(shape)))


@pytest.mark.parametrize("own_init_op", [False, True])
def test_an_average_starts_at_the_value_that_its_variable_starts_from(tmp_path, own_init_op):
    run_job(tmp_path / "source", build=counting(), steps=3)

    def averaged():
        train = counting()()
        (variable,) = v1.trainable_variables()
        average = tf.train.ExponentialMovingAverage(0.5).apply([variable])
        return tf.group(train, average)

    def start_scaffold():
        init_op = v1.global_variables_initializer() if own_init_op else None
        base = v1.train.Scaffold(init_op=init_op)
        return make_scaffold("checkpoint", base=base, warm_start=str(tmp_path / "source"))

    start, _ = run_job(tmp_path / "target", start_scaffold, build=averaged)
    assert start["x/ExponentialMovingAverage"] == 16.0


# --- a job's own objects ---


class Dense(tf.Module):
    """An object whose class a counter would have named its variable for."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel


def layered(*names):
    """A job with a Dense for each name: how to build it, and its objects, a list."""
    layers = []

    def build():
        kernels = [v1.get_variable(f"{name}/kernel", initializer=-1.0) for name in names]
        layers[:] = map(Dense, kernels)
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    return build, lambda: tf.train.Checkpoint(layers=list(layers))


def eager_layers(directory, *names):
    layers = [Dense(tf.Variable(float(n), name=f"{m}/kernel")) for n, m in enumerate(names, 1)]
    return tf.train.Checkpoint(layers=layers).write(str(directory / "eager"))


def test_a_jobs_own_objects_decide_before_names_that_a_counter_made(tmp_path):
    prefix = eager_layers(tmp_path, "dense", "dense_1")
    build, objects = layered("dense_1", "dense_2")
    settings = scaffold(checkpoint=objects, warm_start=prefix)
    start, _ = run_job(tmp_path / "job", settings, build=build)
    assert (start["dense_1/kernel"], start["dense_2/kernel"]) == (1.0, 2.0)


DISAGREEING = {
    "one layer more": (["dense", "dense_1", "dense_2"], "3 alike there in the model, 2"),
    "names that were given": (["two", "one"], "ambiguous"),
}


@pytest.mark.parametrize("case", DISAGREEING)
def test_a_job_whose_objects_and_names_disagree_does_not_start(tmp_path, case):
    names, message = DISAGREEING[case]
    theirs = ["one", "two"] if "two" in names else ["dense", "dense_1"]
    prefix = eager_layers(tmp_path, *theirs)
    build, objects = layered(*names)
    with pytest.raises(MismatchError, match=message):
        run_job(
            tmp_path / "job",
            scaffold(checkpoint=objects, warm_start=WarmStart(prefix, on_missing="init")),
            build=build,
        )


def test_without_objects_of_its_own_a_job_starts_by_its_names(tmp_path):
    prefix = eager_layers(tmp_path, "dense", "dense_1")
    build, _ = layered("dense_1", "dense")
    start, _ = run_job(tmp_path / "job", scaffold(warm_start=prefix), build=build)
    assert (start["dense_1/kernel"], start["dense/kernel"]) == (2.0, 1.0)

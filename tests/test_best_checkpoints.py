"""The best checkpoints of a run: by evaluations of Estimators, by record_metrics()."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, command_runner
from stock_files import save
from tensorflow_party import tf, v1

from estimator_ckpt import (
    Retention,
    convert_checkpoint,
    open_checkpoint,
    pin_checkpoint,
    record_metrics,
    verify_checkpoint,
)
from estimator_ckpt.errors import CheckpointError, CorruptCheckpointError, SettingsError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.reading.best import parse_criteria, read_best

ACCURACY = ("accuracy", 2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


@pytest.fixture
def model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`run`, an empty directory below the current one."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    return Path("run")


def write(step: int, value: float | None = None) -> str:
    value = step if value is None else value
    return save(Path(f"run/model.ckpt-{step}"), {"w": np.float32(value), "step": np.int64(step)})


def record(step: int, accuracy: float, **options: object) -> tuple[str, ...]:
    """Writes a checkpoint, tells of it, and deletes it as a trainer does."""
    prefix = write(step)
    best = record_metrics(prefix, {"accuracy": accuracy}, **{"keep_best": ACCURACY, **options})
    for path in Path("run").glob(f"model.ckpt-{step}.*"):
        path.unlink()
    return best


def best_steps(metric: str = "accuracy") -> list[int | None]:
    found = read_best("run")
    (criterion,) = (one for one in found.criteria if one.metric == metric)
    return [one.step for one in found.ranked(criterion)]


def on_disk() -> list[str]:
    return sorted(os.listdir("run/best")) if os.path.isdir("run/best") else []


def test_the_best_stay_and_the_others_go(model_dir: Path) -> None:
    outcomes = [record(step, value) for step, value in ((1, 0.5), (2, 0.7), (3, 0.6), (4, 0.1))]
    assert outcomes == [("accuracy",), ("accuracy",), ("accuracy",), ()]
    assert best_steps() == [2, 3]
    assert on_disk() == ["model.ckpt-2", "model.ckpt-3"]
    with open_checkpoint("run@best") as best, open_checkpoint("run@best:accuracy") as named:
        assert best["w"] == 2
        assert named.prefix == best.prefix == "run/best/model.ckpt-2/model.ckpt-2"
    with open_checkpoint("run@step=3") as checkpoint:
        assert checkpoint["w"] == 3
    assert json.loads(Path("run/checkpoint_best.json").read_bytes()) == {
        "keep_best": [["accuracy", 2, "max"]],
        "checkpoints": [
            {"path": f"best/model.ckpt-{s}/model.ckpt-{s}", "step": s, "metrics": {"accuracy": v}}
            for s, v in ((2, 0.7), (3, 0.6))
        ],
        "removing": [],
    }


def test_of_equal_ones_the_first_stays(model_dir: Path) -> None:
    for step in (1, 2, 3):
        record(step, 0.5)
    assert best_steps() == [1, 2]
    record_metrics("run@step=1", {"accuracy": 0.5})  # an evaluator that was restarted
    assert best_steps() == [1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_wins(model_dir: Path, value: float) -> None:
    assert record(1, value) == ()
    assert on_disk() == []
    record(2, 0.1)
    record(3, value)
    assert best_steps() == [2]


def test_the_smallest_are_the_best_where_asked(model_dir: Path) -> None:
    for step, value in ((1, 0.5), (2, 0.7), (3, 0.6)):
        record(step, value, keep_best=("accuracy", 2, "min"))
    assert best_steps() == [1, 3]


def test_several_metrics_have_their_own_best(model_dir: Path) -> None:
    keep_best = [("accuracy", 1), ("loss", 1, "min")]
    for step, accuracy, loss in ((1, 0.5, 3.0), (2, 0.7, 2.0), (3, 0.6, 1.0)):
        record_metrics(write(step), {"accuracy": accuracy, "loss": loss}, keep_best=keep_best)
    assert (best_steps(), best_steps("loss")) == ([2], [3])
    assert on_disk() == ["model.ckpt-2", "model.ckpt-3"]
    with open_checkpoint("run@best:loss") as checkpoint:
        assert checkpoint["w"] == 3
    with pytest.raises(CheckpointError, match="run@best:accuracy or run@best:loss"):
        open_checkpoint("run@best")
    with pytest.raises(CheckpointError, match="by lost; did you mean 'loss'"):
        open_checkpoint("run@best:lost")


def test_another_evaluator_with_another_metric_leaves_the_first_ones_best(model_dir: Path) -> None:
    record_metrics(write(1), {"accuracy": 0.9}, keep_best=("accuracy", 1))
    record_metrics(write(2), {"auc": 0.8}, keep_best=("auc", 1))
    assert (best_steps(), best_steps("auc")) == ([1], [2])


def test_an_evaluation_anew_replaces_the_metrics(model_dir: Path) -> None:
    record(1, 0.9)
    record(2, 0.5)
    record_metrics("run@step=1", {"accuracy": 0.1}, keep_best=ACCURACY)
    assert best_steps() == [2, 1]
    record_metrics("run@step=1", {"accuracy": math.nan}, keep_best=ACCURACY)
    assert (best_steps(), on_disk()) == ([2], ["model.ckpt-2"])


def test_another_checkpoint_of_the_same_step_is_another(model_dir: Path) -> None:
    """A training that was rolled back, and came to other weights."""
    record_metrics(write(1, 5.0), {"accuracy": 0.5}, keep_best=ACCURACY)
    record_metrics(write(1, 6.0), {"accuracy": 0.6}, keep_best=ACCURACY)
    assert on_disk() == ["model.ckpt-1", "model.ckpt-1_2"]
    with open_checkpoint("run@best") as checkpoint:
        assert checkpoint["w"] == 6


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_a_checkpoint_that_was_converted_in_place_is_the_same(
    model_dir: Path, checkpoint_format: CheckpointFormat
) -> None:
    """It takes one of the places, not two."""
    record(1, 0.5)
    prefix = write(2)
    record_metrics(prefix, {"accuracy": 0.6}, keep_best=ACCURACY)
    convert_checkpoint(prefix, None, checkpoint_format, in_place=True)
    record_metrics(prefix, {"accuracy": 0.7})
    assert on_disk() == ["model.ckpt-1", "model.ckpt-2"]
    assert [one.metrics["accuracy"] for one in read_best("run").checkpoints] == [0.5, 0.7]


def test_what_the_first_call_said_holds_for_the_next(model_dir: Path) -> None:
    with pytest.raises(SettingsError, match="neither a job nor an earlier call has said"):
        record_metrics(write(1), {"accuracy": 0.9})
    record(1, 0.9)
    assert record_metrics(write(2), {"accuracy": 0.95, "note": "text"}) == ("accuracy",)


def test_a_metric_that_was_not_measured_is_an_error_and_changes_nothing(model_dir: Path) -> None:
    with pytest.raises(SettingsError, match="no such metric: acuracy; did you mean 'accuracy'"):
        record_metrics(write(1), {"accuracy": 0.9}, keep_best=("acuracy", 3))
    assert not Path("run/checkpoint_best.json").exists()


@pytest.mark.parametrize(
    ("keep_best", "message"),
    [
        ("accuracy", "expected (metric, how many)"),
        (("accuracy",), "expected (metric, how many)"),
        (("accuracy", 0), "expected (metric, how many)"),
        (("accuracy", True), "expected (metric, how many)"),
        ((3, "accuracy"), "expected (metric, how many)"),
        (("accuracy", 3, "best"), "expected mode 'max' or 'min', found 'best'"),
        (("eval_loss", 3), "say whether the largest or the smallest eval_loss is the best"),
        ([("a", 1), ("a", 2)], "expected each metric once"),
    ],
)
def test_a_wrong_keep_best_is_an_error(keep_best: object, message: str) -> None:
    from estimator_ckpt import SaverOptions

    with pytest.raises(SettingsError) as caught:
        SaverOptions(keep_best=keep_best)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert caught.value.key == "keep_best"


def test_the_flag_takes_metrics_with_colons() -> None:
    assert parse_criteria(["accuracy:3", "a:b/loss:2:min"], "--keep_best") == (
        ("accuracy", 3, "max"),
        ("a:b/loss", 2, "min"),
    )
    for text in ("accuracy", "accuracy:x", ":3", "accuracy:min"):
        with pytest.raises(SettingsError, match="--keep_best"):
            parse_criteria([text], "--keep_best")


def test_a_broken_list_is_an_error_that_names_it_and_leaves_it(model_dir: Path, run: Run) -> None:
    record(1, 0.9)
    for broken in (
        b"{",
        b"[]",
        b'{"keep_best": 3}',
        b'{"keep_best": [["a", 1, "max"]], "checkpoints": [], "removing": 3}',
        b'{"keep_best": [], "removing": [], "checkpoints":'
        b' [{"path": "../../x/y", "step": 1, "metrics": {}}]}',
    ):
        Path("run/checkpoint_best.json").write_bytes(broken)
        with pytest.raises(CorruptCheckpointError, match=r"run/checkpoint_best\.json: no list of"):
            record(2, 0.95)
        assert Path("run/checkpoint_best.json").read_bytes() == broken
    write(3)
    shown = run("inspect", "run")
    assert shown.code == 0
    assert "note: run/checkpoint_best.json: no list of the best checkpoints" in shown.out


def test_a_hostile_list_removes_nothing_else(model_dir: Path) -> None:
    record(1, 0.9)
    Path("run/best/kept.txt").touch()
    said = json.loads(Path("run/checkpoint_best.json").read_bytes())
    said["removing"] = ["..", ".", "", "../other", "no_such"]
    Path("run/checkpoint_best.json").write_text(json.dumps(said))
    Path("other").mkdir()
    Path("other/file").touch()
    record(2, 0.95)
    assert Path("other/file").exists()
    assert on_disk() == ["kept.txt", "model.ckpt-1", "model.ckpt-2"]


def test_a_directory_that_is_the_users_own_is_left_alone(model_dir: Path) -> None:
    Path("run/best/model.ckpt-1").mkdir(parents=True)
    Path("run/best/model.ckpt-1/mine").touch()
    for step in (1, 2, 3):
        record(step, step)
    assert Path("run/best/model.ckpt-1/mine").exists()
    assert best_steps() == [3, 2]


def test_after_a_kill_between_any_two_writes_the_list_names_what_is_there(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves behind is cleared away by the next one that records."""
    from estimator_ckpt import best

    class KilledError(Exception):
        pass

    for step in (1, 2):
        record(step, step)
    shutil.copytree("run", "before")
    steps = {name: getattr(best, name) for name in ("_write", "link_checkpoint", "let_go")}

    def killed_after(count: int, patch: pytest.MonkeyPatch) -> None:
        done = iter(range(count))

        def killing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                if next(done, None) is None:
                    raise KilledError
                return real(*arguments)

            return call

        for name, real in steps.items():
            patch.setattr(best, name, killing(real))

    def record_three() -> None:
        for step in (3, 4, 5):
            record(step, step)

    for count in range(12):
        shutil.rmtree("run")
        shutil.copytree("before", "run")
        with monkeypatch.context() as patch:
            killed_after(count, patch)
            with pytest.raises(KilledError):
                record_three()
        for one in read_best("run").checkpoints:
            assert verify_checkpoint(one.prefix).ok
        record(6, 6)
        record(7, 7)
        assert best_steps() == [7, 6]
        assert on_disk() == ["model.ckpt-6", "model.ckpt-7"]


def test_a_conversion_of_the_run_takes_them_along(model_dir: Path) -> None:
    from estimator_ckpt.conversion.batch import convert_directory
    from estimator_ckpt.conversion.convert_options import ConvertOptions

    record(1, 0.9)
    pin_checkpoint(write(2), "release-7")
    Path("run/checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"')
    convert_directory("run", "to", ConvertOptions("both"))
    for name, value in (("to@best", 1), ("to@release-7", 2), ("to", 2)):
        with open_checkpoint(name) as checkpoint:
            assert (checkpoint.format, checkpoint["w"]) == ("both", value)


@pytest.mark.faults
def test_two_evaluators_that_are_killed_at_any_time_leave_whole_checkpoints(
    model_dir: Path,
) -> None:
    for number in range(4):
        command = [sys.executable, "-c", EVALUATOR, str(number)]
        both = [
            subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True)
            for k in range(2)
        ]
        for one in both:
            assert one.stdout is not None
            assert [one.stdout.readline() for _ in range(5)]  # it has recorded five
        for one in both:
            one.kill()
            one.wait()
        found = read_best("run").checkpoints
        assert found
        for checkpoint in found:
            assert verify_checkpoint(checkpoint.prefix).ok
    record(1, 2.0)
    assert on_disk() == sorted(Path(o.prefix).parent.name for o in read_best("run").checkpoints)


EVALUATOR = f"""
import random, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from pathlib import Path
from own_files import save
from estimator_ckpt import record_metrics
number, evaluator = map(int, sys.argv[1:])
for step in range(100_000):
    name = f"run/model.ckpt-{{number}}{{evaluator}}{{step:05d}}"
    record_metrics(
        save(Path(name), {{"w": np.float32(step)}}), {{"accuracy": random.random()}},
        keep_best=("accuracy", 2),
    )
    print(step, flush=True)
"""


def test_inspect_shows_the_best_with_their_metrics(model_dir: Path, run: Run) -> None:
    record(1, 0.5)
    record(2, 0.75)
    write(3)
    assert (
        "best by accuracy (the largest): model.ckpt-2 0.75, model.ckpt-1 0.5\n"
        in run("inspect", "run").out
    )
    best = json.loads(run("inspect", "run", "--json").out)["best"]["accuracy"]
    assert [one["step"] for one in best] == [2, 1]


# --- evaluations of Estimators ---

INPUT = np.float32([[1], [3]])


def linear(features, labels, mode):
    """y = w x, by plain SGD; the evaluation's `closeness` grows towards w = 2, `loss` falls."""
    w = v1.get_variable("w", [], initializer=v1.zeros_initializer())
    y = w * features["x"]
    loss = tf.reduce_mean((y - 2 * features["x"]) ** 2)
    metrics = {"closeness": v1.metrics.mean(-tf.abs(w - 2)), "always": v1.metrics.mean(w * 0 + 1)}
    train = v1.train.GradientDescentOptimizer(0.01).minimize(loss, v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train, eval_metric_ops=metrics)


def input_fn():
    return tf.data.Dataset.from_tensors({"x": INPUT}).repeat(2)


def job(checkpoint_format="checkpoint", model_fn=linear, keep=1, **options):
    from estimator_ckpt import wrap_model_fn

    config = tf.estimator.RunConfig(
        "run",
        save_checkpoints_steps=1,
        keep_checkpoint_max=keep,
        save_summary_steps=None,
        log_step_count_steps=None,
    )
    return tf.estimator.Estimator(
        wrap_model_fn(model_fn, checkpoint_format, **options), config=config
    )


@pytest.mark.estimator
@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_train_and_evaluate_keeps_the_best(model_dir: Path, checkpoint_format: str) -> None:
    best = [("closeness", 2), ("loss", 1, "min")]
    estimator = job(checkpoint_format, retention=Retention(best=best))
    train = tf.estimator.TrainSpec(lambda: input_fn().repeat(), max_steps=3)
    tf.estimator.train_and_evaluate(
        estimator, train, tf.estimator.EvalSpec(input_fn, throttle_secs=0)
    )
    assert (best_steps("closeness"), best_steps("loss")) == ([3, 2], [3])
    result = estimator.evaluate(input_fn, checkpoint_path="run@step=2")
    assert result["global_step"] == 2
    (second,) = (one for one in read_best("run").checkpoints if one.step == 2)
    for name in ("closeness", "loss", "always"):
        assert second.metrics[name] == result[name]  # what evaluate() returns
    assert sorted(os.listdir("run/best")) == ["model.ckpt-2", "model.ckpt-3"]
    assert verify_checkpoint("run@step=2").ok


@pytest.mark.estimator
def test_a_checkpoint_that_the_trainer_deletes_during_its_evaluation_is_kept(
    model_dir: Path,
) -> None:
    """As in an evaluator process of its own; an InMemoryEvaluator, say, has none and keeps none."""
    estimator = job(keep_best=("closeness", 3))
    estimator.train(lambda: input_fn().repeat(), steps=2)

    class Trainer(v1.train.SessionRunHook):
        def before_run(self, run_context):
            for path in model_dir.glob("model.ckpt-2.*"):
                path.unlink()

    estimator.evaluate(input_fn, hooks=[Trainer()])
    assert not list(model_dir.glob("model.ckpt-2.*"))
    assert best_steps("closeness") == [2]
    with open_checkpoint("run@best") as checkpoint:
        assert checkpoint["global_step"] == 2
    assert on_disk() == ["model.ckpt-2"]  # and what held it is gone


@pytest.mark.estimator
def test_what_a_killed_evaluation_held_goes_at_the_next(model_dir: Path) -> None:
    estimator = job(keep_best=("closeness", 3))
    estimator.train(lambda: input_fn().repeat(), steps=1)

    class Killer(v1.train.SessionRunHook):
        def before_run(self, run_context):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        estimator.evaluate(input_fn, hooks=[Killer()])
    (held,) = on_disk()
    machine, pid, token = held.partition(".evaluating-")[2].split("-")
    assert pid == str(os.getpid())
    with pytest.raises(CheckpointError):
        open_checkpoint("run@best")
    dead = f"model.ckpt-1.evaluating-{machine}-{2**22 + 1}-{token}"  # above Linux' largest id
    os.rename(f"run/best/{held}", f"run/best/{dead}")
    estimator.evaluate(input_fn)
    assert on_disk() == ["model.ckpt-1"]


@pytest.mark.estimator
def test_a_metric_that_the_model_does_not_measure_is_an_error(model_dir: Path) -> None:
    estimator = job(keep_best=("closenes", 3))
    estimator.train(lambda: input_fn().repeat(), steps=1)
    with pytest.raises(SettingsError, match="no metric closenes; did you mean 'closeness'"):
        estimator.evaluate(input_fn)


@pytest.mark.estimator
def test_a_checkpoint_of_another_directory_does_not_count(model_dir: Path) -> None:
    estimator = job(keep_best=("closeness", 3))
    estimator.train(lambda: input_fn().repeat(), steps=1)
    shutil.copytree("run", "other")
    estimator.evaluate(input_fn, checkpoint_path="other/model.ckpt-1")
    assert not Path("run/checkpoint_best.json").exists()
    assert not Path("other/best").exists()


@pytest.mark.estimator
def test_in_memory_evaluation_keeps_none(model_dir: Path) -> None:
    estimator = job(keep_best=("closeness", 3))
    hook = tf.estimator.experimental.InMemoryEvaluatorHook(estimator, input_fn, every_n_iter=1)
    estimator.train(lambda: input_fn().repeat(), steps=2, hooks=[hook])
    assert not Path("run/checkpoint_best.json").exists()


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_a_session_of_ones_own_records_by_what_its_scaffold_says(
    model_dir: Path, checkpoint_format: str
) -> None:
    import tensorflow  # noqa: F401 (or skip)
    from graph_jobs import build_plain_model, run_job

    from estimator_ckpt import make_scaffold

    def scaffold():
        retention = Retention(newest=1, best=("accuracy", 1))
        return make_scaffold(checkpoint_format, retention=retention)

    for step, accuracy in ((2, 0.9), (4, 0.8)):
        run_job("run", scaffold, build=build_plain_model)
        assert record_metrics("run", {"accuracy": accuracy}) == (("accuracy",) if step == 2 else ())
    assert best_steps() == [2]
    assert os.path.basename(v1.train.latest_checkpoint("run")) == "model.ckpt-4"
    assert not Path("run/model.ckpt-2.index").exists()
    assert v1.train.load_variable("run/best/model.ckpt-2/model.ckpt-2", "global_step") == 2

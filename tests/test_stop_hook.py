"""A signal stops a program of one's own in good order: the step, a checkpoint, the exit code.

The signals are real ones, to this process.
"""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
from estimator_jobs import input_fn, latest_step, linear_spec, run_config
from tensorflow_party import tf, v1

from estimator_ckpt import make_scaffold, stop_hook, wrap_model_fn

TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(autouse=True)
def handlers():
    """What the program had before: something that a signal of a test must not pass by unseen."""
    came = []
    before = {number: signal.getsignal(number) for number in (TERM, INT)}

    def handler(number, frame):
        came.append(number)

    for number in before:
        signal.signal(number, handler)
    yield SimpleNamespace(came=came, handler=handler)
    for number, old in before.items():
        signal.signal(number, old)


def send(number=TERM):
    os.kill(os.getpid(), number)


def hook_of(**methods):
    """A hook with the methods: hook_of(end=lambda session: ...)."""
    named = {name: staticmethod(method) for name, method in methods.items()}
    return type("Hook", (v1.train.SessionRunHook,), named)()


def after_step(step, do):
    """A hook that does something after a step of its own."""
    seen = []

    def after_run(context, values):
        seen.append(context)
        if len(seen) == step:
            do()

    return hook_of(after_run=after_run)


def train_op():
    step = v1.train.get_or_create_global_step()
    return tf.group(v1.get_variable("w", initializer=0.0).assign_add(1.0), v1.assign_add(step, 1))


def session(directory, hooks, **options):
    options = {"save_checkpoint_steps": 100, **options}
    scaffold = make_scaffold("both")
    return v1.train.MonitoredTrainingSession(
        checkpoint_dir=str(directory), scaffold=scaffold, hooks=hooks, **options
    )


def train(directory, hooks, steps=10, **options):
    """A training of so many steps in a graph of its own; returns those that were made."""
    made = 0
    with tf.Graph().as_default():
        op = train_op()
        with session(directory, hooks, **options) as running:
            while not running.should_stop() and made < steps:
                running.run(op)
                made += 1
    return made


def saved(directory):
    return {
        name: tf.train.load_variable(str(directory), name).item() for name in ("w", "global_step")
    }


# A step is finished, and saved.


def ask_should_stop(running, op):
    with running:
        while not running.should_stop():
            running.run(op)


def count(running, op):
    with running:
        for _ in range(10):
            running.run(op)


def close(running, op):
    while not running.should_stop():
        running.run(op)
    running.close()


def count_and_close(running, op):
    try:
        for _ in range(10):
            running.run(op)
    except tf.errors.OutOfRangeError:
        running.close()


def steps_of_functions(running, op):
    def step_fn(step_context):
        return step_context.run_with_hooks(op)

    with running:
        while not running.should_stop():
            running.run_step_fn(step_fn)


@pytest.mark.parametrize(
    "loop", [ask_should_stop, count, close, count_and_close, steps_of_functions]
)
@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_signal_ends_the_loop_after_the_step_saves_and_exits(
    graph, tmp_path, handlers, capfd, loop, number, code
):
    ended = []
    hooks = [
        hook_of(end=lambda session: ended.append("first")),
        stop_hook(),
        after_step(3, lambda: send(number)),
        hook_of(end=lambda session: ended.append("last")),
    ]
    op = train_op()
    with pytest.raises(SystemExit) as exited:
        loop(session(tmp_path, hooks), op)
    assert exited.value.code == code
    assert saved(tmp_path)["w"] == saved(tmp_path)["global_step"] in (3, 4)
    assert ended == ["first", "last"]
    name = signal.Signals(number).name
    assert capfd.readouterr().err == f"{name}: finishing the step, saving a checkpoint\n"
    assert signal.getsignal(number) is handlers.handler


def test_the_next_start_resumes_there_and_signals_are_none_of_it(tmp_path, handlers):
    hook = stop_hook()
    with pytest.raises(SystemExit):
        train(tmp_path, [after_step(3, send), hook])
    assert train(tmp_path, [hook], steps=2) == 2
    assert saved(tmp_path) == {"w": 5.0, "global_step": 5}
    assert handlers.came == [TERM]  # once, by the hook


def test_a_saver_may_stand_behind_the_hook(graph, tmp_path):
    op, scaffold = train_op(), make_scaffold("checkpoint")
    saver = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=100, scaffold=scaffold)
    creator = v1.train.ChiefSessionCreator(scaffold, checkpoint_dir=str(tmp_path))
    hooks = [after_step(2, send), stop_hook(), saver]
    running = v1.train.MonitoredSession(creator, hooks)
    with pytest.raises(SystemExit):
        ask_should_stop(running, op)
    assert latest_step(tmp_path) == 2


@pytest.mark.parametrize("when", ["before_save", "after_save", "end"])
def test_a_signal_while_a_checkpoint_is_saved_leaves_it_whole(graph, tmp_path, when):
    class Sends(v1.train.CheckpointSaverListener):
        pass

    def send_at(self, session, step):
        if step == 4 or when == "end":
            send()

    setattr(Sends, when, send_at)
    scaffold = make_scaffold("both")
    saver = v1.train.CheckpointSaverHook(
        str(tmp_path), save_steps=4, scaffold=scaffold, listeners=[Sends()]
    )
    op = train_op()
    options = {"save_checkpoint_steps": None, "save_checkpoint_secs": None}
    running = v1.train.MonitoredTrainingSession(
        checkpoint_dir=str(tmp_path),
        scaffold=scaffold,
        chief_only_hooks=[saver],
        hooks=[stop_hook(), v1.train.StopAtStepHook(last_step=6)],
        **options,
    )
    with pytest.raises(SystemExit) as exited:
        ask_should_stop(running, op)
    assert exited.value.code == 143
    step = saved(tmp_path)["global_step"]
    assert step == saved(tmp_path)["w"]
    assert step == 6 if when == "end" else step in (4, 5)


# Where there is nothing to finish.


@pytest.mark.parametrize("when", ["init_fn", "after_create_session"])
def test_a_signal_before_the_first_step_ends_it_at_once(graph, tmp_path, handlers, when, capfd):
    op = train_op()
    stops = {when: lambda *arguments: send()}
    scaffold = make_scaffold("both")
    if when == "init_fn":
        base = v1.train.Scaffold(init_fn=lambda scaffold, session: send())
        scaffold, stops = make_scaffold("both", base=base), {}
    hooks = [hook_of(**stops), stop_hook()]
    with pytest.raises(SystemExit) as exited:
        v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(tmp_path), scaffold=scaffold, hooks=hooks
        ).run(op)
    assert exited.value.code == 143
    assert capfd.readouterr().err == "SIGTERM: stopping\n"
    assert tf.train.latest_checkpoint(str(tmp_path)) in (None, str(tmp_path / "model.ckpt-0"))


def test_outside_of_a_session_signals_do_what_they_did(tmp_path, handlers):
    hook = stop_hook()
    send()
    train(tmp_path, [hook], steps=1)
    send(INT)
    assert handlers.came == [TERM, INT]


def test_a_session_that_an_exception_has_closed_does_not_swallow_signals(tmp_path, handlers):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, [stop_hook(), after_step(2, fail)])
    send()
    assert handlers.came == [TERM]


# Other handlers.


def test_a_handler_of_the_program_is_called_when_the_checkpoint_is_saved(tmp_path):
    seen = []
    signal.signal(TERM, lambda number, frame: seen.append((number, latest_step(tmp_path))))
    with pytest.raises(SystemExit):
        train(tmp_path, [after_step(3, send), stop_hook()])
    assert seen == [(TERM, 3)]


def test_what_that_handler_raises_ends_the_program(tmp_path):
    def handler(number, frame):
        raise InterruptedError

    signal.signal(TERM, handler)
    with pytest.raises(InterruptedError):
        train(tmp_path, [after_step(3, send), stop_hook()])
    assert latest_step(tmp_path) == 3
    assert signal.getsignal(TERM) is handler


def test_a_second_signal_does_at_once_what_it_did_before(tmp_path):
    def handler(number, frame):
        raise InterruptedError

    signal.signal(TERM, handler)
    with pytest.raises(InterruptedError):
        train(tmp_path, [stop_hook(), after_step(3, lambda: (send(), send()))])
    assert latest_step(tmp_path) == 0


def test_a_signal_that_the_program_ignores_stays_ignored(tmp_path):
    signal.signal(INT, signal.SIG_IGN)
    assert train(tmp_path, [stop_hook(), after_step(3, lambda: send(INT))], steps=5) == 5
    assert signal.getsignal(INT) is signal.SIG_IGN


def test_a_handler_that_the_program_sets_meanwhile_stays(tmp_path):
    def handler(number, frame):
        raise AssertionError

    train(tmp_path, [stop_hook(), after_step(1, lambda: signal.signal(TERM, handler))], steps=2)
    assert signal.getsignal(TERM) is handler


def test_a_process_that_is_forked_meanwhile_ends_as_it_did(tmp_path, handlers):
    codes = []

    def fork():
        child = os.fork()
        if not child:
            send()
            os._exit(handlers.came == [TERM])
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    assert train(tmp_path, [stop_hook(), after_step(1, fork)], steps=3) == 3
    assert codes == [True]


# Several sessions.


def test_a_training_inside_another_is_saved_and_so_is_the_other(tmp_path, handlers):
    inner, outer = tmp_path / "inner", tmp_path / "outer"

    def train_inside():
        train(inner, [after_step(2, send), stop_hook()])

    with pytest.raises(SystemExit) as exited:
        train(outer, [after_step(3, train_inside), stop_hook()])
    assert exited.value.code == 143
    assert (latest_step(inner), latest_step(outer)) == (2, 3)
    assert signal.getsignal(TERM) is handlers.handler


def test_a_session_inside_another_leaves_the_hook_to_that(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    hook = stop_hook()

    def train_inside():
        train(inner, [hook], steps=2)
        send()

    with pytest.raises(SystemExit):
        train(outer, [after_step(3, train_inside), hook])
    assert (latest_step(inner), latest_step(outer)) == (2, 3)


def test_a_training_in_a_thread_goes_on_and_says_that_it_cannot_be_stopped(tmp_path, caplog):
    made = []
    thread = threading.Thread(target=lambda: made.append(train(tmp_path, [stop_hook()], steps=2)))
    with caplog.at_level("WARNING", "absl"):
        thread.start()
        thread.join()
    assert made == [2]
    assert "signals reach the main thread alone" in caplog.text


# Estimators.


def job(directory, **pieces):
    def model_fn(features, labels, mode):
        hooks = pieces if mode == "eval" else {}
        return linear_spec(features, labels, mode, **hooks)

    config = run_config(directory, save_checkpoints_steps=4)
    return tf.estimator.Estimator(wrap_model_fn(model_fn, "both"), config=config)


def specs(hooks, eval_hooks, **options):
    return (
        tf.estimator.TrainSpec(input_fn, max_steps=10, hooks=hooks),
        tf.estimator.EvalSpec(input_fn, steps=3, hooks=eval_hooks, throttle_secs=0, **options),
    )


def metrics(model_dir):
    """The names of what evaluations have written."""
    paths = model_dir.glob("eval/events.*")
    events = [event for path in paths for event in v1.train.summary_iterator(str(path))]
    return [value.tag for event in events for value in event.summary.value]


@pytest.mark.estimator
def test_estimators_train_is_stopped(tmp_path):
    with pytest.raises(SystemExit) as exited:
        job(tmp_path).train(input_fn, hooks=[after_step(2, send), stop_hook()], max_steps=10)
    assert exited.value.code == 143
    assert latest_step(tmp_path) == 2


@pytest.mark.estimator
@pytest.mark.parametrize("evaluates", [False, True])
def test_train_and_evaluate_is_stopped_while_it_trains(tmp_path, evaluates):
    """The last checkpoint is evaluated only if the evaluation has no hook."""
    evaluated = []
    counted = hook_of(end=evaluated.append)
    train_hooks = [after_step(2, send), stop_hook()]
    eval_hooks = [counted] if evaluates else [counted, stop_hook()]
    with pytest.raises(SystemExit):
        tf.estimator.train_and_evaluate(job(tmp_path), *specs(train_hooks, eval_hooks))
    assert latest_step(tmp_path) == 2
    assert len(evaluated) == evaluates


@pytest.mark.estimator
def test_train_and_evaluate_is_stopped_while_it_evaluates_and_has_no_metrics_of_a_part(tmp_path):
    hooks = [after_step(2, send), stop_hook()]
    with pytest.raises(SystemExit) as exited:
        tf.estimator.train_and_evaluate(job(tmp_path), *specs([stop_hook()], hooks))
    assert exited.value.code == 143
    assert latest_step(tmp_path) == 4
    assert metrics(tmp_path) == []


@pytest.mark.estimator
def test_an_evaluation_alone_is_stopped_at_once(tmp_path, handlers, capfd):
    job(tmp_path).train(input_fn, max_steps=1)
    steps = []
    hooks = [after_step(2, send), stop_hook(), hook_of(before_run=lambda run: steps.append(run))]
    with pytest.raises(SystemExit):
        job(tmp_path).evaluate(input_fn, steps=5, hooks=hooks)
    assert len(steps) == 2
    assert "SIGTERM: stopping\n" in capfd.readouterr().err
    job(tmp_path).evaluate(input_fn, steps=1, hooks=[stop_hook()])
    assert signal.getsignal(TERM) is handlers.handler

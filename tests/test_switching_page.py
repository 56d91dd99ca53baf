"""docs/switching.md as a person follows it: each of its blocks in a real process, in its order."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from estimator_jobs import file_format, latest_step
from train_runs import Process, free_ports

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "switching.md").read_text()
BLOCKS = [
    (kind, textwrap.dedent(text))
    for kind, text in re.findall(r"^ *```(\w+)\n(.*?)^ *```", PAGE, re.S | re.M)
]

pytestmark = [pytest.mark.estimator, pytest.mark.faults]

MY_JOB = '''
import sys
import tensorflow as tf

v1 = tf.compat.v1


def train_input_fn():
    return tf.data.Dataset.from_tensors(([[1.0, 2.0]], [[3.0]])).repeat()


def eval_input_fn():
    return tf.data.Dataset.from_tensors(([[1.0, 2.0]], [[3.0]]))


class Says(v1.train.SessionRunHook):
    """Prints a line when the first step is made."""

    said = False

    def after_run(self, run_context, run_values):
        if not self.said:
            print("trains", flush=True)
        self.said = True


def model_fn(features, labels, mode, params):
    outputs = v1.layers.dense(features, 1, name="dense")
    loss = tf.reduce_mean((outputs - labels) ** 2)
    optimizer = v1.train.AdamOptimizer(params.get("learning_rate", 0.001))
    train_op = optimizer.minimize(loss, v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=[Says()])


def stock(model_dir, steps):
    """The program as it was before."""
    tf.estimator.Estimator(model_fn, model_dir).train(train_input_fn, max_steps=int(steps))


if __name__ == "__main__":
    stock(*sys.argv[1:])
'''


class Person:
    """Who types the page's lines in a directory with my_job.py."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "bin").mkdir()
        command = directory / "bin" / "estimator-ckpt"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m estimator_ckpt "$@"\n')
        command.chmod(0o755)
        (directory / "my_job.py").write_text(MY_JOB)
        (directory / "my_job.yaml").write_text("learning_rate: 0.002\n")
        self._environment = {
            **os.environ,
            "PATH": f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}",
        }

    def python(self, *arguments):
        return self._run([sys.executable, *map(str, arguments)])

    def shell(self, text):
        """Runs lines; the first that fails ends it."""
        return self._run(["sh", "-e", "-c", text])

    def start(self, *command, **environment):
        environment = {**self._environment, **environment}
        return Process(command=command, environment=environment, cwd=self.directory)

    def _run(self, command):
        done = subprocess.run(
            command, cwd=self.directory, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


def stopped(process, text="trains"):
    """Sends SIGTERM when the text has come; what it has written to the standard error."""
    with process:
        process.read_until(text)
        process.read_until("trains")
        process.signal(signal.SIGTERM)
        assert process.finish() == 143, process.errors
        return process.errors


def test_each_block_of_the_page_does_what_it_says(tmp_path):
    person, run = Person(tmp_path), tmp_path / "run"
    blocks = iter(BLOCKS)

    def next_block(kind):
        found, text = next(blocks)
        assert found == kind, text
        return text

    # 0. Before.
    person.python("my_job.py", "run", 1000)
    assert "global_step" in person.shell(next_block("sh"))
    person.shell(next_block("sh"))

    # 1. The job as it is: three ways.
    wrapped, with_flags, by_command = next_block("python"), next_block("python"), next_block("sh")
    for name, program, flags in [
        ("wrapped", wrapped, []),
        ("with_flags", with_flags, ["--checkpoint_format=saver", "--model_dir=run"]),
    ]:
        (tmp_path / f"{name}.py").write_text(program)
        before = latest_step(run)
        errors = stopped(person.start(sys.executable, f"{name}.py", *flags))
        assert "SIGTERM: finishing the step, saving a checkpoint" in errors
        assert latest_step(run) > before >= 1000
        assert file_format(run) == "saver"
    for path in tmp_path.glob("run/*"):  # back to where the page is
        if path.is_file():
            path.unlink()
    person.shell("cp run_before/* run")
    errors = stopped(person.start("sh", "-c", f"exec {by_command}"), "resumes at step 1,000")
    assert re.search(
        r"^stopped at step [\d,]+; the next start resumes from run/model", errors, re.M
    )
    assert file_format(run) == "saver"
    person.shell(next_block("sh"))

    # 2. Both.
    flags = re.sub(r" --(?!\w+_fn|params|model_dir)\S+", "", by_command).split()[2:]
    (tmp_path / "my_job.flags").write_text("\n".join([*flags, "--max_steps=5000"]))
    assert "finished at step 5,000" in person.shell(next_block("sh"))
    assert file_format(run) == "both"
    person.shell(next_block("sh"))

    # 3. TF2 only, and back to a stock program.
    (tmp_path / "my_job.flags").write_text("\n".join([*flags, "--max_steps=5100"]))
    assert "finished at step 5,100" in person.shell(next_block("sh"))
    assert file_format(run) == "checkpoint"
    person.shell(next_block("sh"))
    person.shell(next_block("sh"))
    person.python("my_job.py", "run_tf1", 5200)
    assert latest_step(tmp_path / "run_tf1") == 5200
    assert next(blocks, None) is None


def test_the_program_with_flags_is_stopped_as_a_cluster_too(tmp_path):
    """The parameter server, which gets the signal first, has what the chief saves."""
    person = Person(tmp_path)
    program = next(text for kind, text in BLOCKS if "define_flags()" in text)
    (tmp_path / "program.py").write_text(program)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = {"chief": addresses[:1], "ps": addresses[1:]}

    def start(task):
        config = {"cluster": cluster, "task": {"type": task, "index": 0}}
        command = [sys.executable, "program.py", "--model_dir=run"]
        return person.start(*command, TF_CONFIG=json.dumps(config))

    with start("ps") as server, start("chief") as chief:
        chief.read_until("trains")
        server.signal(signal.SIGTERM)
        server.read_until("SIGTERM: serving until the chief and the workers have ended")
        chief.signal(signal.SIGTERM)
        assert chief.finish() == 143, chief.errors
        assert server.finish() == -signal.SIGTERM
    assert latest_step(tmp_path / "run") > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_program_at_once(tmp_path, number):
    person = Person(tmp_path)
    program = next(text for kind, text in BLOCKS if "stop_hook()" in text and kind == "python")
    held = "import time, my_job\nmy_job.Says.after_run = lambda *_: (print('trains', flush=True), "
    (tmp_path / "program.py").write_text(f"{held}time.sleep(600))\n{program}")
    with person.start(sys.executable, "program.py") as process:
        process.read_until("trains")
        process.signal(number)
        process.read_until("finishing the step, saving a checkpoint")
        process.signal(number)
        assert process.finish() == -number
    assert latest_step(tmp_path / "run") == 0

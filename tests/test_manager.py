"""Eager programs that write both kinds: save_both() on a real tf.train.CheckpointManager."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorflow_party import tf, v1

from estimator_ckpt import open_checkpoint, save_both
from estimator_ckpt.errors import ConflictError, SettingsError

HAS_CALLBACKS = hasattr(tf.train.CheckpointOptions(), "experimental_write_callbacks")
since_2_15 = pytest.mark.skipif(not HAS_CALLBACKS, reason="TensorFlow is older than 2.15")
ROOT = Path(__file__).resolve().parents[1]


class Program:
    """An eager program with a step, a weight in a module and a manager."""

    def __init__(self, directory, **manager):
        self.step = tf.Variable(0, dtype=tf.int64, name="global_step")
        self.module = tf.Module()
        self.module.kernel = tf.Variable([0.0, 0.0], name="dense/kernel")
        self.checkpoint = tf.train.Checkpoint(model=self.module, step=self.step)
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, str(directory), **{"max_to_keep": 2, **manager}
        )

    def train(self):
        self.step.assign_add(1)
        self.module.kernel.assign_add([1.0, 2.0])


def read_by_saver(directory):
    """What a stock Saver restores in a final graph, where it can only ask for names."""
    with tf.Graph().as_default():
        step = v1.get_variable("global_step", [], tf.int64)
        kernel = v1.get_variable("dense/kernel", [2])
        with v1.train.SingularMonitoredSession(checkpoint_dir=str(directory)) as session:
            return session.run(step), session.run(kernel).tolist()


@since_2_15
def test_readers_of_both_kinds_take_every_checkpoint_and_retention_counts_as_before(tmp_path):
    program = Program(tmp_path)
    assert save_both(program.manager) is program.manager
    for step in (1, 2, 3):
        program.train()
        path = program.manager.save()
        assert path == tf.train.latest_checkpoint(str(tmp_path))
        assert open_checkpoint(path).format == "both"
        assert read_by_saver(tmp_path) == (step, [1.0 * step, 2.0 * step])

    reader = Program(tmp_path)
    reader.checkpoint.restore(path).assert_consumed()
    assert reader.module.kernel.numpy().tolist() == [3.0, 6.0]
    # Two stay, as max_to_keep says, with all of their files and nothing else.
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint",
        *(f"ckpt-{n}.{kind}" for n in (2, 3) for kind in ("data-00000-of-00001", "index")),
    ]


@since_2_15
def test_a_manager_goes_on_with_what_it_saved(tmp_path):
    program = Program(tmp_path)
    program.train()
    save_both(program.manager).save(checkpoint_number=7)
    resumed = Program(tmp_path, step_counter=program.step, checkpoint_interval=10)
    save_both(resumed.manager)
    assert resumed.manager.restore_or_initialize() == str(tmp_path / "ckpt-7")
    assert resumed.module.kernel.numpy().tolist() == [1.0, 2.0]
    assert resumed.manager.save() is None  # the interval is the manager's


@since_2_15
def test_the_state_file_names_a_checkpoint_when_it_has_names(tmp_path):
    """The callbacks of the program run between the two, in asynchronous saves as well."""
    program, seen = Program(tmp_path), []

    def look(path):
        seen.append((open_checkpoint(path).format, tf.train.latest_checkpoint(str(tmp_path))))

    options = tf.train.CheckpointOptions(
        experimental_enable_async_checkpoint=True, experimental_write_callbacks=[look]
    )
    save_both(program.manager)
    for _ in range(2):
        program.train()
        program.manager.save(options=options)
    program.manager.sync()
    first, second = (str(tmp_path / f"ckpt-{n}") for n in (1, 2))
    assert seen == [("both", None), ("both", first)]
    assert options.experimental_write_callbacks == [look]
    assert tf.train.latest_checkpoint(str(tmp_path)) == second
    assert read_by_saver(tmp_path) == (2, [2.0, 4.0])


@since_2_15
def test_variables_that_share_a_name_are_refused_until_rules_name_them(tmp_path):
    names = ("weight", "weight", "bias", "bias")
    weights = [tf.Variable(float(n), name=name) for n, name in enumerate(names)]
    checkpoint = tf.train.Checkpoint(towers=weights)
    manager = save_both(tf.train.CheckpointManager(checkpoint, str(tmp_path / "a"), max_to_keep=1))
    with pytest.raises(ConflictError) as raised:
        manager.save()
    lines = str(raised.value).splitlines()
    assert lines[1:3] == ["'bias': towers/2, towers/3", "'weight': towers/0, towers/1"]
    assert "rename=[('towers/2', 'a_name_of_its_own'), ...]" in lines[3]
    # Nothing is lost, and nothing that lacks names is named.
    assert tf.train.latest_checkpoint(str(tmp_path / "a")) is None
    checkpoint.read(str(tmp_path / "a" / "ckpt-1")).assert_existing_objects_matched()

    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    manager.save(options=options)
    with pytest.raises(ConflictError, match="variables share a name"):  # of the one before
        manager.save(options=options)

    half = tf.train.CheckpointManager(checkpoint, str(tmp_path / "b"), max_to_keep=1)
    with pytest.raises(ConflictError, match="\n'weight': towers/1\n"):
        save_both(half, rename=[("towers/0", "first/weight")]).save()
    rules = {r"towers/(\d)": r"tower_\1/weight"}
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "c"), max_to_keep=1)
    path = save_both(manager, rename=rules).save()
    assert tf.train.load_variable(path, "tower_0/weight") == 0.0
    assert tf.train.load_variable(path, "tower_1/weight") == 1.0


@since_2_15
def test_what_cannot_be_is_refused_at_once(tmp_path):
    program = Program(tmp_path)
    with pytest.raises(SettingsError, match="CheckpointManager, found a Checkpoint"):
        save_both(program.checkpoint)
    with pytest.raises(SettingsError, match=r"rename\[0\]"):
        save_both(program.manager, rename=[("(", "x")])
    save_both(program.manager, rename=[("dense/kernel", "w")])
    assert save_both(program.manager, rename={"dense/kernel": "w"}) is program.manager
    with pytest.raises(SettingsError, match="saves both already"):
        save_both(program.manager)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="ram://run: save_both needs a local directory"):
        save_both(Program("ram://run").manager)


def test_it_says_which_tensorflow_it_needs(tmp_path):
    manager = Program(tmp_path).manager
    if HAS_CALLBACKS:
        assert save_both(manager) is manager
    else:
        with pytest.raises(SettingsError, match=r"needs TensorFlow 2\.15 or later, found 2\.1"):
            save_both(manager)


# Gives a checkpoint its names in copies of a directory; in the n-th copy it dies at the n-th call
# that opens, renames, links or removes a file. In the last copy it came to its end.
KILLS = """
import os, shutil, sys
from estimator_ckpt.manager import _add_names

def convert(directory, last):
    calls = iter(range(1, last))
    def watch(event, arguments):
        if event in ("open", "os.rename", "os.link", "os.remove") and next(calls, None) is None:
            os._exit(9)
    sys.addaudithook(watch)
    _add_names(os.path.join(directory, "ckpt-2"), ())
    os._exit(0)

_add_names(shutil.copytree("run", "warm") + "/ckpt-2", ())  # whatever is imported
number, code = 0, 9
while code:
    number += 1
    directory = shutil.copytree("run", f"killed_{number:02d}")
    child = os.fork()
    if not child:
        convert(directory, number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
"""


@since_2_15
@pytest.mark.faults
def test_a_kill_at_any_file_leaves_the_checkpoint_before_and_the_next_save_clears_up(tmp_path):
    program = Program(tmp_path / "run")
    program.train()
    save_both(program.manager).save()
    program.train()
    program.checkpoint.write(str(tmp_path / "run" / "ckpt-2"))  # what a save writes before names
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLS], cwd=tmp_path, env=environment, check=True)
    killed = sorted(tmp_path.glob("killed_*"))
    assert len(killed) > 5
    assert {open_checkpoint(path / "ckpt-2").format for path in killed} == {"checkpoint", "both"}
    for directory in killed:
        again = Program(directory)
        assert save_both(again.manager).restore_or_initialize() == str(directory / "ckpt-1")
        assert again.module.kernel.numpy().tolist() == [1.0, 2.0]
        again.train()
        again.manager.save()
        assert read_by_saver(directory) == (2, [2.0, 4.0])
        assert sorted(path.name for path in directory.iterdir()) == [
            "checkpoint",
            *(f"ckpt-{n}.{kind}" for n in (1, 2) for kind in ("data-00000-of-00001", "index")),
        ]

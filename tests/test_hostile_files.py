"""What is no checkpoint, no flagfile, no settings or no text: told at once, and told what it is."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import command_runner
from conversion_files import names_in, write_bundle
from golden_files import golden_case

import estimator_ckpt
from estimator_ckpt import convert_checkpoint, load_warm_start, open_checkpoint, verify_checkpoint
from estimator_ckpt.bundle.index import read_index, write_index
from estimator_ckpt.checking.audit import verify_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.trees import find_left, find_tasks
from estimator_ckpt.errors import (
    CheckpointError,
    ConflictError,
    CorruptCheckpointError,
    NotACheckpointError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files import make_dirs

ROOT = Path(estimator_ckpt.__file__).parent.parent
VALUES = {"w": np.arange(100, dtype=np.float32), "global_step": np.int64(1)}


@pytest.fixture
def run(capsys):
    return command_runner(capsys)


@pytest.fixture
def prefix(tmp_path):
    return write_bundle(tmp_path / "m-1", VALUES)


def directory(path):
    os.mkdir(path)


def pipe(path):
    os.mkfifo(path)


def device(path):
    os.symlink("/dev/zero", path)


def lfs_pointer(path):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 408\n"
    Path(path).write_text(text)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (directory, "a directory"),
        (pipe, "a pipe"),
        (device, "a device"),
        (lfs_pointer, "a Git LFS pointer: run `git lfs pull`"),
    ],
)
def test_what_stands_in_the_place_of_a_data_file(make, what, prefix, tmp_path):
    data = f"{prefix}.data-00000-of-00001"
    reader = open_checkpoint(prefix)
    os.remove(data)
    make(data)
    faults = verify_checkpoint(prefix).faults
    assert [(fault.kind, fault.file) for fault in faults] == [("data file", data)]
    assert faults[0].message.startswith(f"{what} in its place, with 2 of the 2 keys")
    for act in (
        lambda: reader.get_tensor("w"),
        lambda: open_checkpoint(prefix).get_tensor("w"),
        lambda: convert_checkpoint(prefix, tmp_path / "new" / "m", "both"),
    ):
        with pytest.raises(CorruptCheckpointError) as raised:
            act()
        assert what in str(raised.value)
        assert raised.value.path == data
    assert not (tmp_path / "new").exists()


def test_many_missing_data_files_cost_one_look_at_the_keys(tmp_path):
    """A look at all keys for each of the files would take a minute."""
    prefix = write_bundle(tmp_path / "m", {f"w{n}": np.int32(n) for n in range(5000)})
    index = read_index(prefix)._replace(num_shards=5000)
    for shard, key in enumerate(index.entries):
        index.entries[key] = index.entries[key]._replace(shard=shard, offset=0)
    write_index(prefix, index)
    start = time.process_time()
    faults = verify_checkpoint(prefix).faults
    assert time.process_time() - start < 10
    assert len(faults) == 5000
    assert all("missing, with 1 of the 5000 keys" in fault.message for fault in faults)


@pytest.mark.parametrize("destination", ["/dev/null", "/dev/null/", "/dev/null/m"])
def test_a_device_is_no_destination(destination, prefix, tmp_path):
    with pytest.raises(WriteError, match=r"found a device|File exists|Not a directory"):
        convert_checkpoint(prefix, destination, "both")
    assert [name for name in os.listdir("/dev") if name.startswith("null")] == ["null"]
    assert names_in(tmp_path) == ["m-1.data-00000-of-00001", "m-1.index"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("!!bool abc", "'abc' is no !!bool"),
        ("!!timestamp abc", "'abc' is no !!timestamp"),
        ("!!int ''", "'' is no !!int"),
        ("!!int abc", "'abc' is no !!int"),
        ("!!float abc", "'abc' is no !!float"),
        ("2020-99-99", "'2020-99-99' is no !!timestamp"),
        ("!!binary 'ä'", "line 1, column 26"),
        ("!!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_a_wrong_tag_in_yaml_is_told_with_its_place(value, place, tmp_path, run, prefix):
    path = tmp_path / "settings.yaml"
    path.write_text(f"ckpt_to_initialize_from: {value}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load_warm_start(path)
    assert place in str(raised.value)
    assert "line 1, column 26" in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)), "no text: invalid start byte"),
        (b"--json\0\n", "no text: a NUL character"),
        (pipe, "expected a file, found a pipe"),
        (device, "expected a file, found a device"),
        (directory, "expected a file, found a directory"),
        (None, "No such file or directory"),
    ],
)
def test_a_flagfile_that_is_none(content, message, run, prefix, tmp_path):
    path = tmp_path / "job.flags"
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    nested = tmp_path / "nested.flags"
    nested.write_text(f"--flagfile={path}\n")
    for given in (path, nested):
        result = run("inspect", prefix, f"--flagfile={given}")
        assert result.code == 2
        assert f"--flagfile={path}: " in result.err
        assert message in result.err


def test_a_flagfile_that_is_one(run, prefix, tmp_path):
    (tmp_path / "job.flags").write_text("# a comment\n--json\n")
    assert run("inspect", prefix, f"--flagfile={tmp_path}/job.flags").out.startswith("{")


def test_control_characters_in_paths_are_escaped_everywhere(run, tmp_path, caplog):
    name = "a\x1b[31m\rb\x9b"
    home = tmp_path / name
    prefix = write_bundle(home / "m-1", {**VALUES, name: b"no number"})
    (home / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    (home / "other").write_text("")
    outputs = []
    for arguments in (
        ("inspect", home),
        ("inspect", prefix, "--tensor=w"),
        ("inspect", prefix, "--tree"),
        ("inspect", prefix, "--tensor=none"),
        ("inspect", home / "nothing"),
        ("inspect", home / "other"),
        ("verify", prefix),
        ("verify", home),
        ("compare", prefix, prefix),
        ("convert", prefix, tmp_path / f"{name}-out" / "m", "--checkpoint_format=both"),
        ("convert", prefix, tmp_path / f"{name}-out" / "m", "--checkpoint_format=both"),
        ("convert", home, tmp_path / f"{name}-tree", "--checkpoint_format=both"),
        ("check", prefix, f"--against={prefix}"),
        ("export", prefix, home / "w.npz", "--skip_unsupported"),
        ("import", home / "w.npz", home / "imported" / "m", "--checkpoint_format=saver"),
        (name,),
        ("inspect", prefix, f"--{name}"),
    ):
        result = run(*arguments)
        outputs += [result.out, result.err]
    text = "".join(outputs) + caplog.text
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert r"a\x1b[31m\rb\x9b" in text
    assert str(CheckpointError("no\x07", path="p\n")) == r"p\n: no\x07"


@pytest.mark.parametrize("numbers", [(signal.SIGINT,) * 2, (signal.SIGINT, signal.SIGTERM)])
def test_two_signals_at_once_show_no_traceback(numbers, prefix):
    code = (
        "import os, signal, sys\n"
        "from estimator_ckpt import cli, files\n"
        "def interrupted(*_):\n"
        "    sys.stdout.write('now'); sys.stdout.flush()\n"
        "    while True:\n"
        "        signal.pause()\n"
        "files.list_dir = files.exists = interrupted\n"
        f"sys.argv = ['estimator-ckpt', 'verify', {prefix!r}]\n"
        "sys.exit(cli.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.read(3) == "now"
    for number in numbers:
        process.send_signal(number)
    _, err = process.communicate()
    assert err == ""
    assert process.returncode in (130, -signal.SIGINT, -signal.SIGTERM)


def test_a_line_break_in_a_name_hides_no_checkpoint(tmp_path, run):
    tree = tmp_path / "tree"
    for name in ("a\nb-1", "c-2", "d-3\n"):
        write_bundle(tree / name, VALUES)
    (tree / "c-2\n.staged.0.index").write_bytes(b"")  # left by a save that broke off
    result = run("verify", tree)
    assert (result.code, result.out.splitlines()[-1]) == (0, f"{tree}: 3 of 3 checkpoints whole")
    assert run("verify", f"{tree}@step=1").code == 0
    assert run("convert", tree, tmp_path / "out", "--checkpoint_format=both").code == 0
    assert run("verify", tmp_path / "out").out.splitlines()[-1].endswith("3 of 3 checkpoints whole")


@pytest.mark.parametrize("name", ["_CHECKPOINTABLE_OBJECT_GRAPH", "_ESTIMATOR_CKPT_RESETS"])
@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_no_variable_gets_a_key_that_means_something_else(
    prefix, tmp_path, name, checkpoint_format
):
    with pytest.raises(ConflictError, match=f"{name}.*rename 'w' or leave it out"):
        convert_checkpoint(prefix, tmp_path / "out", checkpoint_format, rename={"w": name})
    assert [one.name for one in tmp_path.glob("out*")] == []


def test_a_link_to_nothing_is_called_so(tmp_path, run):
    (tmp_path / "m-1.index").symlink_to("gone")
    result = run("inspect", tmp_path / "m-1")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith("m-1.index is a symbolic link to what is not there\n")
    assert run("verify", tmp_path).out.endswith("0 of 1 checkpoint whole\n")


@pytest.mark.parametrize("left", [None, b""])
def test_a_pin_that_is_refused_leaves_nothing(prefix, tmp_path, run, left):
    data = Path(f"{prefix}.data-00000-of-00001")
    data.unlink() if left is None else data.write_bytes(left)
    before = names_in(tmp_path)
    result = run("pin", prefix, "--name=a")
    assert result.code == 2
    assert result.err.startswith(f"estimator-ckpt: {data}")
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("kind", ["v1_format", "v1_sharded"])
@pytest.mark.parametrize(
    "arguments", [("pin", "--name=a"), ("convert", "--in_place", "--checkpoint_format=both")]
)
def test_what_the_first_format_cannot_is_said(run, tmp_path, kind, arguments):
    run_dir = shutil.copytree(golden_case("2.15", kind).directory, tmp_path / "run")
    before = names_in(run_dir)
    result = run(arguments[0], run_dir, *arguments[1:])
    assert result.code == 2
    assert "TensorFlow's first format (V1) cannot be" in result.err
    assert names_in(run_dir) == before


def test_a_saved_model_without_variables_is_whole(run, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert "saver, 0 data files" in run("inspect", tmp_path).out
    assert run("verify", tmp_path).out.endswith(": whole; 0 keys, 0 B in data files checked\n")


def test_a_source_that_is_saved_again_between_index_and_data_is_not_converted(
    prefix, tmp_path, monkeypatch
):
    link, again = os.link, {name: value + 1 for name, value in VALUES.items()}

    def save_again_and_link(*arguments, **options):
        monkeypatch.undo()
        for path in tmp_path.glob("m-1.*"):
            path.unlink()
        write_bundle(prefix, again)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", save_again_and_link)
    with pytest.raises(NotACheckpointError, match=r"written again .* convert it once more"):
        convert_checkpoint(prefix, tmp_path / "out" / "m", "both")
    assert not (tmp_path / "out").exists()
    convert_checkpoint(prefix, tmp_path / "out" / "m", "both")
    assert open_checkpoint(tmp_path / "out" / "m").global_step == 2


def test_a_tree_may_be_deeper_than_functions_can_call_themselves(tmp_path):
    deepest = f"{tmp_path}/tree" + "/d" * 300
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    try:
        make_dirs(deepest)
        write_bundle(f"{deepest}/m-1", VALUES)
        tasks = find_tasks(f"{tmp_path}/tree", f"{tmp_path}/out", ConvertOptions("both"))
        assert [one.source for one in tasks] == [f"{deepest}/m-1"]
        assert [one.prefix for one in verify_directory(tmp_path).checkpoints] == [f"{deepest}/m-1"]
        assert find_left(str(tmp_path)) == []
    finally:
        sys.setrecursionlimit(limit)

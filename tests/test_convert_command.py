"""The verb convert, as people type it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_process import run_on_terminal, start
from conversion_files import names_in, stock_values, write_bundle
from golden_files import golden_case

import estimator_ckpt
from estimator_ckpt import cli, open_checkpoint
from estimator_ckpt.reading.state import CheckpointState, write_state

ROOT = Path(estimator_ckpt.__file__).parent.parent
KERNEL = np.ones((2, 3), np.float32)
VALUES = {
    "dense/kernel": KERNEL,
    "dense/kernel/Momentum": KERNEL * 2,
    "global_step": np.array(7, np.int64),
}


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES)


@pytest.fixture
def run(capsys):
    """Runs the verb in this process: exit code, standard output and error."""

    def run(*arguments):
        code = cli.main(["convert", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


def test_one_checkpoint(run, source, tmp_path):
    code, out, err = run("--checkpoint_format=both", source, tmp_path / "out")
    assert (code, err) == (0, "")
    assert out == (f"{tmp_path}/out: both, 5 tensors, 548 B; data files: 1 linked, 1 written\n")
    assert open_checkpoint(tmp_path / "out").format == "both"


def test_in_place_and_again(run, source):
    assert run("--checkpoint_format=both", "--in_place", source)[0] == 0
    code, out, _ = run("--checkpoint_format=both", "--in_place", source)
    assert (code, out) == (0, f"{source}: both already\n")


def test_all_the_rules(run, source, tmp_path):
    code, _, err = run(
        "--checkpoint_format=saver",
        r"--rename=(.*)/Momentum:\1/averages/Momentum",
        "--rename=(?:global)_step:step",
        "--assignment_map=dense/:net/",
        "--assignment_map=step:global_step",
        "--exclude=no.*",
        "--dtype=float32:bfloat16",
        source,
        tmp_path / "out",
    )
    assert (code, "exclude[0]" in err) == (2, True)
    code, out, err = run(
        "--checkpoint_format=saver",
        "--rename=(?:global)_step:step",
        "--assignment_map=dense/:net/",
        "--exclude=.*/Momentum",
        "--dtype=float32:bfloat16,int64:int32",
        source,
        tmp_path / "out",
    )
    assert (code, err) == (0, "")
    assert stock_values(tmp_path / "out") == {"net/kernel": KERNEL.tolist(), "step": 7}
    assert "1 left out" in out
    assert "2 keys compared" in out


def test_an_optimizer_with_its_numbers(run, source, tmp_path):
    flags = ["--checkpoint_format=checkpoint", "--optimizer=keras"]
    code, _, err = run(*flags, source, tmp_path / "out")
    assert code == 2
    assert "-learning_rate times" in err
    numbers = "--hyperparameters=learning_rate=0.5,momentum=0.9"
    assert run(*flags, numbers, source, tmp_path / "out")[0] == 0
    found = open_checkpoint(tmp_path / "out").get_tensor("SGD/dense/kernel/momentum")
    assert found.tolist() == (KERNEL * -1).tolist()


def test_the_plan_of_a_dry_run(run, source, tmp_path):
    code, out, err = run(
        "--checkpoint_format=saver", "--drop_slots", "--dry_run", source, tmp_path / "out"
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"source:      {source} (saver)",
        f"destination: {tmp_path}/out (saver)",
        "",
        "action    old key                new key       why                        bytes",
        "--------  ---------------------  ------------  -------------------------  -----",
        "left out  dense/kernel/Momentum                of the optimizer Momentum     24",
        "kept      dense/kernel           dense/kernel                                24",
        "kept      global_step            global_step                                  8",
        "--------  ---------------------  ------------  -------------------------  -----",
        "2 tensors, 32 B; 1 left out",
    ]
    assert names_in(tmp_path) == ["source"]


def test_json(run, source, tmp_path):
    code, out, _ = run("--checkpoint_format=checkpoint", "--json", source, tmp_path / "out")
    found = json.loads(out)
    assert code == 0
    assert (found["source_format"], found["checkpoint_format"]) == ("saver", "checkpoint")
    assert [one["how"] for one in found["data_files"]] == ["link", "write"]
    assert {row["source"] for row in found["rows"]} == {"", *VALUES}


def test_a_directory(run, source, tmp_path):
    write_state(str(tmp_path / "source"), CheckpointState(source, (source,)))
    code, out, err = run("--checkpoint_format=both", tmp_path / "source", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out == (f"[1/1] converted {source} -> {tmp_path}/out/model.ckpt-7\n1 converted\n")
    assert names_in(tmp_path / "out")[0] == "checkpoint"
    log = tmp_path / "log"
    code, out, _ = run("--checkpoint_format=saver", "--in_place", f"--log={log}", tmp_path / "out")
    assert (code, out.splitlines()[-1]) == (0, "1 converted")
    assert json.loads(log.read_text())["status"] == "converted"


def test_in_place_by_rules_and_again(run, source):
    command = ("--checkpoint_format=saver", "--in_place", "--rename=dense/(.*):net/\\1", source)
    assert run(*command)[0] == 0
    for more in ((), ("--dry_run",)):
        code, out, _ = run(*more, *command)
        assert code == 0
        assert out == (
            f"{source}: converted by the same options already; to apply them once more, convert to "
            "a new place\n"
        )
    assert json.loads(run("--json", *command)[1])["already"] is True


def test_values_that_a_cast_makes_0_are_told(run, tmp_path):
    source = write_bundle(tmp_path / "source" / "m", {"x": np.float32([1e-9, 1])})
    told = "values too small for their new dtype became 0: 1 of x"
    arguments = ("--checkpoint_format=saver", "--dtype=float16")
    code, _, err = run(*arguments, source, tmp_path / "out")
    assert (code, err) == (0, f"estimator-ckpt: {told}\n")
    code, out, _ = run(*arguments, tmp_path / "source", tmp_path / "tree")
    assert (code, out.splitlines()[0]) == (
        0,
        f"[1/1] converted {source} -> {tmp_path}/tree/m: {told}",
    )


def test_a_directory_with_a_failure(run, source, tmp_path):
    broken = write_bundle(tmp_path / "source" / "model.ckpt-8", VALUES)
    Path(f"{broken}.index").write_bytes(b"")
    code, out, err = run(
        "--checkpoint_format=both", "--json", tmp_path / "source", tmp_path / "out"
    )
    found = json.loads(out)
    assert code == 2
    assert found["totals"] == {"converted": 1, "planned": 0, "already": 0, "failed": 1}
    assert err == ""
    code, out, err = run("--checkpoint_format=both", tmp_path / "source", tmp_path / "out")
    assert code == 2
    assert out.splitlines()[-1] == "1 already, 1 failed"
    assert f"{broken}.index" in err


def test_quietly(run, source, tmp_path):
    Path(f"{write_bundle(tmp_path / 'source' / 'model.ckpt-8', VALUES)}.index").write_bytes(b"")
    code, out, err = run(
        "--checkpoint_format=both", "--quiet", tmp_path / "source", tmp_path / "out"
    )
    assert (code, out) == (2, "1 converted, 1 failed\n")
    assert err.startswith(f"estimator-ckpt: {tmp_path}/source/model.ckpt-8.index: ")


def test_state_files_are_told_for_themselves(run, source, tmp_path):
    (tmp_path / "source" / "checkpoint").write_bytes(b"\xff")
    arguments = ("--checkpoint_format=both", tmp_path / "source", tmp_path / "out")
    code, out, err = run(*arguments)
    assert code == 2
    assert out.splitlines()[-2:] == ["1 converted", "`checkpoint` files: 1 failed"]
    assert err.startswith(f"estimator-ckpt: {tmp_path}/source/checkpoint: ")
    code, out, _ = run("--json", *arguments)
    found = json.loads(out)
    assert code == 2
    assert found["totals"] == {"converted": 0, "planned": 0, "already": 1, "failed": 0}
    assert [one["source"] for one in found["state_files"]] == [f"{tmp_path}/source/checkpoint"]


def test_what_does_not_go_along_is_told(run, source, tmp_path):
    for name in ("graph.pbtxt", "warm_start.json", "events.out.tfevents.1", "model.ckpt-7.meta"):
        (tmp_path / "source" / name).write_bytes(b"")
    (tmp_path / "source" / "eval").mkdir()
    code, out, _ = run("--checkpoint_format=both", tmp_path / "source", tmp_path / "out")
    assert code == 0
    assert out.splitlines()[1:] == [
        "1 converted",
        ".meta files: 0 restore from the results, 1 do not",
        "not taken along: 1 eval/, 1 event file, 1 graph.pbtxt, 1 warm_start.json",
    ]
    code, out, _ = run("--checkpoint_format=both", "--json", tmp_path / "source", tmp_path / "new")
    found = json.loads(out)
    assert found["not_taken_along"] == [
        f"{tmp_path}/source/{name}"
        for name in ("eval/", "events.out.tfevents.1", "graph.pbtxt", "warm_start.json")
    ]
    (companion,) = found["checkpoints"][0]["conversion"]["companions"]
    assert companion == {
        "path": f"{source}.meta",
        "how": "left out",
        "why": "it does not tell which keys its Saver restores",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "--beam=", "SOURCE", "out"], "--beam needs --log"),
        (["convert", "--beam=", "--log=log", "--dry_run", "SOURCE", "out"], "nor with --dry_run"),
        (["convert", "--beam=", "--log=log", "--in_place", "SOURCE"], "with --in_place"),
        (["convert", "--beam=", "--log=log", "SOURCE/model.ckpt-7", "out"], "is for a directory"),
        (["convert", "--beam='--a", "--log=log", "SOURCE", "out"], "--beam: No closing quotation"),
        (["convert", "--beam=Direct", "--log=log", "SOURCE", "out"], "expected flags of Beam"),
        (["verify", "--beam=", "SOURCE"], "--beam and --log belong together"),
        (["verify", "--log=log", "SOURCE"], "--beam and --log belong together"),
        (["verify", "--beam=", "--log=log", "--newest", "SOURCE"], "with --newest"),
    ],
)
def test_what_does_not_go_with_many_machines(arguments, message, source, tmp_path, capsys):
    texts = [one.replace("SOURCE", str(tmp_path / "source")) for one in arguments[1:]]
    flags = ["--checkpoint_format=both"] if arguments[0] == "convert" else []
    assert cli.main([arguments[0], *flags, *texts]) == 2
    assert message in capsys.readouterr().err


# --- a terminal, a pipe, Ctrl-C ---


def many(directory, count):
    for number in range(count):
        write_bundle(directory / f"model.ckpt-{number}", {"x": np.float32(number)})
    return directory


def test_a_terminal_has_a_bar_for_all_and_then_the_failures(tmp_path):
    tree = many(tmp_path / "source", 12)
    (tree / "model.ckpt-3.index").write_bytes(b"")
    code, shown = run_on_terminal("convert", "--checkpoint_format=both", tree, tmp_path / "out")
    assert code == 2
    assert "12/12 0:00:00" in shown
    assert "] converted " not in shown
    assert "11 converted, 1 failed\r\n" in shown
    assert f"estimator-ckpt: {tree}/model.ckpt-3.index: " in shown


def test_a_terminal_that_cannot_draw_a_line_anew_has_lines(tmp_path):
    tree = many(tmp_path / "source", 2)
    arguments = ("convert", "--checkpoint_format=both", tree, tmp_path / "out")
    code, shown = run_on_terminal(*arguments, term="dumb")
    assert code == 0
    assert [line[:15] for line in shown.splitlines()] == [
        "[1/2] converted",
        "[2/2] converted",
        "2 converted",
    ]


def test_an_interrupted_run_says_how_far_it_came_and_goes_on(tmp_path):
    tree = many(tmp_path / "source", 80)
    command = ("convert", "--checkpoint_format=both", tree, tmp_path / "out")
    process = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"[1/80] converted ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    (count,) = re.findall(
        r"^estimator-ckpt: interrupted after (\d+) of 80 checkpoints; "
        r"the same command goes on from there\n$",
        err.decode(),
    )
    assert out.decode().splitlines()[-1] == f"{count} converted"
    done = start(*command, "--json", stdout=subprocess.PIPE)
    totals = json.loads(done.communicate()[0])["totals"]
    assert totals["already"] in (int(count), int(count) + 1)  # one may just have been through
    assert totals["already"] + totals["converted"] == 80


def test_a_saved_model_is_one_checkpoint(run, tmp_path):
    case = golden_case("2.15", "saved_model_tf1")
    assert run("--checkpoint_format=checkpoint", case.directory, tmp_path / "out")[0] == 0
    assert open_checkpoint(tmp_path / "out").format == "checkpoint"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint_format is missing"),
        (["--checkpoint_format=both", "a"], "expected two paths"),
        (["--checkpoint_format=both", "--in_place", "a", "b"], "expected one path"),
        (["--checkpoint_format=tf2", "a", "b"], "tf2"),
        (["--checkpoint_format=both", "--rename=a", "a", "b"], "expected FROM:TO"),
        (["--checkpoint_format=both", "--hyperparameters=a", "a", "b"], "expected NAME=NUMBER"),
        (["--checkpoint_format=both", "--dtype=half", "a", "b"], "dtype"),
        (["--checkpoint_format=both", "--log=x", "a", "b"], "--log is for a directory"),
        (["--checkpoint_format=both", "nothing", "b"], "nothing.index"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


# Linux tells the most memory that a process has ever held; getrusage() counts its parent's, too.
MEASURED = """
import re, sys
from estimator_ckpt import cli
code = cli.main(sys.argv[1:])
assert not {'tensorflow', 'numpy', 'rich'} & sys.modules.keys()
with open("/proc/self/status") as file:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", file.read()).group(1))
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it there")
def test_the_command_imports_neither_tensorflow_nor_numpy_and_takes_little_memory(tmp_path):
    data = np.zeros(1 << 20, np.float32)
    source = write_bundle(tmp_path / "m", {f"layer_{n}/kernel": data for n in range(30)})
    command = [sys.executable, "-c", MEASURED, "convert", "--checkpoint_format=both", source]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(done.stdout.split()[-1]) < 80_000  # kB, with 126 MB of data

"""Many machines, as Apache Beam has them: the same results as one, whatever breaks off or repeats.

Beam's DirectRunner stands for the others: in several processes where they matter, else in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, command_runner
from command_process import start
from conversion_files import write_bundle
from golden_files import golden_case

from estimator_ckpt.checking.audit import AuditReport, verify_directory
from estimator_ckpt.conversion.batch import convert_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.errors import (
    NotACheckpointError,
    RunError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files import claims
from estimator_ckpt.files.log import new_shards, read_lines
from estimator_ckpt.reading.state import CheckpointState, write_state
from estimator_ckpt.verify import VerifyReport

pytestmark = pytest.mark.beam

ONE_PROCESS = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]
TWO_PROCESSES = [
    "--runner=DirectRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
]
BOTH = ConvertOptions("both")
BFLOAT16 = ConvertOptions("both", dtype="bfloat16")
COPY = ConvertOptions("checkpoint", copy=True)


@pytest.fixture
def beam():
    from estimator_ckpt import beam

    return beam


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


def model_dir(directory: Path, count: int, size: int = 2) -> list[str]:
    prefixes = [
        write_bundle(
            directory / f"model.ckpt-{step}",
            {"x": np.full([size], step, np.float32), "global_step": np.int64(step)},
        )
        for step in range(count)
    ]
    times = tuple(1e9 + step for step in range(count))
    write_state(str(directory), CheckpointState(prefixes[-1], tuple(prefixes), times))
    return prefixes


@pytest.fixture
def tree(tmp_path):
    """Two model_dirs, one below the other, each with a checkpoint that is broken."""
    root = tmp_path / "jobs"
    model_dir(root / "one", 12)
    model_dir(root / "one" / "two", 3)
    (root / "one" / "model.ckpt-10.index").write_bytes(b"no index")
    os.truncate(root / "one" / "two" / "model.ckpt-2.data-00000-of-00001", 3)
    return root


def all_files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def told(outcomes, destination):
    return [
        (one.status, one.source, one.message.replace(str(destination), "DESTINATION"), one.is_state)
        for one in outcomes
    ]


# --- the same as on one machine ---


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (BFLOAT16, TWO_PROCESSES),
        (BOTH, ONE_PROCESS),
        (ConvertOptions("saver", copy=True), ONE_PROCESS),
    ],
)
def test_results_and_outcomes_are_those_of_one_machine(beam, options, arguments, tree, tmp_path):
    one, many, log = tmp_path / "one", tmp_path / "many", tmp_path / "log"
    expected = convert_directory(tree, one, options)
    outcomes = beam.convert_directory(tree, many, options, log=log, arguments=arguments)
    assert told(outcomes, many) == told(expected, one)
    assert [outcome.status for outcome in outcomes].count("failed") == 2
    assert all_files(many) == all_files(one)


@pytest.mark.parametrize("arguments", [TWO_PROCESSES, ONE_PROCESS])
def test_verify_tells_what_one_machine_tells(beam, arguments, tree, tmp_path):
    (tree / "one" / "model.ckpt-99.data-00000-of-00001").write_bytes(b"")
    (tree / "one" / "two" / "checkpoint").write_bytes(b"\xff")
    (tree / "one" / "model.ckpt-5.index.converting").write_bytes(b"")
    report = beam.verify_directory(tree, log=tmp_path / "log", arguments=arguments)
    assert report == verify_directory(tree)
    assert [len(report.checkpoints), len(report.faults), len(report.notes)] == [15, 2, 1]


def test_a_checkpoint_in_the_v1_format(beam, tmp_path):
    source = golden_case("2.15", "v1_format").directory
    for status in ("converted", "already"):
        (outcome,) = beam.convert_directory(
            source, tmp_path / "out", BOTH, log=tmp_path / "log", arguments=ONE_PROCESS
        )
        assert outcome.status == status
    expected = convert_directory(source, tmp_path / "one", BOTH)
    assert [one.status for one in expected] == ["converted"]
    assert all_files(tmp_path / "out") == all_files(tmp_path / "one")
    report = beam.verify_directory(source, log=tmp_path / "verified", arguments=ONE_PROCESS)
    assert report == verify_directory(source)


def test_the_transforms_stand_in_a_pipeline_of_ones_own(beam, tree, tmp_path):
    import apache_beam
    from apache_beam.testing.util import assert_that, equal_to

    with apache_beam.Pipeline(argv=ONE_PROCESS) as pipeline:
        outcomes = pipeline | beam.ConvertDirectory(tree, tmp_path / "out", BOTH)
        counts = (
            outcomes
            | apache_beam.Map(lambda one: one.status)
            | (apache_beam.combiners.Count.PerElement())
        )
        assert_that(counts, equal_to([("converted", 13), ("failed", 2)]), label="converted")
        kinds = (
            pipeline
            | beam.VerifyDirectory(tree)
            | "Kind" >> apache_beam.Map(lambda one: (type(one).__name__, one.ok))
            | "Kinds" >> apache_beam.combiners.Count.PerElement()
        )
        expected = [
            ((VerifyReport.__name__, True), 13),
            ((VerifyReport.__name__, False), 2),
            ((AuditReport.__name__, True), 3),
        ]
        assert_that(kinds, equal_to(expected), label="verified")
    assert not list(tmp_path.glob("*.jsonl"))


def test_remote_paths(beam, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    model_dir(tmp_path / "run", 3)
    memory.put(f"{tmp_path}/run/", "memory://run/", recursive=True)
    place = {"log": "memory://logs/log", "arguments": ONE_PROCESS}
    outcomes = beam.convert_directory("memory://run", "memory://out", BFLOAT16, **place)
    assert [one.status for one in outcomes] == ["converted"] * 3
    again = beam.convert_directory("memory://run", "memory://out", BFLOAT16, **place)
    assert [one.message for one in again] == ["the log has it"] * 3
    memory.get("memory://out/", f"{tmp_path}/out/", recursive=True)
    convert_directory(tmp_path / "run", tmp_path / "one", BFLOAT16)
    assert all_files(tmp_path / "out") == all_files(tmp_path / "one")
    report = beam.verify_directory("memory://out", log="memory://logs/v", arguments=ONE_PROCESS)
    assert report.ok
    assert len(report.checkpoints) == 3


# --- twice, at once, broken off ---


def test_two_runs_at_once_are_as_one(tmp_path):
    model_dir(tmp_path / "run", 30, size=100_000)
    arguments = ("convert", "--checkpoint_format=both", "--dtype=bfloat16", "--json")
    runs = [
        start(
            *arguments,
            f"--log={tmp_path}/log",
            f"--beam={' '.join(ONE_PROCESS)}",
            tmp_path / "run",
            tmp_path / "out",
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    totals = [json.loads(one.communicate()[0])["totals"] for one in runs]
    assert [one.returncode for one in runs] == [0, 0]
    assert sum(one["converted"] for one in totals) == 30
    assert all(one["converted"] + one["already"] == 30 for one in totals)
    convert_directory(tmp_path / "run", tmp_path / "one", BFLOAT16)
    assert all_files(tmp_path / "out") == all_files(tmp_path / "one")


def test_an_element_that_is_acted_on_twice_at_once(beam, tmp_path):
    from estimator_ckpt.beam.converting import _convert
    from estimator_ckpt.conversion.trees import find_tasks

    model_dir(tmp_path / "run", 10, size=100_000)
    tasks = find_tasks(str(tmp_path / "run"), str(tmp_path / "out"), BFLOAT16)

    def act(task):
        (((_, outcome), _),) = _convert(BFLOAT16, ("", {"tasks": [task], "logged": []}))
        return outcome.status

    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(act, [task for task in tasks for _ in range(3)]))
    triples = [sorted(statuses[n : n + 3]) for n in range(0, len(statuses), 3)]
    assert triples == [["already", "already", "converted"]] * 10


def worker_processes(session: int) -> list[int]:
    """The processes of Beam's workers in a session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            command = (process / "cmdline").read_bytes().split(b"\0")
            is_worker = b"apache_beam.runners.worker.sdk_worker_main" in command
            if is_worker and os.getsid(int(process.name)) == session:
                found.append(int(process.name))
    return found


def test_a_run_whose_worker_is_killed_goes_on(beam, tmp_path):
    model_dir(tmp_path / "run", 60, size=400_000)
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(
        "convert",
        "--checkpoint_format=both",
        "--dtype=bfloat16",
        f"--log={log}",
        f"--beam={' '.join(TWO_PROCESSES)}",
        tmp_path / "run",
        out,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while len(list(out.glob("*.index"))) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(worker_processes(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.decode().splitlines()[-1].startswith("estimator-ckpt: the run broke off: ")
    before = len(list(out.glob("*.index")))
    assert before < 60
    assert not (out / "checkpoint").exists()
    outcomes = beam.convert_directory(
        tmp_path / "run", out, BFLOAT16, log=log, arguments=ONE_PROCESS
    )
    assert {one.status for one in outcomes} <= {"converted", "already"}
    # One that had its index may have been without its last word.
    assert before - 1 <= sum(one.status == "already" for one in outcomes) <= before
    convert_directory(tmp_path / "run", tmp_path / "one", BFLOAT16)
    assert all_files(out) == all_files(tmp_path / "one")


def test_what_a_dead_worker_left_on_a_remote_path_is_taken_over(beam, tmp_path, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    model_dir(tmp_path / "run", 2)
    memory.put(f"{tmp_path}/run/", "memory://left/run/", recursive=True)
    result = "memory://left/out/model.ckpt-1"
    claims.acquire(f"{result}.converting", "a conversion").abandon()
    claim = json.loads(memory.cat(f"{result}.converting"))
    other_machine = {**claim, "beat": "0000000000", "boot": "another", "host": "worker-7"}
    memory.pipe(f"{result}.converting", json.dumps(other_machine).encode())
    memory.pipe(f"{result}.data-00000-of-00001", b"half of it")
    monkeypatch.setattr(claims, "STALE", 1.0)
    outcomes = beam.convert_directory(
        "memory://left/run",
        "memory://left/out",
        BOTH,
        log="memory://left/log",
        arguments=ONE_PROCESS,
    )
    assert [one.status for one in outcomes] == ["converted"] * 2
    memory.get("memory://left/out/", f"{tmp_path}/out/", recursive=True)
    convert_directory(tmp_path / "run", tmp_path / "one", ConvertOptions("both", copy=True))
    assert all_files(tmp_path / "out") == all_files(tmp_path / "one")


# --- the log ---


def test_what_the_log_has_is_not_done_again_here_or_on_one_machine(beam, tree, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    first = convert_directory(tree / "one" / "two", out / "one" / "two", BOTH, log=log)
    assert [one.status for one in first] == ["converted", "converted", "failed"]
    outcomes = beam.convert_directory(tree, out, BOTH, log=log, arguments=ONE_PROCESS)
    by_log = [one.source for one in outcomes if one.message == "the log has it"]
    assert by_log == [one.source for one in first[:2]]
    assert sum(one.status == "converted" for one in outcomes) == 11
    again = convert_directory(tree, out, BOTH, log=log)
    assert sum(one.message == "the log has it" for one in again) == 13
    # What is not so any more does not count.
    write_bundle(tree / "one" / "model.ckpt-3", {"x": np.float32([7])})
    changed = beam.convert_directory(tree, out, BOTH, log=log, arguments=ONE_PROCESS)
    (failed,) = [one for one in changed if one.source.endswith("one/model.ckpt-3")]
    assert "another checkpoint is there" in failed.message


def test_a_verify_run_that_was_broken_off_goes_on(beam, tmp_path):
    prefixes = model_dir(tmp_path / "run", 4)
    log = tmp_path / "log"
    place = {"log": log, "arguments": ONE_PROCESS}
    beam.verify_directory(tmp_path / "run", **place)
    lines = [line for _, _, line in read_lines(str(log)) if line["path"] != prefixes[3]]
    for shard in tmp_path.glob("log-*.jsonl"):
        shard.unlink()
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_bundle(prefixes[0], {"x": np.float32([7])})  # written again: it is another one
    for prefix in (prefixes[0], prefixes[1], prefixes[3]):
        data = Path(f"{prefix}.data-00000-of-00001")
        data.write_bytes(bytes(len(data.read_bytes())))
    report = beam.verify_directory(tmp_path / "run", **place)
    faulty = {one.path for one in report.checkpoints if not one.ok}
    assert faulty == {prefixes[0], prefixes[3]}  # not [1]: the log has it
    assert report.notes == ("the log has 2 checkpoints as whole; they were not read again",)
    assert len(verify_directory(tmp_path / "run").checkpoints) == len(report.checkpoints)


def test_a_log_that_the_workers_do_not_share_is_an_error(beam, tmp_path):
    from estimator_ckpt.beam.running import check_complete

    shards = new_shards(str(tmp_path / "log"))
    check_complete(shards, 2, [2])
    for count, expected in ((0, []), (1, [2]), (0, [1, 1])):
        with pytest.raises(RunError, match="share"):
            check_complete(shards, count, expected)


# --- what is refused, what fails ---


def test_what_cannot_be_done_on_many_machines_is_refused(beam, tree, tmp_path):
    with pytest.raises(SettingsError, match="name a destination"):
        beam.ConvertDirectory(tree, tmp_path / "out", ConvertOptions("both", in_place=True))

    class Template:
        def write(self): ...

    with pytest.raises(SettingsError, match="expected a checkpoint's path"):
        beam.ConvertDirectory(tree, tmp_path / "out", ConvertOptions("both", like=Template()))


def test_a_wrong_log_is_told_before_anything_is_done(beam, tree, tmp_path):
    (tmp_path / "log").write_text('{"other": 1}\n')
    with pytest.raises(SettingsError, match="line 1 is none of such a log"):
        beam.convert_directory(tree, tmp_path / "out", BOTH, log=tmp_path / "log")
    with pytest.raises(SettingsError, match="line 1 is none of such a log"):
        beam.verify_directory(tree, log=tmp_path / "log")
    with pytest.raises(WriteError, match="there is no directory"):
        beam.convert_directory(tree, tmp_path / "out", BOTH, log=tmp_path / "no" / "log")
    assert not (tmp_path / "out").exists()


def test_a_tree_without_checkpoints(beam, tmp_path):
    (tmp_path / "empty").mkdir()
    place = {"log": tmp_path / "log", "arguments": ONE_PROCESS}
    for path, message in (("empty", "no checkpoint is in it, nor below"), ("no", "cannot list")):
        (outcome,) = beam.convert_directory(tmp_path / path, tmp_path / "out", BOTH, **place)
        assert outcome.status == "failed"
        assert message in outcome.message
    place["log"] = tmp_path / "verified"
    with pytest.raises(NotACheckpointError, match="no checkpoint is in it, nor below"):
        beam.verify_directory(tmp_path / "empty", **place)
    report = beam.verify_directory(tmp_path / "no", **place)
    assert [fault.kind for fault in report.faults] == ["unreadable"]


def test_the_command(run, tree, tmp_path):
    beam_flag = f"--beam={' '.join(ONE_PROCESS)}"
    place = (f"--log={tmp_path}/log", beam_flag)
    code, out, err = run("convert", "--checkpoint_format=both", *place, tree, tmp_path / "out")
    assert code == 2
    assert out == "13 converted, 2 failed\n"
    assert err.count("estimator-ckpt: ") == 2
    code, out, _ = run("verify", f"--log={tmp_path}/verified", beam_flag, tree)
    assert code == 1
    assert out.splitlines()[-1] == f"{tree}: 13 of 15 checkpoints whole"


def test_the_commands_of_the_page(run, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree.rename("runs")
    page = (Path(__file__).parents[1] / "docs" / "many_checkpoints.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if "--direct_num_workers=0" in line]
    program, *arguments = shlex.split(commands[0])
    assert program == "estimator-ckpt"
    code, out, _ = run(*arguments)
    assert (code, out) == (2, "13 converted, 2 failed\n")
    program, *arguments = shlex.split(commands[1])
    code, out, _ = run(*arguments)
    assert (code, out.splitlines()[-1]) == (1, f"{tmp_path}/runs: 13 of 15 checkpoints whole")

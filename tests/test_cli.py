"""The command, run as people run it: its output, its exit codes, its errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, Run, command_runner, model, objects
from stock_files import data_file, flip, save

import estimator_ckpt
from estimator_ckpt import cli
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, write_index

ROOT = Path(estimator_ckpt.__file__).parent.parent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


def process(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [sys.executable, "-m", "estimator_ckpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, text=True, **options)


# --- verify ---


def test_a_whole_checkpoint_is_verified(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("verify", prefix) == Result(
        0, f"{prefix}: whole; 5 keys, 92 B in data files checked\n", ""
    )


def test_faults_are_listed(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    flip(data_file(prefix), 1)
    result = run("verify", prefix)
    assert result.code == 1
    header, _, fault, _, total = result.out.splitlines()
    assert header.split() == ["fault", "key", "byte", "file", "what"]
    assert fault.split()[:4] == ["checksum", "dense/kernel", "0", data_file(prefix)]
    assert total == f"{prefix}: 1 fault"


def test_several_checkpoints_are_verified_whatever_happens(run: Run, tmp_path: Path) -> None:
    good = model(tmp_path)
    bad = save(tmp_path / "bad", {"v": [1.0]})
    flip(data_file(bad), 1)
    assert run("verify", good, bad).code == 1
    assert run("verify", bad, good).code == 1
    result = run("verify", tmp_path / "nothing", bad, good)
    assert result.code == 2
    assert "nothing.index" in result.err
    assert f"{good}: whole" in result.out
    assert f"{bad}: 1 fault" in result.out


def test_faults_as_json(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    flip(data_file(prefix), 1)
    (report,) = json.loads(run("verify", prefix, "--json").out)
    (fault,) = report.pop("faults")
    assert fault.pop("message").startswith("checksum: stored ")
    assert fault == {
        "kind": "checksum",
        "file": data_file(prefix),
        "key": "dense/kernel",
        "offset": 0,
    }
    assert report == {
        "ok": False,
        "path": prefix,
        "prefix": prefix,
        "notes": [],
        "keys": 5,
        "checked_bytes": 92,
        "unused_bytes": 0,
        "input_bytes": 0,
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_is_for_long_reads_on_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from estimator_ckpt.text import progress

    prefix = model(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run("verify", prefix).code == 0
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    assert run("verify", prefix).code == 0
    assert "verifying /" in sys.stderr.getvalue()
    assert "/model.ckpt-7 " in sys.stderr.getvalue()  # what lies between may be cut


# --- compare ---


def test_the_same_values_compare_equal(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    result = run("compare", prefix, tmp_path)
    assert result.code == 0
    assert result.out == f"A: {prefix}\nB: {prefix}\n\n5 same\n"


def test_differences_are_listed_and_exit_with_1(run: Run, tmp_path: Path) -> None:
    a = save(tmp_path / "a", {"l0": np.float32([1]), "l1": np.float32([1]), "x": np.int32(1)})
    b = save(tmp_path / "b", {"l0": np.float32([2]), "l1": np.float32([3])})
    assert run("compare", a, b) == Result(
        1,
        f"A: {a}\n"
        f"B: {b}\n"
        "\n"
        "name    status     A           B           note\n"
        f"------  ---------  ----------  ----------  {'-' * 40}\n"
        "l{0,1}  changed    float32[1]  float32[1]  2 of 2 differ, max abs 2, max rel 0.6667\n"
        "x       only in A  int32[]\n"
        f"------  ---------  ----------  ----------  {'-' * 40}\n"
        "2 changed, 1 only in A\n",
        "",
    )


def test_every_variable_is_listed_if_asked_for(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    lines = run("compare", prefix, prefix, "--all").out.splitlines()
    assert len([line for line in lines if " same " in line]) == 5


def test_tolerances(run: Run, tmp_path: Path) -> None:
    a = save(tmp_path / "a", {"v": np.float32([1])})
    b = save(tmp_path / "b", {"v": np.float32([1.01])})
    assert run("compare", a, b).code == 1
    assert run("compare", a, b, "--rtol=0.1").code == 0
    assert run("compare", a, b, "--atol=0.1").code == 0
    assert run("compare", a, b, "--atol=-1").code == 2


def test_differences_as_json(run: Run, tmp_path: Path) -> None:
    a = save(tmp_path / "a", {"v": np.float32([1, 2])})
    b = save(tmp_path / "b", {"v": np.float32([1, 4])})
    tensor = {"name": "v", "key": "v", "shape": [2], "dtype": "float32"}
    assert json.loads(run("compare", a, b, "--json").out) == {
        "a": a,
        "b": b,
        "equal": False,
        "notes": [],
        "variables": [
            {
                "status": "changed",
                "name": "v",
                "a": tensor,
                "b": tensor,
                "difference": {
                    "count": 2,
                    "differing": 1,
                    "max_abs": 2.0,
                    "max_rel": 0.5,
                    "nan_a": 0,
                    "nan_b": 0,
                    "inf_a": 0,
                    "inf_b": 0,
                },
            }
        ],
    }


def test_what_cannot_be_compared_exits_with_2(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("compare", prefix, tmp_path / "nothing").code == 2


# --- usage ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["usage: estimator-ckpt VERB", "inspect", "verify", "compare", "Exit codes:"]),
        (["inspekt"], ["no verb 'inspekt'", "did you mean 'inspect'?"]),
        (
            ["inspect"],
            ["a directory with checkpoints, found none", "Try: estimator-ckpt inspect --help"],
        ),
        (["inspect", "a", "b"], ["expected one path", "found 2"]),
        (["inspect", "a", "--file_name=b"], ["expected one path", "found 2"]),
        (["inspect", "a", "--tensr=x"], ["no flag --tensr", "did you mean '--tensor'"]),
        (["inspect", "a", "-v"], ["no flag -v"]),
        (["inspect", "a", "--filter=("], ["--filter: '(' is no regular expression"]),
        (["inspect", "a", "--sort=age"], ["age"]),
        (["inspect", "a", "--tree", "--tensor=x"], ["--tree, --tensor", "one at most"]),
        (["inspect", "a", "--tensor=x", "--tensor_name=y"], ["--tensor_name", "one at most"]),
        (["inspect", "a", "--values"], ["--values needs --tensor=NAME"]),
        (["inspect", "a", "--tree", "--filter=x"], ["--filter is for a list", "not for --tree"]),
        (["inspect", "a", "--tensor=x", "--sort=size"], ["--sort is for a list", "--tensor"]),
        (["inspect", "a", "--tensor"], ["tensor"]),
        (["verify"], ["expected one path or more, found none"]),
        (["compare", "a"], ["expected two paths, found 1"]),
        (["compare", "a", "b", "--rtol=x"], ["rtol"]),
        (["compare", "a", "b", "--atol=nan"], ["--atol: expected a number, found nan"]),
        (["help", "nothing"], ["no verb 'nothing'"]),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(
    arguments: list[str], words: list[str], run: Run
) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "option",
    [
        "nonsense=1",
        "threshold",
        "threshold=many",
        "=1",
        "precision=-1",
        "suppress=2",
        "formatter=f",
    ],
)
def test_wrong_print_options(option: str, run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--all_tensors", f"--printoptions={option}")
    assert (result.code, result.out) == (2, "")
    assert "--printoptions" in result.err


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["-h"]])
def test_help(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert (result.code, result.err) == (0, "")
    for verb in cli.VERBS:
        assert f"\n  {verb} " in result.out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself_and_all_its_flags(verb: str, run: Run) -> None:
    from absl import flags

    result = run(verb, "--help")
    assert result == run("help", verb) == run(verb, "-h", "--no_such_flag")
    assert result.code == 0
    assert result.out.startswith(f"usage: estimator-ckpt {verb}")
    assert "Exit codes:" in result.out
    values: Any = flags.FlagValues()
    cli.command(verb).define(values)
    for name in values:
        assert f"  --{name}" in result.out or f"  --[no]{name}" in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in cli.VERBS:
        assert f"estimator-ckpt {verb}" in text


def test_any_broken_file_is_one_line_without_a_traceback(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    index = Path(f"{prefix}.index").read_bytes()
    for verb, paths in (("inspect", 1), ("compare", 2)):
        for size in range(0, len(index), 7):
            Path(f"{prefix}.index").write_bytes(index[:size])
            result = run(verb, *[prefix] * paths)
            assert (result.code, result.out) == (2, "")
            assert result.err.count("\n") == 1


# --- the process ---


def test_the_module_is_the_command(tmp_path: Path) -> None:
    result = process("inspect", model(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert "dense/kernel" in result.stdout
    assert process("inspect", tmp_path / "nothing").returncode == 2


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    entries = {b"w%05d" % n: Entry(1, (), 0, 0, 4, 0) for n in range(20_000)}
    write_index(str(tmp_path / "m"), Index(1, entries))
    Path(data_file(str(tmp_path / "m"))).write_bytes(bytes(4))
    command = f'"{sys.executable}" -m estimator_ckpt inspect {tmp_path}/m; echo $? >&2'
    result = subprocess.run(
        f"({command}) | head -1", shell=True, capture_output=True, cwd=ROOT, text=True
    )
    assert result.stdout.startswith(f"{tmp_path}/m: saver")
    assert result.stderr == "141\n"


def test_an_output_without_space_is_an_error(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m estimator_ckpt inspect {model(tmp_path)} > /dev/full'
    result = subprocess.run(command, shell=True, capture_output=True, cwd=ROOT, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        "estimator-ckpt: the output cannot be written: No space left on device\n"
    )


def test_a_closed_output_stays_empty(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m estimator_ckpt inspect {model(tmp_path)} >&-'
    result = subprocess.run(command, shell=True, capture_output=True, cwd=ROOT, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"layer_ü": np.float32(1), "字": np.float32(2)})
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = process("inspect", prefix, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "layer_\\xfc" in result.stdout


@pytest.mark.parametrize(
    ("flags", "absent"),
    [
        ([], ["numpy", "rich", "tensorflow", "ml_dtypes"]),
        (["--tree"], ["numpy", "rich", "tensorflow", "ml_dtypes"]),
        (["--json"], ["numpy", "rich", "tensorflow", "ml_dtypes"]),
        (["--tensor=dense/kernel"], ["rich", "tensorflow"]),
    ],
)
def test_a_listing_starts_without_heavy_packages(
    flags: list[str], absent: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys; from estimator_ckpt.cli import main; code = main(sys.argv[1:]); "
        f"print(code, [n for n in {absent} if n in sys.modules], file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", code, "inspect", objects(tmp_path), *flags]
    result = subprocess.run(arguments, capture_output=True, cwd=ROOT, text=True)
    assert result.stderr == "0 []\n"


@pytest.mark.parametrize("verb", ["inspect", "verify", "compare", "check", "convert", "export"])
def test_small_files_are_read_without_what_is_slow_to_import(verb: str, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    more: dict[str, list[str]] = {
        "compare": [prefix],
        "check": [f"--model={prefix}"],
        "convert": ["--checkpoint_format=both", "--dry_run", str(tmp_path / "new")],
        "export": ["--dry_run", str(tmp_path / "new.npz")],
    }
    slow = ["numpy", "rich", "msgspec", "yaml", "ml_dtypes", "cramjam", "tensorflow"]
    code = (
        "import sys; from estimator_ckpt.cli import main; code = main(sys.argv[1:]); "
        f"print(code, [n for n in {slow} if n in sys.modules], file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", code, verb, prefix, *more.get(verb, [])]
    result = subprocess.run(arguments, capture_output=True, cwd=ROOT, text=True)
    assert result.stderr == "0 []\n"

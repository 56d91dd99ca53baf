"""The command, run as people run it: its output, its exit codes, its errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from goldens_helper import golden_case
from stock_files import data_file, flip, save, value

import estimator_ckpt
from estimator_ckpt import cli
from estimator_ckpt.bundle.index import Entry, Index, write_index
from estimator_ckpt.object_graph import ObjectGraph

ROOT = Path(estimator_ckpt.__file__).parent.parent
NAN, INF = float("nan"), float("inf")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process."""

    def run(*arguments: Any) -> Result:
        code = cli.main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def process(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [sys.executable, "-m", "estimator_ckpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, text=True, **options)


def model(directory: Path, **more: Any) -> str:
    """A small model with Adam's slots."""
    kernel, bias = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([1, NAN, INF])
    tensors = {
        "dense/kernel": kernel,
        "dense/kernel/Adam": kernel / 2,
        "dense/kernel/Adam_1": kernel / 4,
        "dense/bias": bias,
        "global_step": np.int64(7),
        **more,
    }
    return save(directory / "model.ckpt-7", tensors)


def objects(directory: Path) -> str:
    """Objects with a cycle, a shared one and one without values."""
    graph = ObjectGraph()
    net = graph.add(0, "net")
    kernel = graph.add(net, "kernel", value("dense/kernel", "net/kernel/.ATTRIBUTES/V"))
    graph.add(net, "empty")
    graph.link(net, "up", 0)
    graph.link(0, "again", net)
    graph.link(0, "k/el", kernel)
    return save(directory / "ckpt-1", {"net/kernel/.ATTRIBUTES/V": np.float32([1, 2])}, graph)


# --- inspect: the listing ---


def test_the_variables_are_listed_by_scope_with_totals(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("inspect", prefix) == Result(
        0,
        f"{prefix}: saver, global step 7, 1 data file\n"
        "\n"
        "name                 shape  dtype    bytes  slot of\n"
        "-------------------  -----  -------  -----  ----------------\n"
        "global_step          []     int64        8\n"
        "dense/bias           [3]    float32     12\n"
        "dense/kernel         [2,3]  float32     24\n"
        "dense/kernel/Adam    [2,3]  float32     24  dense/kernel (m)\n"
        "dense/kernel/Adam_1  [2,3]  float32     24  dense/kernel (v)\n"
        "-------------------  -----  -------  -----  ----------------\n"
        "5 variables, 22 values, 92 B; 2 of them optimizer slots, 48 B (52.2 %)\n"
        "\n"
        "scope        variables  bytes   share\n"
        "-----------  ---------  -----  ------\n"
        "dense/               4     84  91.3 %\n"
        "global_step          1      8   8.7 %\n",
        "",
    )


def test_object_paths_are_shown_where_they_say_more_than_the_name(run: Run) -> None:
    out = run("inspect", golden_case("2.15", "slots_object").prefix).out
    assert "dense/kernel         [2,3]  float32     24                    model/kernel\n" in out
    assert "save_counter         []     int64        8\n" in out
    out = run("inspect", golden_case("2.15", "guide").prefix).out
    assert "global_step          []     int64        8                    step\n" in out
    assert "var_list" not in out


def names(out: str) -> list[str]:
    """The first cells of the rows of the listing's table."""
    rows = out.split("\n\n")[1].splitlines()[2:]
    rules = [place for place, row in enumerate(rows) if row.startswith("--")]
    return [row.split()[0] for row in rows[: rules[0] if rules else 0]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--filter=bias"], ["dense/bias"]),
        (["--filter", "Adam(_1)?$"], ["dense/kernel/Adam", "dense/kernel/Adam_1"]),
        (["--filter=nothing"], []),
        (
            ["--sort=size"],
            [
                "dense/kernel",
                "dense/kernel/Adam",
                "dense/kernel/Adam_1",
                "dense/bias",
                "global_step",
            ],
        ),
    ],
)
def test_the_listing_is_filtered_and_sorted(
    flags: list[str], expected: list[str], run: Run, tmp_path: Path
) -> None:
    prefix = model(tmp_path)
    for arguments in ([*flags, prefix], [prefix, *flags]):
        result = run("inspect", *arguments)
        assert result.code == 0
        assert names(result.out) == expected


def test_some_variables_are_left_out_of_the_totals(run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--count_exclude_pattern=Adam|global_step")
    assert "\n2 variables, 9 values, 36 B\n" in result.out


def test_slices_and_several_data_files_are_shown(run: Run) -> None:
    assert "slices" in run("inspect", golden_case("2.15", "partitioned").prefix).out
    assert "3 data files" in run("inspect", golden_case("2.15", "multi_shard").prefix).out


def test_the_listing_as_json(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    found = json.loads(run("inspect", prefix, "--json", "--filter=kernel").out)
    assert [one["name"] for one in found.pop("variables")] == [
        "dense/kernel",
        "dense/kernel/Adam",
        "dense/kernel/Adam_1",
    ]
    assert found == {
        "path": prefix,
        "prefix": prefix,
        "format": "saver",
        "global_step": 7,
        "data_files": 1,
        "totals": {
            "variables": 3,
            "values": 18,
            "bytes": 72,
            "slot_variables": 2,
            "slot_bytes": 48,
        },
    }


def test_a_variable_as_json(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("inspect", model(tmp_path), "--json", "--filter=Adam_1").out)
    assert found["variables"] == [
        {
            "name": "dense/kernel/Adam_1",
            "key": "dense/kernel/Adam_1",
            "keys": ["dense/kernel/Adam_1"],
            "object_path": None,
            "shape": [2, 3],
            "dtype": "float32",
            "nbytes": 24,
            "slices": 0,
            "slot_of": "dense/kernel",
            "slot_name": "v",
        }
    ]


def test_every_kind_of_golden_is_listed(run: Run) -> None:
    for kind in ("dtypes", "iterator", "keras_weights", "saved_model", "strings", "table"):
        directory = golden_case("2.15", kind).directory
        assert run("inspect", directory).code == 0
        assert json.loads(run("inspect", directory, "--json").out)["variables"]


# --- inspect: one variable ---


def test_statistics_of_a_variable(run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--tensor=dense/kernel/Adam")
    assert result == Result(
        0,
        "tensor: dense/kernel/Adam  float32[2,3]  24 B\n"
        "  slot:      m of dense/kernel\n"
        "  min:       0.5\n"
        "  max:       3\n"
        "  mean:      1.75\n"
        "  std:       0.853912564\n"
        "  NaN:       0\n"
        "  Inf:       0\n",
        "",
    )


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (
            np.float32([1, NAN, INF, -INF, 3]),
            {"min": 1, "max": 3, "mean": 2, "std": 1, "NaN": 1, "Inf": 2},
        ),
        (np.float32([NAN]), {"NaN": 1, "Inf": 0}),
        (np.zeros([0], np.float32), {"NaN": 0, "Inf": 0}),
        (np.int64([2**62, -5]), {"min": -5, "max": 2**62, "mean": 2**61 - 2.5, "std": 2**61}),
        (np.array([True, False]), {"min": 0, "max": 1, "mean": 0.5, "std": 0.5}),
        (
            np.float16([60000, 60000]),
            {"min": 60000, "max": 60000, "mean": 60000, "std": 0, "NaN": 0, "Inf": 0},
        ),
        (np.complex64([3 + 4j]), {"min": 5, "max": 5, "mean": 5, "std": 0, "NaN": 0, "Inf": 0}),
        (np.array([b"", b"abc"]), {"shortest": 0, "longest": 3}),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_statistics_of_every_kind(array: Any, expected: Any, run: Run, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"v": array})
    (found,) = json.loads(run("inspect", prefix, "--tensor=v", "--json").out)
    assert found["statistics"] == pytest.approx(expected)
    assert "values" not in found


def test_the_mean_of_many_large_values_does_not_overflow(run: Run, tmp_path: Path) -> None:
    array = np.full(3 << 20, 3e38, np.float32)
    array[0] = 0
    prefix = save(tmp_path / "m", {"v": array})
    (found,) = json.loads(run("inspect", prefix, "--tensor=v", "--json").out)
    assert found["statistics"]["mean"] == pytest.approx(array.astype(np.float64).mean())
    assert found["statistics"]["std"] == pytest.approx(array.astype(np.float64).std())


def test_values_of_a_variable(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path, text=np.array([b"a", b"\xff"]))
    out = run("inspect", prefix, "--tensor", "dense/bias", "--values").out
    assert out.endswith("\n[ 1. nan inf]\n")
    (found,) = json.loads(run("inspect", prefix, "--tensor=dense/bias", "--values", "--json").out)
    assert found["values"] == [1.0, "nan", "inf"]
    (found,) = json.loads(run("inspect", prefix, "--tensor=text", "--values", "--json").out)
    assert found["values"] == ["a", "\\xff"]


def test_a_variable_by_key_and_by_object_path(run: Run, tmp_path: Path) -> None:
    for name in ("dense/kernel", "net/kernel", "net/kernel/.ATTRIBUTES/V"):
        out = run("inspect", objects(tmp_path), f"--tensor={name}").out
        assert out.startswith("tensor: dense/kernel  float32[2]  8 B\n  key:       net/kernel/")


def test_a_variable_that_cannot_be_shown(run: Run) -> None:
    prefix = golden_case("2.15", "iterator").prefix
    result = run("inspect", prefix, "--tensor=numbered_STATE", "--values")
    assert result.code == 0
    assert "values:    of dtype variant cannot be shown\n" in result.out


def test_a_missing_variable_is_answered_with_near_names(run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--tensor=dense/kernle")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("estimator-ckpt: ")
    assert "did you mean 'dense/kernel'" in result.err
    assert result.err.count("\n") == 1


@pytest.fixture
def print_options() -> Any:
    with np.printoptions():
        yield


@pytest.mark.usefixtures("print_options")
@pytest.mark.parametrize(
    ("options", "end"),
    [
        (["--printoptions=threshold=2", "--printoptions=edgeitems=1"], "[0.   ... 0.75]\n"),
        (["--printoptions=precision=1"], "[0.  0.2 0.5 0.8]\n"),
        (
            ["--printoptions=floatmode=fixed", "--printoptions=suppress=True"],
            "0.50000000 0.75000000]\n",
        ),
    ],
)
def test_print_options(options: list[str], end: str, run: Run, tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", {"v": np.float32([0, 0.25, 0.5, 0.75])})
    assert run("inspect", prefix, "--tensor=v", "--values", *options).out.endswith(end)


# --- inspect: the flags of inspect_checkpoint ---


def test_the_old_flags_do_what_they_did(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("inspect", f"--file_name={prefix}").out == run("inspect", prefix).out
    assert run("inspect", prefix, "--all_tensor_names").out == run("inspect", prefix).out
    one = run("inspect", prefix, "--tensor_name=dense/bias")
    assert one == run("inspect", prefix, "--tensor=dense/bias", "--values")
    everything = run("inspect", prefix, "--all_tensors").out
    assert everything.count("tensor: ") == 5
    assert one.out in everything


# --- inspect: the tree ---


def test_the_tree_ends_at_what_it_has_shown_before(run: Run, tmp_path: Path) -> None:
    assert run("inspect", objects(tmp_path), "--tree") == Result(
        0,
        "root\n"
        "├── net\n"
        "│   ├── kernel -> k.Sel\n"
        "│   ├── empty\n"
        "│   └── up -> root\n"
        "├── again -> net\n"
        "└── k.Sel  float32[2]  dense/kernel\n",
        "",
    )


def test_the_tree_shows_slots_and_tables(run: Run) -> None:
    out = run("inspect", golden_case("2.15", "slots_object").prefix, "--tree").out
    assert "├── optimizer  slots m, v of 2 variables\n" in out
    out = run("inspect", golden_case("2.15", "table").prefix, "--tree").out
    assert "├── words  (table)  string[3]  words-keys  int64[3]  words-values\n" in out


def test_a_name_based_checkpoint_has_no_tree(run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--tree")
    assert (result.code, result.out) == (2, "")
    assert "has no objects" in result.err


def test_a_deep_tree_is_printed(run: Run, tmp_path: Path) -> None:
    graph = ObjectGraph()
    node = 0
    for _ in range(2000):
        node = graph.add(node, "n")
    result = run("inspect", save(tmp_path / "m", {"x": np.float32(1)}, graph), "--tree")
    assert result.out.count("\n") == 2001


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
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_is_for_long_reads_on_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from estimator_ckpt.commands import progress

    prefix = model(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run("verify", prefix).code == 0
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(progress, "_LONG", 1)
    assert run("verify", prefix).code == 0
    assert f"verifying {tmp_path}" in sys.stderr.getvalue()


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
        (["inspect"], ["expected one path, found 0", "Try: estimator-ckpt inspect --help"]),
        (["inspect", "a", "b"], ["expected one path, found 2"]),
        (["inspect", "a", "--file_name=b"], ["expected one path, found 2"]),
        (["inspect", "a", "--tensr=x"], ["no flag --tensr", "did you mean '--tensor'"]),
        (["inspect", "a", "--filter=("], ["--filter: '(' is no regular expression"]),
        (["inspect", "a", "--sort=age"], ["age"]),
        (["inspect", "a", "--tree", "--tensor=x"], ["do not go together"]),
        (["inspect", "a", "--tensor"], ["tensor"]),
        (["verify"], ["expected one path or more, found none"]),
        (["compare", "a"], ["expected two paths, found 1"]),
        (["compare", "a", "b", "--rtol=x"], ["rtol"]),
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


@pytest.mark.parametrize("option", ["nonsense=1", "threshold", "threshold=many", "=1"])
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
    assert result.out.startswith(f"usage: estimator-ckpt {verb} ")
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

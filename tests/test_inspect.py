"""The verb inspect: the listing, one variable, the tree; its output to the letter."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, Run, command_runner, model, objects
from golden_files import golden_case
from stock_files import save, save_slots_of_parts
from tensorflow_party import tf, v1

from estimator_ckpt import open_checkpoint
from estimator_ckpt.commands.tree import tree_lines
from estimator_ckpt.objects.object_graph import ObjectGraph

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


# --- inspect: the listing ---


TOTALS = (
    "5 variables, 22 values, 92 B; 2 of them optimizer slots, 48 B (52.2 %)\n"
    "without slots: 3 variables, 10 values, 44 B\n"
    "float32: 4 variables, 21 values, 84 B\n"
    "int64: 1 variable, 1 value, 8 B\n"
    "\n"
    "scope        variables  bytes   share\n"
    "-----------  ---------  -----  ------\n"
    "dense/               4     84  91.3 %\n"
    "global_step          1      8   8.7 %\n"
)


def test_the_variables_are_listed_by_scope_with_slots_as_columns(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("inspect", prefix) == Result(
        0,
        f"{prefix}: saver, global step 7, 1 data file\n"
        "\n"
        "name          shape  dtype    bytes  value   m   v\n"
        "------------  -----  -------  -----  -----  --  --\n"
        "global_step   []     int64        8  7\n"
        "dense/bias    [3]    float32     12\n"
        "dense/kernel  [2,3]  float32     24         24  24\n"
        "------------  -----  -------  -----  -----  --  --\n" + TOTALS,
        "",
    )


def test_all_variables_are_listed_if_asked_for(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    assert run("inspect", prefix, "--all") == Result(
        0,
        f"{prefix}: saver, global step 7, 1 data file\n"
        "\n"
        "name                 shape  dtype    bytes  value  slot of\n"
        "-------------------  -----  -------  -----  -----  ----------------\n"
        "global_step          []     int64        8  7\n"
        "dense/bias           [3]    float32     12\n"
        "dense/kernel         [2,3]  float32     24\n"
        "dense/kernel/Adam    [2,3]  float32     24         dense/kernel (m)\n"
        "dense/kernel/Adam_1  [2,3]  float32     24         dense/kernel (v)\n"
        "-------------------  -----  -------  -----  -----  ----------------\n" + TOTALS,
        "",
    )


def test_repeated_layers_are_one_line_with_the_bytes_of_all(run: Run, tmp_path: Path) -> None:
    kernel = np.float32([1, 2])
    names = [f"layer_{n}/kernel" for n in range(12)] + ["pair_1/w", "pair_2/w"]
    slots = {f"{name}/Momentum": kernel for name in names}
    prefix = save(tmp_path / "m", {**dict.fromkeys(names, kernel), **slots, "layer_12/w": kernel})
    table = run("inspect", prefix).out.split("\n\n")[1].splitlines()
    assert table[:6] == [
        "name                 count  shape  dtype    bytes  momentum",
        "-------------------  -----  -----  -------  -----  --------",
        "layer_{0…11}/kernel     12  [2]    float32     96        96",
        "layer_12/w                  [2]    float32      8",
        "pair_1/w                    [2]    float32      8         8",
        "pair_2/w                    [2]    float32      8         8",
    ]
    assert table[-2].startswith("29 variables, 58 values, 232 B; 14 of them optimizer slots")


def test_layers_with_another_shape_or_value_are_other_lines(run: Run, tmp_path: Path) -> None:
    tensors = {f"layer_{n}/scale": np.float32(n == 3) for n in range(6)}
    tensors |= {f"layer_{n}/w": np.zeros(n // 3 + 1, np.int8) for n in range(6)}
    out = run("inspect", save(tmp_path / "m", tensors)).out
    rows = [line.split() for line in out.split("\n\n")[1].splitlines() if "[" in line]
    assert [(row[0], row[-1]) for row in rows if "scale" in row[0]] == [
        ("layer_{0…2,4,5}/scale", "0"),
        ("layer_3/scale", "1"),
    ]
    assert [row[0] for row in rows if row[0].endswith("w")] == ["layer_{0…2}/w", "layer_{3…5}/w"]


def test_the_step_of_a_keras_optimizer_is_shown(run: Run) -> None:
    out = run("inspect", golden_case("2.15", "optimizer_keras").prefix).out
    assert out.splitlines()[0].endswith(": checkpoint, the optimizer's step 7, 1 data file")


def test_a_saved_model_tells_who_wrote_it_and_what_is_trainable(run: Run) -> None:
    for kind in ("saved_model", "saved_model_tf1"):
        lines = run("inspect", golden_case("2.15", kind).directory).out.splitlines()
        assert lines[0].endswith("1 data file, written by TensorFlow 2.15.1")
        assert lines[1] == "tags: serve"
        header, *rows = (line.split() for line in lines if "[" in line or "trainable" in line)
        assert "trainable" in header
        assert {row[header.index("trainable")] for row in rows} == {"yes"}


def test_a_graph_beside_a_checkpoint_tells_as_much(run: Run, tmp_path: Path) -> None:
    prefix = str(tmp_path / "model.ckpt-7")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", [2], partitioner=v1.fixed_size_partitioner(2))
        v1.get_variable("moving_mean", [3], trainable=False)
        v1.train.create_global_step()
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), 7)
    lines = run("inspect", prefix).out.splitlines()
    assert lines[0].endswith(f"written by TensorFlow {tf.__version__}")
    found = {line.split()[0]: line.split()[-1] for line in lines if "[" in line}
    assert found == {"w": "yes", "moving_mean": "no", "global_step": "no"}
    assert "trainable: 1 variable, 2 values, 8 B" in lines


def test_signatures_and_assets_have_a_line_each(run: Run, tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable([1.0])
    (tmp_path / "words.txt").write_text("a")
    module.words = tf.saved_model.Asset(str(tmp_path / "words.txt"))
    function = tf.function(lambda x: {"y": x * module.w}, [tf.TensorSpec([None], name="x")])
    tf.saved_model.save(module, str(tmp_path / "model"), {"serving_default": function})
    lines = run("inspect", tmp_path / "model").out.splitlines()
    assert lines[1:4] == [
        "tags: serve",
        "signature: serving_default (x) -> (y)",
        "asset: words.txt",
    ]


def test_a_broken_graph_beside_a_checkpoint_is_passed_over(run: Run, tmp_path: Path) -> None:
    prefix = model(tmp_path)
    before = run("inspect", prefix)
    Path(f"{prefix}.meta").write_bytes(b"\xff\xff")
    assert run("inspect", prefix) == before


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (
            "2.15",
            "dense/bias\nAdam/m/dense/bias dense/bias (m)\nAdam/v/dense/bias dense/bias (v)\n",
        ),
        (
            "2.21",
            "dense/bias\nadam/dense_bias_0_momentum dense/bias (momentum)\n"
            "adam/dense_bias_0_velocity dense/bias (velocity)\n",
        ),
    ],
)
def test_slots_stand_behind_their_variables_whatever_they_are_called(
    version: str, lines: str, run: Run
) -> None:
    out = run("inspect", golden_case(version, "optimizer_keras").prefix, "--all").out
    assert "; 4 of them optimizer slots, 72 B (56.2 %)\n" in out
    rows = [re.split(r" {2,}", row) for row in out.splitlines() if " [3] " in row]
    assert "".join(" ".join([row[0], *row[4:-1]]) + "\n" for row in rows) == lines


def test_object_paths_are_shown_where_they_say_more_than_the_name(run: Run) -> None:
    out = run("inspect", golden_case("2.15", "slots_object").prefix).out
    assert "dense/kernel  [2,3]  float32     24         24  24  model/kernel\n" in out
    assert "save_counter  []     int64        8  1\n" in out
    out = run("inspect", golden_case("2.15", "guide").prefix).out
    assert "global_step   []     int64        8  7              step\n" in out
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


@pytest.mark.parametrize("flags", [[], ["--all_tensors"]])
def test_a_filter_without_a_match_says_so(flags: list[str], run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--filter=nothing", *flags)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(
        "no name has a match of --filter=nothing; the checkpoint has 5 variables, as dense/bias,"
        " dense/kernel, dense/kernel/Adam, ...\n"
    )


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
        "input_bytes": 0,
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
        (
            np.float64([1.5e308, 1.5e308, -1.5e308]),
            {"min": -1.5e308, "max": 1.5e308, "mean": 5e307, "std": 2**0.5 * 1e308}
            | {"NaN": 0, "Inf": 0},
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


def test_a_variable_that_cannot_be_shown(run: Run, tmp_path: Path) -> None:
    iterator, slots = golden_case("2.15", "iterator").prefix, save_slots_of_parts(tmp_path / "m")
    for prefix, name, reason in (
        (iterator, "numbered_STATE", "values of dtype variant cannot"),
        (slots, "dnn/w/t_0/Adam", "its slices have 2 of the 4 values, so it cannot be read"),
    ):
        result = run("inspect", prefix, f"--tensor={name}", "--values")
        assert result.code == 0
        assert f"  not shown: {reason} " in result.out


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
        (["--printoptions=precision=1", "--printoptions=suppress=0"], "[0.  0.2 0.5 0.8]\n"),
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


def test_an_empty_name_is_no_variable(run: Run, tmp_path: Path) -> None:
    result = run("inspect", model(tmp_path), "--tensor=")
    assert (result.code, result.out) == (2, "")
    assert "key '': the checkpoint has no variable or key of that name" in result.err


# --- inspect: the tree ---


def test_the_tree_ends_at_what_it_has_shown_before(run: Run, tmp_path: Path) -> None:
    assert run("inspect", objects(tmp_path), "--tree", "--all") == Result(
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


def test_branches_without_values_are_hidden_unless_asked_for(run: Run, tmp_path: Path) -> None:
    assert run("inspect", objects(tmp_path), "--tree") == Result(
        0,
        "root\n"
        "└── k.Sel  float32[2]  dense/kernel\n"
        "(2 objects without values hidden; --all shows all)\n",
        "",
    )
    saved_model = golden_case("2.15", "saved_model").prefix
    short, whole = (run("inspect", saved_model, "--tree", *all_).out for all_ in ([], ["--all"]))
    assert ("signatures" in short, "signatures" in whole) == (False, True)


def test_the_tree_shows_slots_and_tables(run: Run) -> None:
    out = run("inspect", golden_case("2.15", "slots_object").prefix, "--tree").out
    assert "├── optimizer  slots m, v of 2 variables\n" in out
    out = run("inspect", golden_case("2.15", "table").prefix, "--tree").out
    assert "├── words  (table)  string[3]  words-keys  int64[3]  words-values\n" in out


def test_the_tree_as_json(run: Run) -> None:
    prefix = golden_case("2.15", "slots_object").prefix
    found = json.loads(run("inspect", prefix, "--tree", "--json").out)
    assert found["prefix"] == prefix
    objects = found["objects"]
    assert [one["id"] for one in objects] == list(range(len(objects)))
    (optimizer,) = [one for one in objects if one["object_path"] == "optimizer"]
    assert objects[0]["children"]["optimizer"] == optimizer["id"]
    slots = {
        (objects[slot["original"]]["object_path"], slot["slot_name"]): objects[slot["slot"]]
        for slot in optimizer["slots"]
    }
    with open_checkpoint(prefix) as checkpoint:
        expected = [one for one in checkpoint.variables.values() if one.slot_of is not None]
    assert {path for path, _ in slots} == {one.object_path.split("/.")[0] for one in expected}
    assert sorted(slots[place]["variables"][0] for place in slots) == [one.name for one in expected]


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_a_name_based_checkpoint_has_no_tree(
    run: Run, tmp_path: Path, flag: tuple[str, ...]
) -> None:
    result = run("inspect", model(tmp_path), "--tree", *flag)
    assert (result.code, result.out) == (2, "")
    assert "has no objects" in result.err


def test_a_deep_tree_is_printed(run: Run, tmp_path: Path) -> None:
    graph = ObjectGraph()
    node = 0
    for _ in range(2000):
        node = graph.add(node, "n")
    result = run("inspect", save(tmp_path / "m", {"x": np.float32(1)}, graph), "--tree", "--all")
    assert result.out.count("\n") == 2001


def test_a_deep_tree_with_branches_takes_little_memory(tmp_path: Path) -> None:
    graph = ObjectGraph()
    node = 0
    for _ in range(1000):
        below = graph.add(node, "n")
        graph.add(node, "leaf")
        node = below
    with open_checkpoint(save(tmp_path / "m", {"x": np.float32(1)}, graph)) as checkpoint:
        tracemalloc.start()
        size = sum(map(len, tree_lines(checkpoint, all_branches=True)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1.5 * size  # the paths; not a start of a line for each object that waits

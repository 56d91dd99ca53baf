"""Reports: folded rows, aligned tables, JSON, near names."""

from __future__ import annotations

import io
import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator_ckpt.text.names import did_you_mean, near_names, some_of
from estimator_ckpt.text.quantities import size_text, tensor_text
from estimator_ckpt.text.rows import Row, fold, fold_groups, to_json, total_line
from estimator_ckpt.text.tables import print_table, text_table
from estimator_ckpt.text.terminal import cut_text, width_of


def missing(*names: str) -> list[Row]:
    return [Row("missing", name) for name in names]


def names_of(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


def unfold(name: str) -> list[str]:
    """The names that a folded name spells out."""
    choices = []
    for literal, braces in re.findall(r"([^{]*)(?:\{([^}]*)\})?", name):
        choices.append([literal])
        if braces:
            numbers = []
            for piece in braces.split(","):
                first, _, last = piece.partition("…")
                numbers += map(str, range(int(first), int(last or first) + 1))
            choices.append(numbers)
    return ["".join(parts) for parts in itertools.product(*choices)]


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], []),
        (["a"], ["a"]),
        (["layer_3/kernel"], ["layer_3/kernel"]),
        ([f"layer_{n}/kernel" for n in range(12)], ["layer_{0…11}/kernel"]),
        (["layer_0", "layer_2", "layer_5"], ["layer_{0,2,5}"]),
        (["layer_0", "layer_1"], ["layer_{0,1}"]),
        (["l0", "l1", "l2", "l7", "l9", "l8", "l11"], ["l{0…2,7…9,11}"]),
        ([f"a{i}/b{j}" for i in range(3) for j in range(4)], ["a{0…2}/b{0…3}"]),
        (["a0/b0", "a1/b1"], ["a0/b0", "a1/b1"]),
        (["a0/b0", "a0/b1", "a1/b0"], ["a0/b{0,1}", "a1/b0"]),
        (["part_00", "part_01"], ["part_00", "part_01"]),
        ([f"v{n}" for n in range(0, 40, 2)], ["v{0,2,4,6,8,10,12,… 20 in all}"]),
        (["kernel", "bias", "kernel_1"], ["kernel", "bias", "kernel_1"]),
    ],
)
def test_names_that_differ_in_integers_are_one_row(names: list[str], folded: list[str]) -> None:
    assert names_of(fold(missing(*names))) == folded


@given(
    st.sets(
        st.builds("a{}/b{}".format, st.integers(0, 4), st.integers(0, 2))
        | st.builds("c{}".format, st.integers(0, 9)),
    )
)
def test_a_folded_row_stands_for_exactly_its_names(names: set[str]) -> None:
    spelled = [name for row in fold(missing(*names)) for name in unfold(row.name)]
    assert sorted(spelled) == sorted(names)


def test_rows_that_differ_otherwise_stay_apart() -> None:
    rows = [
        Row("missing", "l0", "[3]"),
        Row("missing", "l1", "[4]"),
        Row("shape", "l2", "[3]"),
        Row("missing", "l3", "[3]"),
    ]
    assert fold(rows) == [
        Row("missing", "l{0,3}", "[3]"),
        Row("missing", "l1", "[4]"),
        Row("shape", "l2", "[3]"),
    ]


@given(st.sets(st.builds("a{}/b{}".format, st.integers(0, 4), st.integers(0, 2))))
def test_a_folded_row_comes_with_the_rows_it_stands_for(names: set[str]) -> None:
    for row, members in fold_groups(missing(*names)):
        assert names_of(members) == unfold(row.name)


def test_a_name_beside_the_name_folds_with_it() -> None:
    rows = [
        Row("matched", f"layer_{n}/kernel", "float32 [3, 3]", f"old/layer_{n}/w", "renamed")
        for n in range(4)
    ]
    assert fold(rows) == [
        Row("matched", "layer_{0…3}/kernel", "float32 [3, 3]", "old/layer_{0…3}/w", "renamed")
    ]


def test_a_table_is_aligned_and_escapes_what_a_terminal_would_obey() -> None:
    assert text_table(
        ["name", "bytes"], [["a\x1b[31m", "12"], ["bc", "3,400"]], "2 in all", right=["bytes"]
    ) == (
        "name       bytes\n"
        "---------  -----\n"
        "a\\x1b[31m     12\n"
        "bc         3,400\n"
        "---------  -----\n"
        "2 in all\n"
    )


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("kernel", 6),
        ("layer_{0…11}", 12),
        ("层/权重", 7),
        ("e\u0301te\u0301", 3),
        ("🎉", 2),
        ("été", 3),
    ],
)
def test_the_columns_that_a_text_takes(text: str, width: int) -> None:
    assert width_of(text) == width


def test_columns_stay_straight_beside_wide_and_combining_characters() -> None:
    rows = [["层/权重", "12", "x"], ["e\u0301", "层", "x"], ["kernel", "3", "x"]]
    assert text_table(["name", "n", "end"], rows, right=["n"]).splitlines() == [
        "name      n  end",
        "-------  --  ---",
        "层/权重  12  x",
        "e\u0301        层  x",
        "kernel    3  x",
    ]


@given(st.text("ab/字🎉\u0301…", max_size=40), st.integers(1, 20))
def test_a_text_is_cut_to_the_columns_that_there_are(text: str, width: int) -> None:
    cut = cut_text(text, width)
    assert width_of(cut) <= width
    if width_of(text) <= width:
        assert cut == text
    else:
        start, end = next(
            (cut[:n], cut[n + 1 :])
            for n, one in enumerate(cut)
            if one == "…" and text.startswith(cut[:n]) and text.endswith(cut[n + 1 :])
        )
        assert len(start) + len(end) < len(text)


def test_a_table_without_rows_is_its_headers_and_total() -> None:
    assert text_table(["name", "n"], [], "nothing") == "name  n\n----  -\nnothing\n"


def test_columns_stay_straight_below_a_long_name() -> None:
    lines = text_table(["name", "n"], [["x" * 500, "1"], ["y", "2"]]).splitlines()
    assert [len(line) for line in lines] == [503, 503, 503, 503]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("count", "drawn"), [(200, True), (201, False)])
def test_rich_draws_a_screenful_on_a_terminal_only(count: int, drawn: bool) -> None:
    rows = [[f"name [{n}]", str(n)] for n in range(count)]
    screen, pipe = Terminal(), io.StringIO()
    print_table(["name", "n"], rows, "total", right=["n"], file=screen)
    print_table(["name", "n"], rows, "total", right=["n"], file=pipe)
    assert pipe.getvalue() == text_table(["name", "n"], rows, "total", right=["n"])
    assert (screen.getvalue() != pipe.getvalue()) is drawn
    assert "name [7]" in screen.getvalue()


@pytest.mark.parametrize("count", [2, 300])
def test_long_names_are_cut_in_the_middle_on_a_terminal_alone(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "model/" + "x" * 100 + "/kernel"
    rows = [[name, "float32[2]", str(n)] for n in range(count)]
    screen, pipe = Terminal(), io.StringIO()
    for file in (screen, pipe):
        print_table(["name", "tensor", "bytes"], rows, right=["bytes"], file=file)
    assert pipe.getvalue().count(name) == count
    lines = [line.strip() for line in screen.getvalue().splitlines() if "float32" in line]
    assert len(lines) == count
    assert all(re.fullmatch(r"model/x+…x+/kernel +float32\[2\] +\d+", line) for line in lines)
    assert max(map(len, lines)) <= 58


def test_thousands_of_lines_arrive_whole() -> None:
    rows = [[str(n)] for n in range(2500)]
    pipe = io.StringIO()
    print_table(["n"], rows, file=pipe)
    assert pipe.getvalue() == text_table(["n"], rows)


def test_json_has_every_row_and_the_totals() -> None:
    rows = [*missing("l0", "l1"), Row("shape", "k", "[3]", "[4]", "why")]
    assert json.loads(to_json(rows, verb="check")) == {
        "verb": "check",
        "totals": {"missing": 2, "shape": 1},
        "rows": [
            {"status": "missing", "name": "l0", "expected": "", "found": "", "note": ""},
            {"status": "missing", "name": "l1", "expected": "", "found": "", "note": ""},
            {"status": "shape", "name": "k", "expected": "[3]", "found": "[4]", "note": "why"},
        ],
    }


def test_totals_count_rows_in_order() -> None:
    assert total_line([Row("same", "a"), Row("changed", "b"), Row("same", "c")]) == (
        "2 same, 1 changed"
    )
    assert total_line([]) == "nothing"


@pytest.mark.parametrize(
    ("name", "candidates", "near"),
    [
        ("dense/kernel", ["model/dense/kernel", "other/bias"], ["model/dense/kernel"]),
        ("model/dense/kernel", ["dense/kernel", "emb/table"], ["dense/kernel"]),
        ("dense/kernel", ["dense/weights", "dense/bias"], ["dense/weights"]),
        ("fc/weights", ["net/fc/kernel"], ["net/fc/kernel"]),
        ("dense/kernel", ["dense_1/kernel", "a/b"], ["dense_1/kernel"]),
        ("dense/kernel:0", ["dense/kernel"], ["dense/kernel"]),
        ("dense/kernal", ["dense/kernel", "conv/bias"], ["dense/kernel"]),
        ("dense/kernel", ["completely", "different"], []),
        ("dense/kernel", [], []),
        ("dense/kernel", ["dense/kernel"], []),
        ("", ["a"], []),
    ],
)
def test_near_names(name: str, candidates: list[str], near: list[str]) -> None:
    assert near_names(name, candidates) == near


def test_the_nearest_name_comes_first_among_very_many() -> None:
    names = [f"model/layer_{n}/dense/kernel" for n in range(5000)]
    assert near_names("layer_77/dense/kernel", names)[0] == "model/layer_77/dense/kernel"


@pytest.mark.parametrize(
    ("count", "between", "text"),
    [
        (0, ", ", ""),
        (2, ", ", "0, 1"),
        (3, ", ", "0, 1 and 1 more"),
        (2_002, ", ", "0, 1 and 2,000 more"),
        (2, "; ", "0; 1"),
        (5, "; ", "0; 1; and 3 more"),
    ],
)
def test_the_first_of_many(count: int, between: str, text: str) -> None:
    assert some_of(list(map(str, range(count))), 2, between) == text


def test_a_question_for_messages() -> None:
    assert did_you_mean(["a", "b"]) == "; did you mean 'a' or 'b'?"
    assert did_you_mean([]) == ""


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (999_999_999, "1.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


def test_tensors() -> None:
    assert tensor_text("float32", (3, 4)) == "float32[3,4]"
    assert tensor_text("int64", ()) == "int64[]"

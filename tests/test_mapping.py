"""Rules on variable names: what each name becomes, and why."""

from __future__ import annotations

import pytest

from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.matching.rules import Line, Rules, check_targets

NAMES = ["global_step", "model/dense/bias", "model/dense/kernel", "model/head/kernel"]


def targets(lines: list[Line]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for line in lines:
        found.setdefault(line.source, []).append(line.target)
    return found


def test_without_rules_every_name_stays_and_needs_no_reason():
    assert Rules().resolve(NAMES) == [Line(name, name, "") for name in NAMES]
    assert not Rules()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(
            Rules(assignment_map={"model/dense/": "encoder/"}),
            {
                "global_step": ["global_step"],
                "model/dense/bias": ["encoder/bias"],
                "model/dense/kernel": ["encoder/kernel"],
                "model/head/kernel": ["model/head/kernel"],
            },
            id="scope to scope",
        ),
        pytest.param(
            Rules(assignment_map={"model/": "/"}),
            {
                "global_step": ["global_step"],
                "model/dense/bias": ["dense/bias"],
                "model/dense/kernel": ["dense/kernel"],
                "model/head/kernel": ["head/kernel"],
            },
            id="scope to root",
        ),
        pytest.param(
            Rules(assignment_map={"/": "old/"}),
            {name: [f"old/{name}"] for name in NAMES},
            id="root to scope",
        ),
        pytest.param(
            Rules(assignment_map=[("model/head/kernel", "head/weights")]),
            {**{name: [name] for name in NAMES[:3]}, "model/head/kernel": ["head/weights"]},
            id="variable to variable",
        ),
        pytest.param(
            Rules(
                assignment_map=[("model/dense/", "a/"), ("model/dense/", "b/")],
                exclude=[".*head.*"],
            ),
            {
                "global_step": ["global_step"],
                "model/dense/bias": ["a/bias", "b/bias"],
                "model/dense/kernel": ["a/kernel", "b/kernel"],
                "model/head/kernel": [None],
            },
            id="one source, two targets",
        ),
        pytest.param(
            Rules(rename=[(r"model/(\w+)/kernel", r"\1/weights"), ("model/(.*)", r"\1")]),
            {
                "global_step": ["global_step"],
                "model/dense/bias": ["dense/bias"],
                "model/dense/kernel": ["dense/weights"],
                "model/head/kernel": ["head/weights"],
            },
            id="renames, the first that matches",
        ),
        pytest.param(
            Rules(assignment_map={"net/": "n/"}, rename={"model/(.*)": r"net/\1"}),
            {
                "global_step": ["global_step"],
                "model/dense/bias": ["n/dense/bias"],
                "model/dense/kernel": ["n/dense/kernel"],
                "model/head/kernel": ["n/head/kernel"],
            },
            id="the renames before the assignment map",
        ),
    ],
)
def test_rules(rules, expected):
    assert targets(rules.resolve(NAMES)) == expected


def test_every_changed_line_has_its_reason():
    rules = Rules({"model/": "net/"}, {"(.*)kernel": r"\1weights"}, [".*bias"])
    assert rules.resolve(["model/bias", "model/kernel", "step"]) == [
        Line("model/bias", None, "exclude .*bias"),
        Line(
            "model/kernel",
            "net/weights",
            r"rename (.*)kernel -> \1weights, assignment_map model/ -> net/",
        ),
        Line("step", "step", ""),
    ]


def test_an_assignment_map_and_an_exclusion_may_name_the_object_path():
    rules = Rules({"layers/0/": "first/"}, exclude=["layers/1/.*"])
    also = {"dense/kernel": "layers/0/kernel", "dense_1/kernel": "layers/1/kernel"}
    assert targets(rules.resolve(also, also=also)) == {
        "dense/kernel": ["first/kernel"],
        "dense_1/kernel": [None],
    }


@pytest.mark.parametrize(
    ("rules", "key", "message"),
    [
        (Rules(rename={"moddel/": ""}), "rename[0]", "'moddel/' -> '' matches none of 4 names"),
        (
            Rules(
                rename=[("model/.*/(.*)", r"\1"), ("model/head/(.*)", r"\1")], exclude=["model/d.*"]
            ),
            "rename[1]",
            "matches none of 4 names that no earlier rule has taken",
        ),
        (Rules(exclude=[".*kernel", "Adam"]), "exclude[1]", "'Adam' matches none"),
        (Rules(assignment_map={"dense/": "x/"}), "assignment_map[0]", "matches none"),
        (Rules(assignment_map={"model": "x"}), "assignment_map[0]", "matches none"),
    ],
)
def test_a_rule_that_matches_nothing_is_an_error(rules, key, message):
    with pytest.raises(SettingsError, match=message) as raised:
        rules.resolve(NAMES)
    assert raised.value.key == key


def test_a_rule_that_matches_nothing_is_fine_where_that_is_said():
    lines = Rules(rename={"x": "y"}).resolve(["a"], require_all_rules_match=False)
    assert lines == [Line("a", "a", "")]


def test_a_rule_that_matches_nothing_gets_near_names():
    with pytest.raises(SettingsError, match="did you mean 'model/dense/kernel'"):
        Rules(assignment_map={"model/dense/kernels": "x"}).resolve(NAMES)


@pytest.mark.parametrize(
    "rules",
    [
        Rules(rename={"model/(dense|head)/(.*)": r"x/\2"}),
        Rules(assignment_map={"model/head/kernel": "model/dense/kernel"}),
        Rules(assignment_map=[("model/dense/", "model/head/")]),
    ],
)
def test_two_sources_for_one_target_are_an_error_that_names_both(rules):
    with pytest.raises(ConflictError) as raised:
        rules.resolve(NAMES)
    assert "'model/dense/kernel'" in raised.value.message
    assert "'model/head/kernel'" in raised.value.message


def test_swapped_names_are_no_conflict():
    rules = Rules(assignment_map={"a": "b", "b": "a"})
    assert targets(rules.resolve(["a", "b"])) == {"a": ["b"], "b": ["a"]}


def test_many_conflicts_are_cut():
    lines = [Line(f"{side}{number}", str(number), "") for number in range(30) for side in "ab"]
    with pytest.raises(ConflictError, match="and 20 more"):
        check_targets(lines)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"assignment_map": {"a/": "b"}}, "assignment_map[0]"),
        ({"assignment_map": [("a", "b"), ("a", "/")]}, "assignment_map[1]"),
        ({"assignment_map": [("a", "b", "c")]}, "assignment_map[0]"),
        ({"assignment_map": ["ab"]}, "assignment_map[0]"),
        ({"assignment_map": [("", "b")]}, "assignment_map[0]"),
        ({"rename": {"(": ""}}, "rename[0]"),
        ({"rename": {"a": r"\1"}}, "rename[0]"),
        ({"rename": [("a", 1)]}, "rename[0]"),
        ({"exclude": ["ok", "["]}, "exclude[1]"),
        ({"exclude": [1]}, "exclude[0]"),
    ],
)
def test_what_is_no_rule_is_an_error_with_its_place(settings, key):
    with pytest.raises(SettingsError) as raised:
        Rules(**settings)
    assert raised.value.key == key


def test_a_rule_that_leaves_an_empty_name_is_an_error():
    with pytest.raises(SettingsError, match="leaves nothing of the name 'a'"):
        Rules(rename={"^a$": ""}).resolve(["a"])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), ["a/m"]),
        (Rules(rename={"a": "b"}), ["b/m"]),
        (Rules(exclude=["a"]), [None]),
        (Rules(exclude=["a/m"]), [None]),
        (Rules(assignment_map=[("a", "b"), ("a", "c")]), ["b/m", "c/m"]),
        (Rules(assignment_map=[("/", "x/"), ("/", "y/")]), ["x/a/m", "y/a/m"]),
        (Rules(rename={"a(.*)": r"a\1_old"}), ["a_old/m"]),
        # A rule for it alone.
        (Rules(rename={"a/m": "c"}), ["c"]),
        (Rules(rename=[("a/m", "a/m"), ("a", "b")]), ["a/m"]),
        (Rules(rename={"a/m": "a/n"}, assignment_map={"a": "b"}), ["b/n"]),
        (Rules(rename={"a/m": "c"}, exclude=["a"]), ["c"]),
    ],
)
def test_a_name_goes_where_the_one_goes_that_it_belongs_to(rules, expected):
    lines = rules.resolve(["a", "a/m"], owners={"a/m": "a"})
    assert targets(lines)["a/m"] == expected


def test_a_name_that_does_not_tell_its_owner_keeps_to_its_own_rules():
    rules = Rules(rename={"(.*)": r"x/\1"})
    assert rules.resolve(["a", "m"], owners={"m": "a"})[1] == (
        Line("m", "x/m", "rename (.*) -> x/\\1", "x/a")
    )

"""Which tensor of a checkpoint belongs to which variable of a model."""

import itertools

import pytest

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.counted import (
    default_names,
    is_position,
    weak_segments,
)
from estimator_ckpt.matching.hints import roots_that_fit, scopes_that_fit
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.resolve import resolve
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import ObjectGraph, flat_graph, flat_key, object_key
from estimator_ckpt.roles import SLOT

WEAK = {"dense", "dense_1", "dense_2"}


def add_path(graph, path):
    """The node at a path, which is made if it is not there."""
    node = 0
    for name in path.split("/"):
        found = graph.child_at((name,), node)
        node = graph.add(node, name) if found is None else found
    return node


def saved_of(objects=(), names=(), shapes=None):
    """A checkpoint: (object path, full name) of each variable with an object, names of others."""
    graph, entries, numbers = ObjectGraph(), {}, itertools.count()

    def entry(name):
        number = next(numbers)
        return Entry(1, (shapes or {}).get(name, (2,)), 0, 8 * number, 8, number)

    for path, name in objects:
        node, key = add_path(graph, path), object_key(path)
        attribute = Attribute("VARIABLE_VALUE", name, key)
        graph.nodes[node] = graph.nodes[node]._replace(attributes=(attribute,))
        entries[key.encode()] = entry(name)
    if not objects:
        entries |= {name.encode(): entry(name) for name in names}
        return Saved(Checkpoint("model", "model", Index(1, entries), None))
    flat_graph(dict.fromkeys(names, "VARIABLE_VALUE"), base=graph)
    entries |= {flat_key(name).encode(): entry(name) for name in names}
    return Saved(Checkpoint("model", "model", Index(1, entries), graph))


def flat_saved(names):
    """A checkpoint of the default structure: names in a var_list."""
    graph = flat_graph(dict.fromkeys(names, "VARIABLE_VALUE"))
    entries = {
        flat_key(name).encode(): Entry(1, (2,), 0, 8 * n, 8, n) for n, name in enumerate(names)
    }
    return Saved(Checkpoint("model", "model", Index(1, entries), graph))


def model_of(objects, *, is_bare=False, shapes=None):
    """A model: (object path, name) of each variable; "" for one that no object holds."""
    graph, variables = ObjectGraph(), []
    for path, name in objects:
        segments = name.split("/")
        weak = tuple(segment in WEAK for segment in segments)
        variables.append(
            ModelVariable(
                name=name,
                shape=(shapes or {}).get(name, (2,)),
                dtype="float32",
                trainable=True,
                parts=(f"{name}:0",),
                weak=weak,
                node=add_path(graph, path) if path else -1,
            )
        )
    return Model(variables, graph, is_bare=is_bare)


def outcome(model, saved, name, **options):
    """What is found for a variable: the object path or name of its source, or why there is none."""
    match = resolve(model, saved, **options).matches[name]
    if match.source is None:
        return match.problem.status
    return match.source.object_path or match.source.name


# One row of the truth table each: the checkpoint, the model, what becomes of its first variable
# and, where that is an error or missing, of the same by path and by name.
ROWS = {
    "S found, N none": ([("net/a", "old/k")], [("net/a", "new/k")], "net/a", None),
    "S found, N the same": ([("net/a", "one/k")], [("net/a", "one/k")], "net/a", None),
    "S found, N another by a weak name": (
        [("net/a", "dense/k"), ("net/b", "dense_1/k")],
        [("net/a", "dense_1/k"), ("net/b", "dense_2/k")],
        "net/a",
        ("net/a", "net/b"),
    ),
    "S found, N another by a name that is not weak": (
        [("net/a", "one/k"), ("net/b", "two/k")],
        [("net/a", "two/k"), ("net/b", "one/k")],
        "ambiguous",
        ("net/a", "net/b"),
    ),
    "S found, N another by what of a weak name is not weak": (
        [("net/a", "dense/one/k"), ("net/b", "dense/two/k")],
        [("net/a", "dense_1/two/k"), ("net/b", "dense_1/one/k")],
        "ambiguous",
        ("net/a", None),
    ),
    "S none, N another's by structure": (
        [("net/a", "one/k")],
        [("other/a", "one/k"), ("net/a", "dense/k")],
        "missing",
        None,
    ),
    "S none, N weak, structure has found something": (
        [("net/a", "one/k"), ("net/b", "dense/k")],
        [("other/b", "dense/k"), ("net/a", "one/k")],
        "missing",
        ("missing", "net/b"),
    ),
    "S none, N not weak, structure has found something": (
        [("net/a", "one/k"), ("net/b", "two/k")],
        [("other/b", "two/k"), ("net/a", "one/k")],
        "net/b",
        None,
    ),
    "S none, N weak, structure has found nothing": (
        [("net/a", "dense/k")],
        [("other/b", "dense/k")],
        "ambiguous",
        ("ambiguous", "net/a"),
    ),
    "S none, N not weak, structure has found nothing": (
        [("net/a", "two/k")],
        [("other/b", "two/k")],
        "net/a",
        None,
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_truth_table(row):
    objects, variables, expected, decided = ROWS[row]
    model, saved = model_of(variables), saved_of(objects)
    name = variables[0][1]
    assert outcome(model, saved, name) == expected
    for match_by, by_it in zip(("path", "name"), decided or ()):
        if by_it is not None:
            assert outcome(model, saved, name, match_by=match_by) == by_it


@pytest.mark.parametrize("name", ["two/k", "dense/k"])
@pytest.mark.parametrize("saved", [saved_of, flat_saved])
def test_where_the_checkpoint_has_only_names_a_name_decides_weak_or_not(saved, name):
    found = saved(names=[name, "x"]) if saved is saved_of else saved([name, "x"])
    match = resolve(model_of([("net/b", name)]), found).matches[name]
    assert match.source.name == name


def test_a_renamed_variable_is_found_by_the_name_that_was_given_on_purpose():
    saved = saved_of([("net/a", "one/k"), ("net/b", "two/k")])
    renamed = Saved(saved.checkpoint, [("two/k", "dense/k")])
    model = model_of([("net/a", "dense/k")])
    assert outcome(model, renamed, "dense/k") == "net/b"


# --- positions ---


def layers(names, parent="net"):
    return [(f"{parent}/layer-{n}/kernel", f"{name}/kernel") for n, name in enumerate(names)]


POSITIONS = {
    "shifted names": (["dense", "dense_1"], ["dense_1", "dense_2"], ["net/layer-0/kernel"]),
    "given names for new ones": (["one", "two"], ["dense", "dense_1"], ["net/layer-0/kernel"]),
    "one more": (["dense", "dense_1"], ["dense", "dense_1", "dense_2"], ["ambiguous"]),
    "one less": (["dense", "dense_1", "dense_2"], ["dense", "dense_1"], ["ambiguous"]),
    "one less, named": (["one", "two", "three"], ["one", "two"], ["net/layer-0/kernel"]),
    "in another order, named": (["one", "two"], ["two", "one"], ["ambiguous"]),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_decide_where_both_sides_have_as_many(case):
    theirs, ours, (expected,) = POSITIONS[case]
    model, saved = model_of(layers(ours)), saved_of(layers(theirs))
    first = f"{ours[0]}/kernel"
    assert outcome(model, saved, first) == expected
    assert outcome(model, saved, first, match_by="path") == "net/layer-0/kernel"
    match = resolve(model, saved, match_by="path").matches[first]
    is_named = ours[0] not in WEAK and ours[0] == theirs[0]
    assert match.rule.endswith("by position only") != is_named


def test_other_layers_do_not_count():
    """Of another rank, or with other variables: they are not taken for one another."""
    theirs = [*layers(["dense"]), ("net/layer-1/gamma", "bn/gamma")]
    model = model_of(layers(["dense_1"]))
    assert outcome(model, saved_of(theirs), "dense_1/kernel") == "net/layer-0/kernel"
    more = [*layers(["dense", "conv"])]
    saved = saved_of(more, shapes={"conv/kernel": (3, 3, 1, 1)})
    assert outcome(model, saved, "dense_1/kernel") == "net/layer-0/kernel"


# --- where a bare object stands ---

MODULE = [("a", "dense/a"), ("b", "dense/b")]


def below(parent, names=("x/a", "x/b")):
    return [(f"{parent}/{last}", name) for last, name in zip("ab", names)]


@pytest.mark.parametrize("parent", ["model", "deep/er/model"])
def test_a_bare_object_is_found_wherever_it_stands(parent):
    saved = saved_of([*below(parent), ("model_b/a", "y")])
    model = model_of(MODULE, is_bare=True)
    assert outcome(model, saved, "dense/a") == f"{parent}/a"


def test_two_places_are_refused_with_both_and_root_decides():
    saved = saved_of([*below("student", ("s/a", "s/b")), *below("teacher", ("t/a", "t/b"))])
    model = model_of(MODULE, is_bare=True)
    (row,) = resolve(model, saved).problems
    assert "'student' and 'teacher'" in row.note
    assert outcome(model, saved, "dense/a", root="teacher") == "teacher/a"
    with pytest.raises(SettingsError, match="no object at 'techer'; did you mean 'teacher'"):
        resolve(model, saved, root="techer")


def test_names_that_were_given_tell_two_places_apart():
    saved = saved_of([*below("student", ("s/a", "s/b")), *below("teacher", ("t/a", "t/b"))])
    model = model_of([("a", "t/a"), ("b", "t/b")], is_bare=True)
    assert outcome(model, saved, "t/a") == "teacher/a"


def test_a_bare_object_fits_by_shape_too():
    saved = saved_of(
        [*below("one", ("s/a", "s/b")), *below("two", ("t/a", "t/b"))], shapes={"s/a": (9,)}
    )
    assert outcome(model_of(MODULE, is_bare=True), saved, "dense/a") == "two/a"


def test_a_bare_object_that_fits_nowhere_has_no_structure():
    saved = saved_of([("one/a", "dense/a")])
    assert outcome(model_of(MODULE, is_bare=True), saved, "dense/a") == "ambiguous"
    named = model_of([("a", "s/a"), ("c", "s/c")], is_bare=True)
    assert outcome(named, saved_of([("one/a", "s/a")]), "s/a") == "one/a"


# --- names that a counter may have made ---


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("Dense", "dense"),
        ("BatchNormalization", "batch_normalization"),
        ("Conv2D", "conv2d"),
        ("MyHTTPLayer", "my_http_layer"),
        ("_Hidden", "private__hidden"),
        ("Functional", "model"),
    ],
)
def test_what_an_object_is_called_if_nobody_names_it(class_name, name):
    assert name in default_names(class_name)


@pytest.mark.parametrize(
    ("name", "weak"),
    [
        ("net/dense_1/kernel", (False, True, False)),
        ("net/dense/kernel", (False, True, False)),
        ("net/dense_x/kernel", (False, False, False)),
        ("net/hidden/kernel", (False, False, False)),
        ("net/hidden/Variable", (False, False, True)),
        ("variable_3", (True,)),
        ("dense", (False,)),
    ],
)
def test_which_segments_are_weak(name, weak):
    assert weak_segments(name, ["Dense", "ListWrapper"]) == weak


@pytest.mark.parametrize("name", ["0", "12", "layer-3", "layer_with_weights-1"])
def test_positions_are_counted_names(name):
    assert is_position(name)
    assert not is_position(f"{name}x")
    assert not is_position(f"x{name}")


# --- what might explain that much is missing ---


def test_a_scope_maps_every_variable_of_it_to_one_of_its_shape():
    saved = saved_of(names=["old/a", "old/b", "old/a/Adam", "old/b/Adam"])
    model = model_of([("", "new/a"), ("", "new/b")])
    assert scopes_that_fit(model, ["new/a", "new/b"], saved) == [("old/", "new/")]
    other = model_of([("", "new/a"), ("", "new/b")], shapes={"new/b": (3,)})
    assert scopes_that_fit(other, ["new/a", "new/b"], saved) == []
    more = model_of([("", "new/a"), ("", "new/b"), ("", "new/c")])
    assert scopes_that_fit(more, ["new/a", "new/b", "new/c"], saved) == []


@pytest.mark.parametrize(("theirs", "ours"), [("dense", "dense_1"), ("layer_1", "layer_12")])
def test_no_hint_is_a_count(theirs, ours):
    """The file has `dense`, the model `dense_1`: another count might as well be the right one."""
    model = model_of([("", f"{ours}/a"), ("", f"{ours}/b")])
    missing = [variable.name for variable in model.variables]
    for saved in (
        saved_of([(f"{theirs}/a", ""), (f"{theirs}/b", "")]),
        saved_of(names=[f"{theirs}/a", f"{theirs}/b"]),
    ):
        assert scopes_that_fit(model, missing, saved) == []
        assert (
            saved.hint(f"{ours}/a") == f"a count alone tells it from {theirs}/a: say which is meant"
        )


def test_a_near_name_has_the_same_shape_and_is_free_and_no_slot():
    saved = saved_of(names=["old/a", "x/a/Adam", "x/a"])
    assert saved.hint("new/x/a") == "did you mean x/a?"
    assert saved.hint("new/x/a", (3,)) == ""
    assert saved.hint("new/x/a", taken={"x/a"}) == ""


def test_a_root_is_where_the_names_of_a_job_stand():
    saved = saved_of([("vars/x/a", ""), ("vars/x/b", ""), ("others/x/a", "")])
    model = model_of([("", "x/a"), ("", "x/b")])
    assert roots_that_fit(model, saved) == ["vars", "others"]
    found = [outcome(model, saved, name, root="vars") for name in ("x/a", "x/b")]
    assert found == ["vars/x/a", "vars/x/b"]
    assert outcome(model, saved, "x/b", root="others") == "missing"


def test_one_tensor_for_a_place_and_for_a_name_is_refused_where_both_names_were_given():
    saved = saved_of([("net/a", "one/k")])
    model = model_of([("net/a", "new/k"), ("other/a", "one/k")])
    assert [outcome(model, saved, name) for name in ("new/k", "one/k")] == ["ambiguous"] * 2
    by_path = [outcome(model, saved, name, match_by="path") for name in ("new/k", "one/k")]
    by_name = [outcome(model, saved, name, match_by="name") for name in ("new/k", "one/k")]
    assert (by_path, by_name) == (["net/a", "missing"], ["missing", "net/a"])


def test_a_scope_takes_no_slots_for_weights():
    saved = saved_of(names=["w/a", "w/b", "Adam/m/w/a", "Adam/m/w/b"])
    model = model_of([("", "x/a"), ("", "x/b")])
    assert scopes_that_fit(model, ["x/a", "x/b"], saved) == [("w/", "x/")]
    slots = Model([v.__class__(**{**v.__dict__, "role": SLOT}) for v in model.variables])
    assert scopes_that_fit(slots, ["x/a", "x/b"], saved) == []

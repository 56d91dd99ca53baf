"""Which variable of a source goes to which of a template: a table of cases, each as stock reads it.

Structure decides where both have objects; names that a counter made are no identity; what
contradicts is refused with both candidates, until match_by or a rule decides.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from conversion_files import write_bundle
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, import_checkpoint
from estimator_ckpt.cli import main
from estimator_ckpt.errors import MismatchError, SettingsError

REFUSED = "refused"


class Dense(tf.Module):
    """A layer whose name a counter may have made."""

    def __init__(self, value, name):
        super().__init__()
        self.kernel = tf.Variable([float(value)], name=f"{name}/kernel")


def one(value, name=None):
    return tf.Variable([float(value)], name=name)


def module(**variables):
    made = tf.Module()
    for name, variable in variables.items():
        setattr(made, name, variable)
    return made


def layers(*names):
    return {"layers": [Dense(value, name) for value, name in enumerate(names, 1)]}


def named(**names):
    """Variables by attribute, with the names that they have in their program."""
    return {key: one(value, name) for value, (key, name) in enumerate(names.items(), 1)}


def tied(name):
    variable = one(1, name)
    return {"a": variable, "b": variable}


def names(*texts):
    """A source of names alone, with the values 1, 2, ..."""
    return list(texts)


def written(source, path):
    if isinstance(source, dict):
        return tf.train.Checkpoint(**source).write(str(path))
    return write_bundle(path, {name: np.float32([n]) for n, name in enumerate(source, 1)})


def variables_of(objects):
    """The variables that a program has, in its order."""
    found = []
    for value in objects.values():
        members = value if isinstance(value, list) else [value]
        for member in members:
            found += [member] if isinstance(member, tf.Variable) else member.variables
    return found


# Which source, which template (both made anew), what was asked; the values of the template's
# variables after it has read the result.
CASES = {
    # Names alone, and a template with objects: by name, weak or not.
    "names": (lambda: names("x", "y"), lambda: named(a="y", b="x"), {}, [2, 1]),
    "counted names": (
        lambda: names("dense/kernel", "dense_1/kernel"),
        lambda: layers("dense_1", "dense"),
        {},
        [2, 1],
    ),
    "names that are places": (lambda: names("a", "b"), lambda: named(b=None, a=None), {}, [2, 1]),
    "names that are places, one name for all": (
        lambda: names("net/w", "net/v"),
        lambda: {"net": module(v=one(0, "same"), w=one(0, "same"))},
        {},
        [2, 1],
    ),
    "places of some, names of others": (
        lambda: names("a", "b"),
        lambda: named(a="b", b="a"),
        {},
        REFUSED,
    ),
    "... by path": (
        lambda: names("a", "b"),
        lambda: named(a="b", b="a"),
        {"match_by": "path"},
        [1, 2],
    ),
    "... by name": (
        lambda: names("a", "b"),
        lambda: named(a="b", b="a"),
        {"match_by": "name"},
        [2, 1],
    ),
    "places whose names have shifted by one": (
        lambda: names("dense/kernel", "dense_1/kernel"),
        lambda: {"dense": Dense(0, "dense_1"), "dense_1": Dense(0, "dense_2")},
        {},
        REFUSED,
    ),
    "one name is another path of the object": (
        lambda: names("also/w", "x"),
        lambda: (lambda net: {"net": net, "also": net, "b": one(0, "x")})(module(w=one(0, "w"))),
        {},
        [1, 1, 2],
    ),
    # Rules.
    "a rule to a name": (lambda: names("p"), lambda: named(a="x"), {"rename": {"p": "x"}}, [1]),
    "a rule to a place": (lambda: names("p"), lambda: named(a="x"), {"rename": {"p": "a"}}, [1]),
    "a rule to a place decides before objects": (
        lambda: named(a="x", b="y"),
        lambda: named(a="x", b="y"),
        {"rename": {"x": "b", "y": "a"}},
        [2, 1],
    ),
    "a rule to what is one's place and another's name": (
        lambda: names("p", "q"),
        lambda: named(a="b", b="a"),
        {"rename": {"p": "a", "q": "b"}},
        REFUSED,
    ),
    "one variable under two names": (
        lambda: names("p"),
        lambda: named(a="x", b="y"),
        {"assignment_map": [("p", "x"), ("p", "y")]},
        [1, 1],
    ),
    # Objects on both sides.
    "shifted counters": (
        lambda: layers("dense", "dense_1"),
        lambda: layers("dense_1", "dense_2"),
        {},
        [1, 2],
    ),
    "another order of a list, by names that were given": (
        lambda: layers("one", "two"),
        lambda: layers("two", "one"),
        {},
        REFUSED,
    ),
    "... as the names say": (
        lambda: layers("one", "two"),
        lambda: layers("two", "one"),
        {"match_by": "name"},
        [2, 1],
    ),
    "... as the places say": (
        lambda: layers("one", "two"),
        lambda: layers("two", "one"),
        {"match_by": "path"},
        [1, 2],
    ),
    "one of three of a class left out": (
        lambda: layers("dense", "dense_1", "dense_2"),
        lambda: layers("dense", "dense_1"),
        {"exclude": ["dense_1/kernel"]},
        REFUSED,
    ),
    "two of a class inserted": (
        lambda: layers("dense"),
        lambda: layers("dense", "dense_1", "dense_2"),
        {},
        REFUSED,
    ),
    "variables without names": (
        lambda: named(a=None, b=None),
        lambda: named(b=None, a=None),
        {},
        [2, 1],
    ),
    "two of one name": (
        lambda: {"net": module(v=one(1, "same"), w=one(2, "same"))},
        lambda: {"net": module(w=one(0, "same"), v=one(0, "same"))},
        {},
        [1, 2],  # tf.Module lists them by attribute: v, w
    ),
    "two of one name, an attribute renamed": (
        lambda: {"net": module(v=one(1, "same"), w=one(2, "same"))},
        lambda: {"net": module(v=one(0, "same"), u=one(0, "same"))},
        {},
        REFUSED,
    ),
    "another root, names that were given": (
        lambda: {"net": module(a=one(1, "x"), b=one(2, "y"))},
        lambda: {"model": module(a=one(0, "y"), b=one(0, "x"))},
        {},
        [2, 1],
    ),
    "another root, names that a counter made": (
        lambda: {"net": layers("dense", "dense_1")["layers"]},
        lambda: layers("dense", "dense_1"),
        {},
        REFUSED,
    ),
    "a variable by names in var_list": (
        lambda: {"var_list": {"dense/kernel": one(1), "dense_1/kernel": one(2)}},
        lambda: layers("dense_1", "dense"),
        {},
        [2, 1],
    ),
    "two variables where one was": (lambda: tied("t"), lambda: named(a="t", b="u"), {}, REFUSED),
    "one variable where two were": (lambda: named(a="t", b="u"), lambda: tied("t"), {}, REFUSED),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_variable_of_a_template_gets_the_one_that_it_is(case, tmp_path):
    make_source, make_template, options, expected = case
    source = written(make_source(), tmp_path / "source")
    objects = make_template()
    live = tf.train.Checkpoint(**objects)
    for kind, like in [("file", live.write(str(tmp_path / "template"))), ("live", live)]:
        for variable in variables_of(objects):
            variable.assign([-1.0])
        out = str(tmp_path / kind)
        if expected == REFUSED:
            with pytest.raises(MismatchError):
                convert_checkpoint(source, out, "checkpoint", like=like, **options)
            assert not (tmp_path / f"{kind}.index").exists()
            continue
        convert_checkpoint(source, out, "checkpoint", like=like, **options)
        live.read(out).assert_existing_objects_matched()
        assert [float(one[0]) for one in variables_of(objects)] == expected


def keras_model(*names, bn=False):
    keras = tf.keras
    stack = [keras.layers.Dense(2, name=name) for name in names]
    if bn:
        stack.insert(1, keras.layers.BatchNormalization())
    model = keras.Sequential(stack)
    model.build((None, 2))
    return model


def values_of(model):
    return [float(np.asarray(variable).ravel()[0]) for variable in model.weights]


def number(model):
    for value, variable in enumerate(model.weights, 1):
        variable.assign(np.full(variable.shape, value, np.float32))
    return model


@pytest.mark.parametrize(
    ("theirs", "ours", "options", "expected"),
    [
        ([None, None], [None, None], {}, [1, 2, 3, 4]),
        ([None, None, None], [None, None], {}, REFUSED),
        ([None, None], [None, None, None], {}, REFUSED),
        (["p", "q"], ["q", "p"], {}, REFUSED),
        (["p", "q"], ["q", "p"], {"match_by": "name"}, [3, 4, 1, 2]),
        (["p", "q"], ["q", "p"], {"match_by": "path"}, [1, 2, 3, 4]),
    ],
)
def test_keras_models_by_their_layers(theirs, ours, options, expected, tmp_path):
    source = tf.train.Checkpoint(model=number(keras_model(*theirs))).write(str(tmp_path / "s"))
    model = keras_model(*ours)
    live = tf.train.Checkpoint(model=model)
    like = live.write(str(tmp_path / "template"))
    if expected == REFUSED:
        with pytest.raises(MismatchError):
            convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like, **options)
        return
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like, **options)
    live.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert values_of(model) == expected


def test_the_names_of_a_tf1_job_lead_into_a_keras_model_with_its_statistics(tmp_path):
    model = keras_model("a", "b", bn=True)
    named = {getattr(one, "path", one.name).split(":")[0]: one for one in model.weights}
    values = {
        name: np.full(one.shape, value, np.float32)
        for value, (name, one) in enumerate(named.items(), 1)
    }
    source = write_bundle(tmp_path / "job", values)
    live = tf.train.Checkpoint(model=model)
    convert_checkpoint(source, tmp_path / "out", "checkpoint", like=live)
    live.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert values_of(model) == [1, 2, 3, 4, 5, 6, 7, 8]


# --- What is said of it ---


def test_a_contradiction_shows_both_and_what_decides(tmp_path):
    source = written(names("a", "b"), tmp_path / "source")
    like = written(named(a="b", b="a"), tmp_path / "template")
    with pytest.raises(MismatchError) as raised:
        convert_checkpoint(source, tmp_path / "out", "checkpoint", like=like)
    lines = str(raised.value).splitlines()
    assert lines[3].split("  ")[0] == "ambiguous"
    assert "by path: a" in lines[4]
    assert "by name: b" in lines[4]
    assert "--match_by=path or name decides" in lines[4]
    assert "--rename rule" in lines[-1]


def test_the_plan_says_by_which_way_each_was_matched(tmp_path, capsys):
    source = written({**layers("dense", "dense_1"), "head": one(3, "head")}, tmp_path / "source")
    template = {**layers("dense_3", "dense_4"), "top": one(0, "head")}
    like = written(template, tmp_path / "template")
    arguments = ["convert", source, str(tmp_path / "out"), "--checkpoint_format=checkpoint"]
    assert main([*arguments, f"--like={like}", "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    whys = {row["source"].partition("/.ATT")[0]: row["why"] for row in plan["rows"]}
    by_position = "matched by object path layers/{}/kernel, by position only"
    assert whys["layers/0/kernel"].endswith(by_position.format(0))
    assert whys["layers/1/kernel"].endswith(by_position.format(1))
    assert whys["head"].endswith("matched by its name")
    assert plan["notes"] == ["matched by position only: dense/kernel, dense_1/kernel"]
    assert main([*arguments, f"--like={like}", "--match_by=path"]) == 0
    assert "matched by position only: dense/kernel" in capsys.readouterr().err


def test_match_by_without_a_template_is_refused(tmp_path):
    source = written(names("a"), tmp_path / "source")
    with pytest.raises(SettingsError, match="there is no `like`"):
        convert_checkpoint(source, tmp_path / "out", "checkpoint", match_by="name")


@pytest.mark.parametrize(
    ("match_by", "expected"), [(None, None), ("path", [1, 2]), ("name", [2, 1])]
)
def test_import_decides_as_convert_does(match_by, expected, tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.float32([1]), b=np.float32([2]))
    template = named(a="b", b="a")
    live = tf.train.Checkpoint(**template)
    arguments = (tmp_path / "weights.npz", tmp_path / "out", "checkpoint")
    if expected is None:
        with pytest.raises(MismatchError, match="by path: a"):
            import_checkpoint(*arguments, like=live)
        return
    import_checkpoint(*arguments, like=live, match_by=match_by)
    live.read(str(tmp_path / "out")).assert_existing_objects_matched()
    assert [float(one[0]) for one in template.values()] == expected

"""Warm-start settings in YAML files: what is refused, and the documented examples, run."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from graph_jobs import run_job, v1

import estimator_ckpt
from estimator_ckpt import WarmStart, load_warm_start
from estimator_ckpt.cli import main
from estimator_ckpt.errors import SettingsError

CONFIGS = Path(__file__).parents[1] / "configs"


def written(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_a_file_has_the_fields_of_the_settings(tmp_path):
    path = written(
        tmp_path,
        """
ckpt_to_initialize_from: a/b
vars_to_warm_start: [x, y]
var_name_to_prev_var_name: {x: z}
assignment_map: [[old/, new/], [a, b]]
rename: [["(.*)_1", '\\1']]
exclude: [head/.*]
on_missing: {x: warn}
on_shape_mismatch: init
on_unexpected: warn
require_all_rules_match: false
match_by: path
root: model
hyperparameters: {optimizer/iter: 7, learning_rate: 0.5}
from_optimizer: SGD
""",
    )
    assert load_warm_start(path) == WarmStart(
        "a/b",
        vars_to_warm_start=["x", "y"],
        var_name_to_prev_var_name={"x": "z"},
        assignment_map=[["old/", "new/"], ["a", "b"]],
        rename=[["(.*)_1", r"\1"]],
        exclude=["head/.*"],
        on_missing={"x": "warn"},
        on_shape_mismatch="init",
        on_unexpected="warn",
        require_all_rules_match=False,
        match_by="path",
        root="model",
        hyperparameters={"optimizer/iter": 7, "learning_rate": 0.5},
        from_optimizer="SGD",
    )


def test_pairs_may_be_a_mapping(tmp_path):
    path = written(tmp_path, "ckpt_to_initialize_from: a\nassignment_map: {old/: new/, a: b}\n")
    assert load_warm_start(path).assignment_map == (("old/", "new/"), ("a", "b"))


REFUSED = [
    ("onmissing: warn", "onmissing", "did you mean 'on_missing'"),
    ("zzz: 1", "zzz", "expected ckpt_to_initialize_from, "),
    ("vars_to_warm_start: [a, 1]", "vars_to_warm_start[1]", "Expected `str`, got `int`"),
    ("vars_to_warm_start: '('", "vars_to_warm_start", "no regular expression"),
    ("assignment_map: [[a, b], [c, d], [e, 1]]", "assignment_map[2][1]", "got `int`"),
    ("assignment_map: [[a, b], [c, d], [e]]", "assignment_map[2]", "length 2, got 1"),
    ("assignment_map: [[a, b], [c/, d]]", "assignment_map[1]", "a scope for a scope"),
    ("assignment_map: old", "assignment_map", "got `str`"),
    ("assignment_map: {a: 2}", "assignment_map[...]", "Expected `str`, got `int`"),
    ("rename: [['(', b]]", "rename[0]", "no regular expression"),
    ("rename: [[a, '\\2']]", "rename[0]", "no replacement"),
    ("exclude: head", "exclude", "Expected `list`, got `str`"),
    ("exclude: ['[']", "exclude[0]", "no regular expression"),
    ("on_missing: 1", "on_missing", "Expected `str | mapping`, got `int`"),
    ("on_missing: {a: 3}", "on_missing", "for 'a', found 3"),
    ("on_missing: never", "on_missing", "expected one of 'error', 'warn', 'init'"),
    ("on_unexpected: init", "on_unexpected", "expected one of error, warn, ignore"),
    ("require_all_rules_match: 'yes'", "require_all_rules_match", "Expected `bool`"),
    ("var_name_to_prev_var_name: {a: 1}", "var_name_to_prev_var_name['a']", "variable name"),
    ("var_name_to_vocab_info: {e: 3}", "var_name_to_vocab_info['e']", "Expected `mapping`"),
    (
        "var_name_to_vocab_info: {e: {new_vocabb: x}}",
        "var_name_to_vocab_info['e'].new_vocabb",
        "did you mean 'new_vocab'",
    ),
    (
        "var_name_to_vocab_info: {e: {new_vocab: x}}",
        "var_name_to_vocab_info['e']",
        "missing required field `new_vocab_size`",
    ),
    (
        "var_name_to_vocab_info: {e: {new_vocab: x, new_vocab_size: '3'}}",
        "var_name_to_vocab_info['e'].new_vocab_size",
        "Expected `int`, got `str`",
    ),
    ("exclude: [a]\nexclude: [b]", None, "'exclude' stands here twice"),
    ("exclude: !!python/object/apply:os.getcwd []", None, "could not determine a constructor"),
    ("exclude: [", None, "no YAML"),
    ("exclude: " + "[" * 3000, None, "no YAML"),
]


@pytest.mark.parametrize(("text", "place", "message"), REFUSED, ids=[c[0][:50] for c in REFUSED])
def test_what_is_refused_names_the_file_and_the_place_in_it(tmp_path, text, place, message):
    path = written(tmp_path, f"ckpt_to_initialize_from: a\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load_warm_start(path)
    assert (caught.value.path, caught.value.key) == (str(path), place)
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["exclude: [a]", "exclude: [a]\nckpt_to_initialize_from: other"])
def test_a_checkpoint_that_is_given_is_taken_in_place_of_the_files(tmp_path, text):
    found = load_warm_start(written(tmp_path, text), ckpt_to_initialize_from=tmp_path / "m")
    assert found == WarmStart(str(tmp_path / "m"), exclude=["a"])


@pytest.mark.parametrize("text", ["", "[1]", "text", "exclude: [a]", "ckpt_to_initialize_from: 3"])
def test_a_file_without_a_checkpoint_is_refused(tmp_path, text):
    with pytest.raises(SettingsError):
        load_warm_start(written(tmp_path, text))


def test_no_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="none here"):
        load_warm_start(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="none here"):
        load_warm_start(tmp_path)


def job_with(**values):
    """A job with these variables; the names `/` for `__`."""

    def build():
        for name, value in values.items():
            v1.get_variable(name.replace("__", "/"), initializer=np.float32(value))
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    return build


def start_by(config, tmp_path, monkeypatch, source, target):
    """What the variables of `target` start from by an example in configs/."""
    monkeypatch.chdir(tmp_path)
    run_job("pretrained", build=source)
    settings = load_warm_start(CONFIGS / config)
    start, _ = run_job(
        "target",
        lambda: estimator_ckpt.make_scaffold("checkpoint", warm_start=settings),
        build=target,
    )
    return {name: np.asarray(value).tolist() for name, value in start.items()}


def test_the_example_with_a_new_head(tmp_path, monkeypatch):
    source = job_with(dense__kernel=[1, 2], head__kernel=[3, 4])
    target = job_with(dense__kernel=[0, 0], head__kernel=[0, 0, 0], adapter__w=[7])
    start = start_by("warm_start_new_head.yaml", tmp_path, monkeypatch, source, target)
    assert start == {
        "dense/kernel": [1, 2],
        "head/kernel": [0, 0, 0],
        "adapter/w": [7],
        "global_step": 0,
    }


def test_the_example_that_moves_scopes(tmp_path, monkeypatch):
    source = job_with(bert__encoder__0__weights=[1, 2], bert__encoder__bias=[3], step_size=0.5)
    target = job_with(
        tower_a__encoder__0__kernel=[0, 0],
        tower_a__encoder__bias=[0],
        tower_b__encoder__0__kernel=[0, 0, 0],
        optimizer__step_size=0.25,
        other=8,
    )
    start = start_by("warm_start_move_scope.yaml", tmp_path, monkeypatch, source, target)
    assert start == {
        "tower_a/encoder/0/kernel": [1, 2],
        "tower_a/encoder/bias": [3],
        "tower_b/encoder/0/kernel": [0, 0, 0],  # another shape
        "optimizer/step_size": 0.5,
        "other": 8,
        "global_step": 0,
    }


def test_the_example_with_a_new_vocabulary(tmp_path, monkeypatch):
    (tmp_path / "old_words.txt").write_text("a\nb\nc\n")
    (tmp_path / "new_words.txt").write_text("c\nd\na\nb\n")
    source = job_with(words__table=[[1, 1], [2, 2], [3, 3]], dense__kernel=[4])
    target = job_with(embedding__table=np.full([4, 2], 9), dense__kernel=[0])
    start = start_by("warm_start_vocabulary.yaml", tmp_path, monkeypatch, source, target)
    assert start == {
        "embedding/table": [[3, 3], [0, 0], [1, 1], [2, 2]],
        "dense/kernel": [4],
        "global_step": 0,
    }


def test_every_example_is_loaded_here():
    examples = {path.name for path in CONFIGS.glob("warm_start*.yaml")}
    assert examples == {
        "warm_start_move_scope.yaml",
        "warm_start_new_head.yaml",
        "warm_start_vocabulary.yaml",
    }
    assert all(isinstance(load_warm_start(CONFIGS / name), WarmStart) for name in examples)


def test_the_readmes_settings_and_command(tmp_path, monkeypatch, capsys):
    section = (CONFIGS.parent / "docs" / "warm_start.md").read_text()
    code = section.split("settings = ")[1].split("wrap_model_fn")[0]
    settings = eval(code, {"WarmStart": WarmStart})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run_job("pretrained", build=job_with(bert__w=[1, 2]))
    target = job_with(tower__bert__w=[0, 0], tower__bert__adapter__w=[3])
    start, _ = run_job(
        "target",
        lambda: estimator_ckpt.make_scaffold("checkpoint", warm_start=settings),
        build=target,
    )
    np.testing.assert_array_equal(start["tower/bert/w"], [1, 2])
    np.testing.assert_array_equal(start["tower/bert/adapter/w"], [3])

    (tmp_path / "my_job.py").write_text(
        "import tensorflow as tf\n"
        "def build_model():\n"
        "    tf.compat.v1.get_variable('bert/w', [2])\n"
    )
    (tmp_path / "settings.yaml").write_text("ckpt_to_initialize_from: pretrained\n")
    commands = [line for line in section.splitlines() if line.startswith("estimator-ckpt check")]
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command, comments=True)[1:]) == 0, capsys.readouterr()

"""What the command says of itself: help, examples, version, completion, the manual page."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, command_runner
from stock_files import save

from estimator_ckpt import cli

# They train, or call a module of a user's.
NOT_RUN = ("train", "check")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


def examples(verb: str) -> list[str]:
    """The commands in a verb's help, each on a line."""
    text = cli.command(verb).__doc__.replace("\\\n", " ")
    return [line.strip() for line in text.split("\n") if line.startswith("  estimator-ckpt ")]


def arguments_of(example: str) -> list[str]:
    return shlex.split(example, comments=True)[1:]


@pytest.mark.parametrize("argument", ["--version", "-V", "version"])
def test_the_version_is_that_of_the_package(argument: str, run: Run) -> None:
    from importlib.metadata import version

    assert run(argument) == (0, f"estimator-ckpt {version('estimator-ckpt')}\n", "")


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("ls", "inspect"),
        ("INSPECT", "inspect"),
        ("Show", "inspect"),
        ("diff", "compare"),
        ("fsck", "verify"),
        ("migrate", "convert"),
        ("verfiy", "verify"),
        ("man", "manpage"),
    ],
)
def test_other_words_for_a_verb_lead_to_it(word: str, verb: str, run: Run) -> None:
    result = run(word)
    assert (result.code, result.out) == (2, "")
    assert f"there is no verb '{word}'; did you mean '{verb}'?" in result.err


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["ls"], "inspect --help"),
        (["ls", "my run", "--tree"], "inspect 'my run' --tree"),
        (["xyzzy", "run"], "--help"),
        (["inspect", "--tre"], "inspect --help"),
    ],
)
def test_what_is_meant_can_be_typed_as_it_stands(
    arguments: list[str], instead: str, run: Run
) -> None:
    assert run(*arguments).err.endswith(f"\nTry: estimator-ckpt {instead}\n")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_fits_a_narrow_terminal(verb: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "64")
    text = run("help", verb).out
    typed = ("usage: ", "  estimator-ckpt", "      ")  # what can be typed stays as it is
    long = [line for line in text.splitlines() if len(line) > 64]
    assert [line for line in long if not line.startswith(typed) or " " * 30 in line] == []
    assert " ".join(text.split()) == " ".join(run("help", verb).out.split())


def test_no_word_leads_to_two_verbs() -> None:
    words = [*cli.VERBS, *" ".join(cli._OTHER_WORDS.values()).split()]
    assert cli._OTHER_WORDS.keys() == cli.VERBS.keys()
    assert len(words) == len(set(words))


def test_a_word_like_nothing_is_refused_without_a_guess(run: Run) -> None:
    assert run("xyzzy").err.startswith("estimator-ckpt: there is no verb 'xyzzy'\n")


def test_a_path_or_a_flag_in_the_place_of_the_verb(run: Run, tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt-7", {"v": np.float32(1)})
    for path in (prefix, str(tmp_path)):
        shown = run(path, "--tree").err
        assert (
            f"before the path, found '{path}'\nTry: estimator-ckpt inspect {path} --tree" in shown
        )
    assert "expected a verb before the flags, found '--json'" in run("--json", "inspect").err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_help_has_the_verbs_exit_codes_and_examples(verb: str, run: Run) -> None:
    text = run("help", verb).out
    codes = text.partition("\nExit codes:\n")[2].splitlines()
    assert [line.split()[0] for line in codes if line[2] != " "] == list(
        map(str, cli.command(verb).EXIT_CODES)
    )
    assert codes[0].startswith("  0 ")
    assert any(line.startswith("  2 ") for line in codes)
    assert examples(verb)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_flag_stands_once_below_a_heading(verb: str) -> None:
    values = cli.flags_of(verb)
    groups = cli.flag_groups(cli.command(verb), values)
    names = [name for _, group in groups for name in group]
    assert sorted(names) == sorted(name for name in values if values[name].name == name)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("verb", cli.VERBS)
def test_headings_name_flags_that_there_are(verb: str) -> None:
    named = " ".join(getattr(cli.command(verb), "GROUPS", {}).values()).split()
    assert set(named) - set(cli.flags_of(verb)) == set()


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_flags_of_examples_are_flags(verb: str) -> None:
    for example in examples(verb):
        found, *rest = arguments_of(example)
        assert found == verb
        cli.flags_of(verb)([verb, *rest])  # raises on a wrong flag or value


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the paths that the examples name."""
    kernel, bias = np.float32([[1, 2], [3, 4]]), np.float32([5, 6])
    tensors = {"dense/kernel": kernel, "dense/kernel/Momentum": kernel, "dense/bias": bias}
    for directory in ("run", "another_run", "all_runs/a", "all_runs/b"):
        (tmp_path / directory).mkdir(parents=True)
    for step in (1000, 2000):
        values = {**tensors, "global_step": np.int64(step)}
        for name in ("run", "another_run", "all_runs/a", "all_runs/b"):
            save(tmp_path / name / f"model.ckpt-{step}", values)
    for directory in ("run", "another_run", "all_runs/a", "all_runs/b"):
        lines = ['model_checkpoint_path: "model.ckpt-2000"\n']
        lines += [f'all_model_checkpoint_paths: "model.ckpt-{step}"\n' for step in (1000, 2000)]
        (tmp_path / directory / "checkpoint").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_do_what_they_say(run: Run, place: Path) -> None:
    codes = {"compare run/model.ckpt-1000 run/model.ckpt-2000": 1}  # the steps differ
    run("export", "run", "weights.npz")
    run("export", "run", "weights.safetensors")
    run("convert", "run", "keras/ckpt-5", "--checkpoint_format=checkpoint")
    for verb in cli.VERBS:
        for example in examples(verb) if verb not in NOT_RUN else ():
            if ">" in example:
                continue  # for a shell, below
            arguments = arguments_of(example)
            if verb == "export":
                (place / arguments[2]).unlink()
            result = run(*arguments)
            assert result.err == ""
            assert result.code == codes.get(" ".join(arguments), 0), example


# --- completion ---


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_knows_all_verbs_and_flags(shell: str, run: Run) -> None:
    result = run("completion", shell)
    assert (result.code, result.err) == (0, "")
    for verb in cli.VERBS:
        assert verb in result.out
        for name in cli.flags_of(verb) if shell != "tcsh" else ():  # where shtab knows verbs alone
            assert f"--{name}" in result.out


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = shlex.join(words)
    code = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_estimator_ckpt;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return sorted(filter(None, shown.stdout.split("\n")))


def test_bash_completes_verbs_flags_choices_and_paths(run: Run, place: Path) -> None:
    script = run("completion", "bash").out
    assert complete(script, "estimator-ckpt", "ins") == ["inspect"]
    assert complete(script, "estimator-ckpt", "inspect", "--tens") == ["--tensor", "--tensor_name"]
    assert complete(script, "estimator-ckpt", "inspect", "--sort", "") == ["name", "size"]
    assert complete(script, "estimator-ckpt", "completion", "z") == ["zsh"]
    assert complete(script, "estimator-ckpt", "verify", "ru") == ["run"]
    assert complete(script, "estimator-ckpt", "verify", "run", "ano") == ["another_run"]


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_other_shells_are_refused(words: list[str], run: Run) -> None:
    result = run("completion", *words)
    assert (result.code, result.out) == (2, "")
    assert "expected one of bash, zsh, tcsh, found" in result.err


@pytest.mark.parametrize(
    ("verb", "module", "package"),
    [
        (["completion", "bash"], "shtab", "shtab"),
        (["manpage"], "argparse_manpage", "argparse-manpage"),
    ],
)
def test_without_the_package_a_line_says_how_to_get_it(
    verb: list[str], module: str, package: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = run(*verb)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"estimator-ckpt: estimator-ckpt {verb[0]} needs the package {package}, which is not"
        " installed: pip install 'estimator-ckpt[completion]'\n"
    )


# --- the manual page ---


def test_the_manual_page_has_all_verbs_and_flags(run: Run) -> None:
    result = run("manpage")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(".TH ESTIMATOR")
    plain = result.out.replace("\\-", "-")
    assert "estimator-ckpt - inspect, verify, compare and convert" in plain
    for verb in cli.VERBS:
        assert f"estimator-ckpt {verb}" in plain
        for name in cli.flags_of(verb):
            assert f"--{name}" in plain
        for meaning in cli.command(verb).EXIT_CODES.values():
            assert meaning in plain.replace("\\(aq", "'").replace("\\'", "'")

"""What people install: its dependencies, its files, and the configs that it brings along."""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from golden_files import KINDS

from estimator_ckpt import SaverOptions, configs, load_warm_start
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.options import SaverKeywords

ROOT = Path(__file__).parents[1]


PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def names(key: str) -> set[str]:
    """The packages of a list in pyproject.toml. (Python 3.9 has nothing that reads TOML.)"""
    (content,) = re.findall(rf"^{key} = \[(.*?)\]$", PYPROJECT, flags=re.MULTILINE | re.DOTALL)
    return {re.split(r"[^\w-]", one)[0] for one in re.findall(r'"([^"]*)"', content)}


def test_the_base_needs_no_tensorflow() -> None:
    assert names("dependencies") == {
        "absl-py",
        "cramjam",
        "google-crc32c",
        "ml-dtypes",
        "msgspec",
        "numpy",
        "protobuf",
        "pyyaml",
        "rich",
    }
    assert names("tensorflow") == {"tensorflow"}
    assert names("estimator") == {"tensorflow-estimator"}
    assert names("remote") == {"fsspec"}
    assert names("beam") == {"apache-beam"}
    assert {"zensical", "mkdocstrings-python"} <= names("docs")


def test_the_wheel_takes_every_kind_of_file_that_the_package_has() -> None:
    kinds = {
        path.suffix or path.name
        for path in (ROOT / "estimator_ckpt").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert kinds == {".py", ".flags", ".yaml", ".typed", ".js", ".css", ".LICENSE"}
    assert (
        'estimator_ckpt = ["py.typed", "configs/*.flags", "configs/*.yaml", "pages/static/*"]'
        in PYPROJECT
    )


def test_the_description_on_an_index_has_no_relative_links() -> None:
    described = runpy.run_path(str(ROOT / "setup.py"))["described"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = "![a](docs/a.svg) [`b`](docs/b.md#c), [d](https://e.org/f)"
    assert described(text, "") == " `b`, [d](https://e.org/f)"
    assert (
        described(text, "https://g/")
        == "![a](https://g/docs/a.svg) [`b`](https://g/docs/b.md#c), [d](https://e.org/f)"
    )
    assert re.findall(r"\]\((?!\w+:)[^)]*\)", readme)
    assert not re.findall(r"\]\((?!\w+:)[^)]*\)", described(readme, ""))


# --- versions ---


def test_the_versions_of_the_readme_and_of_pyproject_are_those_that_are_tested() -> None:
    script = (ROOT / ".ci" / "versions").read_text(encoding="utf-8")
    tested = re.findall(r"^(\d+\.\d+\.\d+) (3\.\d+)(.*)$", script, flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\S+) \| (3\.\d+) \| (\w+) \|$", readme, flags=re.MULTILINE)
    estimator = {tf: "estimator" in more for tf, _, more in tested}
    assert shown == [(tf, python, "yes" if estimator[tf] else "no") for tf, python, _ in tested]
    pythons = list(dict.fromkeys(python for _, python, _ in tested))
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT) == pythons
    assert f'requires-python = ">={pythons[0]}"' in PYPROJECT
    oldest, with_estimator = tested[0][0], [tf for tf in estimator if estimator[tf]]
    assert f'"tensorflow>={oldest.rpartition(".")[0]}"' in PYPROJECT
    bounds = f">={with_estimator[0].rpartition('.')[0]},<2.16"
    assert f'"tensorflow-estimator{bounds}"' in PYPROJECT


def test_goldens_are_of_versions_that_are_tested() -> None:
    script = (ROOT / ".ci" / "versions").read_text(encoding="utf-8")
    tested = re.findall(r"^(\d+\.\d+)\.\d+ ", script, flags=re.MULTILINE)
    made = {version for versions in KINDS.values() for version in versions}
    assert made <= set(tested)
    assert {tested[0], tested[-1]} <= made


# --- configs ---


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--flagfile=configs/both.flags"], ["--flagfile={}/both.flags"]),
        (["-flagfile", "configs/both.flags"], ["-flagfile", "{}/both.flags"]),
        (["--flagfile=configs/none.flags"], ["--flagfile=configs/none.flags"]),
        (["--flagfile=other/both.flags"], ["--flagfile=other/both.flags"]),
        (["--", "--flagfile=configs/both.flags"], ["--", "--flagfile=configs/both.flags"]),
        (["configs/both.flags"], ["configs/both.flags"]),
    ],
)
def test_packaged_flagfiles_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], found: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [one.format(configs.DIRECTORY) for one in found]
    assert configs.find_flagfiles(arguments) == expected


def test_a_file_of_the_current_directory_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "both.flags").write_text("")
    assert configs.find_config("configs/both.flags") == "configs/both.flags"


def test_packaged_settings_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "configs/warm_start_new_head.yaml"
    assert load_warm_start(name) == load_warm_start(Path(configs.DIRECTORY) / Path(name).name)
    with pytest.raises(SettingsError, match="expected a YAML file"):
        load_warm_start("configs/nothing.yaml")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("both", "needs TensorFlow, which is not installed"),  # so the flags were right
        ("none", "No such file or directory"),
    ],
)
def test_a_verb_takes_a_packaged_flagfile_from_anywhere(
    tmp_path: Path, name: str, end: str
) -> None:
    (tmp_path / "m.py").touch()
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from estimator_ckpt.cli import main\n"
        "main(['train', '--model_fn=m:f', '--train_input_fn=m:f', '--model_dir=run', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"--flagfile=configs/{name}.flags"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert end in done.stderr


def test_the_keywords_that_a_type_checker_knows_are_the_fields_of_saver_options() -> None:
    known = {name: of.__forward_arg__ for name, of in SaverKeywords.__annotations__.items()}
    assert known == {field.name: field.type for field in dataclasses.fields(SaverOptions)}


def test_many_machines_need_beam_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "from estimator_ckpt.cli import main\n"
        "sys.exit(main(['convert', *sys.argv[1:]]))"
    )
    flags = ["--checkpoint_format=both", "--log=log", "--beam="]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags, "run", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "pip install 'estimator-ckpt[beam]' (Python 3.10 or later)" in done.stderr
    assert "Traceback" not in done.stderr

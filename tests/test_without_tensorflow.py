"""Where TensorFlow is not installed: files all the same, and one line for what needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from own_files import save

import estimator_ckpt

ROOT = Path(estimator_ckpt.__file__).parents[1]
FIX = "pip install 'estimator-ckpt[tensorflow]'"

# As an interpreter answers that has no such package.
MISSING = "import sys; sys.modules.update({{name: None for name in {names}}})\n"


def run(code: str, *arguments: str, missing: tuple[str, ...] = ("tensorflow",)) -> str:
    """What a program prints, to both streams, and its exit code; without some packages."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(names=missing) + code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return f"{done.stdout}exit {done.returncode}\n"


COMMAND = "from estimator_ckpt.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return save(tmp_path / "model.ckpt-7", {"dense/kernel": [[1.0, 2.0]]})


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "--tensor=dense/kernel"],
        ["verify"],
        ["compare", "{prefix}"],
        ["check", "--model={prefix}"],
        ["convert", "--checkpoint_format=both", "{prefix}-both"],
        ["pin", "--name=release-7"],
    ],
    ids=" ".join,
)
def test_verbs_of_files_work(prefix: str, arguments: list[str]) -> None:
    verb, *rest = arguments
    given = [one.format(prefix=prefix) for one in rest]
    assert run(COMMAND, verb, prefix, *given).endswith("exit 0\n")


def test_what_a_save_would_delete_is_shown(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"')
    out = run(COMMAND, "retention", str(tmp_path), "--dry_run", "--keep_checkpoint_max=1")
    assert "model.ckpt-7  goes       no longer one of the newest 1\n" in out


def test_a_verb_that_needs_it_says_so_in_one_line() -> None:
    functions = ["--model_fn=json:loads", "--train_input_fn=json:load"]  # those of some module
    out = run(COMMAND, "train", *functions, "--model_dir=run")
    message, code = out.splitlines()
    assert message.startswith("estimator-ckpt: estimator-ckpt train")
    assert "needs TensorFlow, which is not installed" in message
    assert FIX in message
    assert code == "exit 2"


def test_a_flag_that_needs_it_says_so_in_one_line(prefix: str, tmp_path: Path) -> None:
    meta = tmp_path / "graph.meta"
    meta.write_bytes(b"\x0a\x00")
    message, code = run(COMMAND, "check", f"--model={meta}", prefix).splitlines()
    assert "needs TensorFlow" in message
    assert code == "exit 2"


def test_a_name_that_needs_it_says_so_when_it_is_asked_for() -> None:
    out = run("from estimator_ckpt import wrap_model_fn")
    assert out.splitlines()[-2].startswith(
        "estimator_ckpt.errors.MissingPackageError: estimator_ckpt.wrap_model_fn needs TensorFlow"
    )
    assert FIX in out


def test_another_package_that_is_missing_is_not_called_tensorflow(prefix: str) -> None:
    out = run(COMMAND, "inspect", prefix, missing=("tensorflow", "google_crc32c"))
    assert "No module named 'google_crc32c'" in out or "google_crc32c" in out
    assert "needs TensorFlow" not in out


def test_remote_paths_are_read_by_fsspec(tmp_path: Path) -> None:
    code = (
        "import fsspec\n"
        "from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint\n"
        "fsspec.filesystem('memory').put(sys.argv[1] + '/', 'memory://run/', recursive=True)\n"
        "done = convert_checkpoint('memory://run', 'memory://both/', 'both')\n"
        "with open_checkpoint('memory://both') as ckpt:\n"
        "    print(ckpt.format, ckpt.get_tensor('dense/kernel').tolist())\n"
        "print(len(verify_checkpoint('memory://both/model.ckpt-7').faults))"
    )
    save(tmp_path / "model.ckpt-7", {"dense/kernel": [[1.0, 2.0]]})
    assert run(code, str(tmp_path)).splitlines()[-3:] == ["both [[1.0, 2.0]]", "0", "exit 0"]


def test_remote_paths_need_one_of_two_packages() -> None:
    out = run(COMMAND, "inspect", "gs://bucket/run", missing=("tensorflow", "fsspec"))
    message, code = out.splitlines()
    assert "remote paths need fsspec or TensorFlow" in message
    assert "pip install 'estimator-ckpt[remote]'" in message
    assert code == "exit 2"

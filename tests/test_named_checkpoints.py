"""Names for the checkpoints of a run, and pins: RUN@step=1200, RUN@newest, RUN@release-7."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, command_runner
from stock_files import save
from tensorflow_party import WITH_TENSORFLOW

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    files,
    open_checkpoint,
    pin_checkpoint,
    record_metrics,
    unpin_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
    WriteError,
)
from estimator_ckpt.files import claims


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


def write(prefix: Path, value: float) -> str:
    return save(prefix, {"w": np.float32([value]), "global_step": np.int64(value)})


@pytest.fixture
def model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`run`, with the steps 800, 1000 and 1200; the state file names 1000 as the newest."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    for step in (800, 1000, 1200):
        write(Path(f"run/model.ckpt-{step}"), step)
    Path("run/checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000"')
    return Path("run")


def value_of(path: str) -> float:
    with open_checkpoint(path) as checkpoint:
        return float(checkpoint["w"][0])


def delete(prefix: str) -> None:
    for path in Path().glob(f"{prefix}.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run@newest", 1000),
        ("run/@newest", 1000),
        ("run@step=800", 800),
        ("run@step=01200", 1200),
        ("run@old", 800),
    ],
)
def test_a_checkpoint_is_named_by_its_run(model_dir: Path, path: str, value: float) -> None:
    pin_checkpoint("run@step=800", "old")
    assert value_of(path) == value
    assert value_of(os.path.abspath(path)) == value


@pytest.mark.parametrize("there", ["run@newest.index", "run@newest/model.ckpt-1.index"])
def test_a_path_with_an_at_that_is_there_wins(model_dir: Path, there: str) -> None:
    Path(there).parent.mkdir(exist_ok=True)
    write(Path(there[: -len(".index")]), 7)
    assert value_of("run@newest") == 7


def test_every_door_takes_names(model_dir: Path, tmp_path: Path, run: Run) -> None:
    assert verify_checkpoint("run@step=800").ok
    assert not compare_checkpoints("run@step=800", "run@step=1200").equal
    convert_checkpoint("run@step=800", tmp_path / "to" / "model.ckpt-800", "checkpoint")
    assert value_of(str(tmp_path / "to")) == 800
    for arguments in (
        ["inspect", "run@step=800"],
        ["verify", "run@step=800"],
        ["compare", "run@step=800", "run/model.ckpt-800"],
        ["convert", "run@step=800", "elsewhere/model", "--checkpoint_format=checkpoint"],
        ["export", "run@step=800", "weights.npz"],
        ["check", "--model=run@newest", "run@step=800"],
    ):
        assert run(*arguments).code == 0, arguments


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("run@step=900", "run: no complete checkpoint is of step 900; there are 800, 1000, 1200"),
        ("run@step=x", "run: expected a step, as @step=1200, found @step=x"),
        (
            "run@oldd",
            "run: no checkpoint of the directory is named @oldd; did you mean 'old'?; known are "
            "@newest, @step=N, @best, @best:METRIC, @old",
        ),
        ("run@best", "run: no best checkpoints are kept, as there is no checkpoint_best.json; "),
        ("rum@best", "rum@best: there is no rum@best.index, nor a directory rum that has "),
        ("run@", "run: no checkpoint of the directory is named @; known are "),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error(model_dir: Path, path: str, message: str) -> None:
    pin_checkpoint("run", "old")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(message)


def test_two_checkpoints_of_one_step_are_told_apart_by_the_state_file(model_dir: Path) -> None:
    write(Path("run/other-1000"), 5)
    assert value_of("run@step=1000") == 1000
    write(Path("run/other-800"), 5)
    with pytest.raises(CheckpointError, match=r"2 checkpoints are of step 800: .*other-800"):
        open_checkpoint("run@step=800")


@pytest.mark.parametrize("step", ["9" * 5000, "", "-1", "1e3", "\u0663"])
def test_a_step_that_is_none_is_refused(model_dir: Path, step: str) -> None:
    with pytest.raises(NotACheckpointError, match=f"step {step}|as @step=1200"):
        open_checkpoint(f"run@step={step}")
    assert value_of(f"run@step={'0' * 5000}1000") == 1000


# --- pins ---


def test_a_pinned_checkpoint_stays_when_its_own_name_is_deleted(model_dir: Path, run: Run) -> None:
    Path("run/model.ckpt-800.meta").write_text("graph")
    position = Path("run/model.ckpt-800.input/position-800.index")
    position.parent.mkdir()
    position.write_text("position")
    prefix = pin_checkpoint("run@step=800", "release-7")
    assert prefix == "run/pinned/release-7/model.ckpt-800"
    assert os.path.samefile(f"{prefix}.index", "run/model.ckpt-800.index")  # no second copy
    delete("run/model.ckpt-800")
    assert value_of("run@release-7") == value_of("run@step=800") == 800
    assert Path(f"{prefix}.meta").read_text() == "graph"
    assert Path(f"{prefix}.input/position-800.index").read_text() == "position"
    assert "pinned as release-7: model.ckpt-800\n" in run("inspect", "run").out
    assert json.loads(run("inspect", "run", "--json").out)["pinned"] == {"release-7": prefix}
    unpin_checkpoint("run@release-7")
    assert not Path("run/pinned/release-7").exists()


def test_pin_and_unpin_on_the_command_line(model_dir: Path, run: Run) -> None:
    done = run("pin", "run@step=800", "--name=release-7")
    assert done == (0, "pinned as release-7: run/pinned/release-7/model.ckpt-800\n", "")
    assert run("pin", "run/model.ckpt-800", "--name=release-7").code == 0  # it is, already
    again = run("pin", "run", "--name=release-7")
    assert again.code == 2
    assert "model.ckpt-800 is pinned as release-7 already" in again.err
    assert value_of("run@release-7") == 800
    assert run("unpin", "run@release-7").out == "no longer pinned: run@release-7\n"
    assert run("unpin", "run@release-7").err.startswith(
        "estimator-ckpt: run: no checkpoint is pinned as release-7; none is"
    )
    assert run("pin", "run").code == run("unpin").code == 2


@pytest.mark.parametrize(
    "name", ["", "best", "newest", "step=3", "a/b", "..", ".x", "a@b", "a:b", "x.evaluating-1"]
)
def test_a_name_that_could_mean_something_else_is_refused(model_dir: Path, name: str) -> None:
    before = files_below(model_dir)
    with pytest.raises(CheckpointError, match=r"^name: "):
        pin_checkpoint("run", name)
    assert files_below(model_dir) == before


def test_a_checkpoint_with_a_part_missing_is_not_pinned(model_dir: Path) -> None:
    next(model_dir.glob("model.ckpt-800.data-*")).write_bytes(b"")
    with pytest.raises(CorruptCheckpointError):
        pin_checkpoint("run/model.ckpt-800", "release-7")
    assert not (model_dir / "pinned").exists()


def test_a_pin_goes_along_with_the_directory(model_dir: Path) -> None:
    pin_checkpoint("run@step=800", "release-7")
    shutil.move("run", "moved")
    assert value_of("moved@release-7") == 800


def test_a_pinned_or_best_checkpoint_is_pinned_in_its_run(model_dir: Path) -> None:
    pin_checkpoint("run@step=800", "a")
    assert pin_checkpoint("run@a", "b") == "run/pinned/b/model.ckpt-800"


@pytest.mark.parametrize("room", ["best", "pinned"])
@pytest.mark.parametrize("has_state", [True, False])
def test_a_run_may_stand_in_a_directory_of_such_a_name(
    model_dir: Path, room: str, has_state: bool
) -> None:
    os.mkdir(room)
    run = shutil.move("run", f"{room}/run-7")
    if not has_state:
        os.unlink(f"{run}/checkpoint")
    assert pin_checkpoint(f"{run}@step=800", "a") == f"{run}/pinned/a/model.ckpt-800"
    assert record_metrics(f"{run}@a", {"x": 1}, keep_best=("x", 1)) == ("x",)
    assert value_of(f"{run}@best") == value_of(f"{run}@a") == 800


def test_nothing_is_written_where_a_name_leads_to_a_checkpoint(model_dir: Path, run: Run) -> None:
    """As a path it would hide that one from then on."""
    pin_checkpoint("run", "a")
    for source in ("run", "run/model.ckpt-800"):
        said = run("convert", source, "run@a", "--checkpoint_format=both")
        assert said.code == 2
        assert "run@a: this names a checkpoint, run/pinned/a/model.ckpt-1000" in said.err
    convert_checkpoint("run@a", "run@home", "both")  # names none
    assert open_checkpoint("run@home").format == "both"
    (model_dir.parent / "run@home.converting").touch()  # as a kill just before the end leaves it
    convert_checkpoint("run@a", "run@home", "both")
    assert not os.path.exists("run@home.converting")


def test_what_a_kill_left_of_a_pin_is_no_pin_and_is_cleared_away(model_dir: Path) -> None:
    left = model_dir / "pinned" / "release-7.linking-0123abcd"
    left.mkdir(parents=True)
    os.link("run/model.ckpt-800.index", left / "model.ckpt-800.index")
    with pytest.raises(CheckpointError):
        open_checkpoint("run@release-7")
    pin_checkpoint("run", "release-7")
    assert os.listdir(model_dir / "pinned") == ["release-7"]
    assert value_of("run@release-7") == 1000


def test_remote_ones_are_copied(model_dir: Path, tmp_path: Path) -> None:
    Path("run/model.ckpt-1200.input").mkdir()
    write(Path("run/model.ckpt-1200.input/position-1200"), 3)
    remote = f"{'ram' if WITH_TENSORFLOW else 'memory'}://{tmp_path.name}"
    for path, data in files_below(model_dir).items():
        files.make_dirs(f"{remote}/{os.path.dirname(path)}")
        with files.open_write(f"{remote}/{path}") as file:
            file.write(data)
    # As a kill leaves it after the first files.
    left = f"{remote}/run/pinned/release-7/model.ckpt-1200.input"
    files.make_dirs(left)
    files.write_atomic(f"{left}/position-1200.index", b"")
    assert pin_checkpoint(f"{remote}/run@step=1200", "release-7").endswith("7/model.ckpt-1200")
    for step, accuracy in ((800, 0.5), (1000, 0.9), (1200, 0.7)):
        record_metrics(
            f"{remote}/run@step={step}", {"accuracy": accuracy}, keep_best=("accuracy", 1)
        )
    for path in files_below(model_dir):
        files.remove(f"{remote}/{path}")
    assert value_of(f"{remote}/run@best") == 1000
    assert files.list_dir(f"{remote}/run/best") == ["model.ckpt-1000"]
    pinned = verify_checkpoint(f"{remote}/run@release-7")
    assert pinned.ok
    assert pinned.input_bytes > 0
    unpin_checkpoint(f"{remote}/run@release-7")
    with pytest.raises(CheckpointError, match="release-7"):
        open_checkpoint(f"{remote}/run@release-7")


def test_one_process_at_a_time_pins(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimator_ckpt.kept.links._WAIT", 0.0)
    another = claims.acquire("run/checkpoint.keeping", "another")
    with another, pytest.raises(WriteError, match="another"):
        pin_checkpoint("run", "release-7")
    pin_checkpoint("run", "release-7")


def test_a_trainer_that_deletes_or_replaces_the_checkpoint_meanwhile_leaves_a_whole_pin_or_none(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it has been looked at, and before its data files are linked."""
    import estimator_ckpt.kept.links as links

    real, happens = links.read_index, []

    def read_index(prefix: str) -> object:
        for one in happens:
            one()
        happens.clear()
        return real(prefix)

    monkeypatch.setattr(links, "read_index", read_index)
    happens.append(lambda: delete("run/model.ckpt-800"))
    with pytest.raises(CheckpointError, match=r"(?i)no such file"):
        pin_checkpoint("run/model.ckpt-800", "gone")
    assert not (model_dir / "pinned").exists()

    def replace() -> None:
        delete("run/model.ckpt-1200")
        write(Path("run/model.ckpt-1200"), 5)
        for path in Path("run").glob("model.ckpt-1200.data-*"):
            os.rename(path, "run/kept-aside")
        write(Path("run/model.ckpt-1200"), 6)

    happens.append(replace)
    pin_checkpoint("run/model.ckpt-1200", "replaced")
    assert verify_checkpoint("run@replaced").ok

"""Export to safetensors and npz, and back: what other libraries find, and what is refused."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from command_line import Run, command_runner
from golden_files import GOLDENS, golden_cases
from own_files import save, save_boxes

from estimator_ckpt import (
    export_checkpoint,
    files,
    import_checkpoint,
    open_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    NotACheckpointError,
    SettingsError,
    UnsupportedCheckpointError,
    WriteError,
)
from estimator_ckpt.exchange import npz
from estimator_ckpt.exchange import safetensors as own_safetensors
from estimator_ckpt.exchange.dtypes import NPZ, SAFETENSORS
from estimator_ckpt.formats import RESETS_KEY

LIBRARY = tuple(map(int, safetensors.__version__.split(".")[:2]))
ENDINGS = (".safetensors", ".npz")
VALUES = {
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "dense/kernel/Adam": np.full((2, 3), 5, np.float32),
    "dense/kernel/Adam_1": np.full((2, 3), 6, np.float32),
    "beta1_power": np.float32(0.5),
    "beta2_power": np.float32(0.25),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 3), np.float16),
    "parts": np.arange(8, dtype=np.int64).reshape(4, 2),
    "global_step": np.int64(7),
}
SLOTS = {"dense/kernel/Adam", "dense/kernel/Adam_1", "beta1_power", "beta2_power"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return save(tmp_path / "model.ckpt-7", VALUES, None, {"parts": 2})


def loaded(path: Path) -> dict[str, Any]:
    """What the other library finds."""
    if path.suffix == ".safetensors":
        return dict(safetensors.numpy.load_file(path))
    with np.load(path) as file:
        return dict(file)


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == np.asarray(value).dtype
        and found[name].shape == np.shape(value)
        and found[name].tobytes() == np.asarray(value).tobytes()
        for name, value in expected.items()
    )


# --- out ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_libraries_find_every_variable(source: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    export = export_checkpoint(source, path)
    assert same(loaded(path), VALUES)
    assert {tensor.name for tensor in export.tensors} == set(VALUES)
    assert export.left_out == ()


@pytest.mark.parametrize("ending", ENDINGS)
def test_rules_are_those_of_convert(source: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    with open_checkpoint(source) as checkpoint:
        export = checkpoint.export(
            path,
            drop_slots=True,
            rename=[("dense/(.*)", r"layer/\1")],
            exclude=["flags"],
            dtype="float16",
        )
    assert same(
        loaded(path),
        {
            "layer/kernel": VALUES["dense/kernel"].astype(np.float16),
            "empty": VALUES["empty"],
            "parts": VALUES["parts"],
            "global_step": VALUES["global_step"],
        },
    )
    assert {one.name for one in export.left_out} == SLOTS | {"flags"}


def test_averages_take_the_places_of_their_variables(tmp_path: Path) -> None:
    values = {"w": np.float32([1]), "w/ExponentialMovingAverage": np.float32([2])}
    source = save(tmp_path / "m", values)
    export_checkpoint(source, tmp_path / "out.npz", use_averages=True)
    assert same(loaded(tmp_path / "out.npz"), {"w": np.float32([2])})


def test_metadata_says_where_a_file_is_from(tmp_path: Path) -> None:
    source = GOLDENS / "tf2.15" / "keras_weights"
    with open_checkpoint(source) as checkpoint:
        step = checkpoint.global_step
        paths = {one.name: one.object_path for one in checkpoint.variables.values()}
        name = Path(checkpoint.prefix).name
    export_checkpoint(source, tmp_path / "out.safetensors")
    export_checkpoint(source, tmp_path / "out.npz")
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as file:
        metadata = file.metadata()
    assert metadata["source"] == name
    assert metadata.get("step") == (None if step is None else str(step))
    assert json.loads(metadata["object_paths"]) == paths
    assert npz.read_header(str(tmp_path / "out.npz"))[1] == metadata


@pytest.mark.parametrize("case", golden_cases("dtypes", "dtypes_new"), ids=str)
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_table_of_dtypes_is_true(case: Any, tmp_path: Path, ending: str) -> None:
    able = set(SAFETENSORS.values()) if ending == ".safetensors" else set(NPZ)
    path = tmp_path / f"out{ending}"
    with pytest.raises(UnsupportedCheckpointError, match=f"{ending} files? cannot hold"):
        export_checkpoint(case.prefix, path)
    assert not path.exists()
    try:
        export_checkpoint(case.prefix, path, skip_unsupported=True)
    except SettingsError:
        assert not able & {variable.dtype for variable in case.variables}
        return
    expected = {v.name: v.value for v in case.variables if v.dtype in able}
    if ending == ".npz":
        assert same(loaded(path), expected)
    tensors, _ = (own_safetensors if ending == ".safetensors" else npz).read_header(str(path))
    assert tensors.keys() == expected.keys()
    if ending == ".safetensors":
        if case.kind == "dtypes_new" and LIBRARY < (0, 8):
            with pytest.raises(safetensors.SafetensorError, match=r"variant `F8_E.M.FNUZ`"):
                safetensors.safe_open(path, "np")
        else:
            with safetensors.safe_open(path, "np") as file:  # the library takes it for one
                assert set(file.keys()) == expected.keys()
        for name, (tensor, start) in own_safetensors.read_header(str(path))[0].items():
            data = b"".join(own_safetensors.read_chunks(str(path), start, tensor.nbytes))
            with open_checkpoint(case.prefix) as checkpoint:
                assert data == checkpoint[name].tobytes()


def test_the_documented_dtypes_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[1] / "docs" / "exchange.md").read_text()
    for line in re.findall(r"^\| (`.*)$", text, flags=re.MULTILINE)[:-1]:
        ours, theirs, in_npz = (
            re.findall(r"`(\w+)`", cell) or [cell.strip()] for cell in line.strip("| ").split("|")
        )
        names = dict(zip(theirs, ours)) if theirs != ["no"] else {}
        assert names.items() <= SAFETENSORS.items()
        assert all((name in NPZ) == (in_npz == ["yes"]) for name in ours)


def test_what_is_left_out_has_a_line(run: Run, tmp_path: Path) -> None:
    source = save(tmp_path / "m", {"w": np.float32([1]), "words": b"text"})
    path = tmp_path / "out.npz"
    result = run("export", source, path, "--skip_unsupported")
    assert result.code == 0
    assert result.out == (
        f"left out: words (.npz files have no string)\n{path}: 1 tensor, 4 B; 1 left out\n"
    )
    result = run("export", source, tmp_path / "again.npz")
    assert result.code == 2
    assert "cannot hold 1 of the 2 variables: words: .npz files have no string" in result.err


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_job_has_reset_is_no_variable(tmp_path: Path, ending: str) -> None:
    source = save(tmp_path / "m", {"w": np.float32([1]), RESETS_KEY: b"[]"})
    done = export_checkpoint(source, tmp_path / f"out{ending}")
    assert [one.name for one in done.tensors] == ["w"]
    assert done.left_out == ()


@pytest.mark.parametrize(
    ("ending", "name"),
    [(".npz", "kernel.npy"), (".npz", "/kernel"), (".safetensors", "__metadata__")],
)
def test_names_that_a_format_would_change_are_refused(
    tmp_path: Path, ending: str, name: str
) -> None:
    source = save(tmp_path / "m", {name: np.float32([1]), "w": np.float32([2])})
    with pytest.raises(UnsupportedCheckpointError, match=re.escape(name)):
        export_checkpoint(source, tmp_path / f"out{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_there_stays(source: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    path.write_bytes(b"mine")
    with pytest.raises(WriteError, match="exists"):
        export_checkpoint(source, path)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_comes_meanwhile_stays(source: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    before = {file.name for file in tmp_path.iterdir()}
    with pytest.raises(WriteError, match="the file exists"):
        export_checkpoint(source, path, progress=lambda done, total: bool(path.write_text("mine")))
    assert path.read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {*before, path.name}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_broken_source_leaves_nothing_behind(source: str, tmp_path: Path, ending: str) -> None:
    data = Path(f"{source}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\x55")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        export_checkpoint(source, tmp_path / "new" / "deep" / f"out{ending}")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_another_ending_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.safetensors or \.npz"):
        export_checkpoint(source, tmp_path / "out.pt")


def test_slots_that_went_for_averages_are_dropped_without_a_word(tmp_path, run, caplog):
    one = np.float32([1])
    names = ["w", "w/Adam", "w/Adam_1", "w/ExponentialMovingAverage"]
    source = save(tmp_path / "m", dict.fromkeys(names, one))
    shown = run("export", source, str(tmp_path / "a.npz"), "--drop_slots", "--use_averages")
    assert (shown.code, shown.err, caplog.messages) == (0, "", [])
    assert list(np.load(tmp_path / "a.npz")) == ["w"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_it_streams(tmp_path: Path, ending: str) -> None:
    size = 72 << 20
    source = save(tmp_path / "m", {"w": np.zeros(size, np.uint8)})
    path = tmp_path / f"out{ending}"
    tracemalloc.start()
    try:
        export_checkpoint(source, path)
        import_checkpoint(path, tmp_path / "back" / "m", "both")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > size
    assert peak < size / 2


# --- and back ---


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_there_and_back(source: str, tmp_path: Path, ending: str, checkpoint_format: str) -> None:
    path = tmp_path / f"out{ending}"
    export_checkpoint(source, path)
    result = import_checkpoint(path, tmp_path / "back" / "model.ckpt-7", checkpoint_format)
    assert (result.source, result.written) == (str(path), True)
    with open_checkpoint(tmp_path / "back") as checkpoint:
        assert checkpoint.format == checkpoint_format
        assert checkpoint.global_step == 7
        assert same({name: checkpoint[name] for name in VALUES}, VALUES)
        assert set(checkpoint) - set(VALUES) <= {"save_counter"}
    assert verify_checkpoint(tmp_path / "back" / "model.ckpt-7").faults == ()
    assert not [one for one in (tmp_path / "back").iterdir() if "importing" in one.name]


def test_the_objects_of_another_checkpoint(run: Run, tmp_path: Path) -> None:
    like = GOLDENS / "tf2.15" / "keras_weights"
    path = tmp_path / "out.safetensors"
    assert run("export", like, path).code == 0
    destination = tmp_path / "back" / "ckpt"
    flags = ["--checkpoint_format=checkpoint", f"--like={like}"]
    assert run("import", path, destination, *flags).code == 0
    assert run("compare", like, destination).code == 0
    with open_checkpoint(like) as one, open_checkpoint(destination) as two:
        assert list(two.columns.object_path) == list(one.columns.object_path)


def test_what_others_wrote_is_read(tmp_path: Path) -> None:
    values = {
        "a": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b": np.arange(3, dtype=">i4"),
        "c": np.float32(3),
    }
    np.savez_compressed(tmp_path / "n.npz", **values)
    safetensors.numpy.save_file(
        {"w": np.arange(4, dtype=np.float16), "bf": np.array([1.5], ml_dtypes.bfloat16)},
        tmp_path / "s.safetensors",
    )
    import_checkpoint(tmp_path / "n.npz", tmp_path / "n", "saver")
    import_checkpoint(tmp_path / "s.safetensors", tmp_path / "s", "saver")
    with open_checkpoint(tmp_path / "n") as checkpoint:
        assert checkpoint["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert checkpoint["b"].tolist() == [0, 1, 2]
        assert checkpoint["c"].shape == ()
    with open_checkpoint(tmp_path / "s") as checkpoint:
        assert checkpoint["w"].tolist() == [0, 1, 2, 3]
        assert checkpoint["bf"].dtype == ml_dtypes.bfloat16


KILLED = """
import os, signal, sys
from estimator_ckpt import {door}
{door}(*sys.argv[1:], progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


def killed(door: str, *arguments: Any) -> None:
    """Runs a function in a process that is killed amid the data."""
    code = KILLED.format(door=door)
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)])
    assert done.returncode == -signal.SIGKILL


def test_a_killed_import_is_no_checkpoint_and_no_obstacle(source: str, tmp_path: Path) -> None:
    export_checkpoint(source, tmp_path / "out.npz")
    back = tmp_path / "back"
    killed("import_checkpoint", tmp_path / "out.npz", back / "m", "saver")
    with pytest.raises(NotACheckpointError):
        open_checkpoint(back)
    import_checkpoint(tmp_path / "out.npz", back / "m", "saver")
    names = sorted(one.name for one in back.iterdir())
    assert names == ["checkpoint", "m.data-00000-of-00001", "m.index"]


def test_a_killed_export_is_no_file_and_no_obstacle(source: str, tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    killed("export_checkpoint", source, path)
    assert not path.exists()
    export_checkpoint(source, path)
    assert same(loaded(path), VALUES)


def header_of(facts: Any, data: bytes = b"") -> bytes:
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a header"),
        (b"\xff" * 8, "expected a header"),
        (struct.pack("<Q", 100) + b"{}", "expected a header"),
        (header_of(b"[]"), "no JSON object"),
        (header_of(b"{" * 10_000), "not the JSON"),
        (header_of(b'{"a": 1, "a": 2}'), "twice"),
        (header_of({"a": {}}), "expected dtype, shape and data_offsets"),
        (header_of({"a": tensor(shape=(-1,))}, bytes(4)), "expected dtype, shape"),
        (header_of({"a": tensor(shape=(True,))}, bytes(4)), "expected dtype, shape"),
        (header_of({"a": tensor(shape=(2,))}, bytes(4)), "expected 8 bytes"),
        (header_of({"a": tensor(offsets=(4, 8))}, bytes(8)), "expected its bytes at 0"),
        (header_of({"a": tensor(), "b": tensor()}, bytes(4)), "expected its bytes at 4"),
        (header_of({"a": tensor()}, bytes(3)), "expected 4 bytes of tensors"),
        (header_of({"a": tensor()}, bytes(5)), "expected 4 bytes of tensors"),
    ],
)
def test_broken_safetensors_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=message):
        import_checkpoint(path, tmp_path / "out" / "m", "saver")
    assert not (tmp_path / "out").exists()


def test_unknown_dtypes_of_a_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header_of({"a": tensor("F4", (2,), (0, 1))}, bytes(1)))
    with pytest.raises(UnsupportedCheckpointError, match="no dtype F4"):
        import_checkpoint(path, tmp_path / "m", "saver")
    np.savez(tmp_path / "x.npz", a=np.array([{}], object))
    with pytest.raises(UnsupportedCheckpointError, match="dtype object"):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "m", "saver")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("", (1,), "cannot be empty"),
        ("\0w", (1,), "cannot be empty or begin with a NUL"),
        ("_CHECKPOINTABLE_OBJECT_GRAPH", (1,), "something else under this name"),
        (RESETS_KEY, (1,), "something else under this name"),
        ("\ud800", (1,), "no UTF-8"),
        ("w", (1,) * 255, "254 dimensions at most, found 255"),
        ("w", (2**63, 0), f"dimensions of {2**63 - 1} at most, found {2**63}"),
    ],
)
def test_a_tensor_that_no_variable_can_be_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    path, nbytes = tmp_path / "x.safetensors", 0 if 0 in shape else 4
    path.write_bytes(header_of({name: tensor(shape=shape, offsets=(0, nbytes))}, bytes(nbytes)))
    with pytest.raises(UnsupportedCheckpointError, match=message) as raised:
        import_checkpoint(path, tmp_path / "out" / "m", "checkpoint")
    assert (raised.value.path, raised.value.key) == (str(path), name)
    assert not (tmp_path / "out").exists()


def test_what_other_programs_say_of_a_file_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header_of({"__metadata__": None, "w": tensor()}, bytes(4)))
    assert import_checkpoint(path, tmp_path / "m", "saver").rows[0].targets == ("w",)
    np.savez(tmp_path / "x.npz", w=np.float32(1))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.comment = b"[" * 60_000
    assert import_checkpoint(tmp_path / "x.npz", tmp_path / "n", "saver").rows[0].targets == ("w",)


@pytest.mark.parametrize("cut", [0, 10, 200, -30, -1])
def test_cut_npz_files_are_refused(tmp_path: Path, cut: int) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(100))
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[:cut])
    with pytest.raises(CorruptCheckpointError):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "out" / "m", "saver")


def test_a_flipped_byte_of_an_npz_file_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(100))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[400] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match="CRC"):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "out" / "m", "saver")
    assert not [one for one in (tmp_path / "out").rglob("*") if one.is_file()]


# --- in Python ---


def test_a_checkpoint_is_a_mapping_of_names_to_values(source: str) -> None:
    with open_checkpoint(source) as checkpoint:
        assert len(checkpoint) == len(VALUES)
        assert list(checkpoint) == sorted(VALUES)
        assert "flags" in checkpoint
        assert "flag" not in checkpoint
        assert checkpoint["flags"].tolist() == [True, False, True]
        with pytest.raises(KeyError, match="did you mean 'flags'"):
            checkpoint["flag"]


def test_a_checkpoint_is_a_data_frame(source: str) -> None:
    with open_checkpoint(source) as checkpoint:
        frame = checkpoint.to_dataframe()
    assert list(frame.index) == sorted(VALUES)
    assert frame.loc["parts", "shape"] == (4, 2)
    assert frame.loc["dense/kernel/Adam", "slot_of"] == "dense/kernel"
    assert frame["nbytes"].sum() == sum(np.asarray(value).nbytes for value in VALUES.values())


def test_notebooks_show_tables(source: str, tmp_path: Path) -> None:
    from estimator_ckpt import check_checkpoint, compare_checkpoints, convert_checkpoint

    other = save(tmp_path / "other", {**VALUES, "<b>": np.float32([1])})
    with open_checkpoint(other) as checkpoint:
        text = checkpoint._repr_html_()
    assert "&lt;b&gt;" in text
    assert "<b>&lt;" not in text
    assert "float32[2,3]" in text
    assert "only in B" in compare_checkpoints(source, other)._repr_html_()
    assert "whole" in verify_checkpoint(source)._repr_html_()
    assert "matched" in check_checkpoint(source, {"flags": ((3,), "bool")})._repr_html_()
    plan = convert_checkpoint(source, tmp_path / "both", "both", dry_run=True)
    assert "a plan: nothing is written" in plan._repr_html_()


def test_an_archive_of_many_arrays_is_opened_twice(tmp_path, monkeypatch):
    """To open it is to read the names of all: once for the headers, once for the values."""
    values = {f"layer_{n}/kernel": np.full(3, n, np.float32) for n in range(50)}
    np.savez(tmp_path / "a.npz", **values)
    opened = []
    init = zipfile.ZipFile.__init__
    monkeypatch.setattr(
        zipfile.ZipFile, "__init__", lambda *a, **k: (opened.append(1), init(*a, **k))[1]
    )
    import_checkpoint(tmp_path / "a.npz", tmp_path / "m", "saver")
    assert len(opened) == 2
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert {name: value.tolist() for name, value in checkpoint.items()} == {
            name: value.tolist() for name, value in values.items()
        }


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2"])
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 300), (300, 1), (2, 200, 2), (0, 3)])
def test_arrays_in_the_order_of_fortran_are_turned_a_part_at_a_time(
    dtype, shape, tmp_path, monkeypatch
):
    from estimator_ckpt.exchange import npz

    monkeypatch.setattr(npz, "_CHUNK", 64)
    values = np.asfortranarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    path = str(tmp_path / "a.npz")
    np.savez(path, x=values)
    member = npz.read_header(path)[0]["x"]
    with npz.open_archive(path) as archive:
        chunks = list(npz.read_chunks(archive, path, member))
    assert max(map(len, chunks), default=0) <= 64
    assert (
        b"".join(chunks) == np.ascontiguousarray(values.astype(dtype.replace(">", "<"))).tobytes()
    )


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    "boxes",
    [
        [(0, 4, 0, 9), (4, 2, 0, 9)],  # rows
        [(4, 2, 0, 9), (0, 4, 0, 9)],  # in another order
        [(0, 6, 0, 3), (0, 6, 3, 6)],  # columns
        [(0, 6, 0, 5), (0, 2, 5, 4), (2, 4, 5, 4)],
    ],
)
def test_a_partitioned_variable_is_put_together_some_rows_at_a_time(
    boxes, ending, tmp_path, monkeypatch
):
    from estimator_ckpt.bundle import tensors

    # As remote files are read: each byte once, and no more than the rows that are put together.
    sizes = []

    def counted(path, offset, size):
        sizes.append(size)
        return Path(path).read_bytes()[offset : offset + size]

    monkeypatch.setattr(files, "is_remote", lambda path: path.startswith(f"{tmp_path}/m"))
    monkeypatch.setattr(files, "read_range", counted)
    monkeypatch.setattr(tensors, "_CHUNK", 2 * 9 * 4)
    values = np.arange(54, dtype=np.float32).reshape(6, 9)
    prefix = save_boxes(tmp_path / "m", "v", values, boxes)
    path = str(tmp_path / f"a{ending}")
    export_checkpoint(prefix, path, dtype="float64")
    assert (max(sizes) <= 72, sum(sizes)) == (True, values.nbytes)
    imported = import_checkpoint(path, tmp_path / "back", "saver")
    with open_checkpoint(imported.destination) as back:
        assert back["v"].dtype == np.float64
        assert back["v"].tolist() == values.tolist()


def test_a_slice_with_a_wrong_byte_is_found_when_its_last_rows_come(tmp_path, monkeypatch):
    from estimator_ckpt.bundle import tensors

    monkeypatch.setattr(tensors, "_CHUNK", 2 * 9 * 4)
    values = np.arange(54, dtype=np.float32).reshape(6, 9)
    prefix = save_boxes(tmp_path / "m", "v", values, [(0, 4, 0, 9), (4, 2, 0, 9)])
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    with pytest.raises(CorruptCheckpointError, match="the 144 bytes at byte 0: checksum") as caught:
        export_checkpoint(prefix, tmp_path / "a.npz")
    assert (caught.value.key, caught.value.path) == ("v", str(data))
    assert not (tmp_path / "a.npz").exists()

"""Remote files: several parts are read at once; results and errors are those of local files."""

from __future__ import annotations

import errno
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import save_in_shards

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    export_checkpoint,
    open_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.bundle import data_files
from estimator_ckpt.bundle.index import read_index
from estimator_ckpt.errors import CorruptCheckpointError, WriteError
from estimator_ckpt.files import (
    Part,
    ReadAhead,
    ahead,
    copies,
    exists,
    open_write,
    read,
    remote,
    write,
)

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")

SPAN = 1000  # in the place of 2 MiB
MEETING = 4
SHARDS = [
    {f"layer_{n}/kernel": np.arange(900, dtype=np.float32) + n for n in range(2)},
    {f"layer_{n}/bias": np.arange(150, dtype=np.float32) - n for n in range(4)},
]


class Meeting(memory.MemoryFileSystem):  # type: ignore[misc, name-defined]
    """Reads of ranges wait until some of them are there at once: one alone would wait for ever."""

    protocol = "meeting"
    store: dict[str, Any] = {}  # noqa: RUF012 (as fsspec has it)
    pseudo_dirs = [""]  # noqa: RUF012
    inside = 0
    most = 0
    ranges: list[int] = []  # noqa: RUF012
    changed = threading.Condition()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.rpartition("://")[2].strip("/")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        kind = type(self)
        with kind.changed:
            kind.inside += 1
            kind.most = max(kind.most, kind.inside)
            kind.ranges.append(end - start)
            kind.changed.notify_all()
            met = kind.changed.wait_for(lambda: kind.most >= MEETING, timeout=20)
            kind.inside -= 1
        assert met, "one range after the other"
        return bytes(super().cat_file(path, start, end, **kwargs))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A remote directory with a checkpoint, `m`, the copy of one that is in `tmp_path`."""
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    there = remote.FsspecFiles()
    for module in (copies, read, remote, write):
        monkeypatch.setattr(module, "remote_files", lambda: there)
    monkeypatch.setattr(ahead, "_SPAN", SPAN)
    monkeypatch.setattr(ahead, "_GAP", 0)
    monkeypatch.setattr(data_files, "_CHUNK", SPAN)
    monkeypatch.setattr(Meeting, "most", 0)
    monkeypatch.setattr(Meeting, "ranges", [])
    Meeting.store.clear()
    save_in_shards(tmp_path / "m", *SHARDS)
    for path in tmp_path.glob("m.*"):
        Meeting.store[f"/run/{path.name}"] = memory.MemoryFile(
            Meeting(), f"/run/{path.name}", path.read_bytes()
        )
    return "meeting://run/"


def test_verify(place: str, tmp_path: Path) -> None:
    found, local = verify_checkpoint(f"{place}m"), verify_checkpoint(tmp_path / "m")
    assert found.ok
    assert found.checked_bytes == local.checked_bytes == sum(Meeting.ranges) == 2 * 3600 + 4 * 600
    assert Meeting.most >= MEETING
    # What lies side by side is asked for together, up to a span.
    assert Meeting.ranges.count(SPAN) >= 6
    assert len(Meeting.ranges) == 12


def test_verify_of_wrong_bytes(place: str, tmp_path: Path) -> None:
    for name in ("m.data-00000-of-00002", "m.data-00001-of-00002"):
        data = bytearray((tmp_path / name).read_bytes())
        data[700] ^= 1
        (tmp_path / name).write_bytes(data)
        Meeting.store[f"/run/{name}"] = memory.MemoryFile(Meeting(), f"/run/{name}", bytes(data))
    found, local = verify_checkpoint(f"{place}m"), verify_checkpoint(tmp_path / "m")
    assert [(one.key, one.offset, one.message) for one in found.faults] == [
        (one.key, one.offset, one.message) for one in local.faults
    ]
    assert [one.key for one in found.faults] == ["layer_0/kernel", "layer_1/bias"]


@pytest.mark.parametrize("act", [convert_checkpoint, export_checkpoint])
def test_no_thread_is_left_behind_by_an_error(place: str, tmp_path: Path, act: Any) -> None:
    name = "m.data-00000-of-00002"
    data = bytes(len((tmp_path / name).read_bytes()))
    Meeting.store[f"/run/{name}"] = memory.MemoryFile(Meeting(), f"/run/{name}", data)
    destination = tmp_path / ("out.safetensors" if act is export_checkpoint else "out")
    options = {} if act is export_checkpoint else {"checkpoint_format": "both"}
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        act(f"{place}m", destination, dtype="bfloat16", **options)
    names = [one.name for one in threading.enumerate()]
    assert [one for one in names if one.startswith("ThreadPoolExecutor")] == []


def test_a_claimed_size_asks_for_no_memory(place: str) -> None:
    index = read_index(f"{place}m")
    reading = data_files.DataFiles(f"{place}m", index)
    entry = index.entries[b"layer_1/kernel"]._replace(size=1 << 50)
    with pytest.raises(CorruptCheckpointError, match="before the file's end"):
        reading.whole(entry)


def test_a_remote_file_is_there_as_a_whole_or_not_at_all(place: str) -> None:
    def fill_the_disk() -> None:
        with open_write(f"{place}new") as file:
            file.write(b"some")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        fill_the_disk()
    assert not exists(f"{place}new")


@pytest.mark.parametrize("begun", [0, 1])
def test_the_last_save_of_an_interpreter_begins_no_threads(
    begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, calls = ThreadPoolExecutor.submit, []

    def refuse(pool: Any, *arguments: Any) -> Any:
        if len(calls) == begun:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        calls.append(arguments)
        return submit(pool, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    if begun:  # some of the work may be done: it is not done twice
        with pytest.raises(RuntimeError):
            ahead.at_once(str, [1, 2, 3])
    else:
        assert ahead.at_once(str, [1, 2, 3]) == ["1", "2", "3"]


def test_a_file_that_cannot_be_read(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(path: str, offset: int, size: int) -> bytes:
        if "00001-of" in path:
            raise OSError(5, "Input/output error")
        return bytes(size)

    monkeypatch.setattr(ahead, "read_remote", lost)
    found = [(one.key, one.message) for one in verify_checkpoint(f"{place}m").faults]
    lost_keys = [key for key, message in found if "Input/output error" in message]
    assert lost_keys == [f"layer_{n}/bias" for n in range(4)]
    assert len(found) == 6


@pytest.mark.parametrize("differ", [False, True])
def test_compare(place: str, tmp_path: Path, differ: bool) -> None:
    other = save_in_shards(
        tmp_path / "b", *SHARDS[:1], {**SHARDS[1], "layer_1/bias": np.ones(150, np.float32)}
    )
    local = tmp_path / "m"
    found = compare_checkpoints(f"{place}m", other if differ else local)
    assert Meeting.most >= MEETING
    expected = compare_checkpoints(local, other if differ else local)
    assert list(map(_facts, found.variables)) == list(map(_facts, expected.variables))
    assert found.equal is not differ


def _facts(one: Any) -> tuple[str, str, Any]:
    return one.status, one.name, one.difference


@pytest.mark.parametrize("options", [{"copy": True}, {"dtype": "bfloat16"}, {"compact": True}])
def test_convert(place: str, tmp_path: Path, options: dict[str, Any]) -> None:
    convert_checkpoint(f"{place}m", tmp_path / "out", "both", **options)
    assert Meeting.most >= MEETING
    convert_checkpoint(tmp_path / "m", tmp_path / "expected", "both", **options)
    for path in tmp_path.glob("expected*"):
        assert path.read_bytes() == (tmp_path / path.name.replace("expected", "out")).read_bytes()


def test_export_and_one_tensor(place: str, tmp_path: Path) -> None:
    export_checkpoint(f"{place}m", tmp_path / "out.safetensors")
    assert Meeting.most >= MEETING
    export_checkpoint(tmp_path / "m", tmp_path / "expected.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (
        tmp_path / "expected.safetensors"
    ).read_bytes()
    Meeting.most = 0
    with open_checkpoint(f"{place}m") as checkpoint:
        value = checkpoint.get_tensor("layer_1/kernel")
    assert value.tolist() == SHARDS[0]["layer_1/kernel"].tolist()
    assert Meeting.most >= MEETING


def test_a_local_file_is_mapped_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = save_in_shards(tmp_path / "m", *SHARDS)
    expected = {name: value.tolist() for shard in SHARDS for name, value in shard.items()}
    for most, window, told in ((256, 4096, 4096), (0, 4096, 10_000), (2, 1, 1)):
        monkeypatch.setattr(data_files, "_MOST_MAPPED", most)
        monkeypatch.setattr(data_files, "_WINDOW", window)
        monkeypatch.setattr(data_files, "_AHEAD", told)
        monkeypatch.setattr(data_files, "_CHUNK", 256)
        with open_checkpoint(prefix) as checkpoint:
            values = dict(checkpoint)  # all of them are held
        assert {name: value.tolist() for name, value in values.items()} == expected
        assert verify_checkpoint(prefix).ok


def test_readers_share_the_file_descriptors_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: Any = weakref.WeakSet()
    monkeypatch.setattr(data_files, "_mapped", mapped)
    monkeypatch.setattr(data_files, "_MOST_MAPPED", 2)
    monkeypatch.setattr(data_files, "_WINDOW", 1)
    prefix = save_in_shards(tmp_path / "m", *SHARDS)
    held = []
    for _ in range(3):
        with open_checkpoint(prefix) as checkpoint:
            held.append(dict(checkpoint))
    assert len(mapped) == 2
    assert {one["layer_3/bias"].tolist()[149] for one in held} == {146.0}


def test_where_nothing_can_be_mapped_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    prefix = save_in_shards(tmp_path / "m", *SHARDS)
    with open_checkpoint(prefix) as checkpoint:
        monkeypatch.setattr(read.mmap, "mmap", refuse)
        assert checkpoint.get_tensor("layer_3/bias").tolist() == SHARDS[1]["layer_3/bias"].tolist()


def test_a_file_that_is_shorter_than_it_was(place: str) -> None:
    with open_checkpoint(f"{place}m") as checkpoint:
        data = Meeting.store["/run/m.data-00000-of-00002"].getvalue()[:3700]
        name = "/run/m.data-00000-of-00002"
        Meeting.store[name] = memory.MemoryFile(Meeting(), name, data)
        with pytest.raises(CorruptCheckpointError, match="before the file's end"):
            checkpoint.get_tensor("layer_1/kernel")


def test_what_is_asked_for_out_of_turn_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_SPAN", 10)
    path = tmp_path / "f"
    path.write_bytes(bytes(range(100)))
    parts = [Part(str(path), start, 5) for start in range(0, 100, 5)]
    reading = ReadAhead(parts)
    for start in (0, 5, 50, 95, 20, 99):
        assert (
            bytes(reading.take(Part(str(path), start, 5))) == bytes(range(100))[start : start + 5]
        )
    reading.close()

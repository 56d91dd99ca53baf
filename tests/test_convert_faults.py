"""Broken sources, destinations that cannot be, failures: nothing half-made, nothing lost.

Kills are in faults/conversions.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conversion_files import contents, names_in, write_bundle

from estimator_ckpt import convert_checkpoint, files, open_checkpoint, verify_checkpoint
from estimator_ckpt.bundle.index import read_index, write_index
from estimator_ckpt.conversion import destination, transfer
from estimator_ckpt.conversion.plan import string_content
from estimator_ckpt.errors import (
    BusyError,
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
    WriteError,
)
from estimator_ckpt.files import claims
from estimator_ckpt.files.claims import acquire, lease_path
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph

VALUES = {
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "words": np.array([b"a", b"bc"], object),
    "global_step": np.array(7, np.int64),
}


@pytest.fixture
def source(tmp_path):
    return write_bundle(tmp_path / "source" / "model.ckpt-7", VALUES, shards=2)


def flip(path, offset):
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 1
    Path(path).write_bytes(data)


def change_entry(prefix, key, **changes):
    index = read_index(prefix)
    index.entries[key] = index.entries[key]._replace(**changes)
    write_index(prefix, index)


# --- Sources ---


def missing_shard(prefix):
    os.remove(f"{prefix}.data-00001-of-00002")


def short_shard(prefix):
    os.truncate(f"{prefix}.data-00000-of-00002", 30)


def broken_index(prefix):
    flip(f"{prefix}.index", 10)


def overlapping(prefix):
    change_entry(prefix, b"global_step", offset=4)


@pytest.mark.parametrize("fault", [missing_shard, short_shard, broken_index, overlapping])
@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_a_broken_source_is_refused_before_anything_is_written(
    fault, checkpoint_format, source, tmp_path
):
    fault(source)
    with pytest.raises(CorruptCheckpointError):
        convert_checkpoint(source, tmp_path / "new" / "out", checkpoint_format)
    assert names_in(tmp_path) == ["source"]


def test_an_object_graph_that_contradicts_the_keys_is_refused(tmp_path):
    write_bundle(tmp_path / "m", {"x/.ATTRIBUTES/VARIABLE_VALUE": np.float32(1)})
    graph = ObjectGraph()
    graph.add(0, "y", Attribute("VARIABLE_VALUE", "y", "y/.ATTRIBUTES/VARIABLE_VALUE"))
    index = read_index(str(tmp_path / "m"))
    content = string_content(graph.serialize())
    path = tmp_path / "m.data-00000-of-00001"
    entry = index.entries[b"x/.ATTRIBUTES/VARIABLE_VALUE"]._replace(
        dtype=7, shape=(), offset=4, size=content.nbytes, crc32c=content.crc32c
    )
    path.write_bytes(path.read_bytes() + content.value)
    index.entries[OBJECT_GRAPH_KEY.encode()] = entry
    write_index(str(tmp_path / "m"), index)
    with pytest.raises(CorruptCheckpointError, match="is not in the index"):
        convert_checkpoint(tmp_path / "m", tmp_path / "out", "saver")


def test_a_flipped_byte_of_the_data_is_found_before_with_verify(source, tmp_path):
    flip(f"{source}.data-00000-of-00002", 3)
    with pytest.raises(CorruptCheckpointError, match="checksum") as raised:
        convert_checkpoint(source, tmp_path / "new" / "out", "both", verify=True)
    assert raised.value.key == "dense/kernel"
    assert names_in(tmp_path) == ["source"]


@pytest.mark.parametrize(
    "settings", [{"copy": True}, {"compact": True}, {"dtype": "float64"}], ids=str
)
def test_a_flipped_byte_is_found_where_bytes_are_read_and_nothing_is_left(
    settings, source, tmp_path
):
    flip(f"{source}.data-00000-of-00002", 3)
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        convert_checkpoint(source, tmp_path / "out", "both", **settings)
    assert names_in(tmp_path) == ["source"]


@pytest.mark.parametrize("path", ["", "nothing/here", "source/nothing"])
def test_where_there_is_no_checkpoint(path, source, tmp_path):
    with pytest.raises(NotACheckpointError):
        convert_checkpoint(tmp_path / path if path else "", tmp_path / "out", "both")


# --- Destinations ---


def test_a_checkpoint_that_is_there_is_never_overwritten(source, tmp_path):
    there = write_bundle(tmp_path / "out", {"mine": np.float32(1)})
    with pytest.raises(WriteError, match="there already"):
        convert_checkpoint(source, there, "both")
    assert contents(there).keys() == {"mine"}
    with pytest.raises(WriteError, match="this is the source itself"):
        convert_checkpoint(source, source, "both")


def test_data_files_of_a_save_that_goes_on_are_never_overwritten(source, tmp_path):
    left = tmp_path / "out.data-00000-of-00001"
    left.write_bytes(b"another job writes this")
    with pytest.raises(WriteError, match="without an index"):
        convert_checkpoint(source, tmp_path / "out", "both")
    assert left.read_bytes() == b"another job writes this"


@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_what_another_conversion_is_writing_is_left_to_it(checkpoint_format, source, tmp_path):
    (tmp_path / "out.data-00000-of-00003").write_bytes(b"half")
    with acquire(f"{tmp_path}/out.converting", "a conversion") as claim:
        with pytest.raises(BusyError, match="a conversion: process"):
            convert_checkpoint(source, tmp_path / "out", checkpoint_format)
        assert claim.holds()
    assert (tmp_path / "out.data-00000-of-00003").read_bytes() == b"half"


@pytest.mark.parametrize("content", [b"", b'{"beat": "00000'], ids=["empty", "torn"])
def test_a_mark_that_says_nothing_is_no_obstacle(content, source, tmp_path):
    (tmp_path / "out.converting").write_bytes(content)
    (tmp_path / "out.data-00000-of-00003").write_bytes(b"half")
    convert_checkpoint(source, tmp_path / "out", "both")
    assert contents(tmp_path / "out") == contents_of_both(source, tmp_path)
    assert not (tmp_path / "out.converting").exists()


@pytest.mark.parametrize("work", ["a training job", "a conversion in place"])
def test_in_place_where_another_is_at_work_in_the_directory(work, source, tmp_path, monkeypatch):
    monkeypatch.setattr(destination, "_MOST_WAITED", 0.0)
    monkeypatch.setattr(claims, "is_own", lambda *_: False)
    data = Path(f"{source}.data-00001-of-00002")
    before = data.read_bytes()
    with acquire(lease_path(os.path.dirname(source)), work) as claim:
        with pytest.raises(BusyError, match=f"{work}: process {os.getpid()}"):
            convert_checkpoint(source, None, "both", in_place=True)
        assert claim.holds()
        assert data.read_bytes() == before
    assert open_checkpoint(source).format == "saver"


def test_the_job_itself_may_convert_in_place_between_its_saves(source):
    with acquire(lease_path(os.path.dirname(source)), "a training job") as claim:
        convert_checkpoint(source, None, "both", in_place=True)
        assert claim.holds()
    assert open_checkpoint(source).format == "both"


def deleted(prefix):
    for path in Path(prefix).parent.glob(f"{os.path.basename(prefix)}.*"):
        path.unlink()


def saved_again(prefix):
    deleted(prefix)  # TensorFlow renames new files over the old
    write_bundle(prefix, {**VALUES, "global_step": np.array(8, np.int64)}, shards=2)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("act", [saved_again, deleted])
@pytest.mark.parametrize("moment", ["read_index", "open_write", "_entries"])
def test_in_place_beside_a_job_without_a_lease(act, moment, linked, source, tmp_path, monkeypatch):
    """What a stock job writes or deletes meanwhile stays as it left it."""
    if linked:
        convert_checkpoint(source, tmp_path / "copy" / "m", "saver")
    homes = {"read_index": transfer, "open_write": files, "_entries": transfer.Transfer}
    home = homes[moment]
    real = getattr(home, moment)

    def interrupted(*arguments, **options):
        monkeypatch.setattr(home, moment, real)
        act(source)
        return real(*arguments, **options)

    monkeypatch.setattr(home, moment, interrupted)
    with pytest.raises(CheckpointError):
        convert_checkpoint(source, None, "both", in_place=True)
    if act is deleted:
        assert names_in(os.path.dirname(source)) == []
    else:
        assert open_checkpoint(source).get_tensor("global_step") == 8
        assert verify_checkpoint(source).faults == ()
    if linked:
        assert open_checkpoint(tmp_path / "copy" / "m").get_tensor("global_step") == 7


def test_a_destination_inside_the_source_directory(source, tmp_path):
    with pytest.raises(WriteError, match="inside the source"):
        convert_checkpoint(tmp_path / "source", tmp_path / "source" / "new" / "out", "both")
    assert names_in(tmp_path / "source") == [
        "model.ckpt-7.data-00000-of-00002",
        "model.ckpt-7.data-00001-of-00002",
        "model.ckpt-7.index",
    ]


def test_a_destination_below_a_file(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"Not a directory|File exists"):
        convert_checkpoint(source, tmp_path / "file" / "out", "both")


@pytest.mark.parametrize("name", ["link", "fsync", "replace"])
@pytest.mark.parametrize("number", [13, 28, 30])
def test_what_the_system_refuses_is_a_clear_error_and_nothing_is_left(
    name, number, source, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    before = contents(source)
    (tmp_path / "new").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(WriteError, match=os.strerror(number)):
            convert_checkpoint(source, tmp_path / "new" / "out", "both")
    assert names_in(tmp_path / "new") == []
    assert contents(source) == before


def test_where_the_file_system_has_no_links_the_data_is_copied_and_compared(
    source, tmp_path, monkeypatch
):
    def no_links(*_, **__):
        raise OSError(1, "Operation not permitted")

    seen = []
    monkeypatch.setattr(os, "link", no_links)
    result = convert_checkpoint(
        source, tmp_path / "out", "both", progress=lambda *counts: seen.append(counts)
    )
    assert {how for _, how in result.data_files[:2]} <= {"copy", "reflink"}
    assert result.verified is not None
    assert contents(tmp_path / "out").keys() >= VALUES.keys()
    if result.data_files[0][1] == "copy":
        assert seen


def test_remote_paths_are_copied_by_tensorflow(source, tmp_path):
    convert_checkpoint(f"file://{source}", f"file://{tmp_path}/remote/out", "both")
    assert contents(tmp_path / "remote" / "out") == contents_of_both(source, tmp_path)


def contents_of_both(source, tmp_path):
    convert_checkpoint(source, tmp_path / "local", "both")
    return contents(tmp_path / "local")


def test_an_error_of_another_kind_cleans_up_too(source, tmp_path, monkeypatch):
    def surprise(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "new").mkdir()
    monkeypatch.setattr("estimator_ckpt.conversion.transfer.write_index", surprise)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(source, tmp_path / "new" / "out", "both")
    assert names_in(tmp_path / "new") == []
    assert files.exists(f"{source}.index")

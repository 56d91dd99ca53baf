"""Conversion in place: the index is replaced in one step, what it names stays where it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion_files import contents, names_in, stock_values, v1, variables_like, write_bundle
from golden_files import golden_cases
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, files, open_checkpoint, verify_checkpoint
from estimator_ckpt.bundle.index import read_index, write_index
from estimator_ckpt.conversion import carry_out
from estimator_ckpt.errors import SettingsError, WriteError
from estimator_ckpt.files import copies, write

VALUES = {
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "global_step": np.array(7, np.int64),
}


@pytest.fixture
def prefix(tmp_path):
    return write_bundle(tmp_path / "model.ckpt-7", VALUES)


def in_place(prefix, checkpoint_format, **settings):
    return convert_checkpoint(prefix, None, checkpoint_format, in_place=True, **settings)


def test_a_checkpoint_becomes_both_where_it_stands(prefix, tmp_path):
    before = names_in(tmp_path)
    result = in_place(prefix, "both")
    assert names_in(tmp_path) == before
    assert open_checkpoint(prefix).format == "both"
    assert [how for _, how in result.data_files] == ["append"]
    variables = variables_like(VALUES)
    tf.train.Checkpoint(var_list=variables).restore(prefix).assert_consumed()
    assert variables["global_step"].numpy() == 7
    assert stock_values(prefix)["dense/kernel"] == [[0, 1, 2], [3, 4, 5]]


def test_the_data_that_was_there_is_not_rewritten(prefix):
    path = f"{prefix}.data-00000-of-00001"
    data, inode = Path(path).read_bytes(), os.stat(path).st_ino
    in_place(prefix, "both")
    assert Path(path).read_bytes().startswith(data)
    assert os.stat(path).st_ino == inode


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_other_names_stand_for_stays_as_it_is(link, prefix, tmp_path):
    data = "model.ckpt-7.data-00000-of-00001"
    os.mkdir(tmp_path / "other")
    link(tmp_path / data, tmp_path / "other" / data)
    other = shutil.copy(f"{prefix}.index", tmp_path / "other").removesuffix(".index")
    before = (tmp_path / data).read_bytes()
    reader = tf.train.load_checkpoint(other)
    inode = os.stat(tmp_path / data).st_ino
    assert not in_place(other, "both", dry_run=True).written
    assert os.stat(tmp_path / "other" / data).st_ino == inode
    assert in_place(other, "both").data_files[0][1] in ("copy", "reflink")
    assert (tmp_path / data).read_bytes() == before
    assert os.stat(tmp_path / data).st_ino == inode
    assert not (tmp_path / "other" / data).is_symlink()
    assert names_in(tmp_path / "other") == [data, "model.ckpt-7.index"]
    assert verify_checkpoint(other).faults == ()
    variables = variables_like(VALUES)
    tf.train.Checkpoint(var_list=variables).restore(other).assert_consumed()
    assert variables["global_step"].numpy() == 7
    assert reader.get_tensor("dense/kernel").tolist() == [[0, 1, 2], [3, 4, 5]]
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("dense/kernel", (2, 3))
        v1.train.Saver([kernel]).restore(session, other)
        assert session.run(kernel).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_result_of_links_and_its_source_are_both_converted_in_place(prefix, tmp_path):
    convert_checkpoint(prefix, tmp_path / "other", "saver")
    in_place(prefix, "both")
    in_place(tmp_path / "other", "checkpoint")
    for one, checkpoint_format in ((prefix, "both"), (tmp_path / "other", "checkpoint")):
        assert open_checkpoint(one).format == checkpoint_format
        assert verify_checkpoint(one).faults == ()
        assert open_checkpoint(one).get_tensor("dense/kernel").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("moment", ["before the copy", "after the copy", "before the append"])
def test_two_conversions_of_one_data_file_at_the_same_time(moment, prefix, tmp_path, monkeypatch):
    other = str(tmp_path / "elsewhere" / "other")
    convert_checkpoint(prefix, other, "saver")
    home, name = copies, "link_or_copy"
    if moment == "before the append":
        home, name = files, "open_write"
    real = getattr(home, name)

    def interrupted(path, *rest, **options):
        at_it = path.startswith(prefix) and not path.endswith(".converting")
        if at_it and moment == "after the copy":
            found = real(path, *rest, **options)
        if at_it:
            in_place(other, "checkpoint")
        return found if at_it and moment == "after the copy" else real(path, *rest, **options)

    monkeypatch.setattr(home, name, interrupted)
    in_place(prefix, "both")
    for one, checkpoint_format in ((prefix, "both"), (other, "checkpoint")):
        assert open_checkpoint(one).format == checkpoint_format
        assert verify_checkpoint(one).faults == ()
        assert open_checkpoint(one).get_tensor("dense/kernel").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [one for one in names_in(tmp_path) if "converting" in one] == []


def test_back_and_forth_the_same_bytes_are_used_again(prefix):
    path = f"{prefix}.data-00000-of-00001"
    in_place(prefix, "both")
    size = os.path.getsize(path)
    for checkpoint_format in ("saver", "both", "checkpoint", "both", "saver", "checkpoint"):
        result = in_place(prefix, checkpoint_format)
        assert [how for _, how in result.data_files] == ["same"]
        assert open_checkpoint(prefix).format == checkpoint_format
        assert verify_checkpoint(prefix).faults == ()
    assert os.path.getsize(path) == size
    variables = variables_like(VALUES)
    tf.train.Checkpoint(var_list=variables).restore(prefix).assert_consumed()
    assert variables["global_step"].numpy() == 7


def test_a_copy_that_a_killed_one_has_left_is_cleared_away(prefix, tmp_path):
    left = Path(f"{prefix}.data-00000-of-00001.converting")
    left.write_bytes(b"half")
    assert verify_checkpoint(prefix).faults == ()
    in_place(prefix, "both")
    assert verify_checkpoint(prefix).faults == ()
    assert names_in(tmp_path) == ["model.ckpt-7.data-00000-of-00001", "model.ckpt-7.index"]


def test_a_copy_that_cannot_be_made_leaves_everything_as_it_was(prefix, tmp_path, monkeypatch):
    convert_checkpoint(prefix, tmp_path / "other", "saver")
    before, names = contents(prefix), names_in(tmp_path)
    monkeypatch.setattr(copies.filecmp, "cmp", lambda *_, **__: False)
    with pytest.raises(WriteError, match="a copy of the file is not the same"):
        in_place(prefix, "both")
    assert contents(prefix) == before
    assert names_in(tmp_path) == names


def test_a_reader_that_has_it_open_reads_on(prefix):
    reader = tf.train.load_checkpoint(prefix)
    ours = open_checkpoint(prefix)
    in_place(prefix, "checkpoint")
    assert reader.get_tensor("dense/kernel").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert ours.get_tensor("dense/kernel").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_old_index_stays_valid_until_the_new_one_stands(prefix, monkeypatch):
    old = Path(f"{prefix}.index").read_bytes()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("estimator_ckpt.conversion.transfer.write_index", killed)
        with pytest.raises(KeyboardInterrupt):
            in_place(prefix, "both")
    assert Path(f"{prefix}.index").read_bytes() == old
    assert stock_values(prefix)["global_step"] == 7
    assert verify_checkpoint(prefix).faults == ()
    in_place(prefix, "both")
    assert open_checkpoint(prefix).format == "both"


@pytest.mark.parametrize("case", golden_cases("multi_shard", "partitioned", "strings"), ids=str)
def test_goldens_there_and_back(case, tmp_path):
    convert_checkpoint(case.prefix, tmp_path / "m", "saver", copy=True)
    before = contents(tmp_path / "m")
    in_place(tmp_path / "m", "both")
    in_place(tmp_path / "m", "checkpoint")
    assert verify_checkpoint(tmp_path / "m").faults == ()
    in_place(tmp_path / "m", "saver")
    assert contents(tmp_path / "m") == before == contents(case.prefix)


def test_a_second_time_there_is_nothing_to_do(prefix):
    assert in_place(prefix, "both").written
    before = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    assert not in_place(prefix, "both").written
    assert Path(f"{prefix}.data-00000-of-00001").read_bytes() == before


def test_rules_apply_in_place_too(prefix):
    in_place(prefix, "saver", rename={"dense/(.*)": r"net/\1"}, exclude=["global_step"])
    assert stock_values(prefix) == {"net/kernel": [[0, 1, 2], [3, 4, 5]]}


SWAP = {"dense/kernel": "dense/other", "dense/other": "dense/kernel"}
TWO = {"dense/kernel": np.zeros(2, np.float32), "dense/other": np.ones(2, np.float32)}


def test_names_are_swapped_once_however_often_the_same_is_asked(tmp_path):
    prefix = write_bundle(tmp_path / "model.ckpt-7", TWO)
    assert in_place(prefix, "both", rename=SWAP).written
    for again in (SWAP, list(SWAP.items())):
        result = in_place(prefix, "both", rename=again)
        assert (result.written, result.already) == (False, True)
        assert in_place(prefix, "both", rename=again, dry_run=True).already
    assert stock_values(prefix)["dense/kernel"] == [1, 1]
    variables = variables_like(TWO)
    tf.train.Checkpoint(var_list=variables).restore(prefix).assert_consumed()
    assert variables["dense/kernel"].numpy().tolist() == [1, 1]
    assert verify_checkpoint(prefix).faults == ()


def test_what_is_asked_next_is_done_from_there(tmp_path):
    prefix = write_bundle(tmp_path / "model.ckpt-7", TWO)
    in_place(prefix, "saver", rename=SWAP)
    back = dict(reversed(SWAP.items()))
    for settings in ({"rename": back}, {"rename": SWAP}):
        assert in_place(prefix, "saver", **settings).written
    assert stock_values(prefix)["dense/kernel"] == [1, 1]
    convert_checkpoint(prefix, tmp_path / "out", "saver", rename=SWAP)
    assert stock_values(tmp_path / "out")["dense/kernel"] == [0, 0]
    assert in_place(tmp_path / "out", "saver", rename=SWAP).written
    assert in_place(prefix, "both").written
    assert in_place(prefix, "saver", rename=SWAP).written
    index = read_index(prefix)
    added = {b"another": index.entries[b"dense/kernel"]}
    write_index(prefix, index._replace(entries={**index.entries, **added}))  # the mark is another's
    assert in_place(prefix, "saver", rename=SWAP).written
    write_bundle(prefix, TWO)  # as a job does that saves there
    assert in_place(prefix, "saver", rename=SWAP).written
    assert stock_values(prefix)["dense/kernel"] == [1, 1]


@pytest.mark.parametrize("as_object", [False, True])
def test_a_template_is_part_of_what_is_asked(as_object, prefix, tmp_path):
    rename = {"dense/kernel": "kernel", "global_step": "step"}

    def convert_like(kernel, step):
        template = tf.train.Checkpoint(kernel=tf.Variable(kernel), step=tf.Variable(step))
        path = template if as_object else template.write(str(tmp_path / "like"))
        return in_place(prefix, "both", rename=rename, like=path)

    assert convert_like(VALUES["dense/kernel"], VALUES["global_step"]).written
    assert convert_like(VALUES["dense/kernel"] + 1, np.int64(8)).already
    with pytest.raises(SettingsError, match="matches none"):
        convert_like(np.zeros(3, np.float32), np.int64(8))


def test_two_processes_that_ask_the_same_do_it_once(tmp_path, monkeypatch):
    prefix = write_bundle(tmp_path / "model.ckpt-7", TWO)
    real = carry_out.Transfer

    def late(*arguments):
        monkeypatch.setattr(carry_out, "Transfer", real)
        assert in_place(prefix, "both", rename=SWAP).written
        return real(*arguments)

    monkeypatch.setattr(carry_out, "Transfer", late)
    assert in_place(prefix, "both", rename=SWAP).already
    assert stock_values(prefix)["dense/kernel"] == [1, 1]


def test_one_of_many_checkpoints_is_named_by_its_prefix(prefix, tmp_path):
    write_bundle(tmp_path / "model.ckpt-8", VALUES)
    with pytest.raises(SettingsError, match="convert_directory"):
        in_place(tmp_path, "both")


def test_another_destination_is_refused(prefix, tmp_path):
    with pytest.raises(SettingsError) as raised:
        convert_checkpoint(prefix, tmp_path / "other", "both", in_place=True)
    assert raised.value.key == "destination"


def test_remote_data_files_cannot_be_appended_to(prefix):
    with pytest.raises(SettingsError, match="new place"):
        in_place(f"file://{prefix}", "both")


def test_a_data_file_that_cannot_be_written_leaves_everything_as_it_was(prefix, monkeypatch):
    before = contents(prefix)
    real = open

    def read_only(path, mode="r", *rest, **options):
        if "+" in mode:
            raise PermissionError(13, "Permission denied")
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(write, "open", read_only, raising=False)
    with pytest.raises(WriteError, match="Permission denied"):
        in_place(prefix, "both")
    assert contents(prefix) == before


def test_a_full_disk_leaves_everything_as_it_was(prefix, monkeypatch):
    data = Path(f"{prefix}.data-00000-of-00001").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        in_place(prefix, "both")
    assert Path(f"{prefix}.data-00000-of-00001").read_bytes() == data
    assert open_checkpoint(prefix).format == "saver"

"""What a job resumes from where its newest checkpoint is damaged; when older ones are deleted."""

import json
import os
import threading

import pytest
from graph_jobs import FORMATS, assert_same, latest, run_job
from saver_sessions import make_saver, variable
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, make_scaffold
from estimator_ckpt.errors import CorruptCheckpointError
from estimator_ckpt.saving import built, keeping
from estimator_ckpt.saving.journal import fingerprint, read_journal

v1 = tf.compat.v1


def scaffold_of(checkpoint_format="both", **options):
    return lambda: make_scaffold(checkpoint_format, **options)


def train(directory, checkpoint_format="both", steps=2, **options):
    scaffold = scaffold_of(checkpoint_format, **options)
    return run_job(directory, scaffold, steps=steps, save_checkpoint_steps=1)


def empty(prefix):
    """What a power cut makes of a data file that was not synced."""
    os.truncate(f"{prefix}.data-00000-of-00001", 0)


def flip(prefix):
    with open(f"{prefix}.data-00000-of-00001", "r+b") as file:
        file.seek(40)
        byte = file.read(1)
        file.seek(40)
        file.write(bytes([byte[0] ^ 1]))


def forget(directory):
    """Takes away what says that checkpoints were synced."""
    os.remove(directory / "checkpoint.journal")


@pytest.mark.parametrize("damage", [empty, flip])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_one_that_may_have_been_cut_is_fallen_back_from_by_itself(
    tmp_path, checkpoint_format, damage
):
    _, end = train(tmp_path, checkpoint_format)
    broken = latest(tmp_path)
    forget(tmp_path)
    damage(broken)
    start, _ = train(tmp_path, checkpoint_format, steps=0)
    assert start["global_step"] == end["global_step"] - 1
    assert latest(tmp_path) == str(tmp_path / "model.ckpt-1")
    listed = tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths
    assert broken not in listed
    assert os.path.exists(f"{broken}.index")
    start, again = train(tmp_path, checkpoint_format, steps=1)  # it gets to that step once more
    assert start["global_step"] == 1
    start, _ = train(tmp_path, checkpoint_format, steps=0)
    assert_same(start, again)


@pytest.mark.parametrize("options", [{}, {"check_data": True}])
def test_one_that_was_synced_and_is_damaged_is_an_error_that_names_the_newest_sound_one(
    tmp_path, options
):
    train(tmp_path)
    flip(latest(tmp_path))
    before = {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)}
    with pytest.raises(CorruptCheckpointError) as caught:
        train(tmp_path, **options)
    assert f"before it is {tmp_path / 'model.ckpt-1'}; on_corrupt='fall_back'" in str(caught.value)
    after = {name: os.stat(tmp_path / name).st_mtime_ns for name in before}
    assert after == before
    start, _ = train(tmp_path, steps=0, on_corrupt="fall_back")
    assert start["global_step"] == 1


def test_without_a_sound_one_it_is_an_error(tmp_path):
    train(tmp_path, steps=0)
    empty(latest(tmp_path))
    forget(tmp_path)
    with pytest.raises(CorruptCheckpointError, match="data-00000-of-00001"):
        train(tmp_path)


@pytest.mark.parametrize("on_corrupt", ["error", "fall_back"])
def test_one_that_is_replaced_while_it_is_restored_is_restored_once_more(
    tmp_path, monkeypatch, on_corrupt
):
    """The keys that were found are gone: a conversion in place comes between."""
    _, end = train(tmp_path, "saver")
    newest = latest(tmp_path)
    run = built.run_restore
    tried = []

    def replace_before(*arguments):
        if not tried:
            convert_checkpoint(newest, None, "checkpoint", in_place=True)
        tried.append(arguments)
        run(*arguments)

    monkeypatch.setattr(built, "run_restore", replace_before)
    start, _ = train(tmp_path, "saver", steps=0, on_corrupt=on_corrupt)
    assert len(tried) == 2
    assert_same(start, end)
    assert latest(tmp_path) == newest


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_resume_finds_the_keys_of_its_checkpoint_once(tmp_path, monkeypatch, checkpoint_format):
    _, end = run_job(tmp_path, lambda: make_scaffold(checkpoint_format), save_checkpoint_steps=2)
    resolved, resolve = [], built.resolve

    def counted(checkpoint, *args, **kwargs):
        resolved.append(checkpoint.prefix)
        return resolve(checkpoint, *args, **kwargs)

    monkeypatch.setattr(built, "resolve", counted)
    newest, oldest = latest(tmp_path), str(tmp_path / "model.ckpt-0")
    start, _ = run_job(tmp_path, lambda: make_scaffold(checkpoint_format), steps=0)
    assert_same(start, end)
    assert resolved == [newest, oldest]  # before the first save, whether this one is the job's own


def test_an_evaluation_never_falls_back(tmp_path):
    train(tmp_path)
    newest = latest(tmp_path)
    forget(tmp_path)
    empty(newest)
    with tf.Graph().as_default():
        v1.train.get_or_create_global_step()
        saver = make_saver("both", on_corrupt="fall_back")
        scaffold = v1.train.Scaffold(saver=saver)
        creator = v1.train.ChiefSessionCreator(scaffold, checkpoint_filename_with_path=newest)
        with pytest.raises(CorruptCheckpointError):
            v1.train.MonitoredSession(creator)


def test_the_journal_knows_which_checkpoints_were_synced_and_how_long_they_took(tmp_path):
    train(tmp_path, steps=3, keep_checkpoint_max=2)
    journal = read_journal(str(tmp_path), "checkpoint")
    assert journal.synced == {
        f"model.ckpt-{step}": fingerprint(str(tmp_path / f"model.ckpt-{step}")) for step in (2, 3)
    }
    assert journal.seconds.keys() == journal.synced.keys()
    assert all(0 < seconds < 60 for seconds in journal.seconds.values())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens": 1, "synced": [1]}', "\0" * 99])
def test_a_journal_that_is_torn_says_nothing(tmp_path, text):
    _, end = train(tmp_path)
    (tmp_path / "checkpoint.journal").write_text(text)
    start, _ = train(tmp_path, steps=0)
    assert_same(start, end)


def test_a_journal_that_has_nothing_new_to_say_is_not_written_again(tmp_path):
    written = []
    for steps in (1, 0, 1):
        run_job(tmp_path, lambda: make_scaffold("both"), steps=steps)
        written.append((tmp_path / "checkpoint.journal").stat().st_mtime_ns)
    assert written[0] == written[1] < written[2]


def test_names_in_a_journal_lead_nowhere_else(tmp_path):
    names = ["../a", "/a", "", 3, "b"]
    (tmp_path / "checkpoint.journal").write_text(json.dumps({"unused": names}))
    assert read_journal(str(tmp_path), "checkpoint").unused == ("b",)


# --- the order of syncing, naming and deleting ---


def test_nothing_older_is_deleted_before_the_data_are_on_the_disk(tmp_path, monkeypatch):
    """The disk is slow: the state file names the new one and the old one, which is still there."""
    may_sync = threading.Event()
    sync = keeping.sync_checkpoint

    def slow(prefix):
        may_sync.wait()
        sync(prefix)

    monkeypatch.setattr(keeping, "_PATIENCE", 0.01)
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both", keep_checkpoint_max=1)
        with v1.Session() as session:
            session.run(a.initializer)
            old = saver.save(session, str(tmp_path / "model"), 1)
            keeping.keeper_of(str(tmp_path), "checkpoint").join()
            monkeypatch.setattr(keeping, "sync_checkpoint", slow)
            new = saver.save(session, str(tmp_path / "model"), 2)
            listed = tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths
            assert (latest(tmp_path), list(listed)) == (new, [old, new])
            assert os.path.exists(f"{old}.index")
            assert saver.last_checkpoints == [new]
            may_sync.set()
            last = saver.save(session, str(tmp_path / "model"), 3)  # waits for the one before
            keeping.keeper_of(str(tmp_path), "checkpoint").join()
            assert not os.path.exists(f"{new}.index")
            new = last
    listed = tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths
    assert (latest(tmp_path), list(listed)) == (new, [new])
    assert not os.path.exists(f"{old}.index")


def test_a_disk_that_fails_to_sync_deletes_nothing(tmp_path, monkeypatch):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both", keep_checkpoint_max=1)
        with v1.Session() as session:
            session.run(a.initializer)
            saved = [saver.save(session, str(tmp_path / "model"), 1)]

            def fail(_):
                raise CorruptCheckpointError("the disk is broken")

            with monkeypatch.context() as patch:
                patch.setattr(keeping, "sync_checkpoint", fail)
                saved += [saver.save(session, str(tmp_path / "model"), n) for n in (2, 3)]
                assert all(os.path.exists(f"{prefix}.index") for prefix in saved)
            saved.append(saver.save(session, str(tmp_path / "model"), 4))
            assert [os.path.exists(f"{p}.index") for p in saved] == [False, False, False, True]


@pytest.mark.parametrize("durable", [False, True])
def test_a_durable_save_and_a_first_one_are_synced_before_the_state_file_names_them(
    tmp_path, monkeypatch, durable
):
    """Until one is on the disk, a power cut would leave none."""
    seen = []
    sync = keeping.sync_files

    def look(paths):
        seen.append((os.path.basename(paths[0]), latest(tmp_path)))
        sync(paths)

    monkeypatch.setattr(keeping, "sync_files", look)
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both", durable=durable)
        with v1.Session() as session:
            session.run(a.initializer)
            first = saver.save(session, str(tmp_path / "model"), 1)
            second = saver.save(session, str(tmp_path / "model"), 2)
            keeping.keeper_of(str(tmp_path), "checkpoint").join()
    data = [os.path.basename(f"{p}.data-00000-of-00001") for p in (first, second)]
    assert seen == [(data[0], None), (data[1], first if durable else second)]


def test_a_directory_that_vanishes_ends_the_thread_quietly(tmp_path, monkeypatch, caplog):
    import shutil

    may_sync = threading.Event()
    sync = keeping.sync_checkpoint
    directory = tmp_path / "run"
    directory.mkdir()
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        with v1.Session() as session:
            session.run(a.initializer)
            saver.save(session, str(directory / "model"), 1)  # the first is synced before it ends
            keeper = keeping.keeper_of(str(directory), "checkpoint")
            keeper.join()
            monkeypatch.setattr(keeping, "_PATIENCE", 0.01)
            monkeypatch.setattr(
                keeping, "sync_checkpoint", lambda prefix: (may_sync.wait(), sync(prefix))
            )
            saver.save(session, str(directory / "model"), 2)
    shutil.rmtree(directory)
    may_sync.set()
    keeper.join()
    assert not directory.exists()
    assert "not known to be on the disk" not in caplog.text


# --- what earlier processes have left ---


def test_only_what_is_known_for_ours_is_cleared_away(tmp_path):
    train(tmp_path)
    (token,) = read_journal(str(tmp_path), "checkpoint").tokens
    ours = [f"model.ckpt-9.saving-{token}", "model.ckpt-9.data-00000-of-00001", "model.ckpt-9.meta"]
    ours += [f"checkpoint.tempstate-{token}", f"warm_start.json.tempstate-{token}"]
    others = ["model.ckpt-8.saving-00000000", "model.ckpt-8.data-00000-of-00001", "x_temp"]
    others += ["checkpoint.tempstate123"]
    for name in [*ours, *others]:
        if "saving" in name or name == "x_temp":
            (tmp_path / name).mkdir()
            (tmp_path / name / "part").write_text("")
        else:
            (tmp_path / name).write_text("")
    keeping._keepers.clear()  # another process
    train(tmp_path, steps=1)
    left = os.listdir(tmp_path)
    assert [name for name in ours if name in left] == []
    assert [name for name in others if name not in left] == []


def test_a_deletion_that_was_broken_off_is_finished(tmp_path):
    train(tmp_path, steps=3)
    os.remove(tmp_path / "model.ckpt-1.index")
    path = tmp_path / "checkpoint.journal"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "deleting": ["model.ckpt-1"]}))
    keeping._keepers.clear()  # another process
    train(tmp_path, steps=1)
    assert [name for name in os.listdir(tmp_path) if name.startswith("model.ckpt-1.")] == []


# --- what stands beside the first checkpoint ---


def test_the_report_of_a_warm_start_is_there_before_the_state_names_the_checkpoint(
    tmp_path, monkeypatch
):
    _, end = train(tmp_path / "before")
    seen = []
    publish = keeping.Keeper.publish

    def look(self, *arguments):
        seen.append((tmp_path / "run" / "warm_start.json").exists())
        publish(self, *arguments)

    monkeypatch.setattr(keeping.Keeper, "publish", look)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "warm_start.json").write_text("of a run that was killed")
    start, _ = train(tmp_path / "run", warm_start=latest(tmp_path / "before"), steps=0)
    assert seen[0]
    assert json.loads((tmp_path / "run" / "warm_start.json").read_text())
    assert start["global_step"] == 0
    assert (start["scope/w"] == end["scope/w"]).all()

"""The state file, with TensorFlow as the other party: it reads ours, we read its."""

import contextlib
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt.errors import CorruptCheckpointError, WriteError
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state


def save_with_saver(directory, steps, **options):
    """Saves a variable with TensorFlow's own Saver, which writes the state file."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", [3])
        saver = tf.compat.v1.train.Saver(**options)
        session.run(tf.compat.v1.global_variables_initializer())
        for step in range(1, steps + 1):
            saver.save(session, f"{directory}/model.ckpt", global_step=step)


def by_tensorflow(directory):
    """The state as TensorFlow reads it."""
    state = tf.train.get_checkpoint_state(directory)
    return CheckpointState(
        state.model_checkpoint_path,
        tuple(state.all_model_checkpoint_paths),
        tuple(state.all_model_checkpoint_timestamps),
        state.last_preserved_timestamp or None,
    )


@pytest.mark.parametrize("relative", [False, True])
def test_the_file_of_a_saver(tmp_path, relative):
    save_with_saver(tmp_path, steps=3, max_to_keep=2, save_relative_paths=relative)
    state = read_state(str(tmp_path))
    assert state == by_tensorflow(str(tmp_path))
    assert state.model_checkpoint_path == f"{tmp_path}/model.ckpt-3"
    assert state.all_model_checkpoint_paths == tuple(f"{tmp_path}/model.ckpt-{i}" for i in (2, 3))


def test_the_file_of_a_checkpoint_manager(tmp_path):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1.0)),
        str(tmp_path),
        max_to_keep=2,
        keep_checkpoint_every_n_hours=1,
    )
    for _ in range(3):
        manager.save()
    state = read_state(str(tmp_path))
    assert state == by_tensorflow(str(tmp_path))
    assert state.model_checkpoint_path == manager.latest_checkpoint
    assert len(state.all_model_checkpoint_timestamps) == 2
    assert state.last_preserved_timestamp > 1.6e9


@pytest.mark.parametrize("start", [r"C:\jobs\run", "C:/jobs/run", r"\\host\share"])
def test_paths_of_windows_end_in_the_name_of_a_checkpoint(tmp_path, start):
    text = (start + r"\model.ckpt-20").replace("\\", r"\\")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{text}"')
    expected = start.replace("\\", "/") + "/model.ckpt-20"
    assert read_state(str(tmp_path)).model_checkpoint_path == expected


def test_a_moved_directory(tmp_path):
    for name, relative in (("relative", True), ("absolute", False)):
        save_with_saver(tmp_path / name, steps=1, save_relative_paths=relative)
        shutil.move(tmp_path / name, tmp_path / f"{name}_moved")
    moved = read_state(str(tmp_path / "relative_moved"))
    assert moved.model_checkpoint_path == f"{tmp_path}/relative_moved/model.ckpt-1"
    # As TensorFlow has it: what an absolute path says is not looked up.
    stale = read_state(str(tmp_path / "absolute_moved"))
    assert stale == by_tensorflow(str(tmp_path / "absolute_moved"))
    assert stale.model_checkpoint_path == f"{tmp_path}/absolute/model.ckpt-1"


def test_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_with_saver("model", steps=2)
    assert read_state("model") == by_tensorflow("model")
    assert read_state("model").model_checkpoint_path == "model/model.ckpt-2"


def test_another_name_of_the_file(tmp_path):
    write_state(str(tmp_path), CheckpointState(f"{tmp_path}/a"), name="best")
    assert read_state(str(tmp_path)) is None
    assert read_state(str(tmp_path), name="best").model_checkpoint_path == f"{tmp_path}/a"
    assert tf.train.get_checkpoint_state(str(tmp_path), "best").model_checkpoint_path == (
        f"{tmp_path}/a"
    )


def test_no_file(tmp_path):
    assert read_state(str(tmp_path)) is None
    assert read_state(str(tmp_path / "missing")) is None
    (tmp_path / "checkpoint").mkdir()
    assert read_state(str(tmp_path)) is None


STATES = [
    CheckpointState("{dir}/a"),
    CheckpointState("{dir}/b", ("{dir}/a", "{dir}/b")),
    CheckpointState("{dir}/b", ("{dir}/a", "{dir}/b"), (1.25, 1700000000.123456), 1.5e9),
    CheckpointState("{dir}/deep/b", ("/elsewhere/a", "{dir}/deep/b")),
    CheckpointState('{dir}/quote"\\ümläut\n', ('{dir}/quote"\\ümläut\n',)),
    CheckpointState("{dir}/..b", ("{dir}/..b",)),
]


@pytest.mark.parametrize("state", STATES)
def test_tensorflow_reads_what_we_write(tmp_path, state):
    state = state._replace(
        model_checkpoint_path=state.model_checkpoint_path.format(dir=tmp_path),
        all_model_checkpoint_paths=tuple(
            path.format(dir=tmp_path) for path in state.all_model_checkpoint_paths
        ),
    )
    write_state(str(tmp_path), state)
    assert read_state(str(tmp_path)) == state
    assert by_tensorflow(str(tmp_path)) == state


def test_latest_checkpoint_of_a_written_and_moved_directory(tmp_path):
    save_with_saver(tmp_path / "a", steps=2)
    write_state(str(tmp_path / "a"), read_state(str(tmp_path / "a")))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert tf.train.latest_checkpoint(str(tmp_path / "b")) == f"{tmp_path}/b/model.ckpt-2"


def test_a_shorter_state_cuts_off_no_reader_of_tensorflow(
    tmp_path,
):
    prefixes = [f"{tmp_path}/model.ckpt-{step}" for step in range(9)]
    write_state(str(tmp_path), CheckpointState(prefixes[-1], tuple(prefixes)))
    with tf.io.gfile.GFile(f"{tmp_path}/checkpoint") as file:
        file.read(0)  # opens it
        write_state(str(tmp_path), CheckpointState(prefixes[-1], tuple(prefixes[-2:])))
        content = file.read()
    assert content.count("all_model_checkpoint_paths") == 9
    assert content.endswith("\n")
    assert by_tensorflow(tmp_path).all_model_checkpoint_paths == tuple(prefixes[-2:])


def test_paths_are_written_relative_to_the_directory(tmp_path):
    (tmp_path / "m").mkdir()
    write_state(
        str(tmp_path / "m" / ".."), CheckpointState(f"{tmp_path}/a", ("/b/c", f"{tmp_path}/m/a"))
    )
    assert (tmp_path / "checkpoint").read_text() == (
        'model_checkpoint_path: "a"\n'
        'all_model_checkpoint_paths: "/b/c"\n'
        'all_model_checkpoint_paths: "m/a"\n'
    )


def test_a_relative_directory_is_written_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("m")
    write_state("m", CheckpointState("m/a", ("other/b", "m/a")))
    assert tf.train.latest_checkpoint("m") is None  # there is no such checkpoint
    assert tf.train.get_checkpoint_state("m").model_checkpoint_path == "m/a"
    assert read_state("m").all_model_checkpoint_paths == (f"{tmp_path}/other/b", "m/a")


def test_remote_directories():
    import tensorflow as tf

    write_state("ram://state/m/", CheckpointState("ram://state/m/a", ("ram://other/b", "/c/d")))
    assert read_state("ram://state/m") == CheckpointState(
        "ram://state/m/a", ("ram://other/b", "/c/d")
    )
    with tf.io.gfile.GFile("ram://state/m/checkpoint") as file:
        assert file.read().splitlines()[0] == 'model_checkpoint_path: "a"'


def test_fields_of_later_versions_are_passed_over(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "a"\nnew_field: 3\n')
    assert read_state(str(tmp_path)) == CheckpointState(f"{tmp_path}/a")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "expected a model_checkpoint_path, found none"),
        (b'all_model_checkpoint_paths: "a"', "expected a model_checkpoint_path, found none"),
        (b'model_checkpoint_path: ""', "expected a model_checkpoint_path, found none"),
        (b'model_checkpoint_path: "a', "no CheckpointState text"),
        (b"model_checkpoint_path: 3", "no CheckpointState text"),
        (b"{" * 100_000, "no CheckpointState text"),
        (b"a {" * 100_000, "no CheckpointState text"),
        (b"\xff\xfe\x00", "no CheckpointState text"),
        (b'all_model_checkpoint_timestamps: "x"', "no CheckpointState text"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, text):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=text) as caught:
        read_state(str(tmp_path))
    assert caught.value.path == str(tmp_path / "checkpoint")


def test_an_enormous_file_is_not_read(tmp_path):
    (tmp_path / "checkpoint").touch()
    os.truncate(tmp_path / "checkpoint", 100 << 30)
    with pytest.raises(CorruptCheckpointError, match="expected 67108864 at most"):
        read_state(str(tmp_path))


@given(
    st.lists(
        st.sampled_from(
            ["model_checkpoint_path", "all_model_checkpoint_timestamps", "other", ":", "{", "}"]
            + ["[", "]", "<", ">", ",", ";", "#", '"a"', "'b", "1e999", "-0x1", "\\777", "\n", "\0"]
        )
    )
)
def test_any_text_gives_a_state_or_a_checkpoint_error(tmp_path_factory, words):
    directory = tmp_path_factory.getbasetemp()
    (directory / "checkpoint").write_text(" ".join(words))
    with contextlib.suppress(CorruptCheckpointError):
        assert isinstance(read_state(str(directory)), CheckpointState)


def test_a_directory_that_is_missing(tmp_path):
    with pytest.raises(WriteError, match="No such file or directory"):
        write_state(str(tmp_path / "missing"), CheckpointState("a"))


def test_a_checkpoint_under_another_spelling_of_the_directory_is_named_relative_to_it(tmp_path):
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "run", tmp_path / "link")
    write_state(str(tmp_path / "run"), CheckpointState(str(tmp_path / "link" / "model-5")))
    assert (
        (tmp_path / "run" / "checkpoint").read_text().startswith('model_checkpoint_path: "model-5"')
    )

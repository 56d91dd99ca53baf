"""What happens to the checkpoints of a directory around a save: synced, deleted, cleared away.

Nothing older is deleted before the data of the new checkpoint are on the disk. That happens beside
training, in one thread for each list of checkpoints. Whatever a kill interrupts, the journal or the
state file names, and the first save of the next process finishes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from estimator_ckpt import files
from estimator_ckpt.bundle.index import read_index, read_num_shards, shard_path
from estimator_ckpt.errors import CheckpointError, WriteError
from estimator_ckpt.reading import state
from estimator_ckpt.reading.input_files import input_directory, is_input_directory, positions
from estimator_ckpt.reading.state import CheckpointState
from estimator_ckpt.saving.journal import (
    Journal,
    encode_journal,
    fingerprint,
    journal_path,
    mark,
    read_journal,
    temporary_name,
    write_journal,
)
from estimator_ckpt.saving.lease import Lease
from estimator_ckpt.saving.on_disk import delete, written_at
from estimator_ckpt.saving.staging import SAVING, data_files, remove_tree

# A save waits so many seconds for the disk, unless it has more bytes, which take longer than that.
_PATIENCE = 1.0
_MOST_WAITED_FOR = 64 << 20

_keepers: dict[tuple[str, str], Keeper] = {}


def keeper_of(directory: str, state_name: str) -> Keeper:
    """The one Keeper that this process has for a list of checkpoints."""
    real = directory if files.is_remote(directory) else os.path.realpath(directory)
    found = _keepers.get((real, state_name))
    if found is None or found.process != os.getpid():  # a fork has none of its parent's threads
        found = _keepers[real, state_name] = Keeper(directory, state_name)
    return found


class Keeper:
    """Looks after one list of checkpoints: those that one state file names.

    Attributes:
      process: which this belongs to.
      token: which names what this process may leave behind.
      saving: held by the one thread that saves.
    """

    def __init__(self, directory: str, state_name: str) -> None:
        self.process = os.getpid()
        self.token = secrets.token_hex(4)
        self.saving = threading.Lock()
        self._directory = directory
        self._state_name = state_name
        self._lease = Lease(directory, state_name)
        self._thread: threading.Thread | None = None
        # What waits for its deletion: checkpoints, and data files that were replaced with the time.
        self._deleting: list[str] = []
        self._unused: dict[str, float] = {}
        self._unused_before: tuple[str, ...] = ()

    def take_lease(self, session: object) -> None:
        """Takes the lease of the directory for a session that is about to save.

        Raises:
          BusyError: another process trains in the directory.
        """
        self._lease.take(session)

    def begin(self, prefix: str, session: object) -> None:
        """Before a save: waits for the end of the one before, takes the lease of the directory, and
        clears away what processes that came to no end have left.

        Args:
          prefix: of the checkpoint that is to be written.
          session: that saves.

        Raises:
          BusyError: another process trains in the directory.
          WriteError: the journal cannot be written.
        """
        self.join()
        self._lease.take(session)
        journal = read_journal(self._directory, self._state_name)
        name = os.path.basename(prefix)
        said = journal
        if self.token not in journal.tokens:
            self._unused = dict.fromkeys(journal.unused, time.time())
            left = () if self._clear_away(journal) else journal.tokens
            said = said._replace(tokens=(*left, self.token), deleting=())
        if name in journal.synced and not files.exists(f"{prefix}.index"):
            others = {n: mark for n, mark in journal.synced.items() if n != name}
            said = said._replace(synced=others)
        if said != journal:
            self._write(said)
        self._unused_before = tuple(self._unused)

    def join(self) -> None:
        """Waits until the last save is on the disk, and what it replaced deleted."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def leaving(self) -> frozenset[str]:
        """The names of those that the state file still has, but that are to be deleted."""
        return frozenset(map(os.path.basename, self._deleting))

    def has_synced_beside(self, prefix: str) -> bool:
        """Whether a power cut would leave a checkpoint beside this one. A directory's first one is
        therefore on the disk before the state file names it."""
        if files.is_remote(self._directory):
            return True  # a file that is closed is stored
        for other, found in read_journal(self._directory, self._state_name).synced.items():
            one = mark(os.path.join(self._directory, other))
            if other != os.path.basename(prefix) and one is not None and one[1] == found:
                return True
        return False

    def replaces(self, prefix: str) -> None:
        """Before the files of a checkpoint are replaced: notes the old ones, which go later."""
        names = [os.path.basename(p) for paths in data_files(prefix).values() for p in paths]
        self._unused.update(dict.fromkeys(names, time.time()))
        journal = read_journal(self._directory, self._state_name)
        self._write(journal._replace(unused=tuple(self._unused)))

    def publish(self, listed: CheckpointState, expired: Sequence[str]) -> None:
        """Writes the state file: what is listed, and what is to be deleted but still there.

        Raises:
          BusyError: another process has taken over the directory.
          WriteError: it cannot be written.
        """
        self._lease.check()
        keep = set(map(state.real_prefix, listed.all_model_checkpoint_paths))
        waiting = dict.fromkeys([*self._deleting, *expired])
        self._deleting = [one for one in waiting if state.real_prefix(one) not in keep]
        self._write_state(listed)

    def settle(
        self,
        prefix: str,
        listed: CheckpointState,
        *,
        grace_secs: float,
        meta_graph_suffix: str,
        is_synced: bool,
        policy: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """After a save: gets it onto the disk, then deletes what has expired. Waits a second for
        that, if the checkpoint is not large; the rest goes on beside training.

        Args:
          prefix: of the new checkpoint.
          listed: what the state file says in the end.
          grace_secs: how long a data file that was replaced stays.
          meta_graph_suffix: of the graphs beside the checkpoints.
          is_synced: whether it is on the disk already.
          policy: the options by which checkpoints are kept, for the journal.
          seconds: how long it took to write the checkpoint, for the journal.
        """

        def finish() -> None:
            try:
                if not is_synced:
                    sync_checkpoint(prefix)
                self._expire(prefix, listed, grace_secs, meta_graph_suffix, policy, seconds)
            except CheckpointError as error:
                if files.is_dir(self._directory):  # else it was removed, and nobody waits for it
                    logging.warning(
                        "The checkpoint %s is not known to be on the disk, so nothing older is "
                        "deleted: %s",
                        prefix,
                        error,
                    )

        self._thread = threading.Thread(target=finish, name="checkpoint_sync")
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending
            self._thread = None
            finish()
        else:
            if not _is_large(prefix):
                self._thread.join(_PATIENCE)

    def _expire(
        self,
        prefix: str,
        listed: CheckpointState,
        grace_secs: float,
        meta_graph_suffix: str,
        policy: Mapping[str, Any],
        seconds: float,
    ) -> None:
        old = read_journal(self._directory, self._state_name)
        names = {os.path.basename(one) for one in listed.all_model_checkpoint_paths}
        name = os.path.basename(prefix)
        limit = time.time() - grace_secs
        data = fingerprint(prefix)
        if old.synced.get(name) == data:  # a session saves the step that it resumes from
            seconds = old.seconds.get(name, seconds)
        # Those that this very save has replaced go at the next one.
        due = [file for file in self._unused_before if self._unused[file] <= limit]
        with_input = self._with_input([one for one in old.positions if one != name])
        if positions(prefix):
            with_input.append(name)
        journal = Journal(
            old.tokens,
            {
                **{n: mark for n, mark in old.synced.items() if n in names},
                name: data,
            },
            tuple(map(os.path.basename, self._deleting)),
            tuple(self._unused),
            policy,
            tuple(with_input),
            {**{n: secs for n, secs in old.seconds.items() if n in names}, name: round(seconds, 3)},
        )
        if encode_journal(journal) != encode_journal(old):
            self._write(journal)
        deleted = [one for one in self._deleting if delete(one, meta_graph_suffix)]
        self._deleting = [one for one in self._deleting if one not in deleted]
        for file in due:
            self._remove_unused(file)
        if due:
            self._write(journal._replace(unused=tuple(self._unused)))
        if deleted:
            self._write_state(listed)

    def _with_input(self, names: Sequence[str]) -> list[str]:
        """Those of the checkpoints that were saved with an input's position which are still there.

        Of one that is gone the position goes: whoever deleted it did not know of that, as the stock
        Saver does not.
        """
        if not names:
            return []
        there = set(files.list_dir(self._directory))
        left = []
        for name in names:
            prefix = os.path.join(self._directory, name)
            directory = input_directory(prefix)
            if f"{name}.index" in there or data_files(prefix):
                left.append(name)
            elif os.path.basename(directory) in there and is_input_directory(directory):
                try:
                    remove_tree(directory)
                except WriteError:
                    left.append(name)
        return left

    def _remove_unused(self, file: str) -> None:
        """Removes a data file, unless the index beside it says that it is in use."""
        path = os.path.join(self._directory, file)
        match = _DATA_FILE.fullmatch(file)
        if match and _uses_count(os.path.join(self._directory, match[1]), int(match[2])) is False:
            files.remove(path)
        self._unused.pop(file, None)

    def _write(self, journal: Journal) -> None:
        write_journal(self._directory, self._state_name, journal, self.token)

    def _write_state(self, listed: CheckpointState) -> None:
        """Writes the state file, with what waits for its deletion as the oldest."""
        dates = [written_at(prefix) for prefix in self._deleting]
        there = [(p, date) for p, date in zip(self._deleting, dates) if date is not None]
        path = os.path.join(self._directory, self._state_name)
        state.write_state(
            self._directory,
            listed._replace(
                all_model_checkpoint_paths=(
                    *(prefix for prefix, _ in there),
                    *listed.all_model_checkpoint_paths,
                ),
                all_model_checkpoint_timestamps=(
                    *(date for _, date in there),
                    *listed.all_model_checkpoint_timestamps,
                ),
            ),
            self._state_name,
            temporary=temporary_name(path, self.token),
        )

    # --- what earlier processes have left ---

    def _clear_away(self, journal: Journal) -> bool:
        """Removes what the journal and the state file name as ours; whether all of it is gone."""
        try:
            listed = state.read_state(self._directory, self._state_name)
        except CheckpointError:
            listed = None
        try:
            for name in files.list_dir(self._directory):
                self._clear_file(name, journal)
            for prefix in listed.all_model_checkpoint_paths if listed else ():
                name = os.path.basename(prefix)
                if name in journal.deleting and not files.exists(f"{prefix}.index"):
                    delete(os.path.join(self._directory, name))
        except CheckpointError as error:
            logging.warning("Could not clear away what an earlier save has left: %s", error)
            return False
        return True

    def _clear_file(self, name: str, journal: Journal) -> None:
        path = os.path.join(self._directory, name)
        staged = SAVING.fullmatch(name)
        if staged and staged[2] in journal.tokens:
            _clear_unfinished(os.path.join(self._directory, staged[1]))
            remove_tree(path)
        base, _, token = name.rpartition(".tempstate-")
        is_journal = base == os.path.basename(journal_path("", self._state_name))
        if is_journal or token in journal.tokens:
            files.remove(path)


_DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-(\d{5})")


def _clear_unfinished(prefix: str) -> None:
    """Removes the data files of a save that did not come to its end."""
    has_index = files.exists(f"{prefix}.index")
    for count, paths in data_files(prefix).items():
        if _uses_count(prefix, count) is False:
            for path in paths:
                files.remove(path)
    if not has_index:
        files.remove(f"{prefix}.meta")
        remove_tree(input_directory(prefix))


def _uses_count(prefix: str, count: int) -> bool | None:
    """Whether a checkpoint has so many data files; None if its index cannot be read."""
    if not files.exists(f"{prefix}.index"):
        return False
    try:
        return read_index(prefix).num_shards == count
    except CheckpointError:
        return None


def _is_large(prefix: str) -> bool:
    if files.is_remote(prefix):
        return False
    with contextlib.suppress(CheckpointError):  # the thread says what is wrong
        paths = [path for paths in data_files(prefix).values() for path in paths]
        return sum(map(files.size, paths)) > _MOST_WAITED_FOR
    return False


def sync_checkpoint(prefix: str) -> None:
    """Gets a checkpoint's files onto the disk; remote ones are there once they are closed.

    Raises:
      CheckpointError: it is not there, or the disk fails.
    """
    if files.is_remote(prefix):
        return
    paths = []
    for one in (prefix, *positions(prefix).values()):
        count = read_num_shards(one)
        paths += [shard_path(one, shard, count) for shard in range(count)]
    sync_files(paths)


def sync_files(paths: Sequence[str]) -> None:
    """Gets the bytes of local files onto the disk, and their names.

    Raises:
      WriteError: the disk fails, or a file is not there.
    """
    for path in [*paths, *{os.path.dirname(path) or "." for path in paths}]:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise WriteError(f"cannot sync it to the disk: {error.strerror}", path=path) from error

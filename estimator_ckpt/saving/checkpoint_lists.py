"""The checkpoints of each directory that a saver writes to, as its state file lists them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence

from absl import logging

from estimator_ckpt import files
from estimator_ckpt.errors import CorruptCheckpointError
from estimator_ckpt.reading import state
from estimator_ckpt.reading.state import CheckpointState, real_prefix
from estimator_ckpt.saving.on_disk import written_at
from estimator_ckpt.saving.retention import CheckpointList

Dated = tuple[str, float]  # a prefix, and when it was written in seconds since the epoch


class CheckpointLists:
    """One list of checkpoints for each directory and name of a state file.

    A saver may write to several directories, and several savers to one: what another of them put
    into the state file is merged into the list. It is never taken for the saver's own.
    """

    def __init__(self, make: Callable[[], CheckpointList], counts: Callable[[str], bool]) -> None:
        """Nothing is read yet.

        Args:
          make: an empty list.
          counts: whether an earlier run's checkpoint, by its prefix, has all that the saver saves.
            Asked when the first one is written to its directory.
        """
        self._make = make
        self._counts = counts
        self._lists: dict[tuple[str, str], CheckpointList] = {}
        self._adopted: dict[str, tuple[list[Dated], float | None]] = {}
        self._skipped: set[str] = set()

    @property
    def prefixes(self) -> list[str]:
        """The checkpoints that count, oldest first, directory by directory."""
        found = [prefix for dated, _ in self._adopted.values() for prefix, _ in dated]
        for one in self._lists.values():
            found += one.prefixes
        return found

    def adopt(self, checkpoints: Sequence[Dated], last_preserved: float | None = None) -> None:
        """Takes over the checkpoints of an earlier run, instead of what is known."""
        self._adopted.clear()
        self._lists.clear()
        for prefix, written in checkpoints:
            directory = os.path.dirname(real_prefix(prefix))
            dated, _ = self._adopted.setdefault(directory, ([], last_preserved))
            dated.append((prefix, written))

    def skip(self, prefix: str) -> None:
        """Leaves a damaged checkpoint out: its files stay, for whoever wants to look at them."""
        self._skipped.add(real_prefix(prefix))

    def recover(self, checkpoint_paths: Sequence[str]) -> None:
        """Takes over the checkpoints of an earlier run, with what their state file tells of them.

        Args:
          checkpoint_paths: prefixes, from the oldest to the newest; those without files are left
            out.
        """
        listed = _read(os.path.dirname(checkpoint_paths[-1])) if checkpoint_paths else None
        known = dict(_dates(listed)) if listed is not None else {}
        found = []
        for prefix in checkpoint_paths:
            modified = written_at(prefix)
            if modified is not None and real_prefix(prefix) not in self._skipped:
                found.append((prefix, known.get(real_prefix(prefix), modified)))
        self.adopt(found, None if listed is None else listed.last_preserved_timestamp)

    def at(
        self, prefix: str, state_name: str, leaving: Collection[str] = ()
    ) -> tuple[CheckpointList, list[str]]:
        """The list that a checkpoint is about to be added to.

        Args:
          prefix: of the checkpoint.
          state_name: of the state file.
          leaving: the names of those that the state file still has, but that are to be deleted.

        Returns:
          The list; and the checkpoints that another saver has put into the state file since it was
          written last.
        """
        directory = os.path.dirname(prefix)
        real = os.path.dirname(real_prefix(prefix))
        key = (real, state_name)
        if key not in self._lists:
            self._lists[key] = self._make()
            dated, last_preserved = self._adopted.pop(real, ([], None))
            on_disk = _indexes(directory) if self._lists[key].retention.every_n_steps else ()
            self._lists[key].adopt(dated, last_preserved, self._counts, on_disk)
        found = self._lists[key]
        listed = _read(directory, state_name)
        names = [name for name in _names(listed) if name not in leaving]
        if listed is None or names == _names(found.stated):
            return found, []
        known = dict(_dates(listed))
        newest = listed.model_checkpoint_path
        paths = dict.fromkeys((*listed.all_model_checkpoint_paths, newest))
        here = []
        for one in paths:
            path = real_prefix(one)
            modified = known.get(path) or written_at(path)
            is_skipped = path in self._skipped or os.path.dirname(path) != real
            is_skipped = is_skipped or os.path.basename(path) in leaving
            if not is_skipped and modified is not None:
                here.append((os.path.join(directory, os.path.basename(one)), modified))
        return found, found.merge(here, lambda path: written_at(path) is not None)


def _indexes(directory: str) -> list[str]:
    """The prefixes in a directory that have an index."""
    names = [
        name[: -len(".index")] for name in files.list_dir(directory) if name.endswith(".index")
    ]
    return [os.path.join(directory, name) for name in names]


def _names(listed: CheckpointState | None) -> list[str]:
    """What a state file lists, as far as it does not depend on how its directory is spelled."""
    if listed is None:
        return []
    paths = (*listed.all_model_checkpoint_paths, listed.model_checkpoint_path)
    return list(map(os.path.basename, paths))


def _dates(listed: CheckpointState) -> Iterator[Dated]:
    """The checkpoints whose times a state file tells, by their real prefixes."""
    times = listed.all_model_checkpoint_timestamps
    if len(times) == len(listed.all_model_checkpoint_paths):
        yield from zip(map(real_prefix, listed.all_model_checkpoint_paths), times)


def _read(directory: str, name: str = "checkpoint") -> CheckpointState | None:
    try:
        return state.read_state(directory, name)
    except CorruptCheckpointError as error:
        logging.warning("It is written anew: %s", error)
        return None

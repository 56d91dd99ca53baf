"""What the next save of a job would delete, from the files alone, by the job's own code."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.errors import CheckpointError, NotACheckpointError
from estimator_ckpt.options import OPTION_OF, SaverOptions
from estimator_ckpt.reading.best import read_best
from estimator_ckpt.reading.locate import complete_prefixes
from estimator_ckpt.reading.named import pins
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.journal import read_journal
from estimator_ckpt.saving.retention import CheckpointList

_STATE_NAME = "checkpoint"
# The options that say which checkpoints stay.
POLICY = tuple(OPTION_OF.values())


class Fate(NamedTuple):
    """What becomes of one checkpoint.

    Attributes:
      prefix: of the checkpoint.
      goes: whether the next save deletes it.
      why: the reason, for people.
    """

    prefix: str
    goes: bool
    why: str


class Forecast(NamedTuple):
    """What the next save of a job does.

    Attributes:
      policy: the options that it goes by, by their names in SaverOptions.
      known: where they are from: "given", "the job's last save" or "defaults".
      fates: of each checkpoint, the oldest first; then of the best and the pinned ones.
    """

    policy: dict[str, Any]
    known: str
    fates: tuple[Fate, ...]


def forecast(run: str, given: Mapping[str, Any]) -> Forecast:
    """What the next save in a model_dir would delete, if it came now.

    A checkpoint that lacks a variable of the model stays as well: which do, only the job knows.

    Args:
      run: the model_dir.
      given: options of the job that are to count in the place of those of its last save.

    Raises:
      NotACheckpointError: no job has saved there.
      CorruptCheckpointError: the state file, or the list of the best, is broken.
      SettingsError: an option out of its range.
    """
    listed = read_state(run, _STATE_NAME) if files.is_dir(run) else None
    if listed is None:
        raise NotACheckpointError(
            "expected a model_dir, with the file `checkpoint` of a job that saves there", path=run
        )
    recorded = read_journal(run, _STATE_NAME).policy
    known = "given" if given else "the job's last save" if recorded else "defaults"
    retention = SaverOptions(**{**_sane(recorded), **given}).retention.else_keep()
    kept = CheckpointList(retention)
    paths = dict.fromkeys((*listed.all_model_checkpoint_paths, listed.model_checkpoint_path))
    times = dict(zip(listed.all_model_checkpoint_paths, listed.all_model_checkpoint_timestamps))
    on_disk = complete_prefixes(run)
    names = {os.path.basename(one): one for one in on_disk}
    dated = [
        (names[os.path.basename(path)], times.get(path) or _modified(path))
        for path in paths
        if os.path.basename(path) in names
    ]
    kept.adopt(dated, listed.last_preserved_timestamp, on_disk=on_disk)
    goes = set(kept.add(os.path.join(run, "the next checkpoint")))
    preserved = dict(kept.preserved)
    counted = set(kept.prefixes)
    known_prefixes = {prefix for prefix, _ in dated}
    limit, grace = retention.newest, retention.deletion_grace_secs

    def fate(prefix: str) -> Fate:
        if prefix not in known_prefixes:
            return Fate(prefix, False, "the state file does not list it: preserved, or another's")
        if prefix in preserved:
            return Fate(prefix, False, f"{preserved[prefix]}, for ever")
        if prefix in counted:
            why = f"one of the newest {limit}" if limit else "all stay (keep_checkpoint_max=0)"
            return Fate(prefix, False, why)
        why = f"no longer one of the newest {limit}"
        if prefix not in goes:
            return Fate(prefix, False, f"{why}, but it has {grace:g} s (deletion_grace_secs)")
        return Fate(prefix, True, why)

    fates = [fate(prefix) for prefix in on_disk]
    return Forecast(retention.as_options(), known, (*fates, *_kept(run)))


def _kept(run: str) -> list[Fate]:
    """The best and the pinned: links that no save deletes."""
    best = read_best(run)
    found = []
    for criterion in best.criteria:
        for rank, one in enumerate(best.ranked(criterion), 1):
            value = one.metrics[criterion.metric]
            why = f"number {rank} of the best {criterion.keep} by {criterion.metric}: {value:g}"
            found.append(Fate(one.prefix, False, why))
    found += [Fate(one, False, f"pinned as {name}") for name, one in pins(run).items()]
    return found


def _sane(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a journal has, if they are all in order."""
    options = {name: recorded[name] for name in POLICY if name in recorded}
    try:
        SaverOptions(**options)
    except CheckpointError:
        return {}
    return options


def _modified(prefix: str) -> float:
    try:
        return os.path.getmtime(f"{prefix}.index")
    except OSError:  # a remote one
        return time.time()

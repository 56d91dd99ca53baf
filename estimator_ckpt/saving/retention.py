"""Which checkpoints of a model_dir stay, and which go."""

from __future__ import annotations

import heapq
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from estimator_ckpt.options import Retention
from estimator_ckpt.reading.state import CheckpointState, real_prefix

_STEP = re.compile(r"(.+)-(\d+)")


@dataclass
class CheckpointList:
    """Keeps the newest checkpoints, and one for every so many hours, as tf.compat.v1.train.Saver.

    And one for every so many steps. What is pinned, and the best, is of no concern here: those are
    links under names of their own, which stay when a checkpoint is deleted (reading/named.py).
    Where all stay, the state file names them all the same, so that they count again for a later run
    with a limit. One of every so many steps is known by its name, which has the step; one that has
    no step, or is of a step before the first multiple, is none.

    Unlike the stock Saver, adopts what an earlier run has left, shrinks to the limit at once when
    the limit was lowered, goes on counting the hours where that run left off, does not count a
    pause as hours of training, can wait before it deletes, knows one checkpoint under two spellings
    of its directory, and leaves those of another directory alone: a state file with absolute paths
    goes on naming the checkpoints of the model_dir that it was copied from. What another saver
    wrote into the directory is listed, but it does not count and is never deleted.

    Attributes:
      retention: which of them stay. One that no longer counts stays for its grace period, and the
        state file names it until it goes.
      now: the clock, seconds since the epoch.
      stated: what state() said last.
      preserved: what the last add() has taken out of the count to stay for ever, and why.
    """

    retention: Retention
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.retention = self.retention.else_keep()
        self._kept: list[tuple[str, float]] = []
        self._expired: list[tuple[str, float, float]] = []  # prefix, written, expired
        self._others: list[tuple[str, float]] = []  # do not count
        self._last_preserved = self.now()
        self._periods: dict[str, tuple[str, int]] = {}  # of steps, by what is preserved of each
        self.stated: CheckpointState | None = None
        self.preserved: list[tuple[str, str]] = []

    @property
    def prefixes(self) -> list[str]:
        """The checkpoints that count, oldest first."""
        return [prefix for prefix, _ in self._kept]

    def adopt(
        self,
        checkpoints: Sequence[tuple[str, float]],
        last_preserved: float | None = None,
        counts: Callable[[str], bool] = lambda prefix: True,
        on_disk: Sequence[str] = (),
    ) -> None:
        """Takes over the checkpoints of an earlier run.

        Args:
          checkpoints: (prefix, seconds since the epoch), from the oldest to the newest.
          last_preserved: when the last one was written that is kept for ever.
          counts: whether the checkpoint of a prefix is one of those that count.
          on_disk: all prefixes of the directory; those that are not in the list are preserved.
        """
        newest_first = {real_prefix(one[0]): one for one in reversed(checkpoints)}
        self._kept, self._others = [], []
        for one in reversed(newest_first.values()):
            (self._kept if counts(one[0]) else self._others).append(one)
        self._expired = []
        if last_preserved is not None:
            self._last_preserved = last_preserved
        earlier = {place for place in map(real_prefix, on_disk) if place not in newest_first}
        periods = {place: self._period(place) for place in earlier}
        self._periods = {place: one for place, one in periods.items() if one is not None}

    def merge(
        self, listed: Sequence[tuple[str, float]], exists: Callable[[str], bool]
    ) -> list[str]:
        """Takes note of a list that somebody else wrote over this one.

        Args:
          listed: (prefix, seconds since the epoch) of the checkpoints in it.
          exists: whether the checkpoint of a prefix is still on disk.

        Returns:
          The prefixes that are new here. They stay in the list, and do not count.
        """
        self._kept = [one for one in self._kept if exists(one[0])]
        self._others = [one for one in self._others if exists(one[0])]
        known = {real_prefix(one[0]) for one in (*self._kept, *self._others)}
        known |= {real_prefix(one[0]) for one in self._expired}
        new = [one for one in listed if real_prefix(one[0]) not in known and exists(one[0])]
        self._others += new
        return [prefix for prefix, _ in new]

    def add(self, prefix: str) -> list[str]:
        """A checkpoint has been written; returns the prefixes that can be deleted now."""
        now = self.now()
        place = real_prefix(prefix)

        def is_another(one: str) -> bool:
            other = real_prefix(one)
            return other != place and os.path.dirname(other) == os.path.dirname(place)

        self._kept = [kept for kept in self._kept if is_another(kept[0])] + [(prefix, now)]
        self._expired = [gone for gone in self._expired if is_another(gone[0])]
        self._others = [other for other in self._others if is_another(other[0])]
        self.preserved = []
        if not self.retention.newest:
            return []
        while len(self._kept) > self.retention.newest:
            oldest, written = self._kept.pop(0)
            reasons = [*self._hours_preserve(written), *self._steps_preserve(oldest)]
            if reasons:
                self.preserved.append((oldest, " and ".join(reasons)))
            else:
                self._expired.append((oldest, written, now))
        grace = self.retention.deletion_grace_secs
        due = [gone for gone, _, since in self._expired if now - since >= grace]
        self._expired = [gone for gone in self._expired if gone[0] not in due]
        return due

    def _hours_preserve(self, written: float) -> list[str]:
        every = self.retention.every_n_hours or math.inf
        periods = (written - self._last_preserved) / (every * 3600)
        if periods <= 1:
            return []
        # To the end of the last whole period, as the stock Saver counts: from one preserved
        # checkpoint to the next it would be fewer than one for each period.
        self._last_preserved += (math.ceil(periods) - 1) * every * 3600
        return [f"one of every {every:g} hours"]

    def _steps_preserve(self, prefix: str) -> list[str]:
        period = self._period(prefix)
        place = real_prefix(prefix)
        # Preserved before, it may have been written again, by a job that has fallen back.
        was_preserved = place in self._periods
        if period is None or (period in self._periods.values() and not was_preserved):
            return []
        self._periods[place] = period
        return [f"one of every {self.retention.every_n_steps:,} steps"]

    def _period(self, prefix: str) -> tuple[str, int] | None:
        """What a checkpoint's name is without its step, and which multiple the step has reached."""
        every = self.retention.every_n_steps
        found = _STEP.fullmatch(os.path.basename(prefix)) if every else None
        number = int(found[2]) // every if found and every else 0
        return (found[1], number) if found and number else None

    @property
    def policy(self) -> dict[str, Any]:
        """The settings, by the names that SaverOptions has for them."""
        return {**self.retention.as_options(), "keep_best": self.retention.criteria}

    def state(self) -> CheckpointState:
        """What the state file should say after add()."""
        others = sorted(self._others, key=_written)
        older = heapq.merge(others, self._kept[:-1], key=_written)
        existing = [
            *((prefix, written) for prefix, written, _ in self._expired),
            *older,
            self._kept[-1],
        ]
        self.stated = CheckpointState(
            model_checkpoint_path=self._kept[-1][0],
            all_model_checkpoint_paths=tuple(prefix for prefix, _ in existing),
            all_model_checkpoint_timestamps=tuple(written for _, written in existing),
            last_preserved_timestamp=self._last_preserved,
        )
        return self.stated


def _written(checkpoint: tuple[str, float]) -> float:
    return checkpoint[1]

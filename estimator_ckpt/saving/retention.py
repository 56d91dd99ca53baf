"""Which checkpoints of a model_dir stay, and which go."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from estimator_ckpt.state import CheckpointState, real_prefix


@dataclass
class Retention:
    """Keeps the newest checkpoints, and one for every so many hours, as tf.compat.v1.train.Saver.

    Unlike it, adopts what an earlier run has left, shrinks to the limit at once when the limit was
    lowered, goes on counting the hours where that run left off, does not count a pause as hours of
    training, can wait before it deletes, knows one checkpoint under two spellings of its directory,
    and leaves those of another directory alone: a state file with absolute paths goes on naming the
    checkpoints of the model_dir that it was copied from.

    Attributes:
      max_to_keep: how many stay; 0 or None: all, and the state file names the newest alone.
      every_n_hours: beyond them one stays for every so many hours of training.
      grace_secs: how long a checkpoint that no longer counts stays on disk, for an evaluator that
        may be reading it; the state file names it until it goes.
      now: the clock, seconds since the epoch.
    """

    max_to_keep: int | None = 5
    every_n_hours: float = 10_000.0
    grace_secs: float = 0.0
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._kept: list[tuple[str, float]] = []
        self._expired: list[tuple[str, float, float]] = []  # prefix, written, expired
        self._last_preserved = self.now()

    @property
    def prefixes(self) -> list[str]:
        """The checkpoints that count, oldest first."""
        return [prefix for prefix, _ in self._kept]

    def adopt(
        self, checkpoints: Sequence[tuple[str, float]], last_preserved: float | None = None
    ) -> None:
        """Takes over the checkpoints of an earlier run: (prefix, seconds since the epoch)."""
        newest_first = {real_prefix(one[0]): one for one in reversed(checkpoints)}
        self._kept = list(reversed(newest_first.values()))
        self._expired = []
        if last_preserved is not None:
            self._last_preserved = last_preserved

    def add(self, prefix: str) -> list[str]:
        """A checkpoint has been written; returns the prefixes that can be deleted now."""
        now = self.now()
        place = real_prefix(prefix)

        def is_another(one: str) -> bool:
            other = real_prefix(one)
            return other != place and os.path.dirname(other) == os.path.dirname(place)

        self._kept = [kept for kept in self._kept if is_another(kept[0])] + [(prefix, now)]
        self._expired = [gone for gone in self._expired if is_another(gone[0])]
        if not self.max_to_keep:
            return []
        while len(self._kept) > self.max_to_keep:
            oldest, written = self._kept.pop(0)
            periods = (written - self._last_preserved) / (self.every_n_hours * 3600)
            if periods > 1:
                # To the end of the last whole period, as the stock Saver counts: from one
                # preserved checkpoint to the next it would be fewer than one for each period.
                self._last_preserved += (math.ceil(periods) - 1) * self.every_n_hours * 3600
            else:
                self._expired.append((oldest, written, now))
        due = [gone for gone, _, since in self._expired if now - since >= self.grace_secs]
        self._expired = [gone for gone in self._expired if gone[0] not in due]
        return due

    def state(self) -> CheckpointState:
        """What the state file should say after add()."""
        listed = self._kept if self.max_to_keep else self._kept[-1:]
        existing = [*((prefix, written) for prefix, written, _ in self._expired), *listed]
        return CheckpointState(
            model_checkpoint_path=self._kept[-1][0],
            all_model_checkpoint_paths=tuple(prefix for prefix, _ in existing),
            all_model_checkpoint_timestamps=tuple(written for _, written in existing),
            last_preserved_timestamp=self._last_preserved,
        )

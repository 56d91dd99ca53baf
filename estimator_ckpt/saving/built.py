"""A saver that is built: its ops in a graph, what they save, and how they restore it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from estimator_ckpt.bundle.index import Index
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.matching.policies import may_initialize, policy_for
from estimator_ckpt.matching.restoring import (
    Resolution,
    Wanted,
    conversion_that_helps,
    mismatch,
    missing_rows,
    resolve,
)
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.saving.contents import Contents
from estimator_ckpt.saving.graph_ops import SaverOps, run_restore
from estimator_ckpt.saving.initial_values import Initialization, InitialValues
from estimator_ckpt.saving.lacking_averages import average_problems
from estimator_ckpt.saving.on_disk import open_any
from estimator_ckpt.saving.resets import Request, Reset, read_resets


class Restored(NamedTuple):
    """What a restore has done.

    Attributes:
      prefix: of the checkpoint.
      lacking: the tensors that it lacks; what they are for is initialized.
      resets: those that led to it, and the one that has just been made.
      has_reset: whether one has just been made.
    """

    prefix: str
    lacking: frozenset[str]
    resets: tuple[Reset, ...]
    has_reset: bool


@dataclass(frozen=True)
class Found:
    """What a checkpoint has of what a saver restores.

    Attributes:
      index: of the checkpoint.
      resolution: what it has, and where the two do not fit.
    """

    index: Index
    resolution: Resolution

    @property
    def lacking(self) -> frozenset[str]:
        """The tensors that it lacks."""
        return frozenset(want.tensor for want in self.resolution.missing)


@dataclass(frozen=True)
class Built:
    """What a saver has of its graph, once its ops are there.

    Attributes:
      contents: what it saves and restores.
      ops: that do it.
      saver_def: TensorFlow's names for some of them.
      options: of the saver.
      reshape: whether a variable takes a value of another shape with as many elements.
      warm_started: the names of the ops that hold what a warm start certainly gives a value.
    """

    contents: Contents
    ops: SaverOps
    saver_def: Any
    options: SaverOptions
    reshape: bool
    warm_started: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if may_initialize(self.options.on_missing):
            self.initial_values  # noqa: B018 (while ops can be added)

    @cached_property
    def wanted(self) -> list[Wanted]:
        """The tensors that a restore needs."""
        return self.contents.wanted()

    @cached_property
    def initial_values(self) -> InitialValues:
        """The initializers of the graph; first asked for while ops can be added."""
        return InitialValues(self.contents.all_variables())

    def restore_ops(
        self, keys: Mapping[str, str], checkpoint: Checkpoint
    ) -> tuple[list[Any], dict[Any, Any]]:
        """What to fetch and what to feed, to restore some variables and no others.

        Args:
          keys: name of a whole variable, as the saver saves it -> its key in the checkpoint.
          checkpoint: where from.
        """
        feeds = self.ops.feeds(keys, checkpoint.index.entries)
        return self.assigns(keys), {self.saver_def.filename_tensor_name: checkpoint.prefix, **feeds}

    def assigns(self, names: Collection[str]) -> list[tf.Operation]:
        """The ops that assign some variables and no others, or the one that assigns all.

        Args:
          names: those of whole variables, as the saver saves them.
        """
        some = self.ops.fetches(names)
        if some is not None:
            return some
        graph = tf.compat.v1.get_default_graph()
        return [graph.get_operation_by_name(self.saver_def.restore_op_name)]

    def restore(
        self,
        session: tf.compat.v1.Session,
        path: str,
        request: Request | None = None,
        found: Found | None = None,
    ) -> Restored:
        """Restores from a checkpoint, and initializes what it lacks and may lack.

        Args:
          session: restores into it.
          path: of the checkpoint.
          request: what is to be initialized although the checkpoint has it, unless it was before.
          found: what look_at() has found of the checkpoint, or of another.

        Raises:
          CheckpointError: as Saver.restore() does.
        """
        logging.info("Restoring parameters from %s", path)
        with open_any(path) as checkpoint:
            resets = read_resets(checkpoint)
            if request is not None and request.is_met(resets):
                request = None
            if request is not None:
                request.check(checkpoint.prefix)
            if found is None or found.index != checkpoint.index:
                found = Found(checkpoint.index, self.resolution(checkpoint))
            resolution = found.resolution
            keys, initialization = self._resolve(checkpoint, resolution, request)
            fetches, feeds = self.restore_ops(keys, checkpoint)
            prefix = checkpoint.prefix
            if request is not None:
                resets = (*resets, Reset(request.id, checkpoint.global_step, request.reset))
        run_restore(session, fetches, feeds, prefix)
        if initialization is not None:
            # After the restore: an initial value may be computed from what is restored.
            initialization.run(session)
        # Not what was reset: that is there, and whoever lacks it is another's checkpoint.
        lacking = found.lacking
        if request is not None:
            logging.info("Reset once: %s: %s", ", ".join(request.reset), sorted(request.tensors))
        return Restored(prefix, lacking, resets, request is not None)

    def resolution(self, checkpoint: Checkpoint) -> Resolution:
        """What a checkpoint has of `wanted`, and where the two do not fit."""
        return resolve(
            checkpoint,
            self.wanted,
            self.contents.structure,
            match_by=self.options.match_by,
            reshape=self.reshape,
        )

    def look_at(self, prefix: str) -> Found | None:
        """What a checkpoint has; None if it cannot be read."""
        try:
            with open_any(prefix) as checkpoint:
                return Found(checkpoint.index, self.resolution(checkpoint))
        except CheckpointError:
            return None

    def _resolve(
        self, checkpoint: Checkpoint, resolution: Resolution, request: Request | None
    ) -> tuple[dict[str, str], Initialization | None]:
        """The keys to read, and how to initialize what is not read."""
        without = frozenset[str]() if request is None else request.tensors
        if without:
            resolution = resolution.without(without)
        policy = self.options.on_missing
        required = [w for w in resolution.missing if policy_for(w.variable, policy) == "error"]
        problems = [*resolution.problems, *missing_rows(checkpoint, resolution, required)]
        problems += average_problems(checkpoint, self.wanted, resolution, policy)
        if problems:
            error = mismatch(checkpoint, problems)
            error.message += conversion_that_helps(checkpoint, resolution, required)
            raise error
        warned = [w for w in resolution.missing if policy_for(w.variable, policy) == "warn"]
        if warned:
            rows = missing_rows(checkpoint, resolution, warned, "initialized")
            logging.warning("%s", mismatch(checkpoint, rows))
        keys = dict(resolution.keys)
        if not may_initialize(policy) and not without:
            return keys, None
        restored, others = self.contents.held(
            {*(want.tensor for want in resolution.missing), *without},
            # What the saver does not cover is not initialized by a restore either.
            outside=lambda name: policy_for(name, policy) != "error",
        )
        return keys, self.initial_values.beside(sorted(others), restored)

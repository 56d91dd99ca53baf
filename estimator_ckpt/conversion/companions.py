"""What goes along with a converted checkpoint: its `.meta` file, and the state file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from estimator_ckpt import files
from estimator_ckpt.bundle.index import Index, same_tensor
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.conversion.destination import Site, passing_name
from estimator_ckpt.conversion.meta_graph import restored_keys
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.reading.locate import complete_prefixes
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state


def carry_meta(index: Index, source: str, tensors: Mapping[str, Content], site: Site) -> None:
    """Links the graph beside the result, where its Saver finds what it looks for, unchanged."""
    meta, target = f"{plain_prefix(source)}.meta", f"{site.destination}.meta"
    if files.exists(target) or not files.exists(meta):
        return
    keys = restored_keys(meta)
    if keys is None:
        return
    for key in keys:
        content = tensors.get(key)
        if content is None or not content.source or content.computed:
            return
        if key_bytes(key) not in index.entries or not same_tensor(index, key, content.source):
            return
    passing = passing_name(target)
    files.remove(passing)
    site.undo.callback(files.remove, passing)
    files.link_or_copy(meta, passing)
    site.undo.callback(files.remove, target)
    files.rename(passing, target)


def write_own_state(source: str, site: Site) -> None:
    """A `checkpoint` file for a directory of this checkpoint alone, with the source's time."""
    destination = site.destination
    directory = os.path.dirname(destination) or "."
    if files.exists(os.path.join(directory, "checkpoint")) or len(complete_prefixes(directory)) > 1:
        return
    times: tuple[float, ...] = ()
    state = _state_of(os.path.dirname(source) or ".")
    if state is not None and len(state.all_model_checkpoint_timestamps) == len(
        state.all_model_checkpoint_paths
    ):
        times = tuple(
            time
            for path, time in zip(
                state.all_model_checkpoint_paths, state.all_model_checkpoint_timestamps
            )
            if os.path.basename(path) == os.path.basename(source)
        )[:1]
    write_state(
        directory,
        CheckpointState(destination, (destination,), times),
        temporary=passing_name(f"{destination}.checkpoint"),
    )


def _state_of(directory: str) -> CheckpointState | None:
    try:
        return read_state(directory)
    except CheckpointError:
        return None  # a broken one says nothing of times

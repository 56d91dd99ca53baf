"""What goes along with a converted checkpoint: its `.meta` file, the position of the input, if that
is asked for, and the state file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from estimator_ckpt import files
from estimator_ckpt.bundle.index import Index, same_tensor
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.conversion.destination import Site, passing_name
from estimator_ckpt.conversion.meta_graph import meta_path, restored_keys
from estimator_ckpt.conversion.plan import Companion, Content
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.reading.best import best_path
from estimator_ckpt.reading.input_files import input_directory, positions
from estimator_ckpt.reading.locate import complete_prefixes
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state

_HOWS = ("copy", "reflink", "link", "same")  # what costs most is said


def carry_meta(
    index: Index, source: str, tensors: Mapping[str, Content], site: Site
) -> tuple[Companion, ...]:
    """Links the graph beside the result, where its Saver finds what it looks for, unchanged."""
    meta, target = meta_path(source), f"{site.destination}.meta"
    if not files.exists(meta):
        return ()
    why = _misfit(meta, index, tensors)
    if files.exists(target):
        return (Companion(meta, "same", why),)
    if why:
        return (Companion(meta, "left out", why),)
    passing = passing_name(target)
    files.remove(passing)
    site.undo.callback(files.remove, passing)
    how = files.link_or_copy(meta, passing)
    site.undo.callback(files.remove, target)
    files.rename(passing, target)
    return (Companion(meta, how, ""),)


def keep_meta(index: Index, source: str, tensors: Mapping[str, Content]) -> tuple[Companion, ...]:
    """What is to be said of the graph beside a checkpoint that is converted in place."""
    meta = meta_path(source)
    return (Companion(meta, "same", _misfit(meta, index, tensors)),) if files.exists(meta) else ()


def carry_input(source: str, site: Site, *, take: bool) -> tuple[Companion, ...]:
    """Links the position of the input beside the result, the index last; or leaves it where it is,
    as it holds records of the training data.

    Args:
      source: the prefix of the checkpoint that is converted.
      site: where the result is written.
      take: whether it goes along.
    """
    directory = input_directory(source)
    there = positions(source)
    if not there:
        return ()
    if not take:
        return (Companion(directory, "left out", "it goes along with with_input"),)
    target = input_directory(site.destination)
    files.make_dirs(target)
    hows = {"same"}
    for name in sorted(files.list_dir(directory), key=lambda name: name.endswith(".index")):
        path = os.path.join(target, name)
        if files.exists(path):
            continue
        passing = passing_name(path)
        files.remove(passing)
        site.undo.callback(files.remove, passing)
        hows.add(files.link_or_copy(os.path.join(directory, name), passing))
        site.undo.callback(files.remove, path)
        files.rename(passing, path)
    return (Companion(directory, next(how for how in _HOWS if how in hows), ""),)


def keep_input(source: str) -> tuple[Companion, ...]:
    """What is to be said of the position beside a checkpoint that is converted in place."""
    return (Companion(input_directory(source), "same", ""),) if positions(source) else ()


def _misfit(meta: str, index: Index, tensors: Mapping[str, Content]) -> str:
    """Why the Saver of a graph does not restore from the result; "" if it does."""
    keys = restored_keys(meta)
    if keys is None:
        return "it does not tell which keys its Saver restores"
    for key in sorted(keys):
        content = tensors.get(key)
        if content is None:
            return f"its Saver restores {key}, which the result does not have"
        same = content.source and not content.computed and key_bytes(key) in index.entries
        if not same or not same_tensor(index, key, content.source):
            return f"its Saver restores {key}, which has another value in the result"
    return ""


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


def carry_best(source: str, destination: str) -> None:
    """Copies the list of the best checkpoints of a model_dir, which names them relative to it.

    Raises:
      WriteError, NotACheckpointError: it cannot be written, or read.
    """
    there, here = best_path(source), best_path(destination)
    if files.exists(there) and not files.exists(here):
        files.write_atomic(here, files.read_bytes(there), temporary=passing_name(here))


def _state_of(directory: str) -> CheckpointState | None:
    try:
        return read_state(directory)
    except CheckpointError:
        return None  # a broken one says nothing of times

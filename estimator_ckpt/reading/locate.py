"""From what a user types to a checkpoint's prefix."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from estimator_ckpt import files
from estimator_ckpt.bundle.index import Index, read_index
from estimator_ckpt.bundle.v1 import (
    first_v1_file,
    plain_prefix,
    read_v1,
    v1_prefix,
    v1_prefixes,
)
from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError, printable
from estimator_ckpt.files.lookalikes import name_directory, name_file
from estimator_ckpt.reading.best import best_prefix
from estimator_ckpt.reading.input_files import is_input_directory
from estimator_ckpt.reading.named import BEST, NEWEST, STEP, best_directories, pins
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.text.names import did_you_mean, near_names, some_of
from estimator_ckpt.text.quantities import counted

# The names that files have while a save or a conversion is under way, TensorFlow's and ours; one
# that was broken off leaves them. A directory of TensorFlow's holds shards: PREFIX_temp/part-...
_UNDER_WAY = re.compile(
    r".+(\.tempstate[-\w]*|\.saving-\w+|\.staged\..*|\.meta\.tmp\w*|\.converting.*"
    r"|\.linking-\w+|\.evaluating-[-\w]+)",
    re.DOTALL,
)
_SHARDS = re.compile(r".+_temp(_[0-9a-f]+)?", re.DOTALL)
_DATA = re.compile(r"\.data-(\d{5})-of-(\d{5})\Z")
_SUFFIX = re.compile(r"(?:\.index|\.meta|\.data-\d{5}-of-\d{5})\Z")
_STEP = re.compile(r"-(\d+)\Z")
_STATE_FILE = "checkpoint"
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_SAVED_MODEL_PREFIX = os.path.join("variables", "variables")


def find_prefix(path: str) -> str:
    """The prefix of the checkpoint that `path` stands for.

    Args:
      path: a prefix; its `.index`, `.meta` or one of its data files; a directory with checkpoints,
        of which the newest counts; that directory's `checkpoint` file; a SavedModel's directory; a
        file in the V1 format, or what the names of several begin with, which their pattern
        `PREFIX-?????-of-00002` stands for. Where nothing has that path, a name in a directory:
        `RUN@newest`, `RUN@step=1200`, `RUN@best`, `RUN@best:METRIC`, `RUN@PIN`.

    Raises:
      NotACheckpointError: there is nothing of the kind. Says what was looked for and what is near.
    """
    if not path:
        raise NotACheckpointError("expected the path of a checkpoint, found an empty one")
    if files.exists(f"{path}.index"):
        return path
    prefix = _SUFFIX.sub("", path)
    if prefix != path and files.exists(path):
        if files.exists(f"{prefix}.index"):
            return prefix
        v1 = v1_prefix(prefix)
        if v1 is not None:
            return v1
        raise NotACheckpointError(f"the checkpoint has no {prefix}.index beside it", path=path)
    directory, name = os.path.split(path)
    if name == _STATE_FILE and files.exists(path) and not files.is_dir(path):
        return _newest(directory or ".")
    if files.is_dir(path):
        return _in_directory(path)
    v1 = v1_prefix(path)
    if v1 is not None:
        return v1
    if files.exists(path):
        raise _no_checkpoint_file(path)
    first = 0 if not files.is_dir(directory) else len(path) - len(name)
    for at in reversed([at for at, character in enumerate(path) if character == "@"]):
        if at and at >= first and files.is_dir(path[:at]):
            return _by_name(path[:at], path[at + 1 :])
    raise _nothing(path)


def _by_name(run: str, name: str) -> str:
    """The checkpoint of a directory that RUN@NAME means."""
    if name == NEWEST:
        return _newest(run)
    if name.startswith(STEP):
        return _of_step(run, name[len(STEP) :])
    if name == BEST or name.startswith(f"{BEST}:"):
        return best_prefix(run, name[len(BEST) + 1 :] or None)
    pinned = pins(run)
    if name in pinned:
        return pinned[name]
    known = [NEWEST, f"{STEP}N", BEST, f"{BEST}:METRIC", *pinned]
    raise NotACheckpointError(
        f"no checkpoint of the directory is named @{name}{did_you_mean(near_names(name, pinned))}; "
        f"known are {', '.join(f'@{one}' for one in known)}",
        path=run,
    )


def _of_step(run: str, text: str) -> str:
    """The one checkpoint of a step, as its name has it; also one that is only kept elsewhere."""
    if not text.isascii() or not text.isdigit():
        raise NotACheckpointError(f"expected a step, as @step=1200, found @step={text}", path=run)
    step = text.lstrip("0") or "0"  # int() refuses thousands of digits

    def is_meant(prefix: str) -> bool:
        found = _STEP.search(plain_prefix(prefix))
        return found is not None and str(int(found[1])) == step

    here = complete_prefixes(run)
    found = list(filter(is_meant, here))
    if len(found) > 1 and (state := read_state(run)) is not None:
        paths = (*state.all_model_checkpoint_paths, state.model_checkpoint_path)
        listed = set(map(os.path.basename, paths))
        found = [one for one in found if os.path.basename(one) in listed] or found
    kept = [*pins(run).values(), *best_directories(run).values()]
    if not found:  # names for one and the same are one
        found = list(
            {files.read_bytes(f"{one}.index"): one for one in filter(is_meant, kept)}.values()
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise NotACheckpointError(
            f"{len(found)} checkpoints are of step {int(text):,}: {', '.join(found)}; name one",
            path=run,
        )
    steps = sorted({int(m[1]) for one in (*here, *kept) if (m := _STEP.search(plain_prefix(one)))})
    there = (
        f"there are {some_of(list(map(str, steps)), 12)}" if steps else "no name there has a step"
    )
    raise NotACheckpointError(f"no complete checkpoint is of step {text}; {there}", path=run)


def is_saved_model(directory: str) -> bool:
    """Whether a directory is a SavedModel's."""
    return any(files.exists(os.path.join(directory, name)) for name in _SAVED_MODEL)


def read_any_index(prefix: str) -> Index:
    """The index of a checkpoint in either format; where both have the prefix, V2 is meant.

    A SavedModel that has no variables, and so no index, has an empty one.

    Raises:
      NotACheckpointError, CorruptCheckpointError, UnsupportedCheckpointError: as read_index().
    """
    if not files.exists(f"{prefix}.index"):
        if v1_prefix(prefix) == prefix:
            return read_v1(prefix)
        directory = prefix[: -len(_SAVED_MODEL_PREFIX)].rstrip("/")
        if prefix == os.path.join(directory, _SAVED_MODEL_PREFIX) and is_saved_model(directory):
            if not _restores_variables(directory):
                return Index(0, {})
            raise CorruptCheckpointError(
                f"the SavedModel's graph restores variables, but {_SAVED_MODEL_PREFIX}.index is "
                "not there; bring the directory `variables` back",
                path=directory,
            )
    return read_index(prefix)


def _restores_variables(directory: str) -> bool:
    """Whether the graph of a SavedModel has the op that restores variables."""
    for name in _SAVED_MODEL:
        path = os.path.join(directory, name)
        if files.exists(path):
            return b"RestoreV2" in files.read_bytes(path)
    return False


def complete_prefixes(directory: str) -> list[str]:
    """The prefixes in a directory with all their files, of either format, oldest first.

    By the step in their names (`-1000`), as the times of files change when they are copied; by the
    time of the index where they have none. Checkpoints that are still being written are left out.
    """
    names = files.list_dir(directory)
    shards: dict[tuple[str, int], set[int]] = {}
    for name in names:
        found = _DATA.search(name)
        if found:
            shard, count = map(int, found.groups())
            shards.setdefault((name[: found.start()], count), set()).add(shard)
    whole = {prefix for (prefix, count), have in shards.items() if have >= set(range(count))}
    prefixes = [
        os.path.join(directory, name[: -len(".index")])
        for name in names
        if name.endswith(".index") and name[: -len(".index")] in whole
    ]
    return sorted(prefixes + v1_prefixes(directory, names), key=_age)


def walk(directory: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The directories of a tree, the upper ones first: path, names, those of its directories.

    SavedModels are left out, and so is what a save that is under way has.

    Raises:
      NotACheckpointError: one cannot be read.
    """
    left = [directory]
    while left:  # a tree may be deeper than calls of functions
        path = left.pop()
        if is_saved_model(path):
            continue
        names = files.list_dir(path)
        found = _sub_directories(path, names)
        yield path, names, found
        left += [os.path.join(path, name) for name in reversed(found)]


def _sub_directories(directory: str, names: Iterable[str]) -> list[str]:
    """Those of the names in a directory that are directories, and no symbolic links to others.

    Without those of the positions of inputs, which belong to the checkpoints beside them, and of
    saves that are under way.

    Of remote ones those that are called like a file of a checkpoint are taken for files: to ask for
    each is a request, and there may be hundreds of thousands.
    """
    remote = files.is_remote(directory)
    found = []
    for name in names:
        path = os.path.join(directory, name)
        if remote and _SUFFIX.search(name):
            continue
        is_own = not os.path.islink(path) and files.is_dir(path)
        if is_own and not is_input_directory(path) and not is_under_way(path):
            found.append(name)
    return found


def is_under_way(path: str) -> bool:
    """Whether a file or a directory is what an unfinished save or conversion has."""
    name = os.path.basename(path)
    if _SHARDS.fullmatch(name) and files.is_dir(path):
        return all(one.startswith("part") for one in files.list_dir(path))
    return _UNDER_WAY.fullmatch(name) is not None


def newest_of_each_name(directory: str) -> list[str]:
    """Of the complete checkpoints that differ in their steps alone the newest, the newest first."""
    found: dict[str, str] = {}
    for prefix in reversed(complete_prefixes(directory)):
        found.setdefault(_STEP.sub("", prefix), prefix)
    return list(found.values())


def _indexes(directory: str) -> list[str]:
    """The prefixes in a directory that have an index, oldest first."""
    names = [name for name in files.list_dir(directory) if name.endswith(".index")]
    prefixes = [os.path.join(directory, name[: -len(".index")]) for name in names]
    return sorted(prefixes, key=_age)


def _age(prefix: str) -> tuple[int, float]:
    step = _STEP.search(plain_prefix(prefix))
    modified = 0.0
    for path in (first_v1_file(prefix), f"{prefix}.index"):
        with contextlib.suppress(OSError):  # a remote path, or a job has just removed it
            modified = os.path.getmtime(path)
    return (int(step.group(1)) if step else -1, modified)


def _in_directory(directory: str) -> str:
    has_state = files.exists(os.path.join(directory, _STATE_FILE))
    if not has_state and is_saved_model(directory):
        return os.path.join(directory, _SAVED_MODEL_PREFIX)
    return _newest(directory)


def _newest(directory: str) -> str:
    """The checkpoint that the state file names, or else the newest complete one, with a warning."""
    complete = complete_prefixes(directory)
    what = None if complete else name_directory(directory)
    if what is not None:
        raise NotACheckpointError(
            f"no checkpoint is in the directory: {what}{_deeper(directory)}", path=directory
        )
    try:
        state = read_state(directory)
        reason = "there is no `checkpoint` file"
    except CorruptCheckpointError as error:
        state = None
        reason = f"its `checkpoint` file is broken: {error.message}"
    if state is not None:
        prefix = state.model_checkpoint_path
        if _is_complete(prefix):
            return prefix
        reason = f"its `checkpoint` file names {prefix}, which is not there or not complete"
        moved = os.path.join(directory, os.path.basename(prefix))
        if moved in complete:
            complete.append(moved)
    alone = [] if complete else _indexes(directory)
    if alone:
        if state is not None and os.path.basename(state.model_checkpoint_path) in map(
            os.path.basename, alone
        ):
            return os.path.join(directory, os.path.basename(state.model_checkpoint_path))
        return alone[-1]  # who opens it says which data files are missing
    if not complete:
        raise NotACheckpointError(
            f"{reason}, and no complete checkpoint (PREFIX.index with all PREFIX.data-*) is in the "
            f"directory{_deeper(directory)}",
            path=directory,
        )
    from absl import logging

    logging.warning("%s", printable(f"{directory}: {reason}; reading {complete[-1]}"))
    return complete[-1]


def _is_complete(prefix: str) -> bool:
    directory, name = os.path.split(prefix)
    directory = directory or "."
    return files.is_dir(directory) and name in map(os.path.basename, complete_prefixes(directory))


def _deeper(directory: str) -> str:
    """A hint at checkpoints one level below."""
    below = []
    for name in files.list_dir(directory)[:100]:
        path = os.path.join(directory, name)
        if files.is_dir(path) and (
            any(files.exists(os.path.join(path, n)) for n in (_STATE_FILE, *_SAVED_MODEL))
            or files.exists(os.path.join(path, f"{name}.index"))
        ):
            below.append(path)
    return did_you_mean(below[-3:])


def _no_checkpoint_file(path: str) -> Exception:
    what = name_file(path)
    if what is not None:
        return NotACheckpointError(f"this is {what}", path=path)
    return NotACheckpointError(
        f"expected a checkpoint; this is another kind of file, without {path}.index beside it",
        path=path,
    )


def _nothing(path: str) -> Exception:
    directory, name = os.path.split(path.rstrip("/"))
    directory = directory or "."
    run, at, _ = path.rpartition("@")
    if at and ("@" in name or not files.is_dir(directory)):
        message = f"there is no {path}.index, nor a directory {run} that has checkpoints by name"
        return NotACheckpointError(message, path=path)
    if not files.is_dir(directory):
        return NotACheckpointError(f"there is no directory {directory}", path=path)
    names = files.list_dir(directory)
    prefixes = sorted(n[: -len(".index")] for n in names if n.endswith(".index"))
    odd = files.oddity(f"{path}.index")
    if odd:
        return NotACheckpointError(f"{path}.index is {odd}", path=path)
    near = near_names(name, [*prefixes, *_directories(directory, names, name)]) or prefixes[-3:]
    has = "no checkpoint is there"
    if prefixes:
        has = f"the directory has {counted(len(prefixes), 'checkpoint')}"
    return NotACheckpointError(
        f"looked for {path}.index, and for a directory of that name; {has}"
        + did_you_mean([os.path.join(os.path.dirname(path.rstrip("/")), n) for n in near]),
        path=path,
    )


def _directories(directory: str, names: Iterable[str], wanted: str) -> list[str]:
    """The directories that a name may stand for, or in which there is a checkpoint of it.

    In remote ones it is not looked for: a request for each file there takes too long for a hint.
    """
    found = []
    looks = not files.is_remote(directory)
    for name in names:
        path = os.path.join(directory, name)
        if near_names(wanted, [name]) and files.is_dir(path):
            found.append(name)
        elif looks and files.exists(os.path.join(path, f"{wanted}.index")):
            found.append(os.path.join(name, wanted))
    return found

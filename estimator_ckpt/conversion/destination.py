"""Where a conversion writes: what may be there already, and what a killed one has left.

Until its index is there, no reader takes the files of a checkpoint for one. A claim
`PREFIX.converting` stands beside them from before the first of them until after the last: the
`.meta` file and the state file, which follow the index. So what lies there with the claim of a dead
process was left by a conversion that was killed. Without an index it is cleared away by the next;
with one the next completes it, if it would have the same values.

In place the claim is `PREFIX.converting-in-place`, and the lease of the directory is taken as well,
as a job does that saves there. Files on their way have names that end in `.converting`; those that
a killed conversion has left are overwritten or removed by the next.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.errors import BusyError, CheckpointError, NotACheckpointError, WriteError
from estimator_ckpt.files import claims
from estimator_ckpt.files.claims import Claim
from estimator_ckpt.reading.locate import find_prefix

_MARK = ".converting"
_MARK_IN_PLACE = ".converting-in-place"
_WORK = "a conversion"
_WORK_IN_PLACE = "a conversion in place"
_MOST_WAITED = 60.0  # seconds, for other conversions in place in the directory
_TRIES = 3


class Site(NamedTuple):
    """A place that this process has claimed for a conversion.

    Attributes:
      destination: the prefix.
      claim: on it.
      undo: is called where the conversion fails, the last first.
    """

    destination: str
    claim: Claim
    undo: contextlib.ExitStack


def check_destination(destination: str) -> None:
    """Raises WriteError where a checkpoint is, or data files that no killed conversion left."""
    if files.is_remote(destination) and files.is_dir(destination):
        raise WriteError(
            "expected the prefix of a new checkpoint, found a directory", path=destination
        )
    odd = files.oddity(destination)
    if odd:
        raise WriteError(f"expected the prefix of a new checkpoint, found {odd}", path=destination)
    if not files.exists(destination + _MARK):
        _check_free(destination)


def refuse_name(destination: str) -> None:
    """Raises WriteError for what names a checkpoint, as RUN@best: once it is there as a path, it
    would hide that one."""
    if "@" not in destination or files.exists(destination) or files.is_dir(destination):
        return
    if files.exists(f"{destination}.index"):
        return  # a path that has an @: what is there, perhaps by a killed conversion, others see to
    with contextlib.suppress(NotACheckpointError):
        named = find_prefix(destination)
        raise WriteError(f"this names a checkpoint, {named}; name another place", path=destination)


def is_unfinished(destination: str) -> bool:
    """Whether a conversion is at work there, or was killed there."""
    return files.exists(destination + _MARK)


def _check_free(destination: str) -> None:
    if files.exists(f"{destination}.index"):
        raise WriteError("a checkpoint is there already; name another place", path=destination)
    left = _data_files(destination)
    if left:
        raise WriteError(
            f"{left[0]} is there without an index: of a checkpoint that is being written, or of a "
            "save that was interrupted; remove it, or name another place",
            path=destination,
        )


@contextlib.contextmanager
def claimed(destination: str, *, wait: float = 0.0) -> Iterator[Site]:
    """Claims a place for a new checkpoint, and clears away what a killed conversion left there.

    An index is there only if a conversion was killed after it had written it.

    Args:
      destination: the prefix.
      wait: how long to wait for another conversion there, in seconds.

    Raises:
      BusyError: another conversion is at work there.
      WriteError: as check_destination() does, or it cannot be written.
    """
    with contextlib.ExitStack() as made:
        claim = _claim(destination, made, wait)
        if not claim.after_dead:
            try:
                _check_free(destination)
            except BaseException:
                claim.release()
                raise
        undo = contextlib.ExitStack()
        try:
            if not files.exists(f"{destination}.index"):
                for path in (*_data_files(destination), *_passing(destination)):
                    files.remove(path)
            yield Site(destination, claim, undo)
        except BaseException:
            with contextlib.suppress(CheckpointError):
                if claim.holds():  # else these are another's files by now
                    undo.close()
            # What could not be removed is for the next, as after a kill.
            left = files.exists(f"{destination}.index") or _data_files(destination)
            claim.abandon() if left else claim.release()
            raise
        claim.release()
        made.pop_all()


def _claim(destination: str, made: contextlib.ExitStack, wait: float) -> Claim:
    """Makes the directory and the claim; what is made is removed again by the stack."""
    directory = os.path.dirname(destination)
    for tries_left in reversed(range(_TRIES)):
        try:
            make_new_dirs(directory, made)
            return claims.acquire(destination + _MARK, _WORK, wait=wait)
        except WriteError:
            if not tries_left or files.is_dir(directory or "."):
                raise  # else another conversion, which failed, has just removed it
    raise AssertionError


def make_new_dirs(directory: str, made: contextlib.ExitStack) -> None:
    """Makes a directory and those above it; what is new and empty is removed again by the stack.

    Raises:
      WriteError: it cannot be made.
    """
    if files.is_remote(directory):
        files.make_dirs(directory)
        return
    missing = []
    above = directory
    while above and not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    files.make_dirs(directory)
    for path in reversed(missing):
        made.callback(_remove_if_empty, path)


def _remove_if_empty(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)


@contextlib.contextmanager
def claimed_in_place(prefix: str) -> Iterator[None]:
    """Claims a checkpoint and its directory while it is changed.

    Raises:
      BusyError: a job saves to the directory, or another conversion is at work there.
    """
    directory = os.path.dirname(prefix) or "."
    with _lease(directory), claims.acquire(prefix + _MARK_IN_PLACE, _WORK_IN_PLACE):
        for path in _passing(prefix):
            files.remove(path)
        yield


def clear_in_place(prefix: str) -> None:
    """Clears away what a conversion in place has left that was killed after it had written all."""
    lease = claims.lease_path(os.path.dirname(prefix) or ".")
    owner = claims.find_owner(lease)
    # A power cut leaves one that says nothing.
    left = files.exists(lease) if owner is None else owner.work == _WORK_IN_PLACE
    if left or files.exists(prefix + _MARK_IN_PLACE):
        with contextlib.suppress(BusyError), claimed_in_place(prefix):
            pass


def _lease(directory: str) -> contextlib.AbstractContextManager[object]:
    path = claims.lease_path(directory)
    owner = claims.find_owner(path)
    if owner is None or owner.work == _WORK_IN_PLACE:
        return claims.acquire(path, _WORK_IN_PLACE, wait=_MOST_WAITED)
    if claims.is_own(path, owner):  # this process is the job, and converts between its saves
        return contextlib.nullcontext()
    return claims.acquire(path, _WORK_IN_PLACE)


def passing_name(path: str) -> str:
    """What a file is called until it is whole and takes its place."""
    return path + _MARK


def _passing(prefix: str) -> list[str]:
    names = [f"{prefix}.index", f"{prefix}.meta", f"{prefix}.checkpoint"]
    return [passing_name(name) for name in names] + [
        path for path in _data_files(prefix) if path.endswith(_MARK)
    ]


def _data_files(prefix: str) -> list[str]:
    directory, name = os.path.split(prefix)
    directory = directory or "."
    if not files.is_dir(directory):
        return []
    start = f"{name}.data-"
    return [os.path.join(directory, n) for n in files.list_dir(directory) if n.startswith(start)]

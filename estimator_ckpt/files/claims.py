"""A claim: a file that says which process works at something, and that it is still alive.

A claim is one line of JSON. It appears whole, in one step that fails where a claim is there
already: written under no name (O_TMPFILE) or a name of its own, then linked. Its owner counts up a
number in it every 10 s, in the file that it made and not by name, so that a claim that another
process has put in its place is never touched.

Nobody removes the claim of another unless its owner is dead for certain: the process is gone, seen
from the same boot of the same machine and the same pid namespace; or the claim did not change for
60 s of the observer's own clock. No two clocks are compared, and no times of files. A claim that
says nothing was left by something else, or torn by a power cut. A copy of the directory has a copy
of the claim, whose owner works elsewhere: it says which directory it was made in, by number, which
a directory keeps when it is renamed. To remove a dead one takes a claim
of its own, named after what the dead one says: who comes late, and still believes that it is dead,
finds another one there.

Remote paths (``scheme://``) have no step that fails where a file exists, and none that changes a
file. There a claim is a best effort: with each beat it is written anew, by its name, if it stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.errors import (
    BusyError,
    CheckpointError,
    NotACheckpointError,
    WriteError,
    printable,
)
from estimator_ckpt.files import exclusive, processes

BEAT = 10.0  # seconds from one beat to the next
STALE = 60.0  # seconds without a beat after which an owner that cannot be looked at is dead
# A directory may have another number in another mount, so that a copy must not beat, too, for a
# little more than two beats; but a hard link of the claim beats with it.
COPY = 25.0
_POLL = 0.5
_MAX_SIZE = 4096
_START = b'{"beat": "'  # the beat has ten digits, so that it is changed in place
_ABANDONED = b"abandoned."  # as long as a beat
_REMOTE = -1  # in the place of a descriptor
_held: set[str] = set()  # the tokens of this process


class Owner(NamedTuple):
    """Who made a claim.

    Attributes:
      token: random, of this claim alone.
      work: what it does, as "a conversion".
      host: the name of the machine; for people.
      boot: of the machine, changes with every start of it; "" where there is none to be read.
      namespace: in which the process has its id; "" where there is none to be read.
      pid: of the process.
      began: when the process began, in clock ticks since the boot; 0 where it cannot be read.
      since: when the claim was made, in seconds since 1970; for people.
      place: the directory it was made in: its device and inode; a remote one's path.
      beats: whether the claim changes while its owner lives.
    """

    token: str
    work: str
    host: str
    boot: str
    namespace: str
    pid: int
    began: int
    since: float
    place: str
    beats: bool

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.work}: process {self.pid} on {self.host}, since {since}"


class Claim:
    """A claim of this process; made by acquire().

    Attributes:
      path: the file.
      owner: what it says.
      after_dead: whether it stands in the place of one whose owner died, or let go of it half done.
    """

    def __init__(self, path: str, owner: Owner, descriptor: int) -> None:
        self.path = path
        self.owner = owner
        self.after_dead = False
        self._descriptor = descriptor
        self._over = threading.Event()
        self._beating = threading.Lock()  # no beat comes after the last word
        if owner.beats:
            threading.Thread(target=self._beat, name="claim", daemon=True).start()

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(BEAT):
            count += 1
            with self._beating:
                if not self._over.is_set():
                    self._say(b"%010d" % (count % 10**10))
        with self._beating:  # the last word is written, not to a file that has the number next
            if self._descriptor != _REMOTE:
                os.close(self._descriptor)

    def _say(self, beat: bytes) -> None:
        """Changes the beat in the file; where that fails, the next may succeed."""
        with contextlib.suppress(OSError, CheckpointError):
            if self._descriptor != _REMOTE:
                os.pwrite(self._descriptor, beat, len(_START))
            elif self.holds():
                passing = f"{self.path}.{self.owner.token}"
                files.write_atomic(self.path, _content(self.owner, beat), temporary=passing)

    def holds(self) -> bool:
        """Whether the claim still stands: not removed, not taken over by another process. It is
        nothing of a forked child's.

        Raises:
          NotACheckpointError: it cannot be read.
        """
        found = find_owner(self.path)
        is_mine = found is not None and found.token == self.owner.token
        return is_mine and os.getpid() == self.owner.pid

    def release(self) -> None:
        """Removes the claim if it still stands; does nothing in a forked child, or when it is over.

        Raises:
          WriteError, NotACheckpointError: it cannot be removed; it stands as a dead one.
        """
        if self._over.is_set() or os.getpid() != self.owner.pid:
            return
        try:
            with self._beating:  # a beat would bring a remote one back
                if self.holds():
                    files.remove(self.path)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Lets the claim stand as that of a dead process: what was claimed is left half done."""
        if self._over.is_set() or os.getpid() != self.owner.pid:
            return
        with self._beating:
            self._over.set()
            _held.discard(self.owner.token)
            if self.owner.beats:  # where this fails, others see it when this process ends
                self._say(_ABANDONED)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire(path: str, work: str, *, wait: float = 0.0) -> Claim:
    """Makes a claim.

    An owner that cannot be looked at is watched until its claim changes or is stale, for a minute
    at most; a warning says so.

    Args:
      path: the file; its directory must be there.
      work: what it is claimed for, as "a conversion".
      wait: how long to wait for an owner that is alive, in seconds.

    Raises:
      BusyError: another process has it, and who that is.
      WriteError, NotACheckpointError: the file cannot be written, or read.
    """
    own = _owner(path, work)
    start = changed = time.monotonic()
    seen: Owner | None = None
    content: bytes | None = None
    beats = told = False
    while True:
        _held.add(own.token)  # first: threads of this process see the file as soon as it is there
        descriptor = _create(path, own)
        if descriptor is not None:
            return Claim(path, own, descriptor)
        _held.discard(own.token)
        before, content = content, _read(path)
        if content is None:
            continue  # released meanwhile
        now = time.monotonic()
        owner = _parse(content)
        if content != before:
            beats = owner is not None and seen is not None and owner.token == seen.token
            seen, changed = owner, now
        patience = STALE
        if owner is None:
            alive = _may_be_torn(path)
        else:
            alive = not content.startswith(_START + _ABANDONED) and _is_alive(owner)
            if alive and owner.place != _place(path):
                alive = False if _is_linked_copy(path, owner) else None
                patience = COPY
        if alive is False or (now - changed >= patience and (owner is None or owner.beats)):
            claim = _take_over(path, content, work, wait)
            if claim is not None:
                return claim
            continue
        if now - start >= wait and (alive or beats):
            raise BusyError(f"another is at work here: {owner}", path=path)
        if now - start >= wait and owner is not None and not owner.beats:
            was = "it was" if owner.place == _place(path) else f"this is a copy of {owner.place}"
            raise BusyError(
                f"another is at work here, or was killed: {owner}; if {was}, remove this file",
                path=path,
            )
        if not told:
            from absl import logging

            is_copy = owner is not None and owner.place != _place(path)
            logging.warning(
                "another is at work here%s: %s; waiting until it ends, or is seen to be dead: %s",
                ", or in a directory that this is a copy of" if is_copy else "",
                printable(str(owner or "an owner that cannot be read")),
                printable(path),
            )
            told = True
        time.sleep(_POLL)


def lease_path(model_dir: str) -> str:
    """The claim of the one process that writes checkpoints and state files in a directory."""
    return os.path.join(model_dir, "checkpoint.lease")


def find_owner(path: str) -> Owner | None:
    """Who has a claim, alive or not; None where there is none, or one that says nothing.

    Raises:
      NotACheckpointError: it cannot be read.
    """
    content = _read(path)
    return None if content is None else _parse(content)


def is_own(path: str, owner: Owner) -> bool:
    """Whether the claim is held by this process, and no copy of one."""
    return owner.token in _held and owner.pid == os.getpid() and owner.place == _place(path)


def _take_over(path: str, dead: bytes, work: str, wait: float) -> Claim | None:
    """Puts a claim in the place of a dead one; None if that is not there any more."""
    import hashlib  # it and platform are slow to import, and a dry run needs neither

    claim = acquire(f"{path}.{hashlib.sha256(dead).hexdigest()[:16]}", work, wait=wait)
    try:
        if _read(path) != dead:
            claim.release()
            return None
        with claim._beating:  # a remote one beats by its name
            files.rename(claim.path, path)
            claim.path = path
        if not files.is_remote(path):
            exclusive.clear_own_names(path)
    except BaseException:
        claim.release()
        raise
    claim.after_dead = True
    return claim


# --- the file ---


def _create(path: str, owner: Owner) -> int | None:
    """Writes a claim; returns its descriptor, or _REMOTE, or None where there is one."""
    content = _content(owner, b"0" * 10)
    if files.is_remote(path):
        if files.exists(path):
            return None
        with files.open_write(path) as file:
            file.write(content)
        return _REMOTE if _read(path) == content else None
    try:
        return exclusive.create(path, f"{path}.{owner.token}", content)
    except FileExistsError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"cannot write the file: {reason}", path=path) from error


def _content(owner: Owner, beat: bytes) -> bytes:
    return _START + beat + b'", ' + json.dumps(owner._asdict()).encode()[1:] + b"\n"


def _may_be_torn(path: str) -> bool | None:
    """What a claim that says nothing tells: False for no owner, None if one may just write it."""
    if files.is_remote(path):
        return None
    try:
        descriptor = exclusive.open_nameless(path)
    except OSError:
        return None
    if descriptor is None:
        return None
    os.close(descriptor)
    return False


def _read(path: str) -> bytes | None:
    try:
        return files.read_range(path, 0, _MAX_SIZE)
    except NotACheckpointError:
        if files.exists(path) or os.path.islink(path):
            raise
        return None


def _parse(content: bytes) -> Owner | None:
    try:
        fields = json.loads(content)
        owner = Owner(**{name: fields[name] for name in Owner._fields})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (owner.token, owner.work, owner.host, owner.boot, owner.namespace, owner.place)
    numbers = (owner.pid, owner.began)
    if not all(type(text) is str for text in texts):
        return None
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        return None
    if type(owner.since) is not float or not 0 <= owner.since < 2**36:
        return None
    return owner if type(owner.beats) is bool and 0 < owner.pid < 2**31 else None


def _place(path: str) -> str:
    """The directory that a claim is in, by what stays when it is renamed, and differs in a copy."""
    directory = os.path.dirname(path)
    if files.is_remote(path):
        return directory
    try:
        found = os.stat(directory or ".")
    except (OSError, ValueError):  # nor can a claim be made there
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def _is_linked_copy(path: str, owner: Owner) -> bool:
    """Whether a claim is a hard link, in another directory, to the one that its owner made."""
    inode, made_in = (place.rpartition(":")[2] for place in (_place(path), owner.place))
    try:
        return inode != made_in and not files.is_remote(path) and os.stat(path).st_nlink > 1
    except OSError:
        return False  # it is gone


# --- processes ---


def _owner(path: str, work: str) -> Owner:
    import platform

    return Owner(
        token=os.urandom(8).hex(),
        work=work,
        host=platform.node(),
        boot=processes.boot(),
        namespace=processes.namespace(),
        pid=os.getpid(),
        began=(processes.process(os.getpid()) or ("", 0))[1],
        since=time.time(),
        place=_place(path),
        beats=True,
    )


def _is_alive(owner: Owner) -> bool | None:
    """Whether the process is alive; None where that cannot be seen from here."""
    here = (processes.boot(), processes.namespace())
    if not all(here) or here != (owner.boot, owner.namespace):
        return None
    if owner.pid == os.getpid():
        return owner.token in _held
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    found = processes.process(owner.pid)
    if found is None:
        return True
    state, began = found
    return state not in "ZX" and owner.began in (0, began)

"""Parts of remote files that are read before they are asked for, several at once.

Who waits for one part of a remote file before he asks for the next one waits most of the time. (Of
local files the kernel reads ahead, see read_soon(): where they are in memory already that costs
nothing, while threads made it half as fast.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from estimator_ckpt.errors import NotACheckpointError
from estimator_ckpt.files.paths import is_remote, raising
from estimator_ckpt.files.read import read_range
from estimator_ckpt.files.remote import read_remote

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SPAN = 2 << 20  # bytes to ask for in one go: what lies close together is asked for together
_GAP = 64 << 10
_AT_ONCE = 12  # parts under way, or waiting to be taken
_IN_FLIGHT = _AT_ONCE * _SPAN


class Part(NamedTuple):
    """Some bytes of a file."""

    path: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    def holds(self, other: Part) -> bool:
        return self.path == other.path and self.offset <= other.offset and other.end <= self.end


def parts_of(path: str, offset: int, size: int, each: int = _SPAN) -> Iterator[Part]:
    """Some bytes of a file in parts of `each`, 2 MiB unless given."""
    for start in range(offset, offset + size, each):
        yield Part(path, start, min(each, offset + size - start))


class ReadAhead:
    """The bytes of parts of remote files, asked for in an order that is known before.

    At most 12 parts of 2 MiB are in memory, the last of which may be larger.

    Args:
      parts: what will be asked for, in that order.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self._planned = _spans(parts)
        self._begun: deque[tuple[Part, Future[bytes]]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Waits for what is under way, and drops it."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._begun.clear()

    def take(self, part: Part) -> memoryview:
        """The bytes of a part; fewer where the file ends before.

        Args:
          part: the next of those that were announced; some may be passed over. Another is read when
            it is asked for, and what was announced is forgotten.

        Raises:
          NotACheckpointError: there is no such file, or it cannot be read.
        """
        while self._begun and not self._begun[0][0].holds(part):
            self._begun.popleft()
        if not self._begun:
            self._begin(next((span for span in self._planned if span.holds(part)), part))
        while (
            len(self._begun) < _AT_ONCE and sum(span.size for span, _ in self._begun) < _IN_FLIGHT
        ):
            span = next(self._planned, None)
            if span is None:
                break
            self._begin(span)
        span, reading = self._begun[0]
        start = part.offset - span.offset
        return memoryview(reading.result())[start : start + part.size]

    def _begin(self, span: Part) -> None:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # for remote files alone

            self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._begun.append((span, self._pool.submit(_read, span)))


def _read(part: Part) -> bytes:
    if part.size > _SPAN or not is_remote(part.path):
        return read_range(*part)
    with raising(NotACheckpointError, "read the file", part.path):
        return read_remote(*part)


def _spans(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with those as one that lie close together."""
    last: Part | None = None
    for part in parts:
        if last is None:
            last = part
            continue
        near = part.path == last.path and last.offset <= part.offset <= last.end + _GAP
        end = max(part.end, last.end)
        if near and end - last.offset <= max(_SPAN, last.size):
            last = last._replace(size=end - last.offset)
        else:
            yield last
            last = part
    if last is not None:
        yield last


def at_once(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """What a function that waits for files says of each item, some of them at the same time.

    Raises:
      Whatever the first item that failed has raised, when all that were begun have ended.
    """
    given: list[Any] = list(items)
    if len(given) < 2:
        return [function(one) for one in given]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(len(given), _AT_ONCE))
    begun: list[Future[_Result]] = []
    try:
        try:
            for one in given:
                begun.append(pool.submit(function, one))
        except RuntimeError:  # the interpreter is ending, and starts no threads: for a last save
            if begun:
                raise
            return [function(one) for one in given]
        return [one.result() for one in begun]
    finally:
        pool.shutdown(cancel_futures=True)


def for_each(function: Callable[[str], _Result], paths: list[str]) -> list[_Result]:
    """What a function that looks at a file says of each; of remote files, at_once()."""
    if any(map(is_remote, paths)):
        return at_once(function, paths)
    return list(map(function, paths))

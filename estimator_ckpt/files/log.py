"""A log: lines of JSON in a file, to which runs on one machine add, and in shards beside it.

The shards, LOG-RUN-TOKEN.jsonl, are what the workers of runs on many machines write, each of them
in one step and once, as object stores have it. Whoever reads the log reads all of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError

Line = dict[str, Any]

_SHARD = re.compile(r"-[0-9a-f]{16}-[0-9a-f]{16}\.jsonl")


def append_line(log: str, line: Line) -> None:
    """Adds a line to the file.

    Raises:
      WriteError: it cannot be written.
    """
    there = files.exists(log)
    size = files.size(log) if there else 0
    torn = size and files.read_range(log, size - 1, 1) != b"\n"  # a run was killed as it wrote
    with files.open_write(log, append=there) as file:
        file.write(b"\n" * bool(torn) + _encode([line]))


class Shards(NamedTuple):
    """The shards of a log that one run writes.

    Attributes:
      log: the file beside which they stand.
      run: what is in their names.
    """

    log: str
    run: str

    def write(self, lines: Sequence[Line]) -> None:
        """Writes one more.

        Raises:
          WriteError: it cannot be written.
        """
        files.write_atomic(f"{self.log}-{self.run}-{_token()}.jsonl", _encode(lines))

    def read(self) -> Iterator[Line]:
        """The lines of all of them.

        Raises:
          SettingsError, NotACheckpointError: as read_lines().
        """
        return (line for _, _, line in _read(_shards(self.log, self.run)))


def new_shards(log: str) -> Shards:
    """Shards of a new run."""
    return Shards(log, _token())


def read_lines(log: str) -> Iterator[tuple[str, int, Line]]:
    """The lines of the file and of all shards: the path, the number from 1 on, what it says.

    Args:
      log: the file; there need not be one.

    Raises:
      SettingsError: a line is none of a log.
      NotACheckpointError: it cannot be read.
    """
    return _read([log] * files.exists(log) + _shards(log))


def no_line(path: str, number: int) -> SettingsError:
    """The error for a line that is none of the log that it is to be."""
    return SettingsError(
        f"line {number} is none of such a log; name another file", path=path, key="log"
    )


def _read(paths: Sequence[str]) -> Iterator[tuple[str, int, Line]]:
    for path in paths:
        for number, text in enumerate(files.read_bytes(path).splitlines(), start=1):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                written = text.strip(b"\0")  # which a power cut leaves
                if text.endswith(b"}") or not written.startswith(b"{"[: len(written)]):
                    raise no_line(path, number) from None
                continue  # torn: a run was killed as it wrote this line
            if not isinstance(line, dict):
                raise no_line(path, number)
            yield path, number, line


def _shards(log: str, run: str = "") -> list[str]:
    directory, name = os.path.split(log)
    directory = directory or "."
    return [
        os.path.join(directory, one)
        for one in (files.list_dir(directory) if files.is_dir(directory) else ())
        if one.startswith(f"{name}-{run}") and _SHARD.fullmatch(one, len(name))
    ]


def _token() -> str:
    return os.urandom(8).hex()


def _encode(lines: Sequence[Line]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

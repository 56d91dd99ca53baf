"""How the steps of a pipeline act and log, and a whole run of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, Optional

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from estimator_ckpt import files
from estimator_ckpt.errors import RunError, WriteError
from estimator_ckpt.files.log import Line, Shards, new_shards

# What goes on to the next step, if anything does; and what the log says, if it says anything.
Step = tuple[Any, Optional[Line]]
Act = Callable[[Any], Iterable[Step]]

# Beam's own messages from the workers are many; what fails is an outcome, or breaks the run off.
_QUIET = "--default_sdk_harness_log_level=ERROR"
_FLUSH = 30.0  # seconds from one shard of the log to the next


class Logged(beam.DoFn):  # type: ignore[misc]
    """Acts on each element; what the log says of it is written when a bundle ends, or before.

    Args:
      act: yields what goes on, which may be a TaggedOutput, and the line for the log.
      shards: of the log; None for none.
    """

    def __init__(self, act: Act, shards: Shards | None) -> None:
        self._act = act
        self._shards = shards
        self._lines: list[Line] = []
        self._since = 0.0

    def start_bundle(self) -> None:
        self._lines = []  # of a bundle that broke off
        self._since = time.monotonic()

    def process(self, element: Any) -> Iterator[Any]:
        for found, line in self._act(element):
            if line is not None:
                self._lines.append(line)
            if found is not None:
                yield found
        if time.monotonic() - self._since > _FLUSH:
            self.finish_bundle()

    def finish_bundle(self) -> None:
        if self._shards is not None and self._lines:
            self._shards.write(self._lines)
        self._lines = []
        self._since = time.monotonic()


def absolute(path: object, key: str) -> str:
    """A path that means the same in every directory."""
    text = files.path_text(path, key)
    return text if files.is_remote(text) else os.path.abspath(text)


def open_log(log: object, read: Callable[[str], Iterable[object]]) -> Shards:
    """New shards of a log, after a look at what it has.

    Raises:
      SettingsError: it has other lines than `read` reads.
      WriteError: there is no directory for it.
    """
    path = absolute(log, "log")
    directory = os.path.dirname(path)
    if not files.is_remote(path) and not files.is_dir(directory):
        raise WriteError(f"there is no directory {directory}", path=path)
    for _ in read(path):
        pass
    return new_shards(path)


def to_shards(log: str | os.PathLike[str] | Shards | None) -> Shards | None:
    """The shards that a transform is to write."""
    if log is None or isinstance(log, Shards):
        return log
    return new_shards(absolute(log, "log"))


def read_logged(pipeline: Any, shards: Shards | None, read: Callable[[str], Any]) -> Any:
    """A PCollection of what `read` finds in the log, by key; an empty one without a log."""
    logs = [] if shards is None else [shards.log]
    return pipeline | "Log" >> beam.Create(logs) | beam.FlatMap(read)


def run(transform: Any, arguments: Sequence[str]) -> None:
    """Runs a pipeline to its end.

    Raises:
      RunError: it broke off.
    """
    try:
        with beam.Pipeline(options=PipelineOptions([_QUIET, *arguments])) as pipeline:
            _ = pipeline | transform
    except Exception as error:  # what it is depends on the runner
        last = (str(error).strip() or type(error).__name__).splitlines()[-1]
        message = f"the run broke off: {last}; the same command goes on from there"
        raise RunError(message) from error


def check_complete(shards: Shards, count: int, expected: Sequence[int]) -> None:
    """Raises RunError where the log has fewer outcomes of a run than were to be."""
    if count < sum(expected) or not (count or expected):
        raise RunError(
            f"expected {sum(expected):,} outcomes of the run in the log, found {count:,}; name a "
            "log that this machine and all workers share",
            path=shards.log,
        )


def parts(directory: str) -> list[str]:
    """What to sort directories by, so that the upper ones come first, as one machine has them."""
    return directory.split("/")

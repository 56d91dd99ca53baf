"""Converting on many machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import apache_beam as beam

from estimator_ckpt.beam.running import (
    Logged,
    Step,
    absolute,
    check_complete,
    open_log,
    parts,
    read_logged,
    run,
    to_shards,
)
from estimator_ckpt.checking.audit import by_step
from estimator_ckpt.conversion.batch import carry_state, convert_one
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.outcomes import Outcome, log_line, read_done
from estimator_ckpt.conversion.trees import Directory, checkpoint_name, find_tasks
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.files.log import Line, Shards
from estimator_ckpt.reading.state import real_prefix

_FAILED = "failed"
# Of an element that was acted on twice the outcome that counts: what is converted stays so.
_RANK = {"failed": 0, "already": 1, "converted": 2}
_MOST_WAITED = 3600.0  # seconds, for another worker that converts the same checkpoint


class ConvertDirectory(beam.PTransform):  # type: ignore[misc]
    """Converts all checkpoints in a directory and in those below it, as one machine does.

    Applied to a pipeline it gives a PCollection of `Outcome`s, without their `conversion`: one for
    each checkpoint, and for each state file of which there is something to say. If the directory
    cannot be read, or has no checkpoints, that is the one failure.

    Args:
      source: a model_dir, or a directory with model_dirs at any depth.
      destination: where the same tree of results is to be.
      options: how each is converted; not in place, where to act twice may not be to act once.
      log: where to log, and what earlier runs have converted; None for neither.

    Raises:
      SettingsError: options that cannot be, or paths that are none.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        options: ConvertOptions,
        *,
        log: str | os.PathLike[str] | Shards | None = None,
    ) -> None:
        super().__init__()
        if options.in_place:
            raise SettingsError("on many machines: name a destination", key="in_place")
        if options.like is not None:
            if not isinstance(options.like, str):
                raise SettingsError("on many machines: expected a checkpoint's path", key="like")
            options = replace(options, like=absolute(options.like, "like"))
        self._source = absolute(source, "source")
        self._destination = absolute(destination, "destination")
        self._options = options
        self.shards = to_shards(log)

    def expand(self, pipeline: Any) -> Any:
        found = (
            pipeline
            | beam.Create([self._source])
            | "Find" >> self._act(_find, self._destination).with_outputs(_FAILED, main="tasks")
        )
        logged = read_logged(pipeline, self.shards, read_done)
        outcomes = (
            {"tasks": found.tasks, "logged": logged}
            | beam.CoGroupByKey()
            | "Convert" >> self._act(_convert)
        )
        states = (
            outcomes
            | beam.MapTuple(_status)
            | beam.GroupByKey()
            | "CarryState" >> self._act(_carry_state)
        )
        return (found[_FAILED], outcomes | beam.Values(), states) | beam.Flatten()

    def _act(self, act: Callable[..., Iterable[Step]], *more: str) -> Any:
        return beam.ParDo(Logged(partial(act, self._options, *more), self.shards))


def _find(options: ConvertOptions, destination: str, source: str) -> Iterator[Step]:
    try:
        tasks = find_tasks(source, destination, options)
    except CheckpointError as error:
        outcome = Outcome("failed", source, destination, str(error))
        yield beam.TaggedOutput(_FAILED, outcome), log_line(outcome, options)
        return
    yield None, {"status": "found", "source": source, "checkpoints": len(tasks)}
    for task in tasks:
        yield (real_prefix(task.destination), task), None


def _convert(options: ConvertOptions, element: tuple[str, dict[str, Any]]) -> Iterator[Step]:
    _, group = element
    logged = list(group["logged"])
    for task in group["tasks"]:
        outcome = convert_one(
            task.source, task.destination, options, logged=logged, wait=_MOST_WAITED
        )
        line = log_line(outcome, options)
        yield (tuple(task.directory), replace(outcome, conversion=None)), line


def _status(directory: tuple[Any, ...], outcome: Outcome) -> tuple[Any, tuple[str, str]]:
    return directory, (checkpoint_name(outcome.source), outcome.status)


def _carry_state(options: ConvertOptions, element: tuple[Any, Any]) -> Iterator[Step]:
    directory, statuses = element
    outcome = carry_state(Directory(*directory), statuses)
    if outcome is not None:
        yield outcome, log_line(outcome, options)


def convert_directory(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    options: ConvertOptions,
    *,
    log: str | os.PathLike[str],
    arguments: Sequence[str] = (),
) -> list[Outcome]:
    """Runs ConvertDirectory, and waits for its end.

    Args:
      source: as for ConvertDirectory.
      destination: as for ConvertDirectory.
      options: as for ConvertDirectory.
      log: the same, where this machine reaches it, too.
      arguments: flags of Beam, as in `["--runner=DataflowRunner", "--region=europe-west1"]`.

    Returns:
      The outcomes, by directory and step. Their `conversion` is None.

    Raises:
      SettingsError, WriteError: as ConvertDirectory; or the log cannot be used.
      RunError: the run broke off; to run it again goes on from there.
    """
    shards = open_log(log, read_done)
    transform = ConvertDirectory(source, destination, options, log=shards)
    run(transform, arguments)
    lines: dict[str, Line] = {}
    expected = []
    for line in shards.read():
        if line["status"] == "found":
            expected = [line["checkpoints"]]
            continue
        before = lines.setdefault(line["source"], line)
        if _RANK[line["status"]] > _RANK[before["status"]]:
            lines[line["source"]] = line
    names = [field.name for field in fields(Outcome)]
    found = [
        Outcome(**{name: line[name] for name in names if name in line}) for line in lines.values()
    ]
    count = sum(not outcome.is_state for outcome in found)
    check_complete(shards, count, expected)
    return sorted(found, key=_order)


def _order(one: Outcome) -> tuple[Any, ...]:
    return parts(os.path.dirname(one.source)), one.is_state, by_step(one.source)

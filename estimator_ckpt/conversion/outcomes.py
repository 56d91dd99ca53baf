"""What became of each of many checkpoints, and the log that has it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.conversion.request import index_stamp, settings_of
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.files.log import Line, no_line, read_lines
from estimator_ckpt.reading.state import real_prefix


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint, or of one state file.

    Attributes:
      status: "converted"; "planned" in a dry run; "already", where there was nothing to do;
        "failed".
      source: its prefix, or the path of the state file.
      destination: the prefix or the path of the result.
      message: why it failed, or what is to be said.
      seconds: how long it took.
      conversion: the rows and files, if it was converted or planned.
      is_state: whether it is a state file.
    """

    status: str
    source: str
    destination: str
    message: str = ""
    seconds: float = 0.0
    conversion: Conversion | None = None
    is_state: bool = False


class Done(NamedTuple):
    """What the log tells of a conversion: it is done as long as all of it is so still."""

    source: str
    source_stamp: int | None
    settings: Any
    result_stamp: int | None


def done_by(source: str, result: str, options: ConvertOptions) -> Done | None:
    """What a conversion that was carried out is known by; None if by nothing.

    Raises:
      CheckpointError: the indexes cannot be read, or that of `like`.
    """
    if options.like is not None and not isinstance(options.like, str):
        return None  # objects in Python, of which a log can tell nothing
    if not (options.in_place or files.exists(f"{source}.index")):
        return None  # a V1 file; to know it again it would have to be read
    return Done(
        real_prefix(source),
        None if options.in_place else index_stamp(source),
        settings_of(options),
        index_stamp(result),
    )


# --- the log ---


def log_line(outcome: Outcome, options: ConvertOptions) -> Line:
    """What the log says of an outcome."""
    line: Line = {
        "status": outcome.status,
        "source": outcome.source,
        "destination": outcome.destination,
        "checkpoint_format": options.checkpoint_format,
        "message": outcome.message,
        "seconds": outcome.seconds,
        "time": time.time(),
    }
    if outcome.is_state:
        line["is_state"] = True
    conversion = outcome.conversion
    if conversion is not None:
        line["tensors"] = sum(bool(row.targets) for row in conversion.rows)
        line["data_files"] = conversion.data_files
        line["verified"] = conversion.verified
        line["result"] = real_prefix(outcome.destination)
        line["done"] = None
        with contextlib.suppress(CheckpointError):  # then the files alone will tell
            done = done_by(outcome.source, outcome.destination, options)
            line["done"] = None if done is None else done._asdict()
    return line


def read_done(log: str) -> Iterator[tuple[str, Done]]:
    """What earlier runs have converted: the result's path, and what it is known by.

    Raises:
      SettingsError: a line is none of a conversion's log.
      NotACheckpointError: it cannot be read.
    """
    for path, number, line in read_lines(log):
        try:
            if line["status"] == "converted" and line.get("done") is not None:
                yield line["result"], Done(**line["done"])
        except (TypeError, KeyError):
            raise no_line(path, number) from None

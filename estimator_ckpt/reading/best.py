"""The best checkpoints of a model_dir, as its `checkpoint_best.json` lists them.

    RUN/checkpoint_best.json = JSON {
      "keep_best": [["accuracy", 3, "max"]],
      "checkpoints": [{"path": "best/model.ckpt-1200/model.ckpt-1200", "step": 1200,
                       "metrics": {"accuracy": 0.93, "loss": 0.2}}],
      "removing": ["model.ckpt-800"]}

Who evaluates writes it, see best.py; the trainer does not look at it. The checkpoints stand in the
order in which they were first evaluated. In "removing" are directories below RUN/best that are
being linked or removed: what a kill has left of them, the next one who records clears away.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Union

from estimator_ckpt import files
from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError, SettingsError
from estimator_ckpt.reading.named import BEST
from estimator_ckpt.text.names import did_you_mean_or

# What is given for it: (metric, how many), with "max" or "min" behind it, or a list of such.
_One = Union[tuple[str, int], tuple[str, int, str]]
KeepBest = Union[_One, Sequence[_One]]

_FILE = "checkpoint_best.json"
_MAX_SIZE = 16 << 20
_MODES = ("max", "min")
# What is better the smaller it is: its mode has to be said.
_SMALLER = ("loss", "error", "perplexity", "rmse", "mse", "mae")


class Criterion(NamedTuple):
    """What makes a checkpoint one of the best.

    Attributes:
      metric: as the evaluation calls it.
      keep: how many stay.
      mode: "max" or "min": which values are better.
    """

    metric: str
    keep: int
    mode: str = "max"

    def __str__(self) -> str:
        return f"{self.metric}:{self.keep}:{self.mode}"


class Evaluated(NamedTuple):
    """One of the best.

    Attributes:
      prefix: of the checkpoint.
      step: as its name has it, or its global step; None without one.
      metrics: its finite values, by the metrics' names.
    """

    prefix: str
    step: int | None
    metrics: Mapping[str, float]


class BestList(NamedTuple):
    """What a `checkpoint_best.json` says.

    Attributes:
      criteria: by what they are the best.
      checkpoints: as they were first evaluated, the latest last.
      removing: names of directories below RUN/best.
    """

    criteria: tuple[Criterion, ...] = ()
    checkpoints: tuple[Evaluated, ...] = ()
    removing: tuple[str, ...] = ()

    def ranked(self, criterion: Criterion) -> list[Evaluated]:
        """The best by a criterion, the best first; of equal ones the first to be evaluated."""
        sign = -1 if criterion.mode == "max" else 1
        valued = [one for one in self.checkpoints if criterion.metric in one.metrics]
        ranked = sorted(valued, key=lambda one: sign * one.metrics[criterion.metric])
        return ranked[: criterion.keep]


def criteria_of(keep_best: Any, key: str = "keep_best") -> tuple[Criterion, ...]:
    """The criteria that ("accuracy", 3), ("loss", 3, "min") or a list of such stand for.

    Raises:
      SettingsError: it is none; or a metric that is better the smaller, as its name has it, comes
        without a mode.
    """
    if keep_best is None:
        return ()
    is_one = isinstance(keep_best, Sequence) and len(keep_best) and isinstance(keep_best[0], str)
    several = [keep_best] if is_one else keep_best
    if isinstance(keep_best, str) or not isinstance(several, Sequence):
        raise _unexpected(keep_best, key)
    found = []
    for one in several:
        if not isinstance(one, Sequence) or isinstance(one, str) or not 2 <= len(one) <= 3:
            raise _unexpected(keep_best, key)
        metric, count, *mode = one
        is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if not isinstance(metric, str) or not metric or not is_count:
            raise _unexpected(keep_best, key)
        if mode and mode[0] not in _MODES:
            raise SettingsError(f"expected mode 'max' or 'min', found {mode[0]!r}", key=key)
        if not mode and any(word in metric.lower() for word in _SMALLER):
            raise SettingsError(
                f"say whether the largest or the smallest {metric} is the best: "
                f"({metric!r}, {count}, 'min'), or 'max'",
                key=key,
            )
        found.append(Criterion(metric, count, *mode))
    if len({one.metric for one in found}) < len(found):
        raise SettingsError("expected each metric once", key=key)
    return tuple(found)


def _unexpected(keep_best: Any, key: str) -> SettingsError:
    return SettingsError(
        "expected (metric, how many) or (metric, how many, 'max' or 'min'), or a list of such, as "
        f"('accuracy', 3); found {keep_best!r}",
        key=key,
    )


def parse_criteria(texts: Iterable[str], key: str) -> tuple[Criterion, ...]:
    """The criteria that a flag gives: METRIC:COUNT or METRIC:COUNT:MODE each."""
    found = []
    for text in texts:
        rest, _, last = text.rpartition(":")
        mode = [last] if last in _MODES else []
        metric, _, count = rest.rpartition(":") if mode else (rest, "", last)
        if not metric or not count.isascii() or not count.isdigit():
            raise SettingsError(
                f"expected METRIC:COUNT or METRIC:COUNT:max|min, as accuracy:3; found {text!r}",
                key=key,
            )
        found.append((metric, int(count), *mode))
    return criteria_of(found, key)


def best_path(run: str) -> str:
    """The file that lists the best checkpoints of a model_dir."""
    return os.path.join(run, _FILE)


def read_best(run: str) -> BestList:
    """The best checkpoints of a model_dir; an empty list where there is no file.

    Raises:
      CorruptCheckpointError: the file is broken.
      NotACheckpointError: it cannot be read.
    """
    path = best_path(run)
    if not files.exists(path):
        return BestList()
    try:
        if files.size(path) > _MAX_SIZE:
            raise ValueError(f"it has {files.size(path):,} bytes")
        said = json.loads(files.read_bytes(path))
        return BestList(
            criteria_of([tuple(one) for one in said["keep_best"]]),
            tuple(_evaluated(run, one) for one in said["checkpoints"]),
            tuple(filter(_is_plain, said["removing"])),
        )
    except (ValueError, TypeError, KeyError, RecursionError, SettingsError) as error:
        reason = error.message if isinstance(error, SettingsError) else error
        raise CorruptCheckpointError(
            f"no list of the best checkpoints: {reason}; remove it, and the next evaluation begins "
            "a new one",
            path=path,
        ) from error


def _is_plain(name: str) -> bool:
    """Whether a name leads nowhere else."""
    return os.path.basename(name) == name and name.strip(".") != ""


def _evaluated(run: str, said: Any) -> Evaluated:
    parts = said["path"].split("/")
    if parts[0] != BEST or len(parts) != 3 or not all(map(_is_plain, parts)):
        raise ValueError(f"the path {said['path']!r}")
    prefix = os.path.join(run, *parts)
    step = said["step"]
    if not (step is None or isinstance(step, int)):
        raise ValueError(f"the step {step!r}")
    return Evaluated(prefix, step, {str(k): float(v) for k, v in said["metrics"].items()})


def encode_best(best: BestList) -> bytes:
    """The bytes of a `checkpoint_best.json`."""
    checkpoints = [
        {
            "path": "/".join((BEST, *one.prefix.split("/")[-2:])),
            "step": one.step,
            "metrics": {k: v for k, v in sorted(one.metrics.items()) if math.isfinite(v)},
        }
        for one in best.checkpoints
    ]
    said = {
        "keep_best": best.criteria,
        "checkpoints": checkpoints,
        "removing": best.removing,
    }
    return json.dumps(said, indent=1).encode()


def best_prefix(run: str, metric: str | None) -> str:
    """The best checkpoint of a model_dir by a metric, or by the one that there is.

    Raises:
      NotACheckpointError: no such list, no checkpoint in it, or not clear by which metric.
      CorruptCheckpointError: the list is broken.
    """
    best = read_best(run)
    by_metric = {one.metric: one for one in best.criteria}
    if not by_metric:
        raise NotACheckpointError(
            f"no best checkpoints are kept, as there is no {_FILE}; keep_best=('accuracy', 3) of a "
            "job, or record_metrics(), makes it",
            path=run,
        )
    if metric is None and len(by_metric) > 1:
        raise NotACheckpointError(
            f"say by which metric: {' or '.join(f'{run}@best:{one}' for one in by_metric)}",
            path=run,
        )
    if metric is not None and metric not in by_metric:
        hint = did_you_mean_or(metric, list(by_metric))
        raise NotACheckpointError(f"no best checkpoints are kept by {metric}{hint}", path=run)
    criterion = by_metric[metric] if metric is not None else best.criteria[0]
    ranked = best.ranked(criterion)
    if not ranked:
        raise NotACheckpointError(f"no checkpoint has the metric {criterion.metric} yet", path=run)
    return ranked[0].prefix

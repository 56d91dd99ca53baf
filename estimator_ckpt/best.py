"""The best checkpoints of a run: told of by metrics, kept by links."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.checking.difference import entries_of
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.kept.links import keeping, let_go, link_checkpoint
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.reading.best import (
    BestList,
    Criterion,
    Evaluated,
    KeepBest,
    best_path,
    criteria_of,
    encode_best,
    read_best,
)
from estimator_ckpt.reading.locate import find_prefix
from estimator_ckpt.reading.named import BEST, run_of
from estimator_ckpt.saving.journal import read_journal
from estimator_ckpt.text.names import did_you_mean_or

_STEP = re.compile(r"-(\d+)$")


def record_metrics(
    checkpoint: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    *,
    keep_best: KeepBest | None = None,
) -> tuple[str, ...]:
    """Tells what an evaluation has found of a checkpoint, which stays if it is one of the best.

    It is then linked to `RUN/best/`, where the trainer deletes nothing, and listed with its metrics
    in `RUN/checkpoint_best.json`. One that is no longer among the best is removed from there. A
    wrapped model_fn with keep_best does all this itself at the end of each evaluation.

    Args:
      checkpoint: names one, as open_checkpoint() takes it. RUN alone is its newest one, which may
        be a newer one than was evaluated: better name it.
      metrics: numbers by their names, as evaluate() returns them. What is no number is left out. A
        metric that is NaN or infinite makes no checkpoint one of the best.
      keep_best: as SaverOptions has it: by which metrics, and how many. None: as the job that saves
        there has it, or as the last call had it.

    Returns:
      The metrics by which the checkpoint is now one of the best; none: ().

    Raises:
      SettingsError: it is not known by what checkpoints are the best; or `metrics` lacks that.
      NotACheckpointError, CorruptCheckpointError: no such checkpoint, or a part of it is missing;
        or `checkpoint_best.json` is broken.
      WriteError: nothing can be written there; or, as BusyError, another process does.
    """
    prefix = find_prefix(files.path_text(checkpoint, "checkpoint"))
    run = run_of(prefix)
    numbers = numbers_of(metrics)
    criteria = criteria_of(keep_best) or _criteria_of_job(run)
    for one in criteria:
        if one.metric not in numbers:
            hint = did_you_mean_or(one.metric, sorted(numbers)) if numbers else "; there are none"
            raise SettingsError(f"no such metric: {one.metric}{hint}", key="keep_best")
    return keep_if_best(run, prefix, numbers, criteria)


def keep_if_best(
    run: str,
    source: str,
    metrics: Mapping[str, float],
    criteria: tuple[Criterion, ...],
) -> tuple[str, ...]:
    """Links a checkpoint that is one of the best, and lets those go that are no more.

    Args:
      run: the model_dir.
      source: the prefix of the checkpoint, or of a link to it.
      metrics: what was found of it.
      criteria: by what it may be one of the best, and the only ones for these metrics.

    Returns, Raises: as record_metrics().
    """
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    with keeping(run):
        before = read_best(run)
        for name in before.removing:
            let_go(os.path.join(run, BEST, name))
        named = {one.metric for one in criteria}
        criteria = (*criteria, *(one for one in before.criteria if one.metric not in named))
        earlier = [one for one in before.checkpoints if files.exists(f"{one.prefix}.index")]
        same = next((one for one in earlier if _is_same(one.prefix, source)), None)
        place = same.prefix if same else _place(run, source, earlier)
        known = {name: v for name, v in same.metrics.items() if name not in metrics} if same else {}
        this = Evaluated(place, _step(source), {**known, **finite})
        # One that is evaluated again keeps its place, before others that are as good.
        again = [this if one is same else one for one in earlier]
        found = BestList(criteria, tuple(again if same else [*earlier, this]))
        best = {one: [e.prefix for e in found.ranked(one)] for one in criteria}
        kept = {prefix for prefixes in best.values() for prefix in prefixes}
        is_best = place in kept
        left = tuple(one for one in found.checkpoints if one.prefix in kept)
        going = [one.prefix for one in earlier if one.prefix not in kept]
        removing = tuple(os.path.basename(os.path.dirname(one)) for one in going)
        if is_best and same is None:
            # What a kill leaves of the link, the next one to record clears away.
            linking = (*before.removing, os.path.basename(os.path.dirname(place)))
            _write(run, before._replace(checkpoints=tuple(earlier), removing=linking))
            files.make_dirs(os.path.join(run, BEST))
            link_checkpoint(source, os.path.dirname(place))
        after = BestList(criteria, left, removing)
        if after != before:
            _write(run, after)
        for one in going:
            let_go(os.path.dirname(one))
    return tuple(one.metric for one, prefixes in best.items() if place in prefixes)


def _write(run: str, best: BestList) -> None:
    path = best_path(run)
    # One process writes at a time, so that what a kill leaves is overwritten by the next.
    files.write_atomic(path, encode_best(best), temporary=f"{path}.tempstate-keeping")


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of an evaluation's results that are one number each."""
    found = {}
    for name, value in metrics.items():
        if not isinstance(value, (str, bytes)):
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                found[name] = float(value)
    return found


def _criteria_of_job(run: str) -> tuple[Criterion, ...]:
    """By what checkpoints are the best, as the job's last save had it, or who recorded last."""
    try:
        recorded = criteria_of(read_journal(run, "checkpoint").policy.get("keep_best"))
    except SettingsError:
        recorded = ()
    found = recorded or read_best(run).criteria
    if not found:
        raise SettingsError(
            f"neither a job nor an earlier call has said by what checkpoints of {run} are the "
            "best; say it, as keep_best=('accuracy', 3)",
            key="keep_best",
        )
    return found


def _is_same(a: str, b: str) -> bool:
    """Whether two checkpoints are one: under two names, or in two formats, as a conversion in place
    makes it, and a job that goes on in another format."""
    if os.path.basename(a) != os.path.basename(b):
        return False
    if files.read_bytes(f"{a}.index") == files.read_bytes(f"{b}.index"):
        return True
    try:
        return _checksums(a) == _checksums(b)
    except CheckpointError:
        return False  # one that is damaged is not the other


def _checksums(prefix: str) -> dict[str, Any]:
    """What the index says of each variable's value."""
    with open_checkpoint(prefix) as checkpoint:
        return {
            name: [(entry.dtype, box, entry.crc32c) for box, entry in entries_of(checkpoint, one)]
            for name, one in checkpoint.variables.items()
            if one.object_path != SAVE_COUNTER  # which formats of names lack
        }


def _place(run: str, source: str, earlier: list[Evaluated]) -> str:
    """Where a checkpoint is linked to: a directory that is not there yet."""
    name = os.path.basename(source)
    there = {os.path.basename(os.path.dirname(one.prefix)) for one in earlier}
    directory, number = name, 1
    while directory in there or files.exists(os.path.join(run, BEST, directory)):
        number += 1
        directory = f"{name}_{number}"
    return os.path.join(run, BEST, directory, name)


def _step(prefix: str) -> int | None:
    """The step of a checkpoint: as its name has it, or else its global step."""
    named = _STEP.search(prefix)
    if named:
        return int(named[1])
    try:
        with open_checkpoint(prefix) as checkpoint:
            return checkpoint.global_step
    except CheckpointError:
        return None

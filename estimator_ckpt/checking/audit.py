"""Whether all that a tree of model_dirs holds is whole: checkpoints, state files, companions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Optional

from estimator_ckpt import files
from estimator_ckpt.bundle.v1 import plain_prefix, v1_prefix, v1_prefixes
from estimator_ckpt.errors import CheckpointError, NotACheckpointError
from estimator_ckpt.files import Progress
from estimator_ckpt.reading.input_files import SUFFIX as INPUT
from estimator_ckpt.reading.input_files import is_input_directory, positions
from estimator_ckpt.reading.locate import is_under_way, walk
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.verify import Fault, VerifyReport, verify_checkpoint

STATE_FILE = "checkpoint"

# Of an index, a data file, a graph; a name may have line breaks.
_PARTS = [
    re.compile(rf"(?P<prefix>.+)\.{ending}", re.DOTALL)
    for ending in ("index", r"data-\d{5}-of-\d{5}", "meta")
]

# Called with each report, its number from 1 on, and how many there will be.
Report = Optional[Callable[[VerifyReport, int, int], None]]


@dataclass(frozen=True)
class AuditReport:
    """What verify_directory() found.

    Attributes:
      path: the directory, as it was given.
      checkpoints: a report of each checkpoint, by directory, from the oldest to the newest.
      faults: what is wrong beside them: a state file that names what is not there, files without
        the rest of their checkpoint.
      notes: what is unusual but does no harm.
    """

    path: str
    checkpoints: tuple[VerifyReport, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults and all(one.ok for one in self.checkpoints)


class Directory(NamedTuple):
    """One directory of the tree: its checkpoints, oldest first, and what is said of the rest."""

    path: str
    prefixes: tuple[str, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def verify_directory(
    path: str | os.PathLike[str], *, report: Report = None, progress: Progress = None
) -> AuditReport:
    """Verifies all checkpoints in a directory and in those below it, and what stands beside them.

    A checkpoint that is deleted in the meantime, as a running job does with old ones, is no fault.
    SavedModels are left out.

    Args:
      path: a model_dir, or a directory with model_dirs at any depth.
      report: called with the report of each checkpoint.
      progress: as verify_checkpoint() takes it, for each checkpoint.

    Raises:
      NotACheckpointError: there is no checkpoint in it, nor a part of one.
    """
    path = files.path_text(path)
    directories = [look(one, names) for one, names, _ in walk(path)]
    total = sum(len(one.prefixes) for one in directories)
    faults = [fault for one in directories for fault in one.faults]
    notes = [note for one in directories for note in one.notes]
    if not total and not faults:
        raise nothing_found(path)
    reports = []
    for number, prefix in enumerate([p for one in directories for p in one.prefixes], 1):
        found = verify_found(prefix, progress=progress)
        if isinstance(found, str):
            notes.append(found)
            continue
        reports.append(found)
        if report is not None:
            report(found, number, total)
    return AuditReport(path, tuple(reports), tuple(faults), tuple(notes))


def nothing_found(path: str) -> NotACheckpointError:
    """The error for a tree without checkpoints, or parts of any."""
    return NotACheckpointError("no checkpoint is in it, nor below", path=path)


def verify_found(prefix: str, *, progress: Progress = None) -> VerifyReport | str:
    """Verifies one checkpoint of many; returns a note if it was deleted meanwhile."""
    try:
        return verify_checkpoint(prefix, progress=progress)
    except CheckpointError as error:
        index = f"{prefix}.index"
        if not files.exists(index) and not files.oddity(index) and v1_prefix(prefix) is None:
            return f"{prefix} was deleted while it was to be verified"
        fault = Fault("unreadable", error.path or prefix, error.message, error.key)
        return VerifyReport(prefix, prefix, (fault,), ())


def look(directory: str, names: list[str]) -> Directory:
    """What a directory has, by the names of its files and by its state file."""
    under_way = [name for name in names if is_under_way(os.path.join(directory, name))]
    settled = [name for name in names if name not in set(under_way)]
    indexes, data, metas = (
        {found.group("prefix") for name in settled for found in [form.fullmatch(name)] if found}
        for form in _PARTS
    )
    v1 = set(map(os.path.basename, v1_prefixes(directory, settled)))
    others = {name for name in settled if not any(form.fullmatch(name) for form in _PARTS)}
    named, faults = _named_by_state(directory, others | indexes | v1)
    checkpoints = indexes | named | v1

    def alone(prefixes: set[str], kind: str, message: str) -> None:
        for prefix in sorted(prefixes):
            faults.append(Fault(kind, os.path.join(directory, prefix), message))

    alone(data - checkpoints, "data file", "data without an index: a save or deletion broke off")
    alone(
        metas - checkpoints - data - set(map(plain_prefix, v1)),
        "meta graph",
        "a .meta file without its checkpoint",
    )
    inputs = {name for name in settled if name.endswith(INPUT)}
    beside = {f"{name}{INPUT}" for name in checkpoints | data}
    for name in sorted(inputs - beside):
        path = os.path.join(directory, name)
        if positions(path[: -len(INPUT)]) and is_input_directory(path):
            message = (
                "an input's position without its checkpoint; the next save of a job of ours that "
                "wrote it removes it, else remove it yourself"
            )
            faults.append(Fault("input", path, message))
    notes = [
        f"{os.path.join(directory, name)} is of a save or conversion that is under way or broke off"
        for name in under_way
    ]
    prefixes = [os.path.join(directory, name) for name in checkpoints]
    return Directory(directory, tuple(sorted(prefixes, key=by_step)), tuple(faults), tuple(notes))


def _named_by_state(directory: str, there: set[str]) -> tuple[set[str], list[Fault]]:
    """The checkpoints of a directory that its state file names, and what is wrong with it.

    Args:
      there: the prefixes that have an index, and the names of its files that may be V1 ones.
    """
    path = os.path.join(directory, STATE_FILE)
    try:
        state = read_state(directory) if STATE_FILE in there else None
    except CheckpointError as error:
        return set(), [Fault("state file", path, error.message)]
    if state is None:
        return set(), []
    named, faults = set(), []
    for prefix in dict.fromkeys((*state.all_model_checkpoint_paths, state.model_checkpoint_path)):
        name = os.path.basename(prefix)
        if name in there:
            named.add(name)
        elif not files.exists(f"{prefix}.index"):  # of another directory
            message = f"it names {prefix}, and there is no {name}.index"
            faults.append(Fault("state file", path, message))
    return named, faults


def by_step(prefix: str) -> tuple[int, str]:
    """What to sort the checkpoints of a directory by, from the oldest to the newest."""
    step = re.search(r"-(\d+)$", plain_prefix(prefix))
    return (int(step.group(1)) if step else -1, prefix)

"""Holding a checkpoint while it is evaluated, as the trainer may delete it before the end.

    RUN/best/model.ckpt-1200.evaluating-MACHINE-PID-TOKEN/    its links, for so long

An evaluation that is killed leaves its links: the next one removes those of processes that are gone
from this machine, and of others after a day. On remote paths nothing is held, as that is a copy.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time

from absl import logging

from estimator_ckpt import files
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.files import processes
from estimator_ckpt.kept.links import keeping, let_go, link_checkpoint
from estimator_ckpt.reading.named import BEST, EVALUATING, run_of

_LONGEST = 24 * 3600.0  # seconds, that an evaluation on another machine may take


def hold(prefix: str) -> str:
    """Links a checkpoint for an evaluation; release() lets it go.

    Returns:
      The prefix of the link; of the checkpoint itself where it cannot be linked, which is logged,
      or where it stays anyway.
    """
    run = run_of(prefix)
    if files.is_remote(prefix) or run != (os.path.dirname(prefix) or "."):
        return prefix
    name = f"{os.path.basename(prefix)}{EVALUATING}{_here()}-{os.getpid()}-{secrets.token_hex(4)}"
    directory = os.path.join(run, BEST, name)
    try:
        with keeping(run):
            _clear(os.path.join(run, BEST))
            files.make_dirs(os.path.join(run, BEST))
            return link_checkpoint(prefix, directory)
    except CheckpointError as error:
        logging.warning(
            "If %s is deleted while it is evaluated, it cannot be kept as one of the best: %s",
            prefix,
            error,
        )
        return prefix


def release(held: str) -> None:
    """Removes the link that hold() has made."""
    directory = os.path.dirname(held)
    if EVALUATING in os.path.basename(directory):
        with contextlib.suppress(CheckpointError):
            let_go(directory)


def _clear(directory: str) -> None:
    """Removes what evaluations hold that have come to no end."""
    for name in files.list_dir(directory) if files.is_dir(directory) else ():
        machine, _, rest = name.partition(EVALUATING)[2].partition("-")
        pid = rest.partition("-")[0]
        if not pid.isdigit():
            continue
        path = os.path.join(directory, name)
        if machine == _here() != "0":
            is_over = processes.process(int(pid)) is None
        else:
            is_over = time.time() - os.path.getmtime(path) > _LONGEST
        if is_over:
            let_go(path)


def _here() -> str:
    """The machine, and where on it a process id has a meaning; "0" where that cannot be told."""
    import hashlib

    here = (processes.boot(), processes.namespace())
    return hashlib.sha256("".join(here).encode()).hexdigest()[:8] if all(here) else "0"

"""Pins: checkpoints that stay, under a name, whatever the trainer deletes."""

from __future__ import annotations

import os

from estimator_ckpt import files
from estimator_ckpt.errors import NotACheckpointError, SettingsError, WriteError
from estimator_ckpt.kept.links import keeping, let_go, link_checkpoint
from estimator_ckpt.reading.locate import find_prefix
from estimator_ckpt.reading.named import PINNED, check_pin_name, pins, run_of
from estimator_ckpt.text.names import did_you_mean_or


def pin_checkpoint(checkpoint: str | os.PathLike[str], name: str) -> str:
    """Pins a checkpoint: it stays, and `RUN@NAME` names it wherever a checkpoint can be named.

    It is linked to `RUN/pinned/NAME/`, which takes no room while the trainer has it as well (on
    remote paths it is copied). A running job need not be told: it deletes its own name of it alone.

    Args:
      checkpoint: names one, as open_checkpoint() takes it: a prefix, `RUN@step=1200`,
        `RUN@best`; RUN alone is its newest one.
      name: letters, digits and `. _ + -`, but not `best` or `newest`.

    Returns:
      The prefix of the pinned checkpoint.

    Raises:
      SettingsError: it cannot have this name.
      NotACheckpointError, CorruptCheckpointError: no such checkpoint, or a part is missing.
      UnsupportedCheckpointError: it is in TensorFlow's first format (V1).
      WriteError: another checkpoint has the name, which then stays as it is; nothing can be written
        there; or, as BusyError, another process is pinning.
    """
    check_pin_name(name)
    prefix = find_prefix(files.path_text(checkpoint, "checkpoint"))
    run = run_of(prefix)
    with keeping(run):
        there = pins(run).get(name)
        if there is None:
            directory = os.path.join(run, PINNED, name)
            return link_checkpoint(prefix, directory, with_input=True)
        if os.path.basename(there) == os.path.basename(prefix) and (
            files.read_bytes(f"{there}.index") == files.read_bytes(f"{prefix}.index")
        ):
            return there
        raise WriteError(
            f"{os.path.basename(there)} is pinned as {name} already; take another name, or let it "
            f"go first: estimator-ckpt unpin {run}@{name}",
            path=there,
        )


def unpin_checkpoint(run: str | os.PathLike[str], name: str | None = None) -> None:
    """Lets a pinned checkpoint go: its name, and its data, unless the run still has them.

    Args:
      run: the model_dir, with `name`; or both, as `RUN@NAME`.
      name: that it was pinned under.

    Raises:
      SettingsError: no name.
      NotACheckpointError: none is pinned under it.
      WriteError: it cannot be removed.
    """
    directory = files.path_text(run, "run")
    if name is None:
        directory, _, name = directory.rpartition("@")
    if not directory or not name:
        raise SettingsError(f"expected RUN@NAME, found {os.fspath(run)!r}", key="run")
    if name not in pins(directory):
        known = list(pins(directory))
        which = did_you_mean_or(name, known) if known else "; none is"
        raise NotACheckpointError(f"no checkpoint is pinned as {name}{which}", path=directory)
    with keeping(directory):
        let_go(os.path.join(directory, PINNED, name))

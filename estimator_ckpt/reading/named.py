"""Checkpoints of a model_dir that stay whatever its trainer deletes: the pinned, and the best.

    RUN/pinned/release-7/model.ckpt-1200.index ...    pinned as release-7
    RUN/best/model.ckpt-1200/model.ckpt-1200.index ...    one of the best, see reading/best.py

Each has a directory of its own, which gets its name in one step when all files are in it. They are
hard links, so that they take no room while the trainer has the checkpoint, too; copies on remote
paths. What has no index is none.
"""

from __future__ import annotations

import os
import re

from estimator_ckpt import files
from estimator_ckpt.errors import SettingsError

PINNED = "pinned"
BEST = "best"
LINKING = ".linking-"  # what a directory is called, with a token behind it, until it is whole
EVALUATING = ".evaluating-"  # and while it is held for an evaluation, see kept/evaluating.py
_PIN_NAME = re.compile(r"[^\W_][\w.+-]*")
# What stands behind the @ of RUN@NAME with a meaning of its own.
NEWEST, STEP = "newest", "step="


def check_pin_name(name: object) -> str:
    """The name of a pin, if it can be one.

    Raises:
      SettingsError: it cannot be a file's name, or RUN@NAME would mean something else.
    """
    if not isinstance(name, str) or not _PIN_NAME.fullmatch(name) or _is_for_now(name):
        raise SettingsError(
            "expected a name of letters, digits and . _ + - that begins with a letter or a digit, "
            f"as release-7; found {name!r}",
            key="name",
        )
    if name in (NEWEST, BEST):
        raise SettingsError(f"RUN@{name} means another checkpoint; take another name", key="name")
    return name


def _is_for_now(name: str) -> bool:
    return LINKING in name or EVALUATING in name


def pins(run: str) -> dict[str, str]:
    """The pinned checkpoints of a model_dir: the prefix of each by its name, sorted by name."""
    return _kept(os.path.join(run, PINNED))


def best_directories(run: str) -> dict[str, str]:
    """The checkpoints in the directory of the best: the prefix of each by its directory's name."""
    return _kept(os.path.join(run, BEST))


def run_of(prefix: str) -> str:
    """The model_dir that a checkpoint belongs to, also one that is pinned there, or a best one.

    A model_dir of the user's own may be called `best/run-7`: no pin and no best one is a directory
    with a state file, or with several checkpoints.
    """
    directory = os.path.dirname(prefix) or "."
    parent, name = os.path.split(os.path.dirname(directory))
    if name not in (PINNED, BEST) or not _is_kept(directory):
        return directory
    return parent or "."


def _is_kept(directory: str) -> bool:
    names = files.list_dir(directory) if files.is_dir(directory) else []
    return "checkpoint" not in names and sum(one.endswith(".index") for one in names) < 2


def _kept(directory: str) -> dict[str, str]:
    if not files.is_dir(directory):
        return {}
    found = {}
    for name in sorted(files.list_dir(directory)):
        path = os.path.join(directory, name)
        if _is_for_now(name) or not files.is_dir(path):
            continue
        indexes = [one for one in files.list_dir(path) if one.endswith(".index")]
        if len(indexes) == 1:
            found[name] = os.path.join(path, indexes[0][: -len(".index")])
    return found

"""Checkpoints of an eager program that name-based (TF1) readers take as well.

A tf.train.CheckpointManager saves in this order: the checkpoint, the callbacks of
tf.train.CheckpointOptions, then the state file, then retention. Ours is the first callback: it
gives each tensor its name beside its object, in place, so that whoever follows the state file meets
no checkpoint without names. With asynchronous saves all of that runs in TensorFlow's thread.
"""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.convert import convert_checkpoint
from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.matching.rules import Pairs, Rules
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.reading.object_tensors import names_in_var_list
from estimator_ckpt.text.names import some_of

_CALLBACKS = "experimental_write_callbacks"  # of tf.train.CheckpointOptions, since TensorFlow 2.15
_RULES = "names_beside_objects"
_MOST_SHOWN = 10


def save_both(manager: Any, *, rename: Pairs = ()) -> Any:
    """Has a tf.train.CheckpointManager save in format "both": names (TF1) beside objects (TF2).

        manager = save_both(tf.train.CheckpointManager(checkpoint, "run", max_to_keep=5))
        manager.restore_or_initialize()
        ...
        manager.save()  # tf.compat.v1.train.Saver reads it, and tf.train.Checkpoint does

    Each tensor is stored once. The state file names a checkpoint when it has its names, and not
    before; what is killed on the way leaves the state file at the checkpoint before. Retention, the
    intervals, `restore_or_initialize` and asynchronous saves are the manager's, as they were; write
    callbacks in the options of a save run when the names are there. A save under a prefix that the
    state file names already (`checkpoint_number=` of an old one) is without names for the moment
    that the conversion takes.

    Args:
      manager: the tf.train.CheckpointManager. Its `save` is replaced, and it is returned.
      rename: pairs of a regular expression and a replacement, as convert_checkpoint() takes them.
        Without a rule the name is the one that the variable was built with (`v.name` without `:0`),
        so a step that TF1 jobs are to find is called `global_step`.

    Returns:
      `manager`.

    Raises:
      SettingsError: `manager` is none, its directory is remote, or it saves both by other rules
        already; a rule is none; or TensorFlow is older than 2.15, which has no callbacks there.

    And `manager.save()`, beside what it raises of its own; an asynchronous save, at the next one:
      ConflictError: several variables have one name, and no rule gives them others. The checkpoint
        is whole, in format "checkpoint", and the state file does not name it.
      SettingsError, WriteError: as convert_checkpoint() does.
    """
    import tensorflow as tf

    if not isinstance(manager, tf.train.CheckpointManager):
        kind = type(manager).__name__
        raise SettingsError(f"save_both takes a tf.train.CheckpointManager, found a {kind}")
    if not hasattr(tf.train.CheckpointOptions(), _CALLBACKS):
        raise SettingsError(
            f"save_both needs TensorFlow 2.15 or later, found {tf.__version__}; here, convert what "
            "was saved: convert_checkpoint(manager.save(), None, 'both', in_place=True)"
        )
    if files.is_remote(manager.directory):
        raise SettingsError(
            "save_both needs a local directory: nothing can be appended to a remote file; save the "
            "objects there, and convert the checkpoints that TF1 readers want to a new place",
            path=manager.directory,
        )
    rename = Rules(rename=rename).rename
    before = getattr(manager.save, _RULES, None)
    if before is not None:
        if before != rename:
            raise SettingsError(
                f"the manager saves both already, with rename={before!r}: give it all rules at once"
            )
        return manager

    stock_save = manager.save

    def add_names(prefix: str) -> None:
        _add_names(prefix, rename)

    @functools.wraps(stock_save)
    def save(
        checkpoint_number: Any = None, check_interval: bool = True, options: Any = None
    ) -> Any:
        options = tf.train.CheckpointOptions() if options is None else copy.copy(options)
        callbacks = getattr(options, _CALLBACKS) or ()
        setattr(options, _CALLBACKS, [add_names, *callbacks])
        return stock_save(checkpoint_number, check_interval, options)

    setattr(save, _RULES, rename)
    manager.save = save
    return manager


def _add_names(prefix: str, rename: Pairs) -> None:
    """Gives a checkpoint names beside its objects, in place.

    Raises:
      ConflictError: see save_both().
    """
    _refuse_shared_names(prefix, rename)
    convert_checkpoint(prefix, None, "both", in_place=True, rename=rename)


def _shared_names(graph: ObjectGraph) -> dict[str, set[str]]:
    """The keys of the variables that share a name, by that: the one in `var_list`, or their own."""
    listed = names_in_var_list(graph)
    keys: dict[str, set[str]] = {}
    for number, node in enumerate(graph.nodes):
        for value in node.attributes:
            if value.name == VARIABLE_VALUE:
                for name in listed.get(number, (value.full_name,) if value.full_name else ()):
                    keys.setdefault(name, set()).add(value.checkpoint_key)
    return {name: found for name, found in keys.items() if len(found) > 1}


def _refuse_shared_names(prefix: str, rename: Pairs) -> None:
    """convert_checkpoint() itself calls them by their object paths, which no Saver asks for."""
    with open_checkpoint(prefix) as checkpoint:
        graph = checkpoint.object_graph
        if graph is None:
            return
        shared = _shared_names(graph)
        if not shared:
            return
        paths = {key: checkpoint.variable(key).name for key in set().union(*shared.values())}
    plan = convert_checkpoint(prefix, None, "both", in_place=True, rename=rename, dry_run=True)
    targets = {row.source: row.targets for row in plan.rows}
    left = {
        name: sorted(paths[key] for key in keys if paths[key] in targets.get(key, ()))
        for name, keys in sorted(shared.items())
    }
    lines = [f"{name!r}: {some_of(found, _MOST_SHOWN)}" for name, found in left.items() if found]
    if lines:
        example = re.escape(next(found[0] for found in left.values() if found))
        raise ConflictError(
            "variables share a name, and a name-based reader could find one of them at most:\n"
            + "\n".join(lines)
            + "\nBuild them with names of their own, or name them by rules on what stands here: "
            f"save_both(manager, rename=[({example!r}, 'a_name_of_its_own'), ...]).\n"
            "The checkpoint is whole, for object-based readers alone, and the state file does not "
            "name it.",
            path=prefix,
        )

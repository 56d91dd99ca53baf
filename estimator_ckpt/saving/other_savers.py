"""The savers of a graph that stay as they are, and what a user has to know about them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import CheckpointError, UnsupportedCheckpointError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.reading.state import real_prefix
from estimator_ckpt.saving import graph_ops, tf_internals
from estimator_ckpt.saving.on_disk import open_any


def tell_of_others(checkpoint_format: CheckpointFormat, is_ours: Callable[[Any], bool]) -> bool:
    """Warns of each hook that writes checkpoints of another format where ours go, and has each
    stock Saver of the default graph say what to do where it cannot restore.

    Args:
      checkpoint_format: what our saver writes.
      is_ours: whether a saver is of this package.

    Returns:
      Whether there is one.
    """
    graph = tf.compat.v1.get_default_graph()
    if not _has_others_ops(graph):
        return False
    kinds = tf.compat.v1.train.Saver, tf.compat.v1.train.CheckpointSaverHook
    objects = tf_internals.objects_of(*kinds)
    _explain_restores(tf_internals.stock_savers(graph, objects), is_ours)
    if checkpoint_format == "saver":
        return False
    collected = [*graph.get_collection(tf.compat.v1.GraphKeys.SAVERS), None][0]
    hooks = [
        (hook, real_prefix(f"{directory}/"), saver or collected)
        for hook, directory, saver in tf_internals.checkpoint_hooks(graph, objects)
    ]
    # Without a hook of ours, nobody knows the directory: a warning too many is better than none.
    ours = {directory for _, directory, saver in hooks if is_ours(saver)}
    others = [
        (type(hook).__name__, directory)
        for hook, directory, saver in hooks
        if not is_ours(saver) and (not ours or directory in ours)
    ]
    for kind, directory in others:
        logging.warning(
            "A %s of the job has a saver of its own: into %s it writes what that one writes, not "
            "the format %r. Without one it saves with the Scaffold's.",
            kind,
            directory,
            checkpoint_format,
        )
    return bool(others)


def _has_others_ops(graph: tf.Graph) -> bool:
    """Whether a graph has ops that restore, of another than us; no other saver works without them.

    That takes a hundredth of the time of asking the garbage collector for savers.
    """
    return any(
        all(frame.filename != graph_ops.__file__ for frame in op.traceback or ())
        for op in graph.get_operations()
        if op.type == "RestoreV2"
    )


def tell_of_checkpoint(
    prefix: str,
    checkpoint_format: CheckpointFormat,
    is_ours: Callable[[Any], bool],
    graph: tf.Graph,
) -> bool:
    """Warns of a checkpoint that another saver has written, if it is of another format.

    Args:
      prefix: of the checkpoint.
      checkpoint_format: what our saver writes.
      is_ours: whether a saver is of this package.
      graph: of the job.

    Returns:
      Whether it is of another format.
    """
    try:
        with open_any(prefix) as checkpoint:
            found = checkpoint.format
    except CheckpointError:
        return False
    if found == checkpoint_format:
        return False
    savers = [saver for saver in tf_internals.stock_savers(graph) if not is_ours(saver)]
    hooks = sorted({type(hook).__name__ for hook in tf_internals.hooks_with(savers)})
    logging.warning(
        "Another saver%s writes checkpoints of the format %r, not %r, into the directory: %s. They "
        "stay in the state file; they do not count for keep_checkpoint_max, and are not deleted.",
        f" (the job's {', '.join(hooks)} has one)" if hooks else " of the job",
        found,
        checkpoint_format,
        prefix,
    )
    return True


def _explain_restores(savers: Iterable[Any], is_ours: Callable[[Any], bool]) -> None:
    """Has stock Savers say what to do where they cannot restore.

    They add ops to restore from an object-based checkpoint, which they no longer can when the graph
    is final: in the init_fn of a Scaffold, or in a hook.
    """
    for saver in savers:
        if not is_ours(saver) and "restore" not in vars(saver):
            saver.restore = functools.partial(_restore, saver.restore)


def _restore(restore: Callable[..., None], sess: tf.compat.v1.Session, save_path: str) -> None:
    try:
        restore(sess, save_path)
    except RuntimeError as error:
        if not sess.graph.finalized:
            raise
        raise UnsupportedCheckpointError(
            "this checkpoint is object-based. A stock tf.compat.v1.train.Saver adds ops to restore "
            "from one, but the graph is final. To start from it, give warm_start=WarmStart(...) to "
            "the wrapper or the scaffold in place of this restore; or make it name-based first, by "
            "`estimator-ckpt convert --checkpoint_format=both`",
            path=save_path,
        ) from error

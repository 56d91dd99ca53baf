"""The .meta file beside a checkpoint: the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused


def graph_writer(
    saver: tf.compat.v1.train.Saver,
    graph: tf.Graph,
    suffix: str,
    *,
    is_beside: bool,
    **options: Any,
) -> Callable[[str], None]:
    """What writes a graph beside a checkpoint, given its prefix.

    Args:
      saver: whose ops a reader of the graph is told of.
      graph: that is written.
      suffix: of the file.
      is_beside: whether it is written beside training. A graph that is not final can change
        meanwhile, and so is noted now.
      **options: as tf.compat.v1.train.Saver.export_meta_graph() takes them.
    """
    if is_beside and not graph.finalized:
        export = tf.compat.v1.train.Saver.export_meta_graph
        with graph.as_default():
            data = export(saver, None, **options).SerializeToString()
        return lambda staged: files.write_atomic(f"{staged}.{suffix}", data)

    @collector_paused()
    def write(staged: str) -> None:
        with graph.as_default():
            saver.export_meta_graph(f"{staged}.{suffix}", **options)

    return write

"""The saver: writes checkpoints of one format and restores those of every format."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from estimator_ckpt import state, tf_internals
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    MismatchError,
    NotACheckpointError,
    SettingsError,
)
from estimator_ckpt.options import SaverOptions, check_format
from estimator_ckpt.saving.averages import average_problems
from estimator_ckpt.saving.contents import Contents, graph_contents
from estimator_ckpt.saving.given import Objects, VarList
from estimator_ckpt.saving.graph_ops import SaverOps
from estimator_ckpt.saving.initial_values import Initialization, InitialValues
from estimator_ckpt.saving.journal import mark
from estimator_ckpt.saving.matching import (
    Resolution,
    Wanted,
    mismatch,
    missing_rows,
    resolve,
)
from estimator_ckpt.saving.on_disk import open_any, written_at
from estimator_ckpt.saving.policies import may_initialize, policy_for
from estimator_ckpt.saving.resume import resume
from estimator_ckpt.saving.retention import Retention
from estimator_ckpt.saving.steps import Save


class Saver(tf.compat.v1.train.Saver):  # type: ignore[misc]
    """A tf.compat.v1.train.Saver for a Scaffold, the SAVERS collection or by itself.

    Builds its ops when the graph is finalized, so that it saves what hooks, optimizers and
    strategies have added to it until then. Saves relative paths, sharded by device.

    Attributes:
      checkpoint_format: "saver", "checkpoint" or "both": what save() writes.
      options: how it keeps and restores checkpoints.
    """

    def __init__(
        self,
        checkpoint_format: str,
        var_list: VarList = None,
        objects: Objects | None = None,
        options: SaverOptions | None = None,
        *,
        reshape: bool = False,
        pad_step_number: bool = False,
    ) -> None:
        """Creates a saver of the default graph; nothing is built yet.

        Args:
          checkpoint_format: "saver", "checkpoint" or "both".
          var_list: as tf.compat.v1.train.Saver takes it: a list of variables and other saveable
            objects, or a dict from names to them; None means all that the graph has in the end.
          objects: the user's own objects: a tf.train.Checkpoint, a dict of trackables, or a
            callable that returns one, called when the graph is finalized.
          options: how to keep and restore checkpoints.
          reshape: as tf.compat.v1.train.Saver has it.
          pad_step_number: as tf.compat.v1.train.Saver has it.

        Raises:
          SettingsError: no such format, or no graph: TensorFlow executes eagerly.
        """
        check_format(checkpoint_format)
        if tf.executing_eagerly():
            raise SettingsError(
                "expected a graph, found eager execution; make the scaffold where the model is "
                "built, in a model_fn or in `with tf.Graph().as_default():`. An eager program "
                "saves with tf.train.Checkpoint, and starts with WarmStart(...).apply(variables)"
            )
        options = options or SaverOptions()
        max_to_keep = 5 if options.keep_checkpoint_max is None else options.keep_checkpoint_max
        every_n_hours = options.keep_checkpoint_every_n_hours or 10_000.0
        super().__init__(
            sharded=True,
            allow_empty=True,
            defer_build=True,
            save_relative_paths=True,
            max_to_keep=max_to_keep,
            keep_checkpoint_every_n_hours=every_n_hours,
            reshape=reshape,
            pad_step_number=pad_step_number,
        )
        self.checkpoint_format = checkpoint_format
        self._source_list = var_list
        self._objects = objects
        self.options = options
        self._retention = Retention(max_to_keep, every_n_hours, options.deletion_grace_secs)
        self._reshaping = reshape
        self._contents: Contents | None = None
        self._ops: SaverOps | None = None
        self._initial_values: InitialValues | None = None
        self._export: tf.compat.v1.train.Saver | None = None
        self._when_built: list[Callable[[], None]] = []
        self._beside_first: dict[str, Any] = {}
        # The checkpoint that was restored or written last, and those that were too damaged.
        self._sound: tuple[str, str] | None = None
        self._skipped: set[str] = set()

    def build(self) -> None:
        """Adds the ops to the default graph, once; a Scaffold calls it when it finalizes.

        Raises:
          ConflictError: one name or key would mean two tensors.
          SettingsError: the user's objects cannot be saved; see Contents.
        """
        if self._ops is not None:
            return
        if tf.compat.v1.get_default_graph().finalized:
            raise SettingsError(
                "the graph is finalized, but this saver has not been built in it: call finalize() "
                "on its Scaffold, which a MonitoredSession does by itself, before the session"
            )
        self._contents = graph_contents(self._source_list, self._objects, ema=self.options.ema)
        self._ops = SaverOps(self._contents, object_keys=self.checkpoint_format != "saver")
        self._var_list = dict(self._contents.saveables)
        self._builder = self._ops
        super().build()
        if may_initialize(self.options.on_missing):
            self.initial_values()
        for callback in self._when_built:
            callback()

    @property
    def saves_all(self) -> bool:
        """Whether it saves all that the graph has, under the variables' own names."""
        return self._source_list is None

    def when_built(self, callback: Callable[[], None]) -> None:
        """Calls back when the graph is complete, and still open for ops."""
        self._when_built.append(callback)

    def write_beside_first_checkpoint(self, name: str, content: Any) -> None:
        """Writes `content` as the JSON file `name` into the directory of the next checkpoint."""
        self._beside_first[name] = content

    @property
    def holders(self) -> set[str]:
        """The names of the ops that hold what it restores, of a saver that is built."""
        assert self._contents is not None
        return self._contents.held()[0]

    def initial_values(self) -> InitialValues:
        """The initializers of the graph, of a saver that is built, while ops can be added."""
        assert self._contents is not None
        if self._initial_values is None:
            self._initial_values = InitialValues(self._contents.all_variables())
        return self._initial_values

    def restore_ops(
        self, keys: Mapping[str, str], checkpoint: Checkpoint
    ) -> tuple[list[Any], dict[Any, Any]]:
        """What to fetch and what to feed, to restore some variables and no others.

        Args:
          keys: name of a whole variable, as this saver saves it -> its key in the checkpoint.
          checkpoint: where from.
        """
        assert self._ops is not None
        fetches = self._ops.fetches(keys)
        feeds = self._ops.feeds(keys, checkpoint.index.entries)
        if fetches is None:
            graph = tf.compat.v1.get_default_graph()
            fetches = [graph.get_operation_by_name(self.saver_def.restore_op_name)]
        return fetches, {self.saver_def.filename_tensor_name: checkpoint.prefix, **feeds}

    def save(
        self,
        sess: tf.compat.v1.Session,
        save_path: str,
        global_step: Any = None,
        latest_filename: str | None = None,
        meta_graph_suffix: str = "meta",
        write_meta_graph: bool = True,
        write_state: bool = True,
        strip_default_attrs: bool = False,
        save_debug_info: bool = False,
    ) -> str | None:
        """Writes a checkpoint; the arguments and the result are those of the stock Saver.

        The state file names the checkpoint when it is complete, and only then are older ones
        deleted.
        """
        if (
            not write_state
            and os.path.basename(save_path) == tf.saved_model.VARIABLES_FILENAME
            and not sess.graph.finalized
        ):
            # So a SavedModel's variables are written (tensorflow/python/saved_model/
            # builder_impl.py). They stay name-based, as their readers expect them.
            exported: str | None = self._for_export(sess.graph).save(
                sess, save_path, write_meta_graph=False, write_state=False
            )
            return exported
        if self.options.ema is not None:
            raise SettingsError(
                "a saver that reads averages would write them as the variables' own values; give "
                "`ema` to evaluation and prediction alone",
                key="ema",
            )
        save_path = tf.compat.as_str(save_path)
        prefix: str = save_path
        if global_step is not None:
            if not isinstance(global_step, numbers.Integral):
                global_step = tf.compat.v1.train.global_step(sess, global_step)
            prefix += f"-{global_step:0{8 if self._pad_step_number else 1}d}"
        with sess.graph.as_default():
            self.build()
        assert self._contents is not None
        write = super().save

        def write_staged(staged: str) -> bool:
            return write(sess, staged, None, latest_filename, "", False, False) is not None

        def write_graph(staged: str) -> None:
            with sess.graph.as_default():
                self.export_meta_graph(
                    f"{staged}.{meta_graph_suffix}",
                    strip_default_attrs=strip_default_attrs,
                    save_debug_info=save_debug_info,
                )

        save = Save(
            prefix=prefix,
            write=write_staged,
            write_graph=write_graph if write_meta_graph else None,
            names=self._contents.further_keys(self.checkpoint_format),
            is_sound=self._sound == mark(prefix),
            durable=self.options.durable,
            grace_secs=self.options.deletion_grace_secs,
            meta_graph_suffix=meta_graph_suffix,
        )
        if write_state and not self._is_empty:
            name = latest_filename or "checkpoint"
            is_written = save.run_with_state(self._retention, name, self._beside_first)
        else:
            is_written = save.run()
        if not is_written:
            return None
        if write_state:
            self._beside_first.clear()
        self._sound = mark(prefix)
        return prefix

    def export_meta_graph(self, filename: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the stock Saver's. What a SavedModel gets (it names no file) restores by names."""
        graph = tf.compat.v1.get_default_graph()
        if filename is None and not graph.finalized:
            return self._for_export(graph).export_meta_graph(None, *args, **kwargs)
        return super().export_meta_graph(filename, *args, **kwargs)

    def _for_export(self, graph: tf.Graph) -> tf.compat.v1.train.Saver:
        if self._export is None:
            with graph.as_default():
                self.build()
                assert self._contents is not None
                saveables = dict(self._contents.saveables)
                self._export = tf.compat.v1.train.Saver(saveables, sharded=True, allow_empty=True)
        return self._export

    def restore(self, sess: tf.compat.v1.Session, save_path: str) -> None:
        """Restores from a checkpoint of any format, with ops that the graph has already.

        Args:
          sess: a session of the graph, which may be finalized.
          save_path: a checkpoint's prefix, or what else open_checkpoint() takes.

        Raises:
          NotACheckpointError (a ValueError): there is none.
          MismatchError: the checkpoint lacks variables, or has them in another shape or dtype, or
            it is not clear which of its tensors is meant. It lists all of them, and nothing has
            been restored.
          ConflictError: what is to be initialized instead would write what is restored.
          CorruptCheckpointError: the checkpoint is damaged.
        """
        if save_path is None:
            raise ValueError("Can't load save_path when it is None.")
        with sess.graph.as_default():
            self.build()
            if self._is_empty:
                return
            save_path = os.fspath(save_path)
            if not tf_internals.is_resuming():
                self._restore(sess, save_path)
                return
            used = resume(
                lambda prefix: self._restore(sess, prefix),
                save_path,
                on_corrupt=self.options.on_corrupt,
                check_data=self.options.check_data,
            )
            if used != save_path:
                self._skipped.add(state.real_prefix(save_path))

    def _restore(self, sess: tf.compat.v1.Session, path: str) -> None:
        logging.info("Restoring parameters from %s", path)
        assert self._contents is not None
        assert self._ops is not None
        with open_any(path) as checkpoint:
            keys, initialization = self._resolve(checkpoint)
            feeds = self._ops.feeds(keys, checkpoint.index.entries)
            prefix = checkpoint.prefix
        self._run_restore(sess, prefix, feeds, self._ops.fetches(keys))
        if initialization is not None:
            # After the restore: an initial value may be computed from what is restored.
            initialization.run(sess)
        self._sound = mark(prefix)

    def _run_restore(
        self,
        sess: tf.compat.v1.Session,
        prefix: str,
        feeds: dict[tf.Tensor, list[str]],
        fetches: list[tf.Operation] | None,
    ) -> None:
        try:
            sess.run(
                self.saver_def.restore_op_name if fetches is None else fetches,
                {self.saver_def.filename_tensor_name: prefix, **feeds},
            )
        except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
            raise CorruptCheckpointError(_reason(error), path=prefix) from error
        except tf.errors.NotFoundError as error:
            raise NotACheckpointError(_reason(error), path=prefix) from error
        except tf.errors.InvalidArgumentError as error:
            raise MismatchError(_reason(error), path=prefix) from error

    @property
    def wanted(self) -> Sequence[Wanted]:
        """The tensors that a restore needs, of a saver that is built."""
        assert self._contents is not None
        return self._contents.wanted()

    def resolution(self, checkpoint: Checkpoint) -> Resolution:
        """What a checkpoint has of these, and where the two do not fit."""
        assert self._contents is not None
        return resolve(
            checkpoint,
            self.wanted,
            self._contents.structure,
            match_by=self.options.match_by,
            reshape=self._reshaping,
        )

    def _resolve(self, checkpoint: Checkpoint) -> tuple[dict[str, str], Initialization | None]:
        """The keys to read, and how to initialize what is not read."""
        assert self._contents is not None
        resolution = self.resolution(checkpoint)
        policy = self.options.on_missing
        required = [w for w in resolution.missing if policy_for(w.variable, policy) == "error"]
        problems = [*resolution.problems, *missing_rows(checkpoint, required)]
        problems += average_problems(checkpoint, self.wanted, resolution, policy)
        if problems:
            raise mismatch(checkpoint, problems)
        warned = [w for w in resolution.missing if policy_for(w.variable, policy) == "warn"]
        if warned:
            logging.warning(
                "%s", mismatch(checkpoint, missing_rows(checkpoint, warned, "initialized"))
            )
        keys = dict(resolution.keys)
        if self._initial_values is None:
            return keys, None  # the policy lets nothing be missing
        restored, names = self._contents.held({want.tensor for want in resolution.missing})
        # What the saver does not cover is not initialized by a restore either.
        for variable in tf.compat.v1.global_variables():
            name = variable.op.name
            if name not in restored and policy_for(name, policy) != "error":
                names.add(name)
        return keys, self._initial_values.beside(sorted(names), restored)

    @property
    def last_checkpoints(self) -> list[str]:
        """The prefixes of the checkpoints that count, oldest first."""
        return self._retention.prefixes

    def set_last_checkpoints(self, last_checkpoints: Sequence[str]) -> None:
        """As the stock Saver's: prefixes, oldest first."""
        self._retention.adopt([(prefix, self._retention.now()) for prefix in last_checkpoints])

    def set_last_checkpoints_with_time(
        self, last_checkpoints_with_time: Sequence[tuple[str, float]]
    ) -> None:
        """As the stock Saver's: (prefix, seconds since the epoch), oldest first."""
        self._retention.adopt(last_checkpoints_with_time)

    def recover_last_checkpoints(self, checkpoint_paths: Sequence[str]) -> None:
        """Adopts the checkpoints of an earlier run, in whatever format they are."""
        found = []
        last_preserved = None
        known: dict[str, float] = {}
        if checkpoint_paths:
            written = state.read_state(os.path.dirname(checkpoint_paths[-1]))
            if written is not None:
                places = map(state.real_prefix, written.all_model_checkpoint_paths)
                known = dict(zip(places, written.all_model_checkpoint_timestamps))
                last_preserved = written.last_preserved_timestamp
        for prefix in checkpoint_paths:
            modified = written_at(prefix)
            if state.real_prefix(prefix) in self._skipped:
                continue  # its files stay, for whoever wants to look at them
            if modified is not None:
                found.append((prefix, known.get(state.real_prefix(prefix), modified)))
        self._retention.adopt(found, last_preserved)


def _reason(error: tf.errors.OpError) -> str:
    """What an op says, without the stack that TensorFlow puts around it."""
    message: str = error.message.partition("\n\t [[")[0]
    return message.rpartition("\n")[2]

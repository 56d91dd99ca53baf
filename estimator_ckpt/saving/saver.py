"""The saver: writes checkpoints of one format and restores those of every format."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.options import SaverOptions, check_format
from estimator_ckpt.reading.moved import in_directory
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.background import Background
from estimator_ckpt.saving.built import Built, Found
from estimator_ckpt.saving.checkpoint_lists import CheckpointLists
from estimator_ckpt.saving.given import Objects, VarList
from estimator_ckpt.saving.graph_contents import graph_contents
from estimator_ckpt.saving.graph_ops import SaverOps
from estimator_ckpt.saving.journal import mark
from estimator_ckpt.saving.keeping import keeper_of
from estimator_ckpt.saving.meta_graph_files import graph_writer
from estimator_ckpt.saving.other_savers import tell_of_checkpoint, tell_of_others
from estimator_ckpt.saving.readiness import check_only_the_rest
from estimator_ckpt.saving.resets import Request, Reset, encode_resets, keep_from_before
from estimator_ckpt.saving.resume import resume, steadily, whole_in_place_of
from estimator_ckpt.saving.retention import CheckpointList
from estimator_ckpt.saving.steps import Save, prefix_of


class Saver(tf.compat.v1.train.Saver):  # type: ignore[misc]
    """A tf.compat.v1.train.Saver for a Scaffold, the SAVERS collection or by itself.

    Builds its ops when the graph is finalized, so that it saves what hooks, optimizers and
    strategies have added to it until then. Saves relative paths, sharded by device.

    Attributes:
      checkpoint_format: "saver", "checkpoint" or "both": what save() writes.
      options: how it keeps and restores checkpoints.
      input: the InputPosition, where the position of the input is saved, else None.
      request, resets: what a resume is to initialize, once; and of which a checkpoint says it.
      sound: the checkpoint that was restored or written last: its prefix, and its fingerprint.
    """

    def __init__(
        self,
        checkpoint_format: CheckpointFormat,
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
          reshape, pad_step_number: as tf.compat.v1.train.Saver has them.

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
        retention = options.retention.else_keep()
        super().__init__(
            sharded=True,
            allow_empty=True,
            defer_build=True,
            save_relative_paths=True,
            max_to_keep=retention.newest,
            keep_checkpoint_every_n_hours=retention.every_n_hours,
            reshape=reshape,
            pad_step_number=pad_step_number,
        )
        self.checkpoint_format = checkpoint_format
        self._source_list = var_list
        self._objects = objects
        self.options = options
        self._lists = CheckpointLists(lambda: CheckpointList(retention), self._has_all)
        self._reshaping = reshape
        self._built: Built | None = None
        self._export: tf.compat.v1.train.Saver | None = None
        self._when_built: list[Callable[[], None]] = []
        self._beside_first: dict[str, Any] = {}
        self._lacking: frozenset[str] = frozenset()  # at the start, and initialized then
        self.request: Request | None = None
        self.resets: tuple[Reset, ...] = ()
        self._has_told = False
        self.sound: tuple[str, str] | None = None
        self._background = Background()
        self.input: Any = None

    def replace(self, theirs: tf.compat.v1.train.Saver) -> Saver:
        """Makes a stock Saver become this one, so that all who hold it have this saver.

        Returns:
          `theirs`. The two are one from now on: they share what they know.
        """
        theirs.__class__ = Saver
        theirs.__dict__ = self.__dict__
        assert isinstance(theirs, Saver)
        return theirs

    def build(self) -> None:
        """Adds the ops to the default graph, once; a Scaffold calls it when it finalizes.

        Raises:
          ConflictError: one name or key would mean two tensors.
          SettingsError: the user's objects cannot be saved; see graph_contents().
        """
        self.built  # noqa: B018 (adds them)

    @property
    def built(self) -> Built:
        """What it has of the default graph; it adds its ops, the first time that this is asked."""
        if self._built is not None:
            return self._built
        if tf.compat.v1.get_default_graph().finalized:
            raise SettingsError(
                "the graph is finalized, but this saver has not been built in it: call finalize() "
                "on its Scaffold, which a MonitoredSession does by itself, before the session"
            )
        contents = graph_contents(self._source_list, self._objects, ema=self.options.ema)
        ops = SaverOps(
            contents,
            object_keys=self.checkpoint_format != "saver",
            with_snapshots=self.options.async_checkpoint,
        )
        self._var_list = contents.saveables()
        self._builder = ops
        super().build()
        self._built = built = Built(contents, ops, self.saver_def, self.options, self._reshaping)
        for callback in self._when_built:
            callback()
        check_only_the_rest(self)
        self._has_told = tell_of_others(self.checkpoint_format, _is_ours)
        return built

    def as_saver_def(self) -> Any:
        """As the stock Saver's; builds it first, unless it saves all that the graph will have."""
        if not self.saves_all:
            self.build()
        return super().as_saver_def()

    def to_proto(self, export_scope: str | None = None) -> Any:
        """As the stock Saver's, and as as_saver_def()."""
        if not self.saves_all:
            self.build()
        return super().to_proto(export_scope)

    @property
    def is_built(self) -> bool:
        """Whether its ops are in the graph."""
        return self._built is not None

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
        deleted. With async_checkpoint that comes later: the result is the prefix that the
        checkpoint will have. What goes wrong then, the session's next run() raises, or the next
        save(), or wait_until_finished().
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
        self._background.wait()
        prefix = prefix_of(sess, save_path, global_step, is_padded=self._pad_step_number)
        with sess.graph.as_default():
            built = self.built
        state_name = (latest_filename or "checkpoint") if write_state else None
        snapshot = None
        if self.options.async_checkpoint:
            if state_name is not None:
                keeper_of(os.path.dirname(prefix), state_name).take_lease(sess)
            snapshot = built.ops.take_snapshot(sess, prefix)
        write_stock = super().save

        def write(staged: str) -> bool:
            if snapshot is not None:
                snapshot.write(staged)
                return True
            return write_stock(sess, staged, None, latest_filename, "", False, False) is not None

        save = Save(
            prefix=prefix,
            write=write,
            write_graph=graph_writer(
                self,
                sess.graph,
                meta_graph_suffix,
                is_beside=snapshot is not None,
                strip_default_attrs=strip_default_attrs,
                save_debug_info=save_debug_info,
            )
            if write_meta_graph
            else None,
            stage_input=self.input.take(sess, prefix) if self.input else None,
            names=built.contents.further_keys(self.checkpoint_format),
            is_sound=self.sound == mark(prefix),
            durable=self.options.durable,
            grace_secs=self.options.retention.deletion_grace_secs,
            meta_graph_suffix=meta_graph_suffix,
            waits=snapshot is not None or tf_internals.is_ending(),
            resets=encode_resets(self.resets),
        )
        if snapshot is None:
            return prefix if self._finish(save, sess, state_name) else None
        self._background.start(snapshot, prefix, lambda: self._finish(save, sess, state_name))
        if tf_internals.is_needed_at_once():
            self._background.wait()
        return prefix

    def _finish(self, save: Save, sess: tf.compat.v1.Session, state_name: str | None) -> bool:
        """Writes a checkpoint; False if there is nothing to save."""
        prefix = save.prefix
        if state_name is None or self._is_empty:
            is_written = save.run()
        else:
            is_written = save.run_with_state(
                sess,
                lambda leaving: self._list_for(prefix, state_name, sess.graph, leaving),
                state_name=state_name,
                beside=self._beside_first,
            )
        if is_written:
            if state_name is not None:
                self._beside_first.clear()
            self.sound = mark(prefix)
        return is_written

    def wait_until_finished(self) -> None:
        """Waits until the checkpoint of the last save() is complete; with async_checkpoint.

        Raises:
          CheckpointError: it could not be written, and no step or save has raised that since.
        """
        self._background.wait()

    def export_meta_graph(self, filename: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the stock Saver's. What a SavedModel gets (it names no file) restores by names."""
        graph = tf.compat.v1.get_default_graph()
        if filename is None and not graph.finalized:
            return self._for_export(graph).export_meta_graph(None, *args, **kwargs)
        return super().export_meta_graph(filename, *args, **kwargs)

    def _for_export(self, graph: tf.Graph) -> tf.compat.v1.train.Saver:
        if self._export is None:
            with graph.as_default():
                saveables = self.built.contents.saveables()
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
            self._background.join()
            directory = tf_internals.resuming_directory()
            if directory is None:
                self._restore(sess, os.fspath(save_path), resumes=False)
                return
            newest = in_directory(os.fspath(save_path), directory)
            found = self.built.look_at(newest)
            if found is not None and found.lacking:
                newest = whole_in_place_of(newest, self._has_all)
            used = resume(
                lambda prefix: self._restore(sess, prefix, found, resumes=True),
                newest,
                on_corrupt=self.options.on_corrupt,
                check_data=self.options.check_data,
            )
            if used != newest:
                self._lists.skip(newest)

    def _restore(self, sess: Any, path: str, found: Found | None = None, *, resumes: bool) -> None:
        request = self.request if resumes else None
        restored = steadily(lambda: self.built.restore(sess, path, request, found), path)
        if resumes and self.input is not None:
            self.input.find(path)
        if request is not None and restored.has_reset:
            keep_from_before(restored.prefix, request)  # last: a start that is refused leaves none
        self._lacking, self.resets = restored.lacking, restored.resets
        if self.request is not None and tf_internals.is_in_init_fn():
            self.resets = self.request.met_at_start(self.resets)  # as after a warm start
        self.sound = mark(restored.prefix)

    @property
    def last_checkpoints(self) -> list[str]:
        """The prefixes of the checkpoints that count, oldest first, directory by directory."""
        return self._lists.prefixes

    def set_last_checkpoints(self, last_checkpoints: Sequence[str]) -> None:
        """As the stock Saver's: prefixes, oldest first."""
        self._lists.adopt([(prefix, time.time()) for prefix in last_checkpoints])

    def set_last_checkpoints_with_time(self, last_checkpoints_with_time: Any) -> None:
        """As the stock Saver's: (prefix, seconds since the epoch), oldest first."""
        self._lists.adopt(last_checkpoints_with_time)

    def recover_last_checkpoints(self, checkpoint_paths: Sequence[str]) -> None:
        """Adopts the checkpoints of an earlier run, in whatever format they are.

        Those that lack a variable stay where they are, and do not count: another saver's, say, of a
        few variables. One that was missing in the checkpoint that the job resumed from is no lack.
        """
        directory = tf_internals.resuming_directory()
        self._lists.recover([in_directory(prefix, directory) for prefix in checkpoint_paths])

    def _list_for(
        self, prefix: str, state_name: str, graph: tf.Graph, leaving: Collection[str]
    ) -> CheckpointList:
        found, others = self._lists.at(prefix, state_name, leaving)
        if others and not self._has_told:
            self._has_told = tell_of_checkpoint(others[-1], self.checkpoint_format, _is_ours, graph)
        return found

    def _has_all(self, prefix: str) -> bool:
        """Whether a checkpoint has all that this saver saves."""
        if self.sound is not None and self.sound == mark(prefix):
            return True  # with thousands of variables it takes long to look again
        found = self.built.look_at(prefix)
        return found is not None and found.lacking <= self._lacking


def _is_ours(saver: Any) -> bool:
    return isinstance(saver, Saver)

"""One checkpoint as a reader sees it: its variables, its objects, its values."""

from __future__ import annotations

import bisect
import importlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from operator import add
from types import TracebackType
from typing import TYPE_CHECKING, Any

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused, columns_of
from estimator_ckpt.bundle.dtypes import STRING, dtype_name
from estimator_ckpt.bundle.index import Index, shard_path
from estimator_ckpt.bundle.slices import key_bytes, readable_key
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.errors import CorruptCheckpointError, MissingPackageError, MissingTensorError
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, STEP, ObjectGraph, parse_path
from estimator_ckpt.reading.locate import find_prefix, read_any_index
from estimator_ckpt.reading.object_tensors import Entries
from estimator_ckpt.reading.variables import Columns, Variable, read_variables
from estimator_ckpt.text.html import html_table
from estimator_ckpt.text.names import did_you_mean, first_names, near_names
from estimator_ckpt.text.quantities import counted, size_text, tensor_text

if TYPE_CHECKING:
    import numpy as np
    import pandas

__all__ = ["Checkpoint", "open_checkpoint", "read_object_graph"]

_MANY_SHARDS = 8


class Checkpoint(Mapping[str, "np.ndarray[Any, Any]"]):
    """A checkpoint open for reading, a mapping of names to values; what open_checkpoint() returns.

    A value is read when it is asked for: `items()` and `values()` hold one at a time. Two
    checkpoints are equal if they are the same object; compare_checkpoints() compares contents.

    Attributes:
      path: as it was given.
      prefix: the path without `.index` and `.data-...`.
      index: every key with its entry.
      object_graph: the objects of an object-based checkpoint, else None.
      reader: of its data files, by key or by entry.
      data_error: what is wrong with the data files of one that was opened without need of them.
      stamp: of the file that the index was read from, see files.stamp(); () where that is remote.
    """

    def __init__(
        self,
        path: str,
        prefix: str,
        index: Index,
        object_graph: ObjectGraph | None,
        data_error: CorruptCheckpointError | None = None,
        stamp: tuple[int, ...] = (),
    ) -> None:
        self.path = path
        self.prefix = prefix
        self.index = index
        self.object_graph = object_graph
        self.data_error = data_error
        self.stamp = stamp
        self.reader = open_reader(prefix, index)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        kind = "checkpoint" if self.format == "checkpoint" else f"{self.format} checkpoint"
        return f"<{kind} {self.prefix}: {counted(len(self.columns), 'variable')}>"

    def __len__(self) -> int:
        """How many variables it has."""
        return len(self.columns)

    def __bool__(self) -> bool:
        """True, without variables too: it is a checkpoint."""
        return True

    def __iter__(self) -> Iterator[str]:
        """The names of the variables, sorted."""
        return iter(self.columns.name)

    def __contains__(self, name: object) -> bool:
        """Whether get_tensor() finds something under this name, key or object path."""
        if not isinstance(name, str):
            return False
        try:
            return key_bytes(name) in self.index.entries or self.variable(name) is not None
        except MissingTensorError:
            return False

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """get_tensor(); a name that is not there is a KeyError as well as a MissingTensorError."""
        return self.get_tensor(name)

    def _repr_html_(self) -> str:
        step = "" if self.global_step is None else f", global step {self.global_step}"
        columns = self.columns
        rows = zip(columns.name, map(tensor_text, columns.dtype, columns.shape))
        total = f"{len(columns):,} variables, {size_text(sum(columns.nbytes))}"
        title = f"{self.prefix}: {self.format}{step}"
        return html_table(title, ["name", "tensor"], rows, total)

    def to_dataframe(self) -> pandas.DataFrame:
        """The variables as a pandas.DataFrame, by name; its columns are fields of Variable.

        Raises:
          MissingPackageError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise MissingPackageError(
                "to_dataframe() needs pandas, which is not installed: pip install pandas"
            ) from error
        fields = [field for field in Variable._fields if field not in ("name", "keys", "entry")]
        data = {field: list(getattr(self.columns, field)) for field in fields}
        return pandas.DataFrame(data, index=pandas.Index(self.columns.name, name="name"))

    def export(self, path: str | os.PathLike[str], **options: Any) -> Any:
        """Writes the variables to a `.safetensors` or `.npz` file: export_checkpoint() of this.

        Args:
          path: the new file.
          **options: the keyword arguments of export_checkpoint().

        Returns:
          Its Export.
        """
        # A door above this one, as estimator_ckpt/__init__.py loads doors: when it is asked for.
        door = importlib.import_module("estimator_ckpt.export")
        return door.export_checkpoint(self, path, **options)

    def close(self) -> None:
        """Lets go of the data files. Arrays that were read stay valid."""
        self.reader.close()

    @cached_property
    def _columns_and_format(self) -> tuple[Columns, str]:
        return read_variables(self.index, self.object_graph)

    @property
    def columns(self) -> Columns:
        """The variables by columns, sorted by name: for very many, of which few fields count."""
        return self._columns_and_format[0]

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """The variables by name, sorted by it."""
        with collector_paused():
            return dict(zip(self.columns.name, self.columns.rows()))

    @property
    def format(self) -> str:
        """ "saver" (name-based), "checkpoint" (object-based) or "both"; see read_variables()."""
        if self.object_graph is None and key_bytes(OBJECT_GRAPH_KEY) in self.index.entries:
            return "checkpoint"  # the graph is in the data that is missing
        return self._columns_and_format[1]

    @cached_property
    def _by_other_names(self) -> Mapping[str, Variable]:
        """The variables by their keys, object paths and all names that the graph has for them.

        But those that stand for several tensors, as a lookup table's do.
        """
        found: dict[str, Variable] = {}
        times = Counter(self.columns.object_path)
        for variable in self.variables.values():
            found.update(dict.fromkeys(variable.keys, variable))
            path = variable.object_path
            if path is not None and times[path] == 1:
                found.setdefault(path, variable)
        if self.object_graph is not None:
            for name, values in self.object_graph.names().items():
                keys = {attribute.checkpoint_key for _, attribute in values}
                if len(keys) == 1 and keys <= found.keys():
                    found.setdefault(name, found[keys.pop()])
        return found

    def variable(self, name: str) -> Variable:
        """The variable of that name or key, any object path, any other name in the object graph.

        Raises:
          MissingTensorError: there is none, or several; names them, or the nearest.
        """
        found = self.variables.get(name) or self._by_other_names.get(name)
        if found is None and self.object_graph is not None:
            node = self.object_graph.child_at(parse_path(name))
            keys = (
                [a.checkpoint_key for a in self.object_graph.nodes[node].attributes] if node else []
            )
            found = self._by_other_names.get(keys[0]) if len(keys) == 1 else None
        if found is None:
            near = [one.name for one in self.variables.values() if one.object_path == name]
            near = near or near_names(name, [*self.variables, *self._by_other_names])
            raise MissingTensorError(
                "the checkpoint has no variable or key of that name" + did_you_mean(near),
                path=self.prefix,
                key=name,
            )
        return found

    def get_tensor(self, name: str) -> np.ndarray[Any, Any]:
        """The value of a variable, its checksum verified.

        Args:
          name: a key of the index, or what variable() takes.

        Returns:
          An array of the variable's shape: read-only where it is a view of the file, strings as
          objects of type bytes, bfloat16 and the like in the dtypes of `ml_dtypes`.

        Raises:
          MissingTensorError: there is no such tensor; names the nearest.
          CorruptCheckpointError: its bytes are wrong.
          UnsupportedCheckpointError: NumPy cannot hold its dtype (resource, variant).
        """
        return self.reader.read(self.key_of(name))

    def key_of(self, name: str) -> bytes:
        """The key in the index of what get_tensor() reads.

        Raises:
          MissingTensorError: as get_tensor() does.
        """
        key = key_bytes(name)
        return key if key in self.index.entries else key_bytes(self.variable(name).key)

    @cached_property
    def object_classes(self) -> dict[int, str]:
        """The classes of objects by node id, where Keras of TensorFlow 2.0 has saved them.

        Raises:
          CorruptCheckpointError: what was saved of an object is damaged.
        """
        found = {}
        configs = set(Entries(self.index).configs)
        for number, node in enumerate(
            self.object_graph.nodes if configs and self.object_graph else ()
        ):
            for attribute in node.attributes:
                if attribute.checkpoint_key in configs:
                    text = self.reader.read(key_bytes(attribute.checkpoint_key)).item()
                    with suppress(ValueError, TypeError, KeyError):  # another's JSON, or none
                        found[number] = str(json.loads(text)["class_name"])
        return found

    @cached_property
    def global_step(self) -> int | None:
        """The value of `global_step`, or else of the root object's `step`; None without either.

        Only an integer scalar counts. An optimizer's own count of iterations does not: there may be
        several, and they need not agree.
        """
        if self.data_error is not None:
            return None
        names = self.columns.name
        place = bisect.bisect_left(names, GLOBAL_STEP)
        keys = [self.columns.key[place]] if GLOBAL_STEP in names[place : place + 1] else []
        if self.object_graph is not None:
            node = self.object_graph.child_at((STEP,))
            attributes = self.object_graph.nodes[node].attributes if node else ()
            keys += [attribute.checkpoint_key for attribute in attributes]
        for key in map(key_bytes, keys):
            entry = self.index.entries.get(key)
            if entry and dtype_name(entry.dtype) in ("int32", "int64") and entry.shape == ():
                with suppress(CorruptCheckpointError):  # which read() tells of, too
                    self.reader.check(entry)
                    raw = bytes(self.reader.raw(entry))  # without NumPy, which is slow to import
                    return int.from_bytes(raw, "little", signed=True)
                return int(self.reader.read(key))
        return None


def open_checkpoint(path: str | os.PathLike[str], *, need_data: bool = True) -> Checkpoint:
    """Opens a checkpoint of any format: reads its index and object graph, and no values.

    Args:
      path: a prefix, its `.index`, a model_dir (its newest checkpoint), a SavedModel's directory,
        a Keras `save_weights` prefix, a file in TensorFlow's first format (V1), which opens as a
        name-based one. Remote ones (`gs://`) are read by TensorFlow.
      need_data: False opens an index whose data files are missing or cut off as well, to list what
        it names: by keys, as the object graph is in the data. `data_error` then says what is wrong.

    Raises:
      SettingsError: no path.
      NotACheckpointError: nothing of the kind there; says what was looked for and what is near.
      CorruptCheckpointError: the index or the object graph is broken, a data file is missing or
        too short.
      UnsupportedCheckpointError: big-endian, of a newer format, or compressed in a way that
        TensorFlow does not know.
    """
    path = files.path_text(path)
    prefix = find_prefix(path)
    stamp = files.stamp_or_none(f"{prefix}.index")
    index = read_any_index(prefix)
    graph, data_error = None, None
    try:
        check_data_files(prefix, index)
        graph = read_object_graph(prefix, index)
    except CorruptCheckpointError as error:
        if need_data:
            raise
        data_error = error
    return Checkpoint(path, prefix, index, graph, data_error, stamp)


def read_object_graph(prefix: str, index: Index) -> ObjectGraph | None:
    """The object graph of a checkpoint; None if it is name-based.

    Raises:
      CorruptCheckpointError: it is broken, or not a string scalar.
    """
    entry = index.entries.get(key_bytes(OBJECT_GRAPH_KEY))
    if entry is None:
        return None
    if entry.dtype != STRING or entry.shape != ():
        raise CorruptCheckpointError(
            "expected the object graph, a string scalar, found another tensor",
            path=f"{prefix}.index",
            key=OBJECT_GRAPH_KEY,
        )
    with open_reader(prefix, index) as reader:
        (data,) = reader.strings(entry)
    return ObjectGraph.parse(data, path=prefix)


def check_data_files(prefix: str, index: Index) -> None:
    """Raises CorruptCheckpointError for missing data files, and for those that end too early."""
    if index.v1:
        return  # its files have been read
    paths = [shard_path(prefix, shard, index.num_shards) for shard in range(index.num_shards)]
    if len(paths) > _MANY_SHARDS:
        there = set(files.list_dir(os.path.dirname(prefix) or "."))
        missing = [path for path in paths if os.path.basename(path) not in there]
    else:
        found = zip(paths, files.for_each(files.exists, paths))
        missing = [path for path, is_there in found if not is_there]
    if missing:
        raise CorruptCheckpointError(
            f"{len(missing)} of {counted(len(paths), 'data file')} "
            f"{'is' if len(missing) == 1 else 'are'} missing: {first_names(missing)}",
            path=prefix,
        )
    shards, offsets, sizes = columns_of(index.entries.values(), "shard", "offset", "size")
    ends = [0] * len(paths)
    for shard, end in zip(shards, map(add, offsets, sizes)):
        if end > ends[shard]:
            ends[shard] = end
    for shard, (path, size) in enumerate(zip(paths, files.for_each(files.size, paths))):
        odd = files.oddity(path)
        if odd:
            raise CorruptCheckpointError(f"expected a data file, found {odd}", path=path)
        if ends[shard] > size:
            last = (shard, ends[shard])
            keys = (k for k, e in index.entries.items() if (e.shard, e.offset + e.size) == last)
            raise CorruptCheckpointError(
                f"expected {ends[shard]} bytes or more in the data file, found {size}: cut off",
                path=path,
                key=readable_key(next(keys)),
            )

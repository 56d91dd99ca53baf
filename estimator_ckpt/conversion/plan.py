"""What a conversion does, as data: made first, then checked, then carried out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.dtypes import STRING
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.bundle.slices import key_bytes, slice_key
from estimator_ckpt.bundle.tensors import encode_strings
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.errors import CorruptCheckpointError
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import ObjectPath
from estimator_ckpt.text.html import html_table
from estimator_ckpt.text.names import some_of

FLOAT32 = 1
INT32 = 3
INT64 = 9
_MOST_SHOWN = 10
_FORMATS = {FLOAT32: "<f", 2: "<d", INT32: "<i", INT64: "<q", 19: "<e"}


class Content(NamedTuple):
    """The bytes of a tensor of the result: some of the source's, as they are or computed, or new.

    Attributes:
      source: the key in the source; "" if it is new.
      dtype: in the result, as a number of TensorFlow's.
      shape: of the whole variable.
      nbytes: in the result.
      scale: what every value of the source is multiplied by.
      cast: whether the dtype is another than the source's.
      strict: whether a value that is too small for the dtype is an error.
      value: the bytes, if it is new, as they are stored.
      crc32c: of the value, masked.
    """

    source: str
    dtype: int
    shape: tuple[int, ...]
    nbytes: int
    scale: float = 1.0
    cast: bool = False
    strict: bool = False
    value: bytes = b""
    crc32c: int = 0

    @property
    def computed(self) -> bool:
        """Whether its bytes are not those of the source."""
        return self.cast or self.scale != 1.0


class Slot(NamedTuple):
    """The place of an optimizer's slot.

    Attributes:
      of: the name of its variable.
      optimizer: the path of its optimizer.
      name: which of the slots it is.
      kind: the class of the optimizer.
    """

    of: str
    optimizer: ObjectPath
    name: str
    kind: str


class OptimizerPart(NamedTuple):
    """What a tensor is to an optimizer: one of its slots, or a variable of its own."""

    label: str
    is_slot: bool


class Item(NamedTuple):
    """A tensor on its way from the source to the result.

    Attributes:
      content: its bytes.
      name: its variable name.
      why: the reason for the name, or for its being there.
      node: its object in the source's object graph; -1 if there is none.
      attribute: what that object calls the value.
      suffix: what its key has after the attribute (`-keys` of a lookup table).
      tail: what its name has after the object's name.
      part: of which optimizer it is a part, in the source or by its new name.
      slot: where it is to belong as an optimizer's slot.
      place: its object path, if that does not follow from the name.
      renamed: whether a rule gave it the name.
      in_names: whether a name-based reader is to find it.
      in_objects: whether an object-based reader is to find it.
      key: its key in the source's objects, where that is not the key of its content: an average in
        the place of its variable.
    """

    content: Content
    name: str
    why: str
    node: int = -1
    attribute: str = VARIABLE_VALUE
    suffix: str = ""
    tail: str = ""
    part: OptimizerPart | None = None
    slot: Slot | None = None
    place: ObjectPath | None = None
    renamed: bool = False
    in_names: bool = True
    in_objects: bool = True
    key: str = ""

    @property
    def own_key(self) -> str:
        """Its key in the source; "" if it is new."""
        return self.key or self.content.source

    @property
    def owner(self) -> str:
        """The name of the object that has the value."""
        return self.name[: -len(self.tail)] if self.tail else self.name


class ConversionRow(NamedTuple):
    """One line of a plan: what becomes of one tensor.

    Attributes:
      action: "kept" under a key that it had; "renamed" to others; "added"; "computed" or "cast"
        from the source's values; "left out".
      source: its key in the source; empty if it is added.
      targets: its keys in the result; none if it is left out.
      why: the reason.
      nbytes: its size in the result; in the source, if it is left out.
    """

    action: str
    source: str
    targets: tuple[str, ...]
    why: str
    nbytes: int


class Companion(NamedTuple):
    """What is beside the source's data and index: its `.meta` file, the position of the input.

    Attributes:
      path: in the source.
      how: it went along: "link", "reflink" or "copy"; "same", where it was there already, and in
        place; or "left out".
      why: it was left out, or does not fit the result.
    """

    path: str
    how: str
    why: str


@dataclass(frozen=True)
class Conversion:
    """What a conversion does, or has done.

    Attributes:
      source: the prefix of the checkpoint that is converted.
      destination: the prefix of the result; the same for a conversion in place.
      source_format: "saver", "checkpoint" or "both".
      checkpoint_format: that of the result.
      rows: a line for each tensor.
      written: whether it was carried out; False for a dry run, and where nothing is to be done.
      data_files: how each data file of the result came to be: "link", "reflink", "copy", "write",
        "append" or "same", by its path. In place, "reflink" or "copy" is one with what is new
        appended, in the place of a link.
      verified: how many tensors were read again and compared; None if none were.
      underflows: by their keys in the source, the tensors with values that a cast has made 0, as
        they were too small for the dtype, and how many; known once they are written.
      notes: what the program must see to, for the result to mean the same; and options that found
        nothing to do.
      already: whether nothing was to be done, as the same options made it what it is, in place.
      companions: the `.meta` file and the directory of the input's position, if there are such;
        known once it is written.
    """

    source: str
    destination: str
    source_format: str
    checkpoint_format: CheckpointFormat
    rows: tuple[ConversionRow, ...]
    written: bool = False
    data_files: tuple[tuple[str, str], ...] = ()
    verified: int | None = None
    underflows: tuple[tuple[str, int], ...] = ()
    companions: tuple[Companion, ...] = ()
    notes: tuple[str, ...] = ()
    already: bool = False

    def _repr_html_(self) -> str:
        title = f"{self.source} ({self.source_format}) → {self.destination} "
        rows = (
            (row.action, row.source, " ".join(row.targets), row.why, f"{row.nbytes:,}")
            for row in self.rows
        )
        headers = ["action", "old key", "new key", "why", "bytes"]
        total = "written" if self.written else "a plan: nothing is written"
        if self.already:
            total = "converted by the same options already"
        return html_table(f"{title}({self.checkpoint_format})", headers, rows, total)

    @property
    def warning(self) -> str:
        """What is to be said of the result; empty where there is nothing."""
        return "; ".join(filter(None, (*self.notes, self._underflow)))

    @property
    def _underflow(self) -> str:
        if not self.underflows:
            return ""
        shown = some_of([f"{count:,} of {key}" for key, count in self.underflows], _MOST_SHOWN)
        return f"values too small for their new dtype became 0: {shown}"


def entry_bytes(index: Index, key: str) -> int:
    """The size of a tensor in the data files, with all its slices."""
    entry = index.entries[key_bytes(key)]
    if not entry.slices:
        return entry.size
    return sum(index.entries[slice_key(key, extents)].size for extents in entry.slices)


def source_content(index: Index, key: str, entry: Entry) -> Content:
    """The bytes of a tensor of the source, as they are."""
    nbytes = entry_bytes(index, key) if entry.slices else entry.size
    return Content(key, entry.dtype, entry.shape, nbytes)


def number_content(value: float, dtype: int) -> Content:
    """A new scalar."""
    data = struct.pack(_FORMATS[dtype], value)
    return Content("", dtype, (), len(data), value=data, crc32c=masked_crc32c(data))


def string_content(value: bytes) -> Content:
    """A new string scalar."""
    data, crc = encode_strings([value])
    return Content("", STRING, (), len(data), value=data, crc32c=crc)


ReadNumber = Callable[[Content], float]


def read_number(prefix: str, index: Index, content: Content) -> float:
    """The value of a scalar; an int of an integer dtype.

    Raises:
      CorruptCheckpointError: its bytes are wrong.
    """
    form = _FORMATS[content.dtype]
    if content.value:
        data = content.value
    else:
        entry = index.entries[key_bytes(content.source)]
        with open_reader(prefix, index) as reader:
            try:
                reader.check(entry)
                data = bytes(reader.raw(entry))
            except CorruptCheckpointError as error:
                error.key = content.source
                raise
    value: float = struct.unpack(form, data)[0]
    return value * content.scale if content.scale != 1.0 else value


def is_number(content: Content) -> bool:
    """Whether read_number() can read it."""
    return content.shape == () and content.dtype in _FORMATS and not content.cast


def is_counter(content: Content) -> bool:
    """Whether it is an integer scalar, as steps and counters are."""
    return content.shape == () and content.dtype in (INT32, INT64)

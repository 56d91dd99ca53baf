"""npz files, written and read in a stream: a zip archive of NAME.npy for each array.

Source: numpy/lib/format.py, and savez() and NpzFile in numpy/lib/npyio.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.tensors import numpy_dtype
from estimator_ckpt.errors import CheckpointError, UnsupportedCheckpointError
from estimator_ckpt.exchange.dtypes import NAMES
from estimator_ckpt.exchange.tensors import FileTensor, corrupt

if TYPE_CHECKING:
    import zipfile

_ENDING = ".npy"
_CHUNK = 16 << 20
_LONGEST_COMMENT = (1 << 16) - 1
_NUMBERS = {name: number for number, name in NAMES[".npz"].items()}


def unfit(name: str) -> str:
    """Why an array cannot have this name; empty if it can."""
    if name.endswith(_ENDING):
        return "np.load() takes the ending .npy off a name, and finds another array"
    if "\0" in name or name.startswith("/"):
        return "a zip archive changes such a name"
    return ""


def in_order(tensors: Iterable[FileTensor]) -> list[FileTensor]:
    """The tensors as they stand in a file: by name."""
    return sorted(tensors)


def write(
    file: IO[bytes],
    tensors: Sequence[FileTensor],
    chunks: Mapping[str, Iterable[bytes]],
    metadata: Mapping[str, str],
) -> None:
    """Writes a file; see safetensors.write(). The metadata becomes the archive's comment, as JSON,
    without what makes it longer than a comment can be."""
    import zipfile  # with all that it imports: safetensors files do without

    npy = _npy()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for tensor in tensors:
            member = zipfile.ZipInfo(tensor.name + _ENDING)  # of 1980: one source, one result
            with archive.open(member, "w", force_zip64=True) as stream:
                header = {
                    "descr": npy.dtype_to_descr(numpy_dtype(tensor.dtype)),
                    "fortran_order": False,
                    "shape": tensor.shape,
                }
                npy.write_array_header_1_0(stream, header)
                for chunk in chunks[tensor.name]:
                    stream.write(chunk)
        kept = dict(sorted(metadata.items(), key=lambda item: len(item[1])))
        while len(comment := json.dumps(kept).encode()) > _LONGEST_COMMENT:
            kept.popitem()
        archive.comment = comment


class Member(NamedTuple):
    """An array in an archive, and how its bytes are."""

    tensor: FileTensor
    in_fortran_order: bool
    swapped: bool


def read_header(path: str) -> tuple[dict[str, Member], dict[str, str]]:
    """The arrays of a file by name, and the metadata that write() has put there.

    Raises:
      NotACheckpointError: it cannot be read.
      CorruptCheckpointError: it is no npz file, or is cut off.
      UnsupportedCheckpointError: an array of objects, of text, or of another dtype that only pickle
        or NumPy has.
    """
    found: dict[str, Member] = {}
    with open_archive(path) as archive, _telling(path):
        for info in archive.infolist():
            name = info.filename.removesuffix(_ENDING)
            if name == info.filename:
                raise UnsupportedCheckpointError(
                    f"expected {_ENDING} files alone, as np.savez writes", path=path, key=name
                )
            if name in found:
                raise corrupt("an array stands there twice", path, name)
            with archive.open(info) as stream:
                shape, in_fortran_order, dtype = _read_array_header(stream)
            number = _NUMBERS.get(dtype.newbyteorder("=").name)
            if number is None or dtype.hasobject or dtype.names:
                raise UnsupportedCheckpointError(
                    f"an array of dtype {dtype} cannot be taken into a checkpoint",
                    path=path,
                    key=name,
                )
            tensor = FileTensor(name, number, shape, math.prod(shape) * dtype.itemsize)
            found[name] = Member(tensor, in_fortran_order, dtype.byteorder == ">")
        comment = archive.comment
    try:
        metadata = json.loads(comment or b"{}")
    except (ValueError, RecursionError):
        metadata = {}  # another program's
    return found, metadata if isinstance(metadata, dict) else {}


def read_chunks(archive: zipfile.ZipFile, path: str, member: Member) -> Iterator[bytes]:
    """The bytes of an array, little-endian, the last dimension fastest; 16 MiB at a time.

    The archive is open: to open it is to read the names of all its arrays.

    One in Fortran's order is first laid into a temporary file, if it is larger than that.

    Raises:
      CorruptCheckpointError: the file is cut off, or a checksum is wrong.
    """
    import numpy as np

    tensor = member.tensor
    dtype = numpy_dtype(tensor.dtype)
    if member.swapped:
        dtype = dtype.newbyteorder(">")
    with _telling(path), archive.open(tensor.name + _ENDING) as stream:
        _read_array_header(stream)
        stored = _stored_chunks(stream, tensor, dtype.itemsize, path)
        if member.in_fortran_order:
            with tempfile.SpooledTemporaryFile(_CHUNK) as turned:
                turned.writelines(stored)
                yield from _turned(turned, tensor.shape, dtype)
            return
        for chunk in stored:
            if member.swapped:
                chunk = np.frombuffer(chunk, dtype).astype(dtype.newbyteorder("<")).tobytes()
            yield chunk


def _stored_chunks(
    stream: IO[bytes], tensor: FileTensor, itemsize: int, path: str
) -> Iterator[bytes]:
    """The bytes of an array as they are stored; its end, and so its checksum, is looked at."""
    left = tensor.nbytes
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk or len(chunk) % itemsize:
            raise corrupt(f"{left} bytes are missing at its end", path, tensor.name)
        left -= len(chunk)
        yield chunk
    if stream.read(1):
        raise corrupt("bytes are left behind its values", path, tensor.name)


def _turned(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> Iterator[bytes]:
    """What a file has in Fortran's order, in C's, little-endian."""
    import numpy as np

    if math.prod(shape) * dtype.itemsize <= _CHUNK:
        file.seek(0)
        array = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
    else:
        array = np.memmap(file, dtype, "r", shape=shape, order="F")
    for block in _blocks(array):
        yield block.astype(dtype.newbyteorder("<"), copy=False).tobytes(order="C")


def _blocks(array: Any) -> Iterator[Any]:
    """An array in parts of 16 MiB at most, in C's order."""
    if array.nbytes <= _CHUNK:
        yield array
        return
    if array[0].nbytes > _CHUNK:
        for part in array:
            yield from _blocks(part)
        return
    step = _CHUNK // array[0].nbytes
    for start in range(0, len(array), step):
        yield array[start : start + step]


@contextlib.contextmanager
def open_archive(path: str) -> Iterator[zipfile.ZipFile]:
    """The file, open for reading.

    Raises:
      NotACheckpointError: it cannot be read.
      CorruptCheckpointError: it is no npz file.
    """
    import zipfile

    with files.open_read(path) as file:
        with _telling(path):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Says of which file it is what reading it has raised."""
    import zipfile

    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise corrupt(f"no npz file, or a broken one: {error}", path) from error


def _read_array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    npy = _npy()
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, in_fortran_order, dtype = read(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"shape is not valid: {shape}")
    return shape, in_fortran_order, dtype


def _npy() -> Any:
    import numpy as np

    return np.lib.format  # which has no types

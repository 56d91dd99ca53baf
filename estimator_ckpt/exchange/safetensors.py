"""Safetensors files, written and read in a stream: the library holds a whole file in memory.

    file   = length of the header (8 bytes, little-endian), header, data
    header = JSON: {"__metadata__": {text: text}, NAME: {"dtype", "shape", "data_offsets"}, ...},
             ended by spaces to a multiple of 8 bytes
    data   = the tensors without a gap, little-endian, each at its [start, end) from the header on

Source: the README of huggingface/safetensors, and `SafeTensors::deserialize` and `serialize` there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from estimator_ckpt import files
from estimator_ckpt.bundle.dtypes import dtype_size
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.exchange.dtypes import NAMES
from estimator_ckpt.exchange.tensors import FileTensor, corrupt

_METADATA = "__metadata__"
_LARGEST_HEADER = 100_000_000  # MAX_HEADER_SIZE there
_CHUNK = 16 << 20
_TO_NAME = NAMES[".safetensors"]
_FROM_NAME = {name: number for number, name in _TO_NAME.items()}


def unfit(name: str) -> str:
    """Why a tensor cannot have this name; empty if it can."""
    if name == _METADATA:
        return "a safetensors file has its metadata under this name"
    return ""


def in_order(tensors: Iterable[FileTensor]) -> list[FileTensor]:
    """The tensors as they stand in a file: the widest dtypes first, so that all are aligned."""
    return sorted(tensors, key=lambda tensor: (-(dtype_size(tensor.dtype) or 0), tensor.name))


def write(
    file: IO[bytes],
    tensors: Sequence[FileTensor],
    chunks: Mapping[str, Iterable[bytes]],
    metadata: Mapping[str, str],
) -> None:
    """Writes a file.

    Args:
      file: to write to.
      tensors: as in_order() has them.
      chunks: the bytes of each, by name; taken one after the other.
      metadata: what the header says of the whole.

    Raises:
      SettingsError: the header would be longer than the library reads.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _TO_NAME[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LARGEST_HEADER:
        raise SettingsError(
            f"the header would have {len(text)} bytes, and readers take {_LARGEST_HEADER}; export "
            "fewer variables to a file (exclude)"
        )
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        for chunk in chunks[tensor.name]:
            file.write(chunk)


def read_header(path: str) -> tuple[dict[str, tuple[FileTensor, int]], dict[str, str]]:
    """The tensors of a file, each with the place of its first byte, and the metadata.

    Raises:
      NotACheckpointError: it cannot be read.
      CorruptCheckpointError: it is no safetensors file, or is cut off.
      UnsupportedCheckpointError: a dtype that TensorFlow has not.
    """
    size = files.size(path)
    length = int.from_bytes(files.read_range(path, 0, 8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _LARGEST_HEADER):
        raise corrupt(
            f"expected a header within the {size} bytes of a safetensors file, found one of "
            f"{length} bytes",
            path,
        )
    try:
        header = json.loads(files.read_range(path, 8, length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"the header is not the JSON of a safetensors file: {error}", path) from error
    if not isinstance(header, dict):
        raise corrupt("the header is no JSON object", path)
    metadata = header.pop(_METADATA, None)
    if metadata is None:  # the library takes null for none
        metadata = {}
    if not isinstance(metadata, dict):
        raise corrupt("the metadata is no JSON object", path)
    found = {name: _tensor(name, facts, path) for name, facts in header.items()}
    end = 0
    for tensor, start in sorted(found.values(), key=lambda one: (one[1], one[0].nbytes)):
        if start != end:
            raise corrupt(f"expected its bytes at {end}, found them at {start}", path, tensor.name)
        end += tensor.nbytes
    if end != size - 8 - length:
        raise corrupt(f"expected {end} bytes of tensors, found {size - 8 - length}", path)
    return {name: (one, 8 + length + start) for name, (one, start) in found.items()}, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _tensor(name: str, facts: Any, path: str) -> tuple[FileTensor, int]:
    facts = facts if isinstance(facts, dict) else {}
    dtype, shape, offsets = (facts.get(key) for key in ("dtype", "shape", "data_offsets"))
    counts = [*(shape if isinstance(shape, list) else [-1])]
    counts += offsets if isinstance(offsets, list) and len(offsets) == 2 else [-1]
    if not isinstance(dtype, str) or any(type(n) is not int or n < 0 for n in counts):
        raise corrupt(
            f"expected dtype, shape and data_offsets of a tensor, found {facts}", path, name
        )
    if dtype not in _FROM_NAME:
        raise UnsupportedCheckpointError(
            f"TensorFlow checkpoints have no dtype {dtype}", path=path, key=name
        )
    number = _FROM_NAME[dtype]
    start, end = counts[-2:]
    nbytes = math.prod(counts[:-2]) * (dtype_size(number) or 0)
    if end - start != nbytes:
        raise corrupt(
            f"expected {nbytes} bytes of {dtype}{counts[:-2]}, found {end - start}", path, name
        )
    return FileTensor(name, number, tuple(counts[:-2]), nbytes), start


def read_chunks(path: str, start: int, nbytes: int) -> Iterator[bytes]:
    """The bytes of a tensor, 16 MiB at a time.

    Raises:
      CorruptCheckpointError: the file has become shorter.
    """
    with files.open_read(path) as file:
        file.seek(start)
        while nbytes:
            chunk = file.read(min(_CHUNK, nbytes))
            if not chunk:
                raise corrupt(f"{nbytes} bytes are missing at its end", path)
            nbytes -= len(chunk)
            yield chunk

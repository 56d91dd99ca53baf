"""How far the values of one tensor differ between two checkpoints; chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estimator_ckpt.bundle.dtypes import STRING, dtype_size
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.slices import Extents, key_bytes, slice_key, slice_shape
from estimator_ckpt.bundle.tensors import TensorReader, numpy_dtype
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CorruptCheckpointError, UnsupportedCheckpointError
from estimator_ckpt.reading.variables import Variable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CHUNK = 1 << 20  # values
_SMALL = 1 << 20  # bytes
_WIDE = {"b": "u8", "i": "i8", "u": "u8", "f": "f8", "c": "c16"}


@dataclass(frozen=True)
class Difference:
    """How the values x of a variable in A and y in B differ.

    Attributes:
      count: how many values it has.
      differing: how many differ: in a bit, or by more than the tolerances if some are given; or
        are in the slices of one of the two alone.
      max_abs: the largest |x - y| that is finite; None where values cannot be subtracted (strings,
        variants, dtypes that NumPy lacks).
      max_rel: the largest |x - y| / max(|x|, |y|) that is finite; None likewise.
      nan_a: how many NaN are in A.
      nan_b: how many NaN are in B.
      inf_a: how many infinities are in A.
      inf_b: how many infinities are in B.
    """

    count: int
    differing: int
    max_abs: float | None = None
    max_rel: float | None = None
    nan_a: int = 0
    nan_b: int = 0
    inf_a: int = 0
    inf_b: int = 0


def difference(
    a: Checkpoint,
    x: Variable,
    b: Checkpoint,
    y: Variable,
    *,
    readers: tuple[TensorReader, TensorReader],
    rtol: float = 0.0,
    atol: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Difference | None:
    """How variable `x` of `a` differs from `y` of `b`, which has its dtype and shape.

    Args:
      a: checkpoint A.
      x: its variable.
      b: checkpoint B.
      y: its variable.
      readers: of A and of B, which may expect the entries of variables that are whole in both.
      rtol: see compare_checkpoints().
      atol: see compare_checkpoints().
      progress: called with the bytes compared so far.

    Returns:
      None if all bits are the same.

    Raises:
      CorruptCheckpointError: the bits differ, but not all of them are what was once saved.
    """
    reader, other_reader = readers if are_whole(x, y) else (a.reader, b.reader)
    if x.entry.dtype == STRING:
        return _string_difference(
            reader.read(key_bytes(x.key)), other_reader.read(key_bytes(y.key))
        )
    if dtype_size(x.entry.dtype) is None:
        count = math.prod(x.shape)
        same = _raw(reader, a, x) == _raw(other_reader, b, y)
        return None if same else Difference(count, count)
    # Without NumPy, which takes longer to import.
    is_small = are_whole(x, y) and x.nbytes <= _SMALL
    if is_small and bytes(reader.raw(x.entry)) == bytes(other_reader.raw(y.entry)):
        if progress:
            progress(x.nbytes)
        return None
    alone = _in_one_only(a, x, b, y)
    done = 0
    for one, other in _chunks((reader, other_reader), a, x, b, y):
        if not _same_bits(one, other):
            break
        done += one.nbytes
        if progress:
            progress(done)
    else:
        if not alone:
            return None
    for checkpoint, variable in ((a, x), (b, y)):
        _verify(checkpoint, variable)
    again = _chunks((a.reader, b.reader), a, x, b, y)
    found = [_statistics(one, other, rtol, atol) for one, other in again]
    numeric = _has_numbers(x.entry.dtype)
    return Difference(
        count=sum(chunk.count for chunk in found) + alone,
        differing=sum(chunk.differing for chunk in found) + alone,
        max_abs=max((chunk.max_abs or 0.0 for chunk in found), default=0.0) if numeric else None,
        max_rel=max((chunk.max_rel or 0.0 for chunk in found), default=0.0) if numeric else None,
        nan_a=sum(chunk.nan_a for chunk in found),
        nan_b=sum(chunk.nan_b for chunk in found),
        inf_a=sum(chunk.inf_a for chunk in found),
        inf_b=sum(chunk.inf_b for chunk in found),
    )


def are_whole(x: Variable, y: Variable) -> bool:
    """Whether neither is partitioned."""
    return not (x.slices or y.slices)


def _string_difference(one: Array, other: Array) -> Difference | None:
    differing = int((one != other).sum()) if one.size else 0
    return Difference(one.size, differing) if differing else None


def _raw(
    reader: TensorReader, checkpoint: Checkpoint, variable: Variable
) -> list[tuple[Extents, memoryview]]:
    return [(box, reader.raw(entry)) for box, entry in entries_of(checkpoint, variable)]


def _verify(checkpoint: Checkpoint, variable: Variable) -> None:
    """Raises CorruptCheckpointError unless the values are those that were saved."""
    for _, entry in entries_of(checkpoint, variable):
        try:
            checkpoint.reader.check(entry)
        except CorruptCheckpointError as error:
            raise CorruptCheckpointError(error.message, path=error.path, key=variable.key) from None


def entries_of(checkpoint: Checkpoint, variable: Variable) -> list[tuple[Extents, Entry]]:
    """The slices of a variable with their extents; one for a variable that is whole."""
    if not variable.entry.slices:
        return [(tuple((0, size) for size in variable.shape), variable.entry)]
    found = []
    for extents in variable.entry.slices:
        lengths = slice_shape(variable.shape, extents)
        box = tuple((start, length) for (start, _), length in zip(extents, lengths))
        found.append((box, checkpoint.index.entries[slice_key(variable.key, extents)]))
    return found


def _has_numbers(dtype: int) -> bool:
    try:
        return numpy_dtype(dtype).kind != "O"
    except UnsupportedCheckpointError:
        return False


def _numpy_dtype(dtype: int) -> np.dtype[Any]:
    """That of the values; where NumPy lacks it, integers with their bits."""
    import numpy as np

    return numpy_dtype(dtype) if _has_numbers(dtype) else np.dtype(f"u{dtype_size(dtype)}")


def _arrays(
    reader: TensorReader, checkpoint: Checkpoint, variable: Variable
) -> list[tuple[Extents, Array]]:
    """The slices as views of the file; where NumPy lacks the dtype, its bits as integers."""
    import numpy as np

    dtype = _numpy_dtype(variable.entry.dtype)
    return [
        (box, np.ndarray([length for _, length in box], dtype, raw))
        for box, raw in _raw(reader, checkpoint, variable)
    ]


def _chunks(
    readers: tuple[TensorReader, TensorReader],
    a: Checkpoint,
    x: Variable,
    b: Checkpoint,
    y: Variable,
) -> Iterator[tuple[Array, Array]]:
    """Corresponding values of both, flat, in chunks, however each is partitioned."""
    import numpy as np

    if are_whole(x, y):
        dtype = _numpy_dtype(x.entry.dtype)
        for chunk, other in zip(readers[0].chunks(x.entry), readers[1].chunks(y.entry)):
            yield np.frombuffer(chunk, dtype), np.frombuffer(other, dtype)
        return
    ours, theirs = _arrays(readers[0], a, x), _arrays(readers[1], b, y)
    for cut, n, m in _meetings([box for box, _ in ours], [box for box, _ in theirs]):
        pair = (
            array[tuple(slice(i - start, j - start) for (i, j), (start, _) in zip(cut, box))]
            for box, array in (ours[n], theirs[m])
        )
        yield from _pieces(*pair)


def _meetings(
    boxes: list[Extents], others: list[Extents]
) -> Iterator[tuple[list[tuple[int, int]], int, int]]:
    """Where slices of both meet: start and end of each dimension, and the numbers of the two."""
    for n, box in enumerate(boxes):
        for m, other in enumerate(others):
            cut = [(max(s, t), min(s + k, t + j)) for (s, k), (t, j) in zip(box, other)]
            if all(start < end for start, end in cut):
                yield cut, n, m


def _pieces(one: Array, other: Array) -> Iterator[tuple[Array, Array]]:
    """Two arrays of one shape in flat chunks; not copied where they are contiguous."""
    import numpy as np

    if one.flags.c_contiguous and other.flags.c_contiguous:
        one, other = one.reshape(-1), other.reshape(-1)
    if one.ndim > 1 and one[0].size > _CHUNK:
        for row, other_row in zip(one, other):
            yield from _pieces(row, other_row)
        return
    step = max(1, _CHUNK // one[0].size)
    for start in range(0, len(one), step):
        part, other_part = one[start : start + step], other[start : start + step]
        yield np.ascontiguousarray(part).reshape(-1), np.ascontiguousarray(other_part).reshape(-1)


def _in_one_only(a: Checkpoint, x: Variable, b: Checkpoint, y: Variable) -> int:
    """How many values are in one of the two alone, as slices need not cover a variable."""
    if not (x.slices or y.slices):
        return 0
    boxes, others = ([box for box, _ in entries_of(*one)] for one in ((a, x), (b, y)))
    both = sum(
        math.prod(end - start for start, end in cut) for cut, _, _ in _meetings(boxes, others)
    )
    return sum(math.prod(length for _, length in box) for box in boxes + others) - 2 * both


def _same_bits(one: Array, other: Array) -> bool:
    import numpy as np

    width = "u8" if one.nbytes % 8 == 0 else "u1"
    return bool(np.array_equal(one.view(width), other.view(width)))


def _statistics(one: Array, other: Array, rtol: float, atol: float) -> Difference:
    import numpy as np

    rows = (len(one), -1)
    differs = (one.view("u1").reshape(rows) != other.view("u1").reshape(rows)).any(axis=1)
    if one.dtype.kind not in _WIDE:  # bfloat16, float8, int4: a float32 has each of their values
        one, other = one.astype("f4"), other.astype("f4")
    x, y = (values.astype(_WIDE[values.dtype.kind]) for values in (one, other))
    with np.errstate(all="ignore"):
        if x.dtype.kind in "iu":
            # Modulo 2**64, which is exact: a float64 is not for large integers.
            distance = (np.maximum(x, y).view("u8") - np.minimum(x, y).view("u8")).astype("f8")
            x, y = x.astype("f8"), y.astype("f8")
        else:
            distance = np.abs(x - y)
        largest = np.maximum(np.abs(x), np.abs(y))
        relative = distance / largest
        if np.isinf(distance).any():  # two finite numbers may be further apart than the largest
            beyond = np.isinf(distance) & np.isfinite(largest)
            distance[beyond] = np.finfo(np.float64).max
            relative[beyond] = np.abs(x[beyond] / largest[beyond] - y[beyond] / largest[beyond])
        if rtol or atol:
            near = np.isfinite(distance) & (distance <= atol + rtol * np.abs(y))
            differs &= ~(near | (x == y) | (np.isnan(x) & np.isnan(y)))
    return Difference(
        count=len(one),
        differing=int(differs.sum()),
        max_abs=float(distance.max(initial=0.0, where=np.isfinite(distance))),
        max_rel=float(relative.max(initial=0.0, where=np.isfinite(relative))),
        nan_a=int(np.isnan(x).sum()),
        nan_b=int(np.isnan(y).sum()),
        inf_a=int(np.isinf(x).sum()),
        inf_b=int(np.isinf(y).sum()),
    )

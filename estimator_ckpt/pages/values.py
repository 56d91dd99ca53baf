"""The views of values: one checkpoint's distributions, and how two checkpoints differ.

A tensor is taken a million values at a time; complex numbers are spread by their magnitude.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.compare import Compared, Comparison
from estimator_ckpt.errors import UnsupportedCheckpointError, printable
from estimator_ckpt.files import Progress
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.quantities import tensor_text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BINS = 32
_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,18})(?![0-9])")  # int() refuses thousands of digits
_CHUNK = 1 << 20  # values


@dataclass(frozen=True)
class Spread:
    """How the values of a tensor are spread.

    Attributes:
      count: how many values it has.
      zeros: how many are 0.
      nan: how many are NaN.
      infinite: how many are infinite.
      norm: the square root of the sum of the squares of the finite ones.
      low: the smallest finite value; None where there is none.
      high: the largest.
    """

    count: int
    zeros: int
    nan: int
    infinite: int
    norm: float
    low: float | None
    high: float | None


def values_view(checkpoint: Checkpoint, progress: Progress = None) -> dict[str, Any]:
    """The view "values": histogram, zeros, NaN and norm of each variable with numbers.

    Args:
      checkpoint: open.
      progress: called with the bytes read so far and the bytes in all.

    Raises:
      CorruptCheckpointError: the bytes of a variable are wrong.
    """
    rows: list[list[Any]] = []
    left_out = []
    done, total = 0, sum(checkpoint.columns.nbytes)
    for one in checkpoint.variables.values():
        array = _numbers(checkpoint, one)
        if array is None:
            left_out.append(printable(one.name))
        else:
            spread = spread_of(array)
            counts = histogram(array, spread.low, spread.high)
            tensor = tensor_text(one.dtype, one.shape)
            rows.append([printable(one.name), tensor, _json(spread), counts])
        done += one.nbytes
        if progress:
            progress(done, total)
    return {
        "view": "values",
        "prefix": printable(checkpoint.prefix),
        "rows": rows,
        "left_out": left_out,
    }


def changes_view(
    a: Checkpoint, b: Checkpoint, comparison: Comparison, progress: Progress = None
) -> dict[str, Any]:
    """The view "changes" of two open checkpoints that were compared.

    For each variable that differs the norm of the difference over that of A's values, both of the
    finite ones, and the histograms of both over one range. In the order of the layers: of names as
    a person counts, `layer_2` before `layer_10`.

    Args:
      a: open.
      b: open.
      comparison: of the two.
      progress: called with the bytes of A read so far, and the bytes in all: what differs is read
        once more.
    """
    changed = [one for one in comparison.variables if one.status != "same"]
    total = sum(one.a.nbytes for one in changed if one.a)
    done = 0
    rows = []
    for one in sorted(changed, key=_as_counted):
        rows.append(_change(a, b, one))
        done += one.a.nbytes if one.a else 0
        if progress:
            progress(done, total)
    same = sum(one.status == "same" for one in comparison.variables)
    return {
        "view": "changes",
        "a": printable(a.prefix),
        "b": printable(b.prefix),
        "same": same,
        "rows": rows,
        "notes": list(map(printable, comparison.notes)),
    }


def _as_counted(one: Compared) -> list[tuple[int, str]]:
    """The parts of a name, of which those that are numbers are ordered by their size."""
    parts = enumerate(_NUMBER.split(one.name))
    return [(int(part), "") if index % 2 else (-1, part) for index, part in parts]


def _change(a: Checkpoint, b: Checkpoint, one: Compared) -> dict[str, Any]:
    found: dict[str, Any] = {"name": printable(one.name), "status": one.status}
    for side, variable in (("a", one.a), ("b", one.b)):
        found[side] = variable and tensor_text(variable.dtype, variable.shape)
    if one.difference is None or one.a is None or one.b is None:
        return found
    x, y = _numbers(a, one.a), _numbers(b, one.b)
    found["differing"], found["count"] = one.difference.differing, one.difference.count
    if x is None or y is None:
        return found
    before, after = spread_of(x), spread_of(y)
    low, high = _range(before, after)
    half = _half_distance(x, y)
    found.update(
        relative=_shown(2 * (half / before.norm)) if before.norm else None,
        before=_json(before),
        after=_json(after),
        counts=[histogram(x, low, high), histogram(y, low, high)],
        range=[_shown(low), _shown(high)],
    )
    return found


def spread_of(array: Array) -> Spread:
    """How the values of an array are spread."""
    import numpy as np

    zeros = nan = infinite = 0
    squares, lows, highs = [], [], []
    for chunk in _chunks(array):
        zeros += chunk.size - int(np.count_nonzero(chunk))
        finite = _finite(chunk)
        if finite.size < chunk.size:
            missing = int(np.isnan(chunk).sum())
            nan += missing
            infinite += chunk.size - finite.size - missing
        if finite.size:
            lows.append(low := float(finite.min()))
            highs.append(high := float(finite.max()))
            # Scaled, as the squares of the largest float64 overflow.
            largest = max(-low, high) or 1.0
            scaled = finite / largest
            squares.append((largest, float(scaled @ scaled)))
    scale = max((largest for largest, _ in squares), default=1.0)
    norm = scale * math.sqrt(math.fsum(part * (own / scale) ** 2 for own, part in squares))
    return Spread(
        array.size, zeros, nan, infinite, norm, min(lows, default=None), max(highs, default=None)
    )


def histogram(array: Array, low: float | None, high: float | None) -> list[int]:
    """How many of the finite values are in each of BINS equal parts of the range.

    Where the range is one value, or too wide for a float64, all are in the first part.
    """
    import numpy as np

    if low is None or high is None:
        return []
    if low == high or not math.isfinite(high - low):
        count = sum(_finite(chunk).size for chunk in _chunks(array))
        return [count] + [0] * (BINS - 1)
    # As np.histogram(), which takes three times as long for the few values that most tensors have.
    edges = np.arange(BINS + 1) * ((high - low) / BINS) + low
    edges[-1] = high
    # So few numbers may lie in the range that some parts have none; NumPy refuses that.
    is_narrow = bool((edges[1:] <= edges[:-1]).any())
    counts = np.zeros(BINS, np.int64)
    for chunk in _chunks(array):
        finite = _finite(chunk)
        parts = np.minimum(((finite - low) / (high - low) * BINS).astype(np.int64), BINS - 1)
        if not is_narrow:
            parts -= finite < edges[parts]
            parts += (finite >= edges[parts + 1]) & (parts != BINS - 1)
        counts += np.bincount(parts, minlength=BINS)
    return counts.tolist()  # type: ignore[no-any-return]


def _finite(chunk: Array) -> Array:
    import numpy as np

    is_finite = np.isfinite(chunk)
    return chunk if is_finite.all() else chunk[is_finite]


def _range(before: Spread, after: Spread) -> tuple[float | None, float | None]:
    lows = [one.low for one in (before, after) if one.low is not None]
    highs = [one.high for one in (before, after) if one.high is not None]
    return min(lows, default=None), max(highs, default=None)


def _half_distance(x: Array, y: Array) -> float:
    """Half the norm of y - x: the difference of two float64s can be too large for a float64."""
    import numpy as np

    norms = []
    for start in range(0, x.size, _CHUNK):
        ours, theirs = (
            side[start : start + _CHUNK].astype("c16" if side.dtype.kind == "c" else "f8")
            for side in (x, y)
        )
        with np.errstate(all="ignore"):
            norms.append(spread_of(theirs / 2 - ours / 2).norm)
    return math.hypot(*norms)


def _numbers(checkpoint: Checkpoint, variable: Variable) -> Array | None:
    """The values, flat; None of strings and of what NumPy cannot hold."""
    try:
        array = checkpoint.get_tensor(variable.key)
    except UnsupportedCheckpointError:
        return None
    return None if array.dtype == object else array.reshape(-1)


def number_chunks(array: Array) -> Iterator[Array]:
    """The values, flat, a million at a time, as numbers that NumPy can order and add: integers as
    they are, all others as float64."""
    import numpy as np

    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if chunk.dtype.kind == "b":
            chunk = chunk.astype("u1")
        elif chunk.dtype.kind == "c":
            chunk = np.abs(chunk)
        elif chunk.dtype.kind not in "iu":  # float16 would overflow; bfloat16, int4
            chunk = chunk.astype("f8")
        yield chunk


def _chunks(array: Array) -> Iterator[Array]:
    return (chunk.astype("f8", copy=False) for chunk in number_chunks(array))


def _json(spread: Spread) -> dict[str, Any]:
    """Its fields, numbers as far as they are shown."""
    shown = {name: _shown(getattr(spread, name)) for name in ("norm", "low", "high")}
    return {**vars(spread), **shown}


def _shown(value: float | None) -> float | None:
    """Six digits of it; None of what no JSON number is."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None

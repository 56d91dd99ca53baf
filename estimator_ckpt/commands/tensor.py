"""One value of a checkpoint: its statistics, its numbers."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.cli import UsageError
from estimator_ckpt.errors import UnsupportedCheckpointError, printable
from estimator_ckpt.pages.values import histogram, number_chunks
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.quantities import size_text, tensor_text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LARGE = 64 << 20  # bytes; less is read in half a second
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def set_print_options(options: Iterable[str]) -> None:
    """Applies NAME=VALUE pairs to numpy.set_printoptions().

    Raises:
      UsageError: NumPy has no such option, or not of that kind.
    """
    import numpy as np

    for option in options:
        name, equals, text = option.partition("=")
        known: Any = np.get_printoptions()
        if not equals or name not in known:
            raise UsageError(
                f"--printoptions: expected NAME=VALUE with a name of {', '.join(sorted(known))}, "
                f"found {option!r}"
            )
        try:
            changes: Any = {name: _option_value(text, known[name])}
            with np.printoptions(**changes):
                str(np.zeros(1))  # NumPy looks at some options only now
            np.set_printoptions(**changes)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--printoptions: {option!r}: {error}") from None


def _option_value(text: str, known: Any) -> Any:
    if known is None:  # a formatter: no text is one
        raise ValueError("cannot be set by a flag")
    if not isinstance(known, bool):
        return type(known)(text)
    if text.lower() not in _BOOLEANS:
        raise ValueError("expected true or false")
    return _BOOLEANS[text.lower()]


def print_tensors(
    checkpoint: Checkpoint, variables: Iterable[Variable], *, values: bool, as_json: bool
) -> None:
    """Prints each variable: what it is, its statistics, and its values if asked for."""
    found = []
    for one in variables:
        array: Array | None = None
        reason = ""
        try:
            with progress_bar("reading") if one.nbytes > _LARGE else contextlib.nullcontext():
                array = checkpoint.get_tensor(one.key)
                facts = statistics(array)
        except UnsupportedCheckpointError as error:  # NumPy lacks the dtype, or values are missing
            facts, reason = {}, error.message
        if as_json:
            fields = {**one.to_json(), "statistics": {k: _json_value(v) for k, v in facts.items()}}
            if values:
                fields["values"] = None if array is None else _json_values(array)
            found.append(fields)
        else:
            bars = ""
            if array is not None and "min" in facts and _draws_blocks():
                bars = _bars(array, facts["min"], facts["max"])
            _print_tensor(one, facts, reason, bars, array if values else None)
    if as_json:
        print(json.dumps(found, indent=2))


def _print_tensor(
    one: Variable, facts: dict[str, float], reason: str, bars: str, array: Array | None
) -> None:
    size = size_text(one.nbytes)
    print(f"tensor: {printable(one.name)}  {tensor_text(one.dtype, one.shape)}  {size}")
    lines = [("key", printable(key)) for key in one.keys if key != one.name]
    if one.slices:
        lines.append(("slices", str(one.slices)))
    if one.slot_of is not None:
        lines.append(("slot", f"{printable(str(one.slot_name))} of {printable(one.slot_of)}"))
    if reason:
        lines.append(("not shown", reason))
    lines += [
        (name, f"{value:,}" if isinstance(value, int) else f"{value:.9g}")
        for name, value in facts.items()
    ]
    if bars:
        lines.append(("histogram", bars))
    for name, text in lines:
        print(f"  {name + ':':<10} {text}")
    if array is not None:
        print(array)


def _draws_blocks() -> bool:
    """Whether the output is a terminal that can show block characters."""
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")


def _bars(array: Array, low: float, high: float) -> str:
    """How many values are in each of 32 equal parts of the range, as blocks of that height."""
    counts = histogram(array.reshape(-1), low, high)
    steps = [math.ceil((len(_BLOCKS) - 1) * count / max(counts)) for count in counts]
    return "".join(_BLOCKS[step] for step in steps)


def statistics(array: Array) -> dict[str, float]:
    """min, max, mean and std of the finite values, and how many are NaN or infinite.

    Of complex values those of the magnitudes; of strings the shortest and the longest length, in
    bytes. Takes a million values at a time.
    """
    if array.dtype == object:
        lengths = [len(value) for value in array.reshape(-1)]
        return {"shortest": min(lengths), "longest": max(lengths)} if lengths else {}
    import numpy as np

    nan = infinite = count = 0
    sums: list[float] = []
    lowest: list[float] = []
    highest: list[float] = []
    for chunk in number_chunks(array):
        finite = chunk[np.isfinite(chunk)]
        nan += int(np.isnan(chunk).sum())
        infinite += int(np.isinf(chunk).sum())
        if finite.size:
            count += finite.size
            with np.errstate(over="ignore"):
                sums.append(float(finite.sum(dtype=np.float64)))
            lowest.append(finite.min().item())
            highest.append(finite.max().item())
    facts: dict[str, float] = {}
    if count:
        low, high = min(lowest), max(highest)
        # Of the largest float64 the squares would overflow, and the sums.
        scale = 1.0 if max(-low, high) < 2.0**450 else 2.0**-600
        if scale < 1:
            sums = [float(chunk.sum()) for chunk in _finite_chunks(array, scale)]
        mean = math.fsum(sums) / count
        squares = (float(((chunk - mean) ** 2).sum()) for chunk in _finite_chunks(array, scale))
        std = math.sqrt(math.fsum(squares) / count)
        facts = {"min": low, "max": high, "mean": mean / scale, "std": std / scale}
    return {**facts, "NaN": nan, "Inf": infinite} if array.dtype.kind not in "biu" else facts


def _finite_chunks(array: Array, scale: float) -> Iterator[Array]:
    """The finite values as float64, times `scale`."""
    import numpy as np

    for chunk in number_chunks(array):
        finite = chunk[np.isfinite(chunk)].astype("f8")
        yield finite if scale == 1 else finite * scale


def _json_value(value: Any) -> Any:
    """A number, or the text of what JSON has no number for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, complex):
        return [_json_value(value.real), _json_value(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _json_values(array: Array) -> Any:
    """Nested lists of the values; a scalar by itself."""
    if array.dtype.isbuiltin != 1:  # bfloat16 and the like
        array = array.astype("f8")

    def nested(value: Any) -> Any:
        return [nested(one) for one in value] if isinstance(value, list) else _json_value(value)

    return nested(array.tolist())

"""A count, a size, a tensor's type as text."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """`1 variable`, `1,024 variables`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(nbytes: int) -> str:
    """`0 B`, `340 B`, `1.2 kB`, `31.5 GB`: powers of 1000, as disks and `ls --si` count."""
    if nbytes < 1000:
        return f"{nbytes} B"
    units = iter(("kB", "MB", "GB", "TB"))
    value, unit = nbytes / 1000, next(units)
    while value >= 999.95 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def tensor_text(dtype: str, shape: Iterable[int] | None) -> str:
    """`float32[3,4]`; `float32[?]` where the shape is not known."""
    return f"{dtype}[{'?' if shape is None else ','.join(map(str, shape))}]"

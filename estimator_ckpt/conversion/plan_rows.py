"""The lines of a plan: what becomes of each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from estimator_ckpt.bulk import columns_of, from_columns
from estimator_ckpt.conversion.plan import Content, ConversionRow


def rows_of(
    contents: Sequence[Content], targets: Sequence[tuple[str, ...]], whys: Iterable[str]
) -> Iterator[ConversionRow]:
    """A line for each tensor; `targets` are its keys in the result."""
    sources, nbytes = columns_of(contents, "source", "nbytes")
    actions = map(_action, contents, targets)
    return from_columns(ConversionRow, actions, sources, targets, whys, nbytes)


def row_of(content: Content, targets: tuple[str, ...], why: str) -> ConversionRow:
    return next(rows_of([content], [targets], [why]))


def _action(content: Content, targets: tuple[str, ...]) -> str:
    if not targets:
        return "left out"
    if not content.source:
        return "added"
    if content.cast:
        return "cast"
    if content.scale != 1.0:
        return "computed"
    return "kept" if content.source in targets else "renamed"

"""Two checkpoints of any format, tensor by tensor."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.checking.difference import Difference, are_whole, difference
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.files import Progress
from estimator_ckpt.objects.object_graph import BEFORE_ATTRIBUTE, SAVE_COUNTER
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.html import html_table
from estimator_ckpt.text.names import first_names
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row, columns, fold_groups, total_line

SAME = ("same", "close")


@dataclass(frozen=True)
class Compared:
    """One variable of either checkpoint, or of both.

    Attributes:
      status: "same" (bit for bit), "close" (within the tolerances), "changed", "shape", "dtype",
        "only in A" or "only in B".
      name: its variable name, in A if A has it.
      a: the variable in A, None if it is only in B.
      b: the variable in B, None if it is only in A.
      difference: how the values differ, if it is "close" or "changed".
    """

    status: str
    name: str
    a: Variable | None
    b: Variable | None
    difference: Difference | None = None


@dataclass(frozen=True)
class Comparison:
    """What compare_checkpoints() found.

    Attributes:
      a: the prefix of checkpoint A.
      b: the prefix of checkpoint B.
      variables: of A in the order of their names, then those only in B.
      notes: what was left out, and where names and object paths disagree.
    """

    a: str
    b: str
    variables: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both have the same variables with the same values (within the tolerances)."""
        return all(one.status in SAME for one in self.variables)

    def _repr_html_(self) -> str:
        headers, cells = columns(self.folded_rows(), expected="A", found="B")
        return html_table(f"A: {self.a}, B: {self.b}", headers, cells, total_line(self.rows()))

    def rows(self) -> list[Row]:
        """A row for each variable, not folded."""
        return [_row(one, _difference_text([one])) for one in self.variables]

    def folded_rows(self) -> list[Row]:
        """Rows of what differs, folded, each with the largest difference of its variables."""
        by_name = {(one.status, one.name): one for one in self.variables if one.status != "same"}
        rows = []
        for row, members in fold_groups(_row(one, "") for one in by_name.values()):
            note = _difference_text([by_name[member.status, member.name] for member in members])
            rows.append(Row(row.status, row.name, row.expected, row.found, note or row.note))
        return rows


def _row(one: Compared, note: str) -> Row:
    expected, found = (tensor_text(v.dtype, v.shape) if v else "" for v in (one.a, one.b))
    if one.a and one.b and one.b.name != one.a.name and not note:
        note = f"in B: {one.b.name}"
    return Row(one.status, one.name, expected, found, note)


def _difference_text(group: list[Compared]) -> str:
    found = [one.difference for one in group if one.difference]
    if not found:
        return ""
    parts = [f"{sum(d.differing for d in found):,} of {sum(d.count for d in found):,} differ"]
    if any(d.max_abs is not None for d in found):
        parts.append(f"max abs {max(d.max_abs or 0 for d in found):.4g}")
        parts.append(f"max rel {max(d.max_rel or 0 for d in found):.4g}")
    for label, counts in (
        ("NaN", [(d.nan_a, d.nan_b) for d in found]),
        ("Inf", [(d.inf_a, d.inf_b) for d in found]),
    ):
        a, b = (sum(side) for side in zip(*counts))
        if a or b:
            parts.append(f"{label} {a:,} -> {b:,}")
    return ", ".join(parts)


def compare_checkpoints(
    a: Union[str, os.PathLike[str], Checkpoint],
    b: Union[str, os.PathLike[str], Checkpoint],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    progress: Progress = None,
) -> Comparison:
    """Compares all values of two checkpoints, each of any format.

    Variables are matched by variable name; what has no partner then, by object path. The values
    are read in chunks of 2 MiB, strings as a whole, and of remote checkpoints ahead.

    Args:
      a: an open checkpoint, or whatever open_checkpoint() takes.
      b: likewise.
      rtol: values x in A and y in B are close if |x - y| <= atol + rtol * |y|; NaN is close to NaN.
      atol: see rtol. With both 0, values are the same if their bits are.
      progress: called with the bytes compared so far and the bytes in all.

    Raises:
      SettingsError: no path, or a tolerance that is no number.
      NotACheckpointError, CorruptCheckpointError, UnsupportedCheckpointError: as open_checkpoint(),
        and for values that differ, but whose checksums are wrong.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value >= 0:
            raise SettingsError(f"expected a number, 0 or more, found {value!r}", key=name)
    ours = a if isinstance(a, Checkpoint) else open_checkpoint(a)
    theirs = b if isinstance(b, Checkpoint) else open_checkpoint(b)
    try:
        return _compare(ours, theirs, rtol, atol, progress)
    finally:
        for given, checkpoint in ((a, ours), (b, theirs)):
            if given is not checkpoint:
                checkpoint.close()


def _compare(
    a: Checkpoint, b: Checkpoint, rtol: float, atol: float, progress: Progress
) -> Comparison:
    with collector_paused():
        every_pair = list(_pairs(a, b))
    notes = []
    # tf.train.Checkpoint.save() counts its saves in it, write() has none; no model's variable.
    pairs = [pair for pair in every_pair if None not in pair or not _is_save_counter(*pair)]
    if len(pairs) < len(every_pair):
        notes.append("save_counter, which counts the saves of a program, is in one of them alone")
    shifted = _shifted_names(b, pairs)
    if shifted:
        notes.append(
            f"{first_names(shifted)}: {len(shifted)} matched by name, though in B another variable "
            "has the object path"
        )
    total = sum(x.nbytes for x, y in pairs if x and y)
    done = 0
    found = []
    with open_reader(a.prefix, a.index) as ours, open_reader(b.prefix, b.index) as theirs:
        alike = [(x, y) for x, y in pairs if x and y and _is_alike(x, y)]
        ours.expect(x.entry for x, y in alike if are_whole(x, y))
        theirs.expect(y.entry for x, y in alike if are_whole(x, y))
        for x, y in pairs:
            if x is None or y is None:
                only = x or y
                assert only is not None
                found.append(Compared(f"only in {'A' if x else 'B'}", only.name, x, y))
                continue
            if _is_alike(x, y):
                different = difference(
                    a,
                    x,
                    b,
                    y,
                    readers=(ours, theirs),
                    rtol=rtol,
                    atol=atol,
                    progress=_shifted(progress, done, total),
                )
                status = "same"
                if different:
                    status = "changed" if different.differing else "close"
                found.append(Compared(status, x.name, x, y, different))
            else:
                found.append(Compared("shape" if x.dtype == y.dtype else "dtype", x.name, x, y))
            done += x.nbytes
    return Comparison(a.prefix, b.prefix, tuple(found), tuple(notes))


def _is_alike(x: Variable, y: Variable) -> bool:
    return (x.dtype, x.shape) == (y.dtype, y.shape)


def _is_save_counter(*pair: Variable | None) -> bool:
    return any(one is not None and one.object_path == SAVE_COUNTER for one in pair)


def _shifted(progress: Progress, start: int, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda count: progress(start + count, total)


def _pairs(a: Checkpoint, b: Checkpoint) -> Iterator[tuple[Variable | None, Variable | None]]:
    """The variables of A with their partners in B, then those of B that are left."""
    left = {name: one for name, one in b.variables.items() if name not in a.variables}
    by_place = {_place(one): one for one in left.values() if one.object_path is not None}
    for name, one in a.variables.items():
        partner = b.variables.get(name)
        if partner is None and one.object_path is not None:
            partner = by_place.pop(_place(one), None)
            if partner is not None:
                del left[partner.name]
        yield one, partner
    for one in left.values():
        yield None, one


def _shifted_names(
    b: Checkpoint, pairs: list[tuple[Variable | None, Variable | None]]
) -> list[str]:
    """The names in A that both have, where the object path in A is another variable's in B."""
    apart = [(x, y) for x, y in pairs if x and y and x.object_path != y.object_path]
    if not apart:
        return []
    name_at = {_place(y): y.name for y in b.variables.values() if y.object_path is not None}
    return [x.name for x, y in apart if name_at.get(_place(x), y.name) != y.name]


def _place(variable: Variable) -> tuple[str | None, str]:
    """The object path, and what the key has behind it: a lookup table has two tensors."""
    return variable.object_path, variable.keys[-1].rpartition(BEFORE_ATTRIBUTE)[2]

"""What came from where: the report of a warm start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import text_table


@dataclass(frozen=True)
class StartingValue:
    """Where one variable's first value comes from.

    Attributes:
      target: the variable's name.
      source: its key in the checkpoint; None where it is initialized instead.
      rule: the setting or the match that decided it, or the reason why it is initialized.
      shape: of the variable.
      nbytes: how many bytes are read for it.
      has_vocabulary: whether its rows are remapped from one vocabulary to another.
      warns: whether it is initialized where the settings ask for a warning.
      is_selected: whether the settings want it to start, or name it to be left out.
      fitting: how what is read is made to fit: "reshape", "pad" or "slice"; "" if it has the shape.
      kind: of an object with state that is no variable, what it is: `OwnedIterator`. It never
        starts. "" for a variable and for the parts of a lookup table.
      content: what is computed for it, from `source` or from several; None where the bytes of
        `source` are its own.
    """

    target: str
    source: str | None
    rule: str
    shape: tuple[int, ...] | None
    nbytes: int = 0
    has_vocabulary: bool = False
    warns: bool = False
    is_selected: bool = True
    kind: str = ""
    content: Content | None = None
    fitting: str = ""

    @property
    def starts(self) -> bool:
        """Whether it starts from the checkpoint, and not from its initial value."""
        return self.source is not None or self.content is not None


@dataclass(frozen=True)
class WarmStartReport:
    """What came from where.

    Attributes:
      checkpoint: the prefix of the checkpoint.
      values: one for every variable of the model, then one for every other object with state.
      unexpected: the checkpoint's variables from which nothing starts.
      not_trainable: variables of the model, moving statistics for example, that the expression of
        vars_to_warm_start matches, and that the checkpoint has, but which keep their initial values
        as it stands for trainable ones alone.
      notes: what must be equal in the program where an optimizer's state has become another kind's.
      refused: the optimizers whose state does not start, and why.
    """

    checkpoint: str
    values: Sequence[StartingValue]
    unexpected: Sequence[str]
    not_trainable: Sequence[str] = ()
    notes: Sequence[str] = ()
    refused: Sequence[str] = ()

    def rows(self) -> list[Row]:
        """A row for each value: `warm-started`, `initialized`, or `not selected`."""
        return [
            Row(
                _status(value),
                value.target,
                "" if value.kind else tensor_text("", value.shape),
                value.source or ("computed" if value.content else "-"),
                value.rule,
            )
            for value in self.values
        ]

    def __str__(self) -> str:
        started = [value for value in self.values if value.starts]
        others = [value for value in self.values if value.kind]
        total = (
            f"{len(started)} of {counted(len(self.values) - len(others), 'variable')}, "
            f"{sum(value.nbytes for value in started):,} bytes, from {self.checkpoint}"
        )
        if others:
            total += f"; {counted(len(others), 'other object')} with state"
        headers = ("", "variable", "shape", "from", "by")
        cells = [(r.status, r.name, r.expected, r.found, r.note) for r in fold(self.rows())]
        lines = [f"not started: {one}" for one in self.refused]
        lines += [f"note: {one}" for one in self.notes]
        return "\n".join([text_table(headers, cells), total, *lines])

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "checkpoint": self.checkpoint,
            "variables": [
                {
                    "variable": value.target,
                    "status": _status(value),
                    "source": value.source,
                    "rule": value.rule,
                    "shape": None if value.shape is None else list(value.shape),
                    "bytes": value.nbytes,
                }
                for value in self.values
            ],
            "unexpected": list(self.unexpected),
            "not_trainable": list(self.not_trainable),
            "notes": list(self.notes),
            "refused": list(self.refused),
        }


def _status(value: StartingValue) -> str:
    if value.starts:
        return "warm-started"
    return "initialized" if value.is_selected else "not selected"

"""What a warm start has found so far for the variables that are selected."""

from __future__ import annotations

from dataclasses import dataclass, field

from estimator_ckpt.conversion.live_starts import Start
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.rows import Row


@dataclass
class Findings:
    """What is found for the selected variables: by name, each in one of the first four.

    Attributes:
      started: those that start from a variable of the checkpoint, by which rule, and whether with a
        vocabulary.
      fittings: of those, how they are made to fit, where they have another shape; see fitting.py.
      computed: those that start from what is computed from the checkpoint.
      kept: those that keep their initial values, why, and whether that is warned about.
      problems: those that are an error.
      missing: the names of those that the checkpoint lacks.
      notes: what is to be said of the optimizers whose state starts.
      refused: what is to be said of those whose state does not.
      used_keys: keys of the checkpoint that are accounted for without a variable that has them.
    """

    started: dict[str, tuple[Variable, str, bool]] = field(default_factory=dict)
    fittings: dict[str, str] = field(default_factory=dict)
    computed: dict[str, Start] = field(default_factory=dict)
    kept: dict[str, tuple[str, bool]] = field(default_factory=dict)
    problems: dict[str, Row] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    used_keys: set[str] = field(default_factory=set)

    def forget(self, name: str) -> None:
        """Takes back what was found for a variable."""
        self.started.pop(name, None)
        self.fittings.pop(name, None)
        self.computed.pop(name, None)
        self.kept.pop(name, None)
        self.problems.pop(name, None)
        if name in self.missing:
            self.missing.remove(name)

"""Which tensor of a checkpoint belongs to which variable of a model, and why.

Two things lead to a tensor: structure, S, the objects in whose place the model's own objects stand,
and a name, N. A name is weak where a counter may have made it (counted.py).

| S     | N                                                         | result                      |
| ----- | --------------------------------------------------------- | --------------------------- |
| found | none, or the same                                         | S                           |
| found | another, by a weak name                                   | S                           |
| found | another, by a name that is not weak                       | an error that shows both    |
| none  | found; the checkpoint has only names, or `var_list`       | N                           |
| none  | found, but another variable's by structure                | missing                     |
| none  | found; it has objects, and structure has found something  | weak: missing; else N       |
| none  | found; it has objects, and structure has found nothing    | weak: an error; else N      |

A name that a `rename` rule has made is given on purpose: it decides. Where only positions decide,
in a list or among a Keras model's layers, and not as many objects look alike on the two sides, one
more or less has moved them: that is an error as well. `match_by` decides all of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from estimator_ckpt.checkpoint import Variable
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.matching.structure import Structure, by_strong_name, find_structure
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row

MATCH_BY = ("path", "name")

_DECIDES = "match_by='path' or 'name' decides"
_MOST_HINTS = 100


@dataclass(frozen=True)
class Match:
    """What a checkpoint has for one variable.

    Attributes:
      source: the checkpoint's variable; None where there is none, or no one choice.
      rule: what led to it.
      problem: why there is none: a row `missing` or `ambiguous`.
    """

    source: Variable | None
    rule: str = ""
    problem: Row | None = None


@dataclass(frozen=True)
class Resolution:
    """What a checkpoint has for a model.

    Attributes:
      matches: by the names of the model's variables: every one is there.
      structure: what the objects say.
      problems: rows about the model as a whole.
    """

    matches: Mapping[str, Match]
    structure: Structure = field(default_factory=Structure)
    problems: Sequence[Row] = ()


def resolve(
    model: Model, saved: Saved, *, match_by: str | None = None, root: str | None = None
) -> Resolution:
    """Finds the tensor of every variable; shapes and dtypes are the caller's to compare.

    Args:
      model: what is wanted.
      saved: what a checkpoint has.
      match_by: "path" or "name" decides where the two lead to different tensors.
      root: the object path in the checkpoint where the model's root object stands.

    Raises:
      SettingsError: there is no object at `root`.
      ConflictError: a name is that of one variable and the object path of another.
    """
    structure = find_structure(model, saved, root)
    if structure.places:
        shown = " and ".join(map(repr, structure.places))
        note = f"it fits at {shown}; root= says which one is meant"
        row = Row("ambiguous", "the model's objects", note=note)
        nowhere = {v.name: Match(None, problem=_row("ambiguous", v, note)) for v in model.variables}
        return Resolution(nowhere, structure, [row])
    return Resolution(_Resolver(model, saved, structure, match_by).matches(), structure)


class _Resolver:
    def __init__(
        self, model: Model, saved: Saved, structure: Structure, match_by: str | None
    ) -> None:
        self._model = model
        self._saved = saved
        self._structure = structure
        self._match_by = match_by
        self._times = Counter(variable.known_as for variable in model.variables)
        self._hints = 0

    def matches(self) -> dict[str, Match]:
        """By structure first, or by names; then what the other one finds of what is left."""
        first, second = self._by_structure, self._by_name
        if self._match_by == "name":
            first, second = self._by_any_name, self._by_structure
        found = {v.name: first(v) for v in self._model.variables}
        owner_of = {
            match.source.key: name
            for name, match in found.items()
            if match is not None and match.source is not None
        }
        matches: dict[str, Match] = {}
        for variable in self._model.variables:
            match = found[variable.name]
            if match is None:
                match = second(variable)
                source = match.source if match is not None else None
                if source is not None and source.key in owner_of:
                    note = f"{source.name} belongs to {owner_of[source.key]}"
                    match = Match(None, problem=_row("missing", variable, note))
            matches[variable.name] = match or self._missing(variable)
        return matches

    def _by_structure(self, variable: ModelVariable) -> Match | None:
        tensors = self._structure.tensors.get(variable.name, ())
        if not tensors:
            return None
        if len(tensors) > 1:
            note = "the object paths of one variable lead to several"
            return self._ambiguous(variable, tensors, [], note)
        (tensor,) = tensors
        named = by_strong_name(variable, self._saved)
        among = any(self._saved.same(tensor, one) for one in named)
        agree = among and len(named) == 1  # several differ in what a counter made
        if self._match_by is None:
            if self._is_renamed(variable.known_as):
                return None  # on purpose: the name decides
            if named and not among:
                return self._ambiguous(variable, tensors, named, _DECIDES)
            if not agree and variable.name in self._structure.disputed:
                note = f"by position only, and {self._structure.disputed[variable.name]}"
                return self._ambiguous(variable, tensors, [], f"{note}; {_DECIDES}")
        rule = f"object path {tensor.object_path}"
        if variable.name in self._structure.by_position and not agree:
            rule += ", by position only"
        return Match(tensor, rule)

    def _is_renamed(self, name: str) -> bool:
        return name in self._saved and self._saved[name].name != name

    def _by_any_name(self, variable: ModelVariable) -> Match | None:
        named = self._named(variable)
        return self._of(variable, named) if named else None

    def _by_name(self, variable: ModelVariable) -> Match | None:
        named = self._named(variable)
        if not named:
            return None
        is_weak = variable.is_weak and not self._is_renamed(variable.known_as)
        if is_weak and self._saved.has_objects and len(named) == 1:
            name = named[0].name
            if self._structure.tensors:
                note = f"{name} has this name, which a counter may have made, at another path"
                return Match(None, problem=_row("missing", variable, note))
            note = (
                "a counter may have made this name, and the model's objects fit nowhere in the "
                "checkpoint; root= says where they stand, match_by='name' takes the names"
            )
            return self._ambiguous(variable, [], named, note)
        return self._of(variable, named)

    def _named(self, variable: ModelVariable) -> list[Variable]:
        name = variable.known_as
        found = self._saved.of_name(name) if name else []
        if name and len(found) < 2:
            one = self._saved.find(name)
            found = found or ([one] if one is not None else [])
        return found

    def _of(self, variable: ModelVariable, named: list[Variable]) -> Match:
        if self._times[variable.known_as] > 1:
            note = (
                f"{self._times[variable.known_as]} variables of the model have the name "
                f"{variable.known_as}; give a mapping from names to variables"
            )
            return self._ambiguous(variable, [], named, note)
        if len(named) > 1:
            return Match(
                None, problem=_row("missing", variable, self._saved.hint(variable.known_as))
            )
        is_same = named[0].name == variable.known_as or self._is_renamed(variable.known_as)
        return Match(named[0], "same name" if is_same else f"name {variable.known_as}")

    def _missing(self, variable: ModelVariable) -> Match:
        self._hints += 1
        note = ""
        if not variable.known_as:
            note = "nobody has named it, and no object has its path"
        elif self._hints <= _MOST_HINTS:
            note = self._saved.hint(variable.known_as)
        return Match(None, problem=_row("missing", variable, note))

    def _ambiguous(
        self,
        variable: ModelVariable,
        by_path: Sequence[Variable],
        by_name: Sequence[Variable],
        note: str,
    ) -> Match:
        row = Row(
            "ambiguous",
            variable.name,
            expected=f"by path: {' and '.join(one.key for one in by_path) or '-'}",
            found=f"by name: {' and '.join(one.key for one in by_name) or '-'}",
            note=note,
        )
        return Match(None, problem=row)


def _row(status: str, variable: ModelVariable, note: str) -> Row:
    return Row(status, variable.name, tensor_text(variable.dtype, variable.shape), note=note)

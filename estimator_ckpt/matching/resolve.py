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

A name that the user has given on purpose, in a mapping or by a `rename` rule, decides. Where one
tensor is one variable's by structure and another's by name, and both names were given, one of the
two must be new: that is an error that names both. Where only positions decide, in a list or among a
Keras model's layers, and not as many objects look alike on the two sides, one more or less has
moved them: that is an error as well. `match_by` decides all of these.

A name itself may lead to several tensors: that of `var_list`, those of objects that had the name in
their graph, and that whose key it is. Where these differ, it is an error, or `match_by` decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.matching.counted import without_counts
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.saved import Named, Saved
from estimator_ckpt.matching.structure import Structure, by_strong_name, find_structure
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.quantities import tensor_text
from estimator_ckpt.text.rows import Row

SAME_NAME = "same name"  # the rule of a Match, as is the next one
RENAME = "rename"
BY_POSITION = "by position only"  # how the rule of a Match ends, of which nothing more tells
_ANOTHER_KIND = (
    "another kind of optimizer has it, and means something else by it: a warm start or "
    "`convert --optimizer` translates it"
)
_DECIDES = "match_by='path' or 'name' decides"
_TAKES = "match_by='name' takes it"

# The ways to a tensor, the first that leads anywhere decides: by match_by.
_ORDERS = {
    "path": ("structure", "var_list", "full_name", "key"),
    "name": ("key", "full_name", "var_list", "structure"),
}


@dataclass(frozen=True)
class Match:
    """What a checkpoint has for one variable.

    Attributes:
      source: the checkpoint's variable; None where there is none, or no one choice.
      rule: what led to it.
      problem: why there is none: a row `missing` or `ambiguous`.
      is_average: whether the source is the variable's average.
    """

    source: Variable | None
    rule: str = ""
    problem: Row | None = None
    is_average: bool = False


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


@collector_paused()
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
    """
    model = _without_scope(model, saved)
    structure = find_structure(model, saved, root)
    if structure.places:
        shown = " and ".join(map(repr, structure.places))
        note = f"it fits at {shown}; root= says which one is meant"
        row = Row("ambiguous", "the model's objects", note=note)
        nowhere = {v.name: Match(None, problem=_row("ambiguous", v, note)) for v in model.variables}
        return Resolution(nowhere, structure, [row])
    return Resolution(_Resolver(model, saved, structure, match_by).matches(), structure)


def _without_scope(model: Model, saved: Saved) -> Model:
    """The model by the names that it has without its own, if these are the checkpoint's names.

    They are if it has all of them, and none of the others, and no objects that would tell.
    """
    size = len(model.scope)
    wanted = [variable.known_as for variable in model.variables if variable.is_required]
    if not size or saved.has_objects or any(any(saved.named(name)) for name in wanted):
        return model
    if not all(any(saved.named(name[size:])) for name in wanted):
        return model
    variables = [
        replace(variable, called=variable.known_as[size:], weak=variable.weak[1:])
        if variable.known_as.startswith(model.scope)
        else variable
        for variable in model.variables
    ]
    return replace(model, variables=variables)


@dataclass(eq=False)
class _Found:
    """What is found for one variable.

    Attributes:
      structure: the tensors in the place of its object.
      named: those of its name.
      match: what was chosen of these.
      is_given: whether a name that was given on purpose has decided.
    """

    variable: ModelVariable
    structure: Sequence[Variable]
    named: Named
    match: Match
    is_given: bool = False

    def ways_to(self, place: object, saved: Saved) -> set[str]:
        """The ways that lead to a tensor, as _ORDERS has them."""
        ways = {"structure": self.structure, **self.named._asdict()}
        return {way for way, ends in ways.items() if place in map(saved.place, ends)}


class _Resolver:
    def __init__(
        self, model: Model, saved: Saved, structure: Structure, match_by: str | None
    ) -> None:
        self._model = model
        self._saved = saved
        self._structure = structure
        self._match_by = match_by
        self._has_structure = structure.says_anything(model)
        self._times = Counter((v.known_as, v.suffix) for v in model.variables)
        self._alike: dict[str, set[str]] = {}
        for variable in model.variables:
            if variable.is_counted:
                name = variable.known_as
                self._alike.setdefault(without_counts(name), set()).add(name)

    def matches(self) -> dict[str, Match]:
        """What is found for each variable by itself; then no tensor is two variables' by chance."""
        found = [self._find(variable) for variable in self._model.variables]
        self._settle(found)
        return {one.variable.name: one.match for one in found}

    def _find(self, variable: ModelVariable) -> _Found:
        if variable.average:
            named = self._saved.named(variable.average)
            if any(named):
                match = self._by_name(variable, (), named)
                return _Found(variable, (), named, replace(match, is_average=True))
        name, suffix = variable.known_as, variable.suffix
        named = Named()
        if name or suffix:
            named = self._saved.named(name, variable.attribute, suffix)
        is_given = variable.is_given or self._saved.is_renamed(name + suffix)
        if is_given and not any(named):
            at_path = self._saved.find(name + suffix)  # an object path may be given, too
            named = Named(key=[at_path] if at_path is not None else [])
        # A name that was given on purpose stands for no object, but for one below a given root.
        by_objects = not is_given or self._model.has_names_alone
        here = self._structure.tensors.get(variable.name, ()) if by_objects else ()
        match = self._choose(variable, here, named, is_given)
        return _Found(variable, here, named, match, is_given)

    def _choose(
        self, variable: ModelVariable, here: Sequence[Variable], named: Named, is_given: bool
    ) -> Match:
        any_named = any(named)
        if here and not (any_named and self._match_by == "name"):
            return self._by_structure(variable, here, named)
        if not any_named:
            note = "" if variable.tensor else "nobody has named it, and no object has its path"
            if variable.name in self._structure.of_another_kind:
                note = _ANOTHER_KIND
            return Match(None, problem=_row("missing", variable, note))
        doubt = None if is_given or self._match_by == "name" else self._doubt(variable, named)
        return doubt or self._by_name(variable, here, named)

    def _by_structure(
        self, variable: ModelVariable, here: Sequence[Variable], named: Named
    ) -> Match:
        if len(here) > 1:
            note = "the object paths of one variable lead to several"
            return self._ambiguous(variable, here, named.all(), note)
        (tensor,) = here
        strong = by_strong_name(variable, self._saved, named)
        agree = len(strong) == 1 and self._saved.same(tensor, strong[0])
        if self._match_by == "name" and self._contradicts(tensor, variable, named, strong):
            if len(strong) > 1:
                return self._ambiguous(variable, here, strong, "one name, but for counts")
            return Match(strong[0], f"name {strong[0].name}, but for counts")
        if self._match_by is None and not agree:
            if self._contradicts(tensor, variable, named, strong):
                return self._ambiguous(variable, here, strong, _DECIDES)
            if variable.name in self._structure.disputed:
                note = f"{BY_POSITION}, and {self._structure.disputed[variable.name]}"
                return self._ambiguous(variable, here, [], f"{note}; {_DECIDES}")
        rule = f"object path {tensor.object_path}"
        if variable.name in self._structure.by_position and not agree:
            rule += f", {BY_POSITION}"
        return Match(tensor, rule)

    def _contradicts(
        self,
        tensor: Variable,
        variable: ModelVariable,
        named: Named,
        strong: Sequence[Variable],
    ) -> bool:
        """Whether the variable's name, as far as it was given, says that it is another tensor."""

        def is_it(one: Variable) -> bool:
            return self._saved.same(tensor, one)

        if variable.is_weak:
            return bool(strong) and not any(map(is_it, strong))  # they differ in counts alone
        # A name that several objects had leads to each of them.
        shared = named.full_name
        return not all(map(is_it, (*named.var_list, *named.key))) or (
            bool(shared) and not any(map(is_it, shared))
        )

    def _doubt(self, variable: ModelVariable, named: Named) -> Match | None:
        """Why a name that a counter may have made finds nothing, where no object does."""
        if not self._saved.has_objects or not self._may_be_counted(variable):
            return None
        note = f"{named.all()[0].name} has this name, which a counter may have made"
        if self._has_structure:
            note += f", at another path; {_TAKES}"
            return Match(None, problem=_row("missing", variable, note))
        if variable.is_weak:
            note = (
                "a counter may have made this name, and the model's objects fit nowhere in the "
                "checkpoint; root= says where they stand, match_by='name' takes the names"
            )
        else:
            note = (
                "a counter may have made this name, and the checkpoint knows by its objects which "
                "is which: give the model itself, not its variables; match_by='name' takes the "
                "names"
            )
        return self._ambiguous(variable, [], named.all(), note)

    def _may_be_counted(self, variable: ModelVariable) -> bool:
        """Whether another variable might have had the name, had another been made before it."""
        if variable.is_weak or not variable.is_counted:
            return variable.is_weak
        name = variable.known_as
        alike = len(self._saved.of_counted_name(name))
        return max(alike, len(self._alike.get(without_counts(name), ()))) > 1

    def _by_name(self, variable: ModelVariable, here: Sequence[Variable], named: Named) -> Match:
        name = variable.known_as
        if self._times[name, variable.suffix] > 1:
            note = (
                f"{self._times[name, variable.suffix]} variables of the model have the name "
                f"{name}; give a mapping from names to variables"
            )
            return self._ambiguous(variable, here, named.all(), note)
        found = self._saved.distinct(named.all())
        if len(found) > 1 and self._match_by is not None:
            ways = (way for way in _ORDERS[self._match_by] if way != "structure")
            first = next(filter(None, (getattr(named, way) for way in ways)))
            found = self._saved.distinct(first)
        if len(found) > 1:
            # A name that several objects had, to one of which the other ways lead.
            others = self._saved.distinct([*here, *named.var_list, *named.key])
            if len(others) == 1 and any(self._saved.same(others[0], one) for one in found):
                found = others if len(self._saved.distinct(named.full_name)) > 1 else found
        if len(found) == 1:
            if self._saved.is_renamed(name + variable.suffix):
                return Match(found[0], RENAME)
            is_same = found[0].name == variable.tensor
            is_same = is_same and not variable.name.endswith(f"/{variable.tensor}")
            return Match(found[0], SAME_NAME if is_same else f"name {variable.tensor}")
        is_one_way = not (named.var_list or named.key)
        note = "one name for several variables" if is_one_way else _DECIDES
        return self._ambiguous(variable, here or named.var_list, named.all(), note)

    def _settle(self, found: Sequence[_Found]) -> None:
        """Sees to it that no tensor is read by two variables that came to it by different ways.

        One that has its path now, say, and one that has its name: one of the two must be new. Two
        that came by the same way were one variable when the checkpoint was written. A name that
        was given on purpose comes before all ways.
        """
        claims: dict[object, list[_Found]] = {}
        for one in found:
            source = one.match.source
            if source is not None and not one.match.is_average:
                claims.setdefault(self._saved.place(source), []).append(one)
        for place, rivals in claims.items():
            if len(rivals) > 1:
                self._settle_one(place, rivals)

    def _settle_one(self, place: object, rivals: Sequence[_Found]) -> None:
        given = [one for one in rivals if one.is_given]
        if given:
            _give_to(given, rivals)
            rivals = given
        ways_of = [one.ways_to(place, self._saved) for one in rivals]
        if len(rivals) < 2 or set.intersection(*ways_of):
            return
        order = _ORDERS.get(self._match_by or "", ("structure",))
        strongest = next((way for way in order if any(way in ways for ways in ways_of)), None)
        winners = [one for one, ways in zip(rivals, ways_of) if strongest in ways]
        is_weak = all(one.variable.is_weak or not one.variable.known_as for one in winners)
        if winners and (self._match_by is not None or is_weak):
            _give_to(winners, rivals)
            return
        for one in rivals:
            others = ", ".join(r.variable.name for r in rivals if r is not one)
            note = f"this is also the one for {others}; {_DECIDES}"
            by_path = one.structure or one.named.var_list
            one.match = self._ambiguous(one.variable, by_path, one.named.all(), note)

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
            expected=f"by path: {_keys(by_path)}",
            found=f"by name: {_keys(by_name)}",
            note=note,
        )
        return Match(None, problem=row)


def _give_to(winners: Sequence[_Found], rivals: Sequence[_Found]) -> None:
    """Leaves a tensor to some of the variables that came to it."""
    for one in rivals:
        if one not in winners:
            assert one.match.source is not None
            note = f"{one.match.source.name} belongs to {winners[0].variable.name}"
            one.match = Match(None, problem=_row("missing", one.variable, note))


def _keys(variables: Sequence[Variable]) -> str:
    return " and ".join(dict.fromkeys(one.keys[-1] for one in variables)) or "-"


def _row(status: str, variable: ModelVariable, note: str) -> Row:
    return Row(status, variable.name, tensor_text(variable.dtype, variable.shape), note=note)

"""All that does not fit a template, in one table, with the flag that gives each where one does."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.names_to_objects import TABLE
from estimator_ckpt.conversion.optimizer_relations import related, with_class
from estimator_ckpt.conversion.plan import Content, Item, is_counter
from estimator_ckpt.conversion.source_optimizers import find_optimizers, mark_parts
from estimator_ckpt.errors import CheckpointError, MismatchError
from estimator_ckpt.objects.object_graph import SAVE_COUNTER, ObjectGraph
from estimator_ckpt.roles.dialects import ITERATIONS, LEGACY_COUNT
from estimator_ckpt.roles.newer_keras import classes
from estimator_ckpt.roles.records import NEWER
from estimator_ckpt.text.names import NameIndex, meant, scopes_apart
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import text_table

_MOST_HINTS = 100
_PLAIN = re.compile(r"[\w/:-]+")


class Refusal(NamedTuple):
    """Why the optimizers of a source were not converted.

    Attributes:
      error: what was raised.
      asked: the numbers that are needed, by the names that the user gives them, with the reasons.
    """

    error: CheckpointError
    asked: Mapping[str, str]


@dataclass(frozen=True)
class Fit:
    """What was placed in a template, and what was not.

    Attributes:
      template: what the user calls it.
      places: what it has, by number.
      found: the item of each place.
      problems: rows of the matcher for places without one.
      notes: why an optimizer's place has none.
      optimizers: the template's.
      refusal: why the source's were not converted.
    """

    template: str
    places: Mapping[int, Item]
    found: Mapping[int, int]
    problems: Mapping[int, Row]
    notes: Mapping[int, str]
    optimizers: Sequence[Optimizer]
    refusal: Refusal | None = None


def check_fit(
    fit: Fit, items: Sequence[Item], graph: ObjectGraph | None, options: ConvertOptions
) -> None:
    """Raises an error where not every place has one item, and every item one place, that fits it.

    Args:
      fit: what was placed.
      items: what the source has, as it is to be.
      graph: the source's objects.
      options: what was asked for.

    Raises:
      MismatchError: a table of all that does not fit.
      CheckpointError: what the refusal has, where all else fits.
    """
    table = _Table(fit, items, options)
    if not table.fits:
        table.know_optimizers(graph)
    rows = [*table.rows()]
    if rows and fit.refusal is not None:
        rows = [*_asked(fit.refusal.asked), *rows]
    if rows:
        text = text_table(
            ("problem", "variable", "expected", "found", "note"),
            [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
        )
        do = "does" if len(rows) == 1 else "do"
        many = counted(len(rows), "variable")
        lines = [f"{many} {do} not fit the objects of {fit.template}:", text.rstrip("\n")]
        raise MismatchError("\n".join([*lines, *table.advice(rows)]))
    if fit.refusal is not None:
        raise fit.refusal.error


def _asked(asked: Mapping[str, str]) -> Iterator[Row]:
    for name in asked:
        yield Row("needed", name, "a number", note=f"--hyperparameters={name}=NUMBER")


def _has_shape(place: Item, has: Content) -> bool:
    """Whether a tensor has the shape of its place; a lookup table has as many rows as it has."""
    start = 1 if place.attribute == TABLE else 0
    return place.content.shape[start:] == has.shape[start:]


def _text(content: Content) -> str:
    return tensor_text(dtype_name(content.dtype), content.shape)


def _cast(has: Content, wanted: Content) -> str:
    """The flag that makes the one dtype the other, if there is one."""
    names = dtype_name(has.dtype), dtype_name(wanted.dtype)
    is_floating = all(name.startswith(("float", "bfloat")) for name in names)
    return f"--dtype={names[0]}:{names[1]}" if is_floating and names[0] != names[1] else ""


def _pattern(name: str) -> str:
    """A name as a regular expression."""
    return name if _PLAIN.fullmatch(name) else re.escape(name)


@dataclass
class _Table:
    """The rows, and what is known for them.

    Attributes:
      hints: for places without an item the item that each may be: no two of one, and of its shape.
    """

    fit: Fit
    items: Sequence[Item]
    options: ConvertOptions
    hints: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = self.fit.found
        self._placed = set(found.values())
        self._missing = [number for number in self.fit.places if number not in found]
        self._of_optimizer = {number: one for one in self.fit.optimizers for number in one.items()}
        self._left = {}.fromkeys(self._find_left())  # in their order
        self._shown = {
            word
            for row in self.fit.problems.values()
            for word in f"{row.expected} {row.found} {row.note}".split()
        }
        self._owners: dict[int, int] = {}
        self._sources: list[Optimizer] = []
        self._words: dict[int, str] = {}
        self._offered: set[int] = set()
        self._place_names = {place.name for place in self.fit.places.values()}

    def _find_left(self) -> Iterator[int]:
        """The items without a place, but for what was made of others that have their rows."""
        placed = {self.items[number].content.source for number in self._placed}
        times = Counter(item.content.source for item in self.items)
        for number, item in enumerate(self.items):
            source = item.content.source
            if not item.in_objects or number in self._placed or item.place == (SAVE_COUNTER,):
                continue
            is_count = item.place is not None and item.place[-1] in (LEGACY_COUNT, ITERATIONS)
            # The global step, and the count of steps that was made of it.
            is_told = source in placed or (is_count and times[source] > 1)
            if item.renamed or not is_told:
                yield number

    @property
    def fits(self) -> bool:
        """Whether there is an item for all, and a place."""
        return not (self._missing or self._left or self.fit.refusal)

    def know_optimizers(self, graph: ObjectGraph | None) -> None:
        """Finds which of the items are an optimizer's, and offers hints for the others."""
        items = list(self.items)
        optimizers = [] if self.options.optimizer else find_optimizers(items, graph)
        mark_parts(items, optimizers)
        self._sources = optimizers
        self._owners = {slot.item: slot.variable for one in optimizers for slot in one.slots}
        by_name = {item.name: number for number, item in enumerate(items)}
        for number, item in enumerate(items):
            if item.slot is not None and item.slot.of in by_name:
                self._owners[number] = by_name[item.slot.of]
        self.items = items
        self._find_hints()

    def _find_hints(self) -> None:
        by_shape: dict[tuple[int, ...], dict[str, int]] = {}
        for number in self._left:
            item = self.items[number]
            if self._is_weight(number) and item.name:
                by_shape.setdefault(item.content.shape, {})[item.name] = number
        indexes = {shape: NameIndex(alike) for shape, alike in by_shape.items()}
        wanted = [
            number
            for number in self._missing
            if number not in self.fit.problems and number not in self._of_optimizer
        ]
        for number in wanted[:_MOST_HINTS]:
            place = self.fit.places[number]
            alike = by_shape.get(place.content.shape, {})
            for name in indexes[place.content.shape].near(place.name) if alike else ():
                if self._hint(number, alike[name]):
                    break
        theirs, ours = self._scopes()
        for number in wanted[_MOST_HINTS:] if theirs else ():
            place = self.fit.places[number]
            alike = by_shape.get(place.content.shape, {})
            if place.name.startswith(ours) and theirs + place.name[len(ours) :] in alike:
                self._hint(number, alike[theirs + place.name[len(ours) :]])

    def _hint(self, number: int, item: int) -> bool:
        """Offers an item for a place, if its dtype can be that, and it is not offered already."""
        has, wanted = self.items[item].content, self.fit.places[number].content
        if item in self._offered or not (has.dtype == wanted.dtype or _cast(has, wanted)):
            return False
        self.hints[number] = item
        self._offered.add(item)
        return True

    def _scopes(self) -> tuple[str, str]:
        """The one change of a scope that explains most of the hints; "" and "" if there is none."""
        shifts: Counter[tuple[str, str]] = Counter()
        for place, number in self.hints.items():
            shifts[scopes_apart(self.items[number].name, self.fit.places[place].name)] += 1
        if not shifts:
            return "", ""
        scopes, count = min(shifts.items(), key=lambda one: (-one[1], one[0]))
        return scopes if count > 1 else ("", "")

    def _is_weight(self, number: int) -> bool:
        item = self.items[number]
        return item.part is None and item.slot is None and not is_counter(item.content)

    def rows(self) -> Iterator[Row]:
        """A row for each thing that does not fit."""
        for number in self._missing:
            row = self._missing_row(number)
            if row is not None:
                yield row
        yield from self._misfits()
        for number in self._left:
            item = self.items[number]
            waits = item.part is not None or (is_counter(item.content) and self.fit.optimizers)
            if self.fit.refusal is None or not waits:
                note = self._left_note(number)
                yield Row("no place", item.name, found=_text(item.content), note=note)

    def _missing_row(self, number: int) -> Row | None:
        place = self.fit.places[number]
        problem = self.fit.problems.get(number)
        optimizer = self._of_optimizer.get(number)
        expected = _text(place.content)
        if optimizer is not None:
            if self.fit.refusal is not None:
                return None  # the refusal is told below the table
            note = self.fit.notes.get(number) or self._optimizer_note(optimizer)
            return Row("missing", place.name, expected, note=note)
        if problem is not None:
            return replace(problem, expected=problem.expected or expected)
        hint = self.hints.get(number)
        note = self.fit.notes.get(number, "")
        if hint is not None and not note:
            cast = _cast(self.items[hint].content, place.content)
            note = " ".join(filter(None, (meant([self.items[hint].name]), cast)))
        return Row("missing", place.name, expected, note=note)

    def _optimizer_note(self, optimizer: Optimizer) -> str:
        if self.options.optimizer:
            return ""
        word = self._word_for(optimizer)
        if word:
            return f"--optimizer={word}, or --drop_slots"
        labels = sorted({one.label for one in self._sources})
        return f"the source has {' and '.join(labels) or 'no optimizer'}: --drop_slots"

    def _word_for(self, optimizer: Optimizer) -> str:
        """What `optimizer` makes one of the source's to this one of the template; "" if nothing."""
        word = self._words.get(id(optimizer))
        if word is None:
            word = self._words[id(optimizer)] = self._find_word(optimizer)
        return word

    def _find_word(self, optimizer: Optimizer) -> str:
        dialect = optimizer.dialect
        word, fitting = dialect, [optimizer.label]
        if optimizer.newer is not None:
            word = "keras3" if optimizer.newer.is_keras_3 else "keras2"
            fitting = list(classes(optimizer.newer))
        for one in self._sources:
            with contextlib.suppress(CheckpointError):  # it becomes none, or must be told apart
                known = with_class(one, self.items, dialect, self.options.from_optimizer)
                is_same = known.dialect == dialect != NEWER and known.label in fitting
                if is_same or related(known, dialect).class_in(dialect) in fitting:
                    return word
        return ""

    def _misfits(self) -> Iterator[Row]:
        place_of: dict[int, str] = {}
        for number, match in self.fit.found.items():
            place, has = self.fit.places[number], self.items[match].content
            other = place_of.setdefault(match, place.name)
            expected, found = _text(place.content), _text(has)
            if other != place.name:
                name = self.items[match].name
                note = f"{other} and {place.name}: --assignment_map={name}:PLACE for each"
                yield Row("two places", name, expected, found, note)
            if not _has_shape(place, has):
                yield Row("shape", place.name, expected, found, self._of(match))
            elif place.content.dtype != has.dtype:
                yield Row("dtype", place.name, expected, found, _cast(has, place.content))

    def _of(self, number: int) -> str:
        """From where a misfit comes, if it has another name there."""
        name = self.items[number].name
        return "" if name in self._place_names else f"from {name}"

    def _left_note(self, number: int) -> str:
        item = self.items[number]
        owner = self._owners.get(number)
        if owner in self._left:
            return "goes with its variable"
        if item.part is not None or item.slot is not None:
            if self.options.optimizer:
                return "--drop_slots instead of --optimizer"
            return self._of_optimizer_note()
        if number in self._offered or not self._shown.isdisjoint({item.name, item.own_key}):
            return "as above"
        if is_counter(item.content) and any(map(self._word_for, self.fit.optimizers)):
            return "the optimizer's steps, with --optimizer"
        return f"--exclude={_pattern(item.name)}"

    def _of_optimizer_note(self) -> str:
        words = dict.fromkeys(filter(None, map(self._word_for, self.fit.optimizers)))
        return "".join(f"--optimizer={word}, or " for word in words) + "--drop_slots"

    def advice(self, rows: Sequence[Row]) -> Iterator[str]:
        """What gives most of it, and why the rest is asked for."""
        kinds = {row.status for row in rows}
        rule = self._rule()
        if rule:
            yield rule
        elif "missing" in kinds and any(self._is_weight(number) for number in self._left):
            yield "--rename=FROM:TO calls a variable as the template does, by name or object path."
        if "ambiguous" in kinds:
            yield "A --rename rule to its name or object path there decides for one variable."
        if self.fit.refusal is not None:
            yield from self.fit.refusal.asked.values() or [self.fit.refusal.error.message]

    def _rule(self) -> str:
        """A rule to paste that explains most of the hints, if it changes nothing that fits."""
        theirs, ours = self._scopes()
        placed = (self.items[number].name for number in self._placed)
        if not theirs or any(name.startswith(theirs) for name in placed):
            return ""
        known = {item.name for item in self.items}
        if any(ours + name[len(theirs) :] in known for name in known if name.startswith(theirs)):
            return ""
        names = ((self.items[n].name, self.fit.places[p].name) for p, n in self.hints.items())
        count = sum(theirs + place[len(ours) :] == name for name, place in names)
        return f"--rename='{_pattern(theirs)}(.*):{ours}\\1' places {count} of these."

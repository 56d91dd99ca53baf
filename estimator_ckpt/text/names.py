"""Names in messages: those near to another, the first of many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_FEW = 3
_CANDIDATES = 100
_ALIKE = 0.6
_SYNONYMS = {"weights": "kernel", "weight": "kernel", "biases": "bias"}
_UNIQUE_SUFFIX = re.compile(r"_\d+$")


class NameIndex:
    """Names in which near ones are looked for, many times over."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._by_last: dict[str, list[str]] = {}
        for name in self._names:
            self._by_last.setdefault(_plain_parts(name)[-1], []).append(name)

    def near(self, name: str, limit: int = 3) -> list[str]:
        """The names nearest to `name`, best first; a pass over the names that end alike.

        First those that differ by what renames usually change: scopes put before it or dropped
        (`model/`), `weights` for `kernel`, a suffix that made the name unique (`_1`). Then those
        that read alike.
        """
        import difflib
        import heapq

        parts = _plain_parts(name)
        alike = self._by_last.get(parts[-1]) or self._names
        if len(alike) > _CANDIDATES:
            wanted = set(parts)
            alike = heapq.nlargest(
                _CANDIDATES, alike, key=lambda other: len(wanted.intersection(_plain_parts(other)))
            )
        scored = []
        matcher = difflib.SequenceMatcher(b=name)
        for other in alike:
            matcher.set_seq1(other)
            theirs = _plain_parts(other)
            short, long = sorted((parts, theirs), key=len)
            shifted = long[-len(short) :] == short
            if shifted or (matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE):
                scored.append((not shifted, -matcher.ratio(), other))
        return [other for *_, other in sorted(scored)[:limit] if other != name]


def _plain_parts(name: str) -> list[str]:
    """The scopes of a name, without what renames usually change."""
    parts = name.split(":")[0].split("/")
    return [_SYNONYMS.get(part, part) for part in (_UNIQUE_SUFFIX.sub("", p) for p in parts)]


def near_names(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that `name` may stand for; NameIndex(candidates).near(name) for one name."""
    return NameIndex(candidates).near(name, limit)


def first_names(names: Sequence[str]) -> str:
    """`a, b, c, ...`: three of them at most."""
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")


def some_of(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """`a, b and 3 more`, or `a; b; and 3 more`: `most` of them, and how many are left."""
    shown, left = between.join(texts[:most]), len(texts) - most
    if left <= 0:
        return shown
    return f"{shown} and {left:,} more" if between == ", " else f"{shown}{between}and {left:,} more"


def meant(names: Sequence[str]) -> str:
    """`did you mean a?`, as a row's note; empty where there are no names."""
    return f"did you mean {names[0]}?" if names else ""


def did_you_mean_or(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'a'?`, or `; expected a, b`, to end a message on an unknown name with."""
    return did_you_mean(near_names(name, known)) or f"; expected {', '.join(known)}"


def did_you_mean(names: Sequence[str]) -> str:
    """`; did you mean 'a' or 'b'?`, to end a message with; empty where there are no names."""
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""


def scopes_apart(one: str, other: str) -> tuple[str, str]:
    """The scopes in which two names differ, `a/` and `b/c/` of `a/w` and `b/c/w`; "" for none."""
    ours, theirs = one.split("/"), other.split("/")
    while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    if ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return "/".join([*ours, ""]), "/".join([*theirs, ""])

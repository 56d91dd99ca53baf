"""Which tensor of a checkpoint belongs to which tensor of a model: by object path and by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from estimator_ckpt.bundle.index import Entry, slice_key
from estimator_ckpt.bundle.tensors import dtype_name
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.object_graph import Attribute, ObjectGraph, match
from estimator_ckpt.report import Row, fold, near_names, text_table

MATCH_BY = ("path", "name")
POLICIES = ("error", "warn", "init")

# Beyond so many missing tensors a hint for each costs more time than it saves.
_MOST_HINTS = 100


@dataclass(frozen=True)
class Wanted:
    """One tensor that a model restores.

    Attributes:
      name: the variable name, as a Saver knows it.
      suffix: what the tensor's key has after the object's own (`-keys` of a lookup table), or "".
      node: its object in the model's object graph.
      attribute: the name of its value there (VARIABLE_VALUE, `table`, ...).
      shape: of the whole variable, not of a slice; None where it is not known.
      dtype: its name, `float32`.
      aliases: other variable names to read instead where the checkpoint has them, best first.
    """

    name: str
    suffix: str
    node: int
    attribute: str
    shape: tuple[int, ...] | None
    dtype: str
    aliases: tuple[str, ...] = ()

    @property
    def tensor(self) -> str:
        return self.name + self.suffix


@dataclass(frozen=True)
class Resolution:
    """What a checkpoint has of what a model wants.

    Attributes:
      keys: the key of every tensor that fits, by its Wanted.tensor.
      missing: the tensors that the checkpoint lacks.
      problems: one row for each that does not fit: a path and a name that lead to different
        tensors, a name that two variables share, another shape or dtype.
    """

    keys: Mapping[str, str]
    missing: Sequence[Wanted]
    problems: Sequence[Row]


def policy_for(name: str, policy: str | Mapping[str, str]) -> str:
    """The policy for a variable: the one given, or that of the first pattern matching its name."""
    if isinstance(policy, str):
        return policy
    return next((p for pattern, p in policy.items() if re.fullmatch(pattern, name)), "error")


def weaken(policy: str | Mapping[str, str]) -> str | Mapping[str, str]:
    """The same policy, with a warning where it would initialize in silence."""
    if isinstance(policy, str):
        return "warn" if policy == "init" else policy
    return {pattern: str(weaken(choice)) for pattern, choice in policy.items()}


def check_policy(setting: str, policy: object, allowed: Sequence[str] = POLICIES) -> None:
    """Raises SettingsError unless `policy` is one of `allowed` or maps patterns to them."""
    choices = ", ".join(repr(p) for p in allowed)
    if isinstance(policy, str):
        if policy not in allowed:
            raise SettingsError(f"expected one of {choices}, found {policy!r}", key=setting)
        return
    if not isinstance(policy, Mapping):
        raise SettingsError(f"expected one of {choices} or a mapping of patterns", key=setting)
    for pattern, choice in policy.items():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise SettingsError(f"{pattern!r} is no pattern: {error}", key=setting) from None
        if choice not in allowed:
            raise SettingsError(
                f"expected one of {choices} for {pattern!r}, found {choice!r}", key=setting
            )


def resolve(
    checkpoint: Checkpoint,
    wanted: Sequence[Wanted],
    template: ObjectGraph,
    *,
    match_by: str | None = None,
    reshape: bool = False,
) -> Resolution:
    """Finds the key of every wanted tensor.

    Args:
      checkpoint: name-based, object-based or both.
      wanted: what the model needs.
      template: the model's object graph, whose node ids `wanted` names.
      match_by: "path" or "name" decides where the two lead to different tensors.
      reshape: whether another shape with as many elements will do.
    """
    finder = _Finder(checkpoint, template)
    keys: dict[str, str] = {}
    missing: list[Wanted] = []
    rows: list[Row] = []
    for want in wanted:
        key, row = finder.find(want, match_by)
        if row is None and key is not None:
            row = _fit(want, checkpoint.index.entries[key.encode()], key, reshape=reshape)
        if row is not None:
            rows.append(row)
        elif key is None:
            missing.append(want)
        else:
            keys[want.tensor] = key
    return Resolution(keys, missing, rows)


def mismatch(checkpoint: Checkpoint, rows: Iterable[Row]) -> MismatchError:
    """The error that shows everything which does not fit, folded, in one table."""
    rows = list(rows)
    table = text_table(
        ("problem", "variable", "expected", "found", "note"),
        [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
    )
    count = f"{len(rows)} variable{'s do' if len(rows) > 1 else ' does'}"
    return MismatchError(
        f"{count} not fit this {checkpoint.format} checkpoint:\n{table}", path=checkpoint.prefix
    )


def missing_rows(
    checkpoint: Checkpoint, missing: Sequence[Wanted], status: str = "missing"
) -> list[Row]:
    """A row for each tensor that the checkpoint lacks, with the nearest name that it has."""
    names = list(checkpoint.variables) if len(missing) <= _MOST_HINTS else []
    rows = []
    for want in missing:
        near = near_names(want.tensor, names)
        note = f"did you mean {near[0]}?" if near else ""
        rows.append(Row(status, want.tensor, describe(want.dtype, want.shape), note=note))
    return rows


def describe(dtype: str, shape: Sequence[int] | None) -> str:
    """`float32[3,4]`"""
    return f"{dtype}[{','.join(map(str, shape)) if shape is not None else '?'}]"


def _fit(want: Wanted, entry: Entry, key: str, *, reshape: bool) -> Row | None:
    def row(status: str) -> Row:
        found = describe(dtype_name(entry.dtype), entry.shape)
        return Row(status, want.tensor, describe(want.dtype, want.shape), found, f"key {key}")

    if dtype_name(entry.dtype) != want.dtype:
        return row("dtype")
    if want.shape is None or entry.shape == want.shape:
        return None
    if reshape and _count(entry.shape) == _count(want.shape):
        return None
    return row("shape")


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class _Finder:
    """The two ways to a tensor of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, template: ObjectGraph) -> None:
        self._entries = checkpoint.index.entries
        saved = checkpoint.object_graph
        self._saved = saved
        self._bindings = match(template, saved) if saved is not None else {}
        self._names = saved.names() if saved is not None else {}

    def find(self, want: Wanted, match_by: str | None) -> tuple[str | None, Row | None]:
        by_path = self._by_path(want)
        by_name: list[str] = []
        for name in (*want.aliases, want.name):
            by_name = self._by_name(name, want)
            if by_name:
                break
        if name != want.name:
            # An average is asked for by its name; that the variable itself stands at the
            # variable's own path is no contradiction.
            by_path = by_name
        paths, names = self._distinct(by_path), self._distinct(by_name)
        chosen = {"path": paths or names, "name": names or paths}.get(match_by or "")
        if chosen is None:
            # A name that several variables share is told apart by the path, if that is among them.
            if len(paths) == 1 and self._location(paths[0]) in map(self._location, names):
                return paths[0], None
            chosen = self._distinct([*paths, *names])
        if len(chosen) > 1:
            return None, Row(
                "ambiguous",
                want.tensor,
                expected=f"by path: {' and '.join(paths) or '-'}",
                found=f"by name: {' and '.join(names) or '-'}",
                note="match_by='path' or 'name' decides"
                if paths and names
                else "one name for several variables",
            )
        return (chosen[0] if chosen else None), None

    def _by_path(self, want: Wanted) -> list[str]:
        saved = self._saved
        if saved is None:
            return []
        return self._keys(
            (
                attribute
                for node in self._bindings.get(want.node, ())
                for attribute in saved.nodes[node].attributes
            ),
            want,
        )

    def _by_name(self, name: str, want: Wanted) -> list[str]:
        plain = name + want.suffix
        found = [plain] if plain.encode() in self._entries else []
        return found + self._keys((a for _, a in self._names.get(name, ())), want)

    def _keys(self, attributes: Iterable[Attribute], want: Wanted) -> list[str]:
        keys = (a.checkpoint_key + want.suffix for a in attributes if a.name == want.attribute)
        return [key for key in keys if key.encode() in self._entries]

    def _distinct(self, keys: Iterable[str]) -> list[str]:
        """One key for each tensor: two keys of one checkpoint may stand for the same bytes."""
        return list({self._location(key): key for key in reversed(list(keys))}.values())[::-1]

    def _location(self, key: str) -> tuple[object, ...]:
        entry = self._entries[key.encode()]
        if entry.slices:
            entry = self._entries[slice_key(key, entry.slices[0])]
        # Tensors without bytes are all alike, wherever they are said to lie.
        return (entry.shard, entry.offset, entry.size) if entry.size else (entry.dtype, entry.shape)

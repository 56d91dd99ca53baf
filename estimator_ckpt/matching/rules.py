"""Rules on variable names: what each name of a checkpoint becomes, and the reason for it.

Three kinds of rules, applied in this order:

1. `exclude`: regular expressions; a name that one of them matches is left out.
2. `rename`: pairs of a regular expression and a replacement (`\\1` for a group). The first that
   matches a name renames it.
3. `assignment_map`: pairs as `tf.compat.v1.train.init_from_checkpoint` takes them
   (tensorflow/python/training/checkpoint_utils.py), from the name so far to the new one:
   `("old/", "new/")` for a scope, `("/", "new/")` and `("old/", "/")` from and to the root,
   `("old/kernel", "new/kernel")` for one variable. A name that several pairs match goes to several
   places; a name that none matches keeps its name.

Regular expressions match a whole name, as `re.fullmatch` does. `exclude` and `assignment_map` may
also call a variable by its object path, where it has one (`model/layers/0/kernel`); `rename` takes
variable names alone, as its replacements are.

A name may belong to another, as `dense/kernel/Adam` does to `dense/kernel`. It goes where that one
goes, to several places or out, and keeps what its own name adds. Only a rule that matches it and
not the other one decides for it alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Union

from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.text.names import NameIndex, did_you_mean, some_of
from estimator_ckpt.text.patterns import compile_pattern

Pairs = Union[Mapping[str, str], Sequence[tuple[str, str]]]
_Rule = tuple[str, int]  # the setting, its number in there

_ROOT = "/"
_MOST_SHOWN = 10


class Line(NamedTuple):
    """What becomes of one name.

    Attributes:
      source: the name in the checkpoint.
      target: the new name; None if it is left out.
      reason: the rules that made it so, empty where none applied.
      of: the new name of the one that it belongs to; None if there is none, or it is left out.
    """

    source: str
    target: str | None
    reason: str
    of: str | None = None


@dataclass(frozen=True)
class Rules:
    """Rules on variable names.

    Attributes:
      assignment_map: pairs, or a mapping, of names or scopes.
      rename: pairs, or a mapping, of a regular expression and its replacement.
      exclude: regular expressions.

    Raises:
      SettingsError: a rule that is no rule; the key tells which, `rename[2]`.
    """

    assignment_map: Pairs = ()
    rename: Pairs = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "assignment_map", _pairs("assignment_map", self.assignment_map))
        object.__setattr__(self, "rename", _pairs("rename", self.rename))
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        object.__setattr__(self, "exclude", exclude)
        for number, (source, target) in enumerate(self.assignment_map):
            if source.endswith("/") != target.endswith("/"):
                raise SettingsError(
                    f"{source!r} and {target!r} must both be scopes, which end in '/' (the root is "
                    "'/'), or both be variables",
                    key=f"assignment_map[{number}]",
                )
        for number, (pattern, replacement) in enumerate(self.rename):
            compiled = compile_pattern(pattern, f"rename[{number}]")
            try:
                compiled.sub(replacement, "")
            except (re.error, IndexError) as error:
                raise SettingsError(
                    f"{replacement!r} is no replacement for {pattern!r}: {error}",
                    key=f"rename[{number}]",
                ) from None
        for number, pattern in enumerate(self.exclude):
            compile_pattern(pattern, f"exclude[{number}]")

    def __bool__(self) -> bool:
        return bool(self.assignment_map or self.rename or self.exclude)

    def resolve(
        self,
        names: Iterable[str],
        *,
        also: Mapping[str, str] | None = None,
        owners: Mapping[str, str] | None = None,
        require_all_rules_match: bool = True,
    ) -> list[Line]:
        """What becomes of every name, in their order; a name that goes to two places has two lines.

        Args:
          names: the variable names of the checkpoint.
          also: name -> another that `assignment_map` and `exclude` may call it by, its object path.
          owners: name -> the one that it belongs to, which itself belongs to none.
          require_all_rules_match: whether a rule that no name matches is an error.

        Raises:
          SettingsError: a rule matches no name, or makes an empty one.
          ConflictError: two names would become one.
        """
        names = list(names)
        also = also or {}
        owners = owners or {}
        used: set[_Rule] = set()
        found: dict[str, list[Line]] = {}
        matched: dict[str, set[_Rule]] = {}
        for name in names:
            matching = matched.setdefault(name, set()) if name in owners else used
            found[name] = self._lines(name, also.get(name), matching)
        for name, owner in owners.items():
            alone = any(not self._matches(rule, owner, also.get(owner)) for rule in matched[name])
            found[name] = _with_owner(name, found[name], owner, found[owner], alone)
            used |= matched[name]
        lines = [line for name in names for line in found[name]]
        if require_all_rules_match:
            self._check_used(used, names)
        check_targets(lines)
        return lines

    def _lines(self, name: str, other: str | None, used: set[_Rule]) -> list[Line]:
        for number, pattern in enumerate(self.exclude):
            if re.fullmatch(pattern, name) or (other and re.fullmatch(pattern, other)):
                used.add(("exclude", number))
                return [Line(name, None, f"exclude {pattern}")]
        renamed, reasons = self._renamed(name, used)
        lines: dict[str, Line] = {}
        for number, (source, target) in enumerate(self.assignment_map):
            found = _assigned(renamed, source, target)
            if found is None and other:
                found = _assigned(other, source, target)
            if found is not None:
                used.add(("assignment_map", number))
                reason = ", ".join([*reasons, f"assignment_map {source} -> {target}"])
                lines.setdefault(found, Line(name, found, reason))
        return list(lines.values()) or [Line(name, renamed, ", ".join(reasons))]

    def _matches(self, rule: _Rule, name: str, other: str | None) -> bool:
        setting, number = rule
        if setting == "rename":
            return re.fullmatch(list(self.rename)[number][0], name) is not None
        if setting == "exclude":
            pattern = self.exclude[number]
            return bool(re.fullmatch(pattern, name) or (other and re.fullmatch(pattern, other)))
        source, target = list(self.assignment_map)[number]
        so_far = self._renamed(name, set())[0]
        return bool(
            _assigned(so_far, source, target) or (other and _assigned(other, source, target))
        )

    def _renamed(self, name: str, used: set[_Rule]) -> tuple[str, list[str]]:
        for number, (pattern, replacement) in enumerate(self.rename):
            found = re.fullmatch(pattern, name)
            if found:
                used.add(("rename", number))
                renamed = found.expand(replacement)
                if not renamed:
                    raise SettingsError(
                        f"the rule leaves nothing of the name {name!r}", key=f"rename[{number}]"
                    )
                return renamed, [f"rename {pattern} -> {replacement}"]
        return name, []

    def _check_used(self, used: set[_Rule], names: list[str]) -> None:
        for setting in ("exclude", "assignment_map", "rename"):
            for number, rule in enumerate(getattr(self, setting)):
                if (setting, number) in used:
                    continue
                pattern = rule if isinstance(rule, str) else rule[0]
                hint = did_you_mean(NameIndex(names).near(pattern.strip("^$/.*")))
                text = repr(pattern) if isinstance(rule, str) else f"{pattern!r} -> {rule[1]!r}"
                raise SettingsError(
                    f"{text} matches none of {len(names)} names"
                    + (" that no earlier rule has taken" if setting == "rename" and number else "")
                    + hint,
                    key=f"{setting}[{number}]",
                )


def _with_owner(
    name: str, lines: list[Line], owner: str, owner_lines: list[Line], alone: bool
) -> list[Line]:
    """What becomes of a name that belongs to another.

    Args:
      name: of the one that follows.
      lines: by the rules, for itself.
      owner: the name of the other.
      owner_lines: what becomes of that.
      alone: whether a rule matches this name and not the other.
    """
    if lines[0].target is None:
        return lines
    new_owners = [line.target for line in owner_lines if line.target is not None]
    if not new_owners:
        gone = Line(name, None, f"with {owner}, {owner_lines[0].reason}")
        return lines if alone else [gone]
    moved = [_moved(name, owner, new_owner) for new_owner in new_owners]
    pairs = [(target, number) for number, target in enumerate(moved)]
    if alone or None in moved:
        pairs = [
            pair
            for index, line in enumerate(lines)
            for pair in _settled(name, line.target or "", owner, new_owners, index)
        ]
    reasons = {line.target: line.reason for line in lines}
    found: dict[str, Line] = {}
    for target, number in pairs:
        assert target is not None  # as _settled() has it
        why = reasons.get(target)
        if why is None:
            why = ", ".join(filter(None, (f"with {owner}", owner_lines[number].reason)))
        found.setdefault(target, Line(name, target, why, new_owners[number]))
    return list(found.values())


def _settled(
    name: str, target: str, owner: str, new_owners: list[str], index: int
) -> list[tuple[str | None, int]]:
    """The names where rules made `target` of a name, each with the number of its owner."""
    for number, new_owner in enumerate(new_owners):
        if target == _moved(name, owner, new_owner) or target.startswith(f"{new_owner}/"):
            return [(target, number)]
    moved = [_moved(target, owner, new_owner) for new_owner in new_owners]
    if target == name or None in moved:
        return [(target, min(index, len(moved) - 1))]
    return [(one, number) for number, one in enumerate(moved)]


def _moved(name: str, owner: str, new_owner: str) -> str | None:
    """`name` with another name for its owner, None if that is not in there."""
    if name.startswith(f"{owner}/"):
        return new_owner + name[len(owner) :]
    if name.endswith(f"/{owner}"):
        return name[: -len(owner)] + new_owner
    before, found, after = name.rpartition(f"/{owner}/")
    if found:
        return f"{before}/{new_owner}/{after}"
    # Keras 3 calls the slots of `dense/kernel` `adam/dense_kernel_momentum`.
    before, slash, last = name.rpartition("/")
    flat, new_flat = owner.replace("/", "_"), new_owner.replace("/", "_")
    if slash and last.startswith(f"{flat}_"):
        return f"{before}/{new_flat}{last[len(flat) :]}"
    return None


def check_targets(lines: Iterable[Line]) -> None:
    """Raises ConflictError where two sources have one target."""
    first: dict[str, Line] = {}
    clashes = []
    for line in lines:
        if line.target is None:
            continue
        other = first.setdefault(line.target, line)
        if other.source != line.source:
            clashes.append(f"{_told(other)} and {_told(line)} would both be {line.target!r}")
    if clashes:
        raise ConflictError(some_of(clashes, _MOST_SHOWN, "; "))


def _told(line: Line) -> str:
    return f"{line.source!r} ({line.reason or 'its own name'})"


def _pairs(setting: str, pairs: Pairs) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, (Mapping, Iterable)):
        raise SettingsError(f"expected pairs, or a mapping, found {pairs!r}", key=setting)
    items = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    for number, pair in enumerate(items):
        if (
            isinstance(pair, str)
            or not isinstance(pair, Sequence)
            or len(pair) != 2
            or not all(isinstance(text, str) for text in pair)
            or not pair[0]
        ):
            raise SettingsError(
                f"expected a pair of texts, found {pair!r}", key=f"{setting}[{number}]"
            )
    return tuple((source, target) for source, target in items)


def _assigned(name: str, source: str, target: str) -> str | None:
    if not source.endswith("/"):
        return target if name == source else None
    if source != _ROOT and not name.startswith(source):
        return None
    rest = name if source == _ROOT else name[len(source) :]
    return (rest if target == _ROOT else target + rest) or None

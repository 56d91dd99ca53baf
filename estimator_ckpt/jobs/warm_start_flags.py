"""What flags say about a warm start: overrides of its settings' fields, and short forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.text.names import did_you_mean_or
from estimator_ckpt.warm_start import WarmStart

_POLICIES = ("on_missing", "on_shape_mismatch")
_LISTS = ("assignment_map", "rename", "exclude", "vars_to_warm_start")
_VOCABULARIES = "var_name_to_vocab_info"


def exclusion(scope: str) -> str:
    """The pattern for names that begin with `scope`, as --checkpoint_exclude_scopes means it."""
    return f"{re.escape(scope.strip())}.*"


def parse_policy(text: str, key: str) -> Any:
    """A word, or the YAML mapping that `text` is, `{head/.*: init}`.

    Raises:
      SettingsError: `text` is no YAML.
    """
    return parse_yaml(text, key) if text.lstrip().startswith("{") else text


def parse_yaml(text: str, key: str) -> Any:
    """The YAML value that `text` is.

    Raises:
      SettingsError: it is none.
    """
    from estimator_ckpt.warm_starting.file import read_yaml

    return read_yaml(text, key=key)


def with_overrides(
    settings: WarmStart,
    overrides: Sequence[str],
    *,
    key: str = "override",
    exclude: Sequence[str] = (),
    on_missing: str | None = None,
) -> WarmStart:
    """Settings with some fields changed.

    Args:
      settings: what is changed.
      overrides: each `FIELD=VALUE` or `FIELD.KEY=VALUE`; the value is YAML. The key is that of a
        mapping, or the number of a line in a list, whose length appends one. A key may contain
        dots; for a vocabulary it is `NAME.FIELD`. A pattern for a policy goes before the others.
      key: the flag's name, for errors.
      exclude: patterns, added to those that there are.
      on_missing: the policy for what no override is about.

    Raises:
      SettingsError: an unknown field, a key that the field cannot have, no YAML, a wrong value.
    """
    changed = {one.name: getattr(settings, one.name) for one in fields(WarmStart)}
    changed["exclude"] = [*changed["exclude"], *exclude]
    if on_missing is not None:
        changed["on_missing"] = on_missing
    for override in overrides:
        setting, equals, text = override.partition("=")
        name, dot, rest = setting.strip().partition(".")
        if not equals or (dot and not rest):
            raise SettingsError(
                f"expected FIELD=VALUE or FIELD.KEY=VALUE, found {override!r}", key=key
            )
        if name not in changed:
            hint = did_you_mean_or(name, list(changed))
            raise SettingsError(f"WarmStart has no field {name!r}{hint}", key=key)
        value = parse_yaml(text, f"{key}={setting}")
        if dot:
            value = _with_item(name, changed[name], rest, value, f"{key}={setting}")
        changed[name] = value
    try:
        return WarmStart(**changed)
    except SettingsError as error:
        raise SettingsError(
            error.message, key=f"{key}={error.key}" if overrides else error.key
        ) from None


def _with_item(name: str, found: Any, rest: str, value: Any, key: str) -> Any:
    """The field's value with one item of it changed."""
    if name in _POLICIES:
        others = found if isinstance(found, Mapping) else {".*": found}
        return {rest: value, **{pattern: p for pattern, p in others.items() if pattern != rest}}
    if name == _VOCABULARIES:
        variable, dot, field = rest.rpartition(".")
        if not dot:
            return {**found, rest: value}
        return {**found, variable: {**dict(found.get(variable, {})), field: value}}
    if isinstance(found, Mapping):
        return {**found, rest: value}
    if name in _LISTS and isinstance(found, (list, tuple)):
        if not rest.isdecimal() or int(rest) > len(found):
            raise SettingsError(
                f"expected the number of a line, 0 to {len(found)}, found {rest!r}", key=key
            )
        lines = list(found)
        lines[int(rest) : int(rest) + 1] = [value]
        return lines
    raise SettingsError("this field has no items", key=key)

"""A tf.estimator.VocabInfo, or a mapping with its fields: what it says, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.text.names import did_you_mean_or

_REQUIRED = ("new_vocab", "new_vocab_size", "num_oov_buckets", "old_vocab")
_OPTIONAL = ("old_vocab_size", "backup_initializer", "axis")


def check_vocabulary(setting: str, info: Any) -> None:
    """Raises SettingsError unless `info`, which stands at `setting`, has a VocabInfo's fields."""
    if not isinstance(info, Mapping):
        if not all(hasattr(info, name) for name in _REQUIRED):
            raise SettingsError(
                f"expected a VocabInfo or a mapping with its fields, found {info!r}", key=setting
            )
        return
    known = (*_REQUIRED, *_OPTIONAL)
    for name in info:
        if name not in known:
            hint = did_you_mean_or(str(name), known)
            raise SettingsError(f"no such field{hint}", key=f"{setting}.{name}")
    lacking = [name for name in _REQUIRED if name not in info]
    if lacking:
        raise SettingsError(f"expected {', '.join(lacking)} as well", key=setting)


def with_home(info: Any) -> Any:
    """The same, with the home directory in the place of `~` in its paths."""
    fields = _fields(info)
    paths = {name: os.path.expanduser(str(fields[name])) for name in ("new_vocab", "old_vocab")}
    if all(fields[name] == path for name, path in paths.items()):
        return info
    return {**info, **paths} if isinstance(info, Mapping) else info._replace(**paths)


def check_size(setting: str, info: Any, shape: tuple[int, ...] | None) -> None:
    """Raises SettingsError unless a variable of this shape has a row for each word and bucket."""
    fields = _fields(info)
    axis = fields.get("axis") or 0
    words, buckets = fields["new_vocab_size"], fields["num_oov_buckets"]
    if shape is None:
        return
    if len(shape) != 2 or shape[axis] != words + buckets:
        raise SettingsError(
            f"expected a matrix with new_vocab_size + num_oov_buckets = {words} + {buckets} for "
            f"the size of axis {axis}, found the shape {list(shape)}",
            key=setting,
        )


def fits(info: Any, shape: tuple[int, ...], source: tuple[int, ...]) -> bool:
    """Whether a variable of the one shape can take its rows from one of the other."""
    axis = _fields(info).get("axis") or 0
    return len(shape) == len(source) == 2 and shape[1 - axis] == source[1 - axis]


def _fields(info: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = info if isinstance(info, Mapping) else info._asdict()
    return fields

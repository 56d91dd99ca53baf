"""A second key for the same bytes: an index rewrite, whatever the size of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from estimator_ckpt.bundle.index import Entry, read_index, slice_key, write_index
from estimator_ckpt.errors import ConflictError, MissingTensorError


def rekey(entries: Mapping[bytes, Entry], keys: Mapping[str, Iterable[str]]) -> dict[bytes, Entry]:
    """The entries of `entries` under new keys, the slices of partitioned variables with them.

    Args:
      entries: of an index.
      keys: for each key that is to stay, the keys it is to have; all others are left out.

    Raises:
      MissingTensorError: there is no such key.
      ConflictError: two tensors would get one key.
    """
    found: dict[bytes, Entry] = {}

    def put(key: bytes, entry: Entry) -> None:
        if found.setdefault(key, entry) != entry:
            raise ConflictError("two tensors would have this key", key=key.decode())

    for old, names in keys.items():
        entry = entries.get(old.encode())
        if entry is None:
            raise MissingTensorError("there is no tensor under this key", key=old)
        for new in names:
            put(new.encode(), entry)
            for extents in entry.slices:
                put(slice_key(new, extents), entries[slice_key(old, extents)])
    return found


def add_keys(prefix: str, names: Mapping[str, str]) -> None:
    """Gives tensors of a checkpoint a second key each, in place and atomically.

    Args:
      prefix: the checkpoint's.
      names: existing key -> the key that its tensor gets beside it.

    Raises:
      ConflictError: such a key exists and has other bytes; nothing has been changed.
    """
    index = read_index(prefix)
    added = rekey(index.entries, {old: (new,) for old, new in names.items()})
    for key, entry in added.items():
        if index.entries.get(key, entry) != entry:
            raise ConflictError(
                "another tensor has this key already", path=prefix, key=key.decode()
            )
    write_index(prefix, index._replace(entries={**index.entries, **added}))

"""A second key for the same bytes: an index rewrite, whatever the size of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.bundle.slices import key_bytes, slice_key
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
    for old, names in keys.items():
        if key_bytes(old) not in entries:
            raise MissingTensorError("there is no tensor under this key", key=old)
        for new in names:
            added = _under(entries, old, new)
            if any(found.get(key, entry) != entry for key, entry in added.items()):
                raise ConflictError("two tensors would have this key", key=new)
            found.update(added)
    return found


def with_keys(index: Index, names: Mapping[str, str | Sequence[str]]) -> Index:
    """An index in which tensors have further keys.

    Args:
      index: of a checkpoint.
      names: existing key -> the key, or the keys, that its tensor gets beside it.

    Raises:
      MissingTensorError: there is no such key.
      ConflictError: such a key exists and has other bytes.
    """
    given = {old: (new,) if isinstance(new, str) else new for old, new in names.items()}
    added = rekey(index.entries, given)
    for new in chain.from_iterable(given.values()):
        there = index.entries.get(key_bytes(new))
        if there is not None and _under(index.entries, new, new).items() - added.items():
            raise ConflictError("another tensor has this key already", key=new)
    return index._replace(entries={**index.entries, **added})


def _under(entries: Mapping[bytes, Entry], old: str, new: str) -> dict[bytes, Entry]:
    """One tensor's entry, and those of its slices, under another key."""
    entry = entries[key_bytes(old)]
    found = {key_bytes(new): entry}
    # The entry of a partitioned variable says nothing of where its bytes are: its slices' do.
    for extents in entry.slices:
        found[slice_key(new, extents)] = entries[slice_key(old, extents)]
    return found

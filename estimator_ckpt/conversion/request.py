"""What was asked of a conversion, and the mark of one that was done in place.

Some rules mean something else on their own result: names that are swapped are swapped back, a slot
that is scaled is scaled again. A conversion in place that is killed when all is done, or before it
could say so, is run once more; it must not be done once more. So the index that it writes tells
what was asked: there is no moment at which the one is there without the other. The mark is bound to
the index' entries. What anything else writes does not have it: a save, another conversion,
TensorFlow; a copy of the files has it.

A conversion to a new place needs no mark. Its source stays as it was, and its result is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.bundle.entries import Entry, encode_entries
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.reading.locate import find_prefix

# The options that say how a result is written, and not what it is. All others count.
_SAME_RESULT = frozenset(["copy", "compact", "in_place", "verify"])


def settings_of(options: ConvertOptions) -> dict[str, Any]:
    """The options that a result depends on, as JSON has them; of `like` a path and a checksum.

    Raises:
      CheckpointError: `like` cannot be read.
    """
    settings = {name: value for name, value in vars(options).items() if name not in _SAME_RESULT}
    rules = options.rules()
    settings.update(rename=rules.rename, assignment_map=rules.assignment_map, exclude=rules.exclude)
    if isinstance(options.like, str):
        settings["like"] = [options.like, index_stamp(find_prefix(options.like))]
    elif options.like is not None:
        del settings["like"]  # objects in Python
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


def index_stamp(prefix: str) -> int | None:
    """A checksum of an index, which changes when a job saves again under the same name."""
    from estimator_ckpt.bundle.checksum import masked_crc32c

    path = f"{prefix}.index"
    return masked_crc32c(files.read_bytes(path)) if files.exists(path) else None


def request_of(options: ConvertOptions) -> bytes:
    """A checksum of what is asked: 32 bytes; none where that is a format alone, as to do that twice
    is to do it once.

    Only what differs from the defaults is in it, so that an option that is new in a later version
    of this package changes no mark.

    Raises:
      CheckpointError: `like` cannot be read.
    """
    import hashlib  # slow to import, and seldom needed

    defaults = vars(ConvertOptions(options.checkpoint_format))
    plain = json.loads(json.dumps({**defaults, "like": None}))
    asked = {
        name: value
        for name, value in settings_of(options).items()
        if name != "like" and value != plain[name]
    }
    if options.like is not None:
        from estimator_ckpt.conversion.like import template_stamp  # few conversions need it

        asked["like"] = template_stamp(options.like, numbers=options.optimizer is not None)
    if not asked:
        return b""
    asked["checkpoint_format"] = options.checkpoint_format
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def mark_of(request: bytes, entries: Mapping[bytes, Entry]) -> bytes:
    """The mark of an index: a checksum of a request_of() and of the entries; none for none."""
    if not request:
        return b""
    import hashlib

    digest = hashlib.sha256(request)
    keys = sorted(entries)
    for key, entry in zip(keys, encode_entries(list(map(entries.__getitem__, keys)))):
        digest.update(b"%d %d " % (len(key), len(entry)) + key + entry)
    return digest.digest()


def is_done_in_place(checkpoint: Checkpoint, options: ConvertOptions) -> bool:
    """Whether a checkpoint is what these very options made of it, in place.

    Raises:
      CheckpointError: `like` cannot be read.
    """
    index = checkpoint.index
    if not options.in_place or not index.mark:
        return False
    return index.mark == mark_of(request_of(options), index.entries)


def done_in_place(checkpoint: Checkpoint, options: ConvertOptions) -> Conversion:
    """What a conversion has to say where is_done_in_place()."""
    return Conversion(
        source=checkpoint.prefix,
        destination=checkpoint.prefix,
        source_format="saver" if checkpoint.object_graph is None else checkpoint.format,
        checkpoint_format=options.checkpoint_format,
        rows=(),
        already=True,
    )

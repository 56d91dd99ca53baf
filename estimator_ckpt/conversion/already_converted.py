"""Whether a checkpoint that is there is what a conversion would write."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from estimator_ckpt.bundle.index import read_index, same_tensor
from estimator_ckpt.bundle.slices import key_bytes, key_text
from estimator_ckpt.checkpoint import Checkpoint, check_data_files
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.conversion.result_bytes import ResultBytes
from estimator_ckpt.errors import CorruptCheckpointError


def is_result(checkpoint: Checkpoint, tensors: Mapping[str, Content], result: str) -> bool:
    """Whether what is there has the keys and the values of the plan.

    Bytes that stay as they are have the checksums of the source; computed ones are computed again.

    Raises:
      CorruptCheckpointError: it is broken, or its data files are missing or cut off.
    """
    index, there = checkpoint.index, read_index(result)
    computed = {}
    if {key_text(key) for key in there.entries if key[:1] != b"\0"} != tensors.keys():
        return False
    for key, content in tensors.items():
        entry = there.entries[key_bytes(key)]
        if (entry.dtype, entry.shape) != (content.dtype, content.shape):
            return False
        if content.computed or (index.v1 and content.source):  # it has no checksums
            computed[key] = content
        elif not content.source:
            if entry.crc32c != content.crc32c:
                return False
        elif not same_tensor(index, content.source, key, there):
            return False
    check_data_files(result, there)
    try:
        with contextlib.closing(ResultBytes(checkpoint.prefix, index)) as source:
            source.compare(computed, result, there)
    except CorruptCheckpointError:
        return False
    return True

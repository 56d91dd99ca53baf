"""Files: local ones by the operating system, ``scheme://`` ones by `tf.io.gfile` or fsspec.

Whatever goes wrong comes out as a `CheckpointError` with the path and the system's words for it:
`NotACheckpointError` where a file was to be read, `WriteError` where it was to be written.
"""

from estimator_ckpt.files.ahead import Part, ReadAhead, for_each, parts_of
from estimator_ckpt.files.copies import NO_LINK, Progress, detach, link_or_copy, link_or_copy_all
from estimator_ckpt.files.paths import is_remote, path_text
from estimator_ckpt.files.read import (
    exists,
    is_dir,
    is_linked,
    lfs_pointer,
    list_dir,
    map_bytes,
    map_range,
    oddity,
    open_read,
    read_bytes,
    read_range,
    read_soon,
    size,
    stamp,
    stamp_or_none,
)
from estimator_ckpt.files.uncached import write_uncached
from estimator_ckpt.files.write import (
    make_dirs,
    open_write,
    remove,
    remove_dir,
    rename,
    truncate,
    write_atomic,
)

__all__ = [
    "NO_LINK",
    "Part",
    "Progress",
    "ReadAhead",
    "detach",
    "exists",
    "for_each",
    "is_dir",
    "is_linked",
    "is_remote",
    "lfs_pointer",
    "link_or_copy",
    "link_or_copy_all",
    "list_dir",
    "make_dirs",
    "map_bytes",
    "map_range",
    "oddity",
    "open_read",
    "open_write",
    "parts_of",
    "path_text",
    "read_bytes",
    "read_range",
    "read_soon",
    "remove",
    "remove_dir",
    "rename",
    "size",
    "stamp",
    "stamp_or_none",
    "truncate",
    "write_atomic",
    "write_uncached",
]

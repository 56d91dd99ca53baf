"""What people have lying about beside their checkpoints, and what can be done with it."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from estimator_ckpt import files
from estimator_ckpt.errors import CheckpointError

_HDF5 = "load it into its model with Keras (load_weights, load_model)"
_SAVE = "then save that with tf.train.Checkpoint(model).write"
_IMPORT = "`estimator-ckpt import` makes a checkpoint of it"
_EVENTS = re.compile(r"events\.out\.tfevents|\.tfevents\b")
_SAVED_MODEL = {"saved_model.pb", "saved_model.pbtxt"}
_ORBAX = {"_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt", "commit_success.txt"}
_PICKLE = re.compile(r"\.(pt|pth|bin|pkl|pickle)$")
_LISTED = 3  # files of a directory that are named
_LOOKED_AT = 100
_SUSPECTS = re.compile(
    r"\.(h5|hdf5|keras|safetensors|pt|pth|bin|npz|npy|zip|msgpack|onnx|tflite|pb|pbtxt)$"
)


def name_file(path: str) -> str | None:
    """What a file is that is no checkpoint, with what to do; None if that is not known.

    Raises:
      NotACheckpointError: it cannot be read.
    """
    name = os.path.basename(path)
    start = files.read_range(path, 0, 32)
    if pointer := files.lfs_pointer(start):
        return pointer
    if start.startswith(b"\x89HDF"):
        kind = "weights of a Keras model" if name.endswith(".weights.h5") else "as Keras writes"
        return f"an HDF5 file ({kind}); {_HDF5}, {_SAVE}"
    if start.startswith(b"PK\x03\x04"):
        return _name_zip(path)
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") <= files.size(path):
        return f"a safetensors file; {_IMPORT}"
    if start.startswith(b"\x93NUMPY"):
        return f"a NumPy array; assign it to a variable, {_SAVE}"
    if _PICKLE.search(name) and start[:1] == b"\x80":
        return f"a Python pickle, as PyTorch wrote; load it with torch.load, {_SAVE}"
    if _EVENTS.search(name):
        return "a file of events for TensorBoard, which has no variables"
    if name in _SAVED_MODEL:
        return "the graph of a SavedModel; give the directory that it is in"
    return None


def _name_zip(path: str) -> str:
    """What a zip archive is, by its members; a remote one by its name."""
    import zipfile  # slow to import, and rarely needed

    members: set[str] = set()
    if not files.is_remote(path):
        broken = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError)
        with suppress(*broken), zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    ends = {member.rpartition("/")[2] for member in members}
    if path.endswith(".keras") or {"metadata.json", "config.json"} <= members:
        return f"a Keras model (.keras); load it with keras.models.load_model, {_SAVE}"
    if "data.pkl" in ends or path.endswith((".pt", ".pth")):
        return f"a PyTorch file; load it with torch.load, {_SAVE}"
    if path.endswith(".npz") or (members and all(end.endswith(".npy") for end in ends)):
        return f"NumPy arrays (.npz); {_IMPORT}"
    if any(member.endswith(".index") for member in members):
        return "a zip archive with a checkpoint in it; unpack it"
    return "a zip archive; if a checkpoint is in it, unpack it"


def name_directory(directory: str) -> str | None:
    """What a directory without a checkpoint has instead; None if that is not known.

    Raises:
      NotACheckpointError: it cannot be read.
    """
    names = files.list_dir(directory)
    if _ORBAX.intersection(names):
        return (
            "a checkpoint of Orbax (JAX, or Keras on it); restore it with Orbax, and save its "
            "arrays with TensorFlow"
        )
    found: list[str] = []
    for name in names[:_LOOKED_AT]:
        path = os.path.join(directory, name)
        if not _SUSPECTS.search(name) or len(found) == _LISTED:
            continue
        with suppress(CheckpointError):
            what = None if files.is_dir(path) else name_file(path)
            if what is not None:
                found.append(f"{name} is {what}")
    return ". ".join(found) or None

"""Where the result of a conversion goes, by what the caller says of it."""

from __future__ import annotations

import os

from estimator_ckpt import files
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import check_destination, refuse_name
from estimator_ckpt.errors import SettingsError, WriteError
from estimator_ckpt.reading.locate import complete_prefixes, is_saved_model


def result_path(
    checkpoint: Checkpoint, destination: str | os.PathLike[str] | None, options: ConvertOptions
) -> str:
    """The prefix of the result; see convert_checkpoint().

    Raises:
      SettingsError: there is none, or it does not go with a conversion in place.
      WriteError: something else is there, or it is inside the source.
    """
    if destination is not None:
        destination = files.path_text(destination, "destination")
    if options.in_place:
        if destination is not None and destination not in (
            checkpoint.path,
            checkpoint.prefix,
        ):
            raise SettingsError("in place there is no other destination", key="destination")
        check_in_place(checkpoint.prefix, options)
        check_v1_in_place(checkpoint, options)
        if files.is_dir(checkpoint.path) and len(complete_prefixes(checkpoint.path)) > 1:
            raise SettingsError(
                "expected one checkpoint, found a directory of several; name one, or convert all "
                "of them with convert_directory()",
                path=checkpoint.path,
                key="source",
            )
        return checkpoint.prefix
    if not destination:
        raise SettingsError("expected a prefix or a directory, found none", key="destination")
    refuse_name(destination)
    target = destination
    of_model_dir = files.is_dir(checkpoint.path) and not is_saved_model(checkpoint.path)
    if of_model_dir or target.endswith("/") or files.is_dir(target):
        target = os.path.join(target, os.path.basename(plain_prefix(checkpoint.prefix)))
    if files.is_dir(checkpoint.path) and is_inside(target, checkpoint.path):
        raise WriteError(
            f"the destination is inside the source, {checkpoint.path}; name another place",
            path=target,
        )
    if target == checkpoint.prefix:
        raise WriteError(
            "this is the source itself; name another place, or convert it in place (in_place)",
            path=target,
        )
    check_destination(target)
    return target


def check_in_place(path: str, options: ConvertOptions) -> None:
    """Raises SettingsError where nothing can be converted in place."""
    if options.in_place and files.is_remote(path):
        raise SettingsError(
            "a remote checkpoint cannot be converted in place, as nothing can be appended to a "
            "data file there; convert it to a new place",
            path=path,
            key="in_place",
        )


def check_v1_in_place(checkpoint: Checkpoint, options: ConvertOptions) -> None:
    """Raises SettingsError for a checkpoint that can be converted to a new place alone."""
    if options.in_place and checkpoint.index.v1:
        raise SettingsError(
            "a checkpoint in TensorFlow's first format (V1) cannot be converted in place, as its "
            "file has no data files behind it; convert it to a new place",
            path=checkpoint.prefix,
            key="in_place",
        )


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is in a directory, or is it."""
    if files.is_remote(path) or files.is_remote(directory):
        return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")
    path, directory = os.path.realpath(path), os.path.realpath(directory)
    return os.path.commonpath([path, directory]) == directory

"""Checkpoints from one format to another: parse, check, act. The data stays where it is.

A new index gives the same bytes other keys; the data files get a second name, and the object graph
a small one of its own. So the time does not depend on the size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.bundle.index import read_index, same_tensor, shard_path
from estimator_ckpt.bundle.slices import key_text
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.conversion.already_converted import is_result
from estimator_ckpt.conversion.casting import Casts
from estimator_ckpt.conversion.companions import carry_meta, keep_meta, write_own_state
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import check_destination, claimed, clear_in_place
from estimator_ckpt.conversion.plan import (
    Content,
    Conversion,
)
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.conversion.transfer import Transfer, Written
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files import Progress
from estimator_ckpt.matching.rules import Pairs
from estimator_ckpt.reading.locate import complete_prefixes, is_saved_model


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None,
    checkpoint_format: str,
    *,
    layout: str | None = None,
    like: Any = None,
    rename: Pairs = (),
    assignment_map: Pairs = (),
    exclude: Sequence[str] = (),
    drop_slots: bool = False,
    drop_configs: bool = False,
    use_averages: str | bool = False,
    keep_raw: str | None = None,
    optimizer: str | None = None,
    from_optimizer: str | None = None,
    hyperparameters: Mapping[str, float] | None = None,
    dtype: Casts = None,
    copy: bool = False,
    compact: bool = False,
    in_place: bool = False,
    verify: bool | None = None,
    dry_run: bool = False,
    progress: Progress = None,
) -> Conversion:
    """Converts one checkpoint, without moving its data unless that is asked for.

    Args:
      source: whatever open_checkpoint() takes; a model_dir stands for its newest checkpoint.
      destination: the prefix of the result; or a directory, in which it keeps its name: one that is
        there or ends in "/", or any where the source is given as a model_dir. None for a conversion
        in place. A directory with no other checkpoint and no `checkpoint` file gets one.
      checkpoint_format: "saver" for names (TF1), "checkpoint" for objects (TF2), or "both".
      layout: the objects for the names: "var_list", one child of `var_list` for each; "scopes", an
        object for each scope, so that a tf.Module tree with the same attribute names restores it.
        None: "var_list" for a name-based source; the objects that are there for another.
      like: an object-based checkpoint, or a tf.train.Checkpoint, whose objects are to be those of
        the result, matched by variable name.
      rename: pairs of a regular expression and a replacement; see matching/rules.py for all three.
        What belongs to a variable, its slots, its moving average and all below its name, goes along
        wherever rules take the variable, and out with it, unless a rule names it alone. The root
        object's `step`, by whatever name, is a TF1 job's global step once a rule calls it
        `global_step`; the plan tells which.
      assignment_map: pairs of names or scopes; the first may be an object path or a scope of them.
      exclude: regular expressions of names, or of object paths, to leave out.
      drop_slots: leave out the optimizers' variables, unless one is the global step as well.
      drop_configs: leave out the classes and settings of layers that Keras of TensorFlow 2.0 saved
        (OBJECT_CONFIG_JSON), which no later Keras restores: assert_consumed() fails with them.
      use_averages: puts the average of each variable (tf.train.ExponentialMovingAverage) in the
        variable's place: True for averages of its default name, else their name. What has no
        average stays itself, as the statistics of batch norm do. The raw values are left out, and
        so are the optimizers' variables, which belong to them.
      keep_raw: with `use_averages`, the raw value of X stays as `X/KEEP_RAW`.
      optimizer: "keras" makes the slots those of an object `optimizer` that the legacy Keras
        optimizers restore, "tf1" those of a tf.compat.v1 optimizer; what can be converted, says
        conversion/optimizer_relations.py. "keras2" and "keras3" mean Keras' optimizers since 2.11,
        which know their slots by the order of the variables: `like` gives it. None: they are
        variables like any other.
      from_optimizer: the class of a Keras optimizer since 2.11 in the source, where the checkpoint
        does not say it: "SGD", "Lion", ...
      hyperparameters: numbers of the optimizer, to be written (`beta_1`, `decay`, ...), or to
        convert with (`learning_rate`, `momentum`, `iter`). Where there are several optimizers each
        number tells whose it is: `Momentum/learning_rate`.
      dtype: what floating-point variables are cast to, or a mapping from dtype to dtype. Slots go
        along with their variables, as optimizers make them; steps and an optimizer's own numbers
        (beta1_power, learning_rate, ...) keep their dtype. Writes new data files, as compact does.
      copy: make independent data files instead of links.
      compact: write new data files without what was left out.
      in_place: rewrite the index where it is; an object graph is appended to the last data file, of
        which a copy is made first if it is linked from elsewhere.
      verify: read source and result again and compare them, tensor by tensor. None: if bytes were
        copied or cast. True: also checks all of the source before anything is written.
      dry_run: only say what would be done.
      progress: called with the bytes done and those in all while data is copied or written.

    Returns:
      What was done, or would be: a row for each tensor.

    Raises:
      SettingsError: an argument is wrong, or a rule matches nothing.
      ConflictError: two tensors would have one key, or a rule would make a slot that of another
        variable.
      MismatchError: the variables do not fit `like`; or values do not fit the new dtype: too large,
        or in a slot too small. In other variables small ones become 0: `underflows` counts them.
      NotACheckpointError, CorruptCheckpointError, UnsupportedCheckpointError: the source is none,
        or is broken; nothing has been written.
      WriteError: the result cannot be written; nothing of it is left behind.
    """
    options = ConvertOptions(
        checkpoint_format,
        layout=layout,
        like=like,
        rename=rename,
        assignment_map=assignment_map,
        exclude=exclude,
        drop_slots=drop_slots,
        drop_configs=drop_configs,
        use_averages=use_averages,
        keep_raw=keep_raw,
        optimizer=optimizer,
        from_optimizer=from_optimizer,
        hyperparameters={} if hyperparameters is None else hyperparameters,
        dtype=dtype,
        copy=copy,
        compact=compact,
        in_place=in_place,
        verify=verify,
    )
    return convert_with(source, destination, options, dry_run=dry_run, progress=progress)


@collector_paused()
def convert_with(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None,
    options: ConvertOptions,
    *,
    dry_run: bool = False,
    progress: Progress = None,
) -> Conversion:
    """convert_checkpoint() with the options in one."""
    with open_checkpoint(source) as checkpoint:
        target = _destination(checkpoint, destination, options)
        conversion, tensors = make_plan(checkpoint, target, options)
        if dry_run:
            return conversion
        if options.in_place and not changes(checkpoint, tensors):
            clear_in_place(target)
            return conversion
        return carry_out(checkpoint, conversion, tensors, options, progress, with_state=True)


def _destination(
    checkpoint: Checkpoint, destination: str | os.PathLike[str] | None, options: ConvertOptions
) -> str:
    if destination is not None:
        destination = files.path_text(destination, "destination")
    if options.in_place:
        if destination is not None and destination not in (
            checkpoint.path,
            checkpoint.prefix,
        ):
            raise SettingsError("in place there is no other destination", key="destination")
        check_in_place(checkpoint.prefix, options)
        if checkpoint.index.v1:
            raise SettingsError(
                "a checkpoint in TensorFlow's first format (V1) cannot be converted in place, as "
                "its file has no data files behind it; convert it to a new place",
                path=checkpoint.prefix,
                key="in_place",
            )
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
    target = destination
    of_model_dir = files.is_dir(checkpoint.path) and not is_saved_model(checkpoint.path)
    if of_model_dir or target.endswith("/") or files.is_dir(target):
        target = os.path.join(target, os.path.basename(plain_prefix(checkpoint.prefix)))
    if files.is_dir(checkpoint.path) and is_inside(target, checkpoint.path):
        raise WriteError(
            f"the destination is inside the source, {checkpoint.path}; name another place",
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


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is in a directory, or is it."""
    if files.is_remote(path) or files.is_remote(directory):
        return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")
    path, directory = os.path.realpath(path), os.path.realpath(directory)
    return os.path.commonpath([path, directory]) == directory


def changes(checkpoint: Checkpoint, tensors: Mapping[str, Content]) -> bool:
    """Whether a result in place would be another checkpoint."""
    if any(not content.source or content.computed for content in tensors.values()):
        return True
    index = checkpoint.index
    if {key_text(key) for key in index.entries if key[:1] != b"\0"} != tensors.keys():
        return True
    return any(
        key != content.source and not same_tensor(index, key, content.source)
        for key, content in tensors.items()
    )


# --- the act ---


def carry_out(
    checkpoint: Checkpoint,
    conversion: Conversion,
    tensors: Mapping[str, Content],
    options: ConvertOptions,
    progress: Progress = None,
    *,
    with_state: bool = False,
    wait: float = 0.0,
) -> Conversion:
    """Writes the result of a plan.

    Args:
      with_state: also a state file, where the directory has no other.
      wait: how long to wait for another conversion to the same place, in seconds.

    Raises:
      CorruptCheckpointError, WriteError: as convert_checkpoint() does.
    """
    if options.verify:
        _check_data(conversion.source, progress)
    # A file in the V1 format is no data file: there is nothing that could be linked.
    compact = options.compact or options.dtype is not None or checkpoint.index.v1 is not None
    transfer = Transfer(conversion.source, checkpoint.index, tensors, progress)
    if options.in_place:
        written = transfer.write_in_place(prove=options.verify)
        companions = keep_meta(checkpoint.index, conversion.source, tensors)
    else:
        with claimed(conversion.destination, wait=wait) as site:
            if files.exists(f"{site.destination}.index"):
                written = _finished(checkpoint, tensors, site.destination, copy=options.copy)
            else:
                written = transfer.write_new(
                    site,
                    copy=options.copy,
                    compact=compact,
                    prove=options.verify,
                )
            companions = carry_meta(checkpoint.index, conversion.source, tensors, site)
            if with_state:
                write_own_state(conversion.source, site)
    return Conversion(
        conversion.source,
        conversion.destination,
        conversion.source_format,
        conversion.checkpoint_format,
        conversion.rows,
        True,
        tuple(written.data_files),
        written.compared,
        tuple(written.underflows.items()),
        companions,
    )


def _finished(
    checkpoint: Checkpoint, tensors: Mapping[str, Content], destination: str, *, copy: bool
) -> Written:
    """What a conversion that was killed just before its end has written.

    Raises:
      WriteError: it is not what is to be written now.
    """
    index = read_index(destination)
    paths = [shard_path(destination, shard, index.num_shards) for shard in range(index.num_shards)]
    if not is_result(checkpoint, tensors, destination) or (
        copy and any(map(files.is_linked, paths))
    ):
        raise WriteError(
            "the checkpoint that is there already was written by a conversion that was killed, and "
            "is not what is to be written now; remove it, or name another place",
            path=destination,
        )
    return Written([(path, "same") for path in paths], None, {})


def _check_data(prefix: str, progress: Progress) -> None:
    from estimator_ckpt.verify import verify_checkpoint

    for fault in verify_checkpoint(prefix, progress=progress).faults:
        raise CorruptCheckpointError(fault.message, path=fault.file, key=fault.key)

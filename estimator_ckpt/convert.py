"""Checkpoints from one format to another: parse, check, act. The data stays where it is.

A new index gives the same bytes other keys; the data files get a second name, and the object graph
a small one of its own. So the time does not depend on the size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.conversion.carry_out import carry_out, changes
from estimator_ckpt.conversion.casting import Casts
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import clear_in_place
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.conversion.request import done_in_place, is_done_in_place
from estimator_ckpt.conversion.result_path import result_path
from estimator_ckpt.files import Progress
from estimator_ckpt.formats import CheckpointFormat
from estimator_ckpt.matching.rules import Pairs


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None,
    checkpoint_format: CheckpointFormat,
    *,
    layout: str | None = None,
    like: Any = None,
    match_by: str | None = None,
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
    with_input: bool = False,
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
        the result. Each of its variables is found as a restore would find it, by the rules of
        matching/resolve.py: by the source's objects first, where it has any, else by name. Names
        without objects may be the template's object paths, too. The plan tells by which way.
      match_by: "path" or "name" decides where the two lead to different variables of the source;
        None makes that an error that shows both.
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
        which a copy is made first if it is linked from elsewhere. Run again with the same options,
        after a kill as well, it changes nothing: the index tells by what options it was made.
      verify: read source and result again and compare them, tensor by tensor. None: if bytes were
        copied or cast. True: also checks all of the source before anything is written.
      with_input: take the position of the input along, which a job has saved with save_input; it
        holds records of the training data. Else it is left out, and in place it stays.
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
        match_by=match_by,
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
        with_input=with_input,
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
        target = result_path(checkpoint, destination, options)
        if is_done_in_place(checkpoint, options):
            if not dry_run:
                clear_in_place(target)
            return done_in_place(checkpoint, options)
        conversion, tensors = make_plan(checkpoint, target, options)
        if dry_run:
            return conversion
        if options.in_place and not changes(checkpoint, tensors):
            clear_in_place(target)
            return conversion
        return carry_out(checkpoint, conversion, tensors, options, progress, with_state=True)

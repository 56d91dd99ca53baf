"""A WarmStart as the settings that tf.estimator and tf.compat.v1.train.warm_start take.

TensorFlow's own warm start wants names for keys, all of them, and has neither rules nor policies.
So it is given a view of the checkpoint: a name-based index, in which every tensor has the name that
the rules give it, beside hard links to the data files.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.bundle.aliases import rekey
from estimator_ckpt.bundle.index import encode_index, shard_path, write_index
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.destination import claimed
from estimator_ckpt.conversion.plan import source_content
from estimator_ckpt.conversion.transfer import Transfer
from estimator_ckpt.errors import SettingsError, WriteError
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles.training_state import TRAINING_STATE
from estimator_ckpt.text.names import did_you_mean, near_names
from estimator_ckpt.text.patterns import compile_pattern
from estimator_ckpt.warm_starting.settings import Settings

# What TensorFlow's patterns are matched with: "w:0", and "w/part_0:0" of a partitioned variable.
_END = r"(?:/part_\d+)?:\d+$"
_MOST_WAITED = 600.0  # seconds, for another task of a job that copies the same


def stock_settings(settings: Settings, directory: str | None = None) -> Any:
    """A tf.estimator.WarmStartSettings that does the same; see WarmStart.to_settings()."""
    import tensorflow as tf

    if not _has_estimator(tf):
        raise SettingsError("this TensorFlow has no tf.estimator: it had one up to 2.15")
    _check_expressible(settings)
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        sources = Saved(
            checkpoint,
            settings.rename,
            require_all_rules_match=settings.require_all_rules_match,
            use_averages=settings.use_averages,
        )
        patterns, moved = _assigned(settings, sources)
        prefix = checkpoint.prefix
        if checkpoint.object_graph is not None or settings.rename or moved or settings.use_averages:
            prefix = _view(checkpoint, {**sources, **moved}, directory)
    selected = settings.selection
    if settings.assignment_map:
        selected = [*selected, *patterns]
    excluded = "|".join(f"(?:{pattern})" for pattern in settings.exclude)
    if excluded:
        is_one = isinstance(selected, str)
        selected = [
            _pattern(f"(?!(?:{excluded}){_END})(?:{one})")
            for one in ([selected] if is_one else selected)
        ]
        selected = selected[0] if is_one else selected
    return tf.estimator.WarmStartSettings(
        prefix,
        selected,
        {name: _vocab_info(tf, info) for name, info in settings.var_name_to_vocab_info.items()},
        dict(settings.var_name_to_prev_var_name),
    )


def _has_estimator(tf: Any) -> bool:
    try:
        return hasattr(tf.estimator, "WarmStartSettings")
    except AttributeError:
        return False


def _check_expressible(settings: Settings) -> None:
    def refuse(name: str, what: str) -> SettingsError:
        return SettingsError(
            f"{what} cannot be said in a tf.estimator.WarmStartSettings; use warm_start= of "
            "wrap_model_fn() or of a scaffold factory instead",
            key=name,
        )

    for name in ("on_missing", "on_shape_mismatch"):
        policy = getattr(settings, name)
        choices = policy.values() if isinstance(policy, Mapping) else [policy]
        if any(choice != "error" for choice in choices):
            raise refuse(name, f"{policy!r}")
    if settings.on_unexpected != "ignore":
        raise refuse("on_unexpected", repr(settings.on_unexpected))
    for name in ("match_by", "root"):
        if getattr(settings, name) is not None:
            raise refuse(name, repr(getattr(settings, name)))
    for name in ("hyperparameters", "from_optimizer"):
        if getattr(settings, name):
            raise refuse(name, "the state of another kind of optimizer")
    selected = settings.selection
    strings = isinstance(selected, str) or all(isinstance(one, str) for one in selected or ())
    if settings.assignment_map and (selected is None or isinstance(selected, str) or not strings):
        raise refuse("vars_to_warm_start", "an assignment_map beside anything but a list of names")
    if settings.exclude and (selected is None or not strings):
        raise refuse("exclude", "exclusions from what is not given by expressions")


def _assigned(settings: Settings, sources: Saved) -> tuple[list[str], dict[str, Variable]]:
    """The patterns of the model's variables that the assignment map names, and their sources."""
    patterns: list[str] = []
    moved: dict[str, Variable] = {}
    for number, (source, model) in enumerate(settings.assignment_map):
        setting = f"assignment_map[{number}]"
        found: dict[str, Variable] = {}
        if source.endswith("/"):
            scope, target = ("" if one == "/" else one for one in (source, model))
            for name in {*sources, *sources.object_paths}:
                if name.startswith(scope):
                    variable = sources.find(name)
                    assert variable is not None
                    found[target + name[len(scope) :]] = variable
            patterns.append(f"(?!{TRAINING_STATE}{_END}){re.escape(target)}")
        else:
            variable = sources.find(source)
            if variable is not None:
                found[_target(setting, model)] = variable
            patterns.append(re.escape(_target(setting, model)) + _END)
        if not found:
            hint = did_you_mean(near_names(source, sources))
            raise SettingsError(f"the checkpoint has no {source!r}{hint}", key=setting)
        for name, variable in found.items():
            if name in settings.var_name_to_prev_var_name:
                rule = f"var_name_to_prev_var_name[{name!r}]"
                raise SettingsError(f"two rules for {name!r}: {rule} and this", key=setting)
            moved[name] = variable  # of several pairs the last decides
    return patterns, moved


def _target(setting: str, model: Any) -> str:
    """The name of a variable; a partitioned one's, of its parts."""
    if isinstance(model, str):
        return model
    from estimator_ckpt.saving import tf_internals

    names = {
        tf_internals.full_name(part) if hasattr(part, "_save_slice_info") else part.name
        for part in (model if isinstance(model, Sequence) else [model])
    }
    if len(names) != 1:
        message = f"expected the parts of one variable, found {sorted(names)}"
        raise SettingsError(message, key=setting)
    return str(names.pop())


def _view(checkpoint: Checkpoint, variables: Mapping[str, Variable], directory: str | None) -> str:
    """A name-based checkpoint of these tensors, which shares the data files."""
    if directory is None:
        directory = tempfile.mkdtemp(prefix="warm_start-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    else:
        files.make_dirs(directory)
    names: dict[str, list[str]] = {}
    for name, variable in variables.items():
        names.setdefault(variable.key, []).append(name)
    if checkpoint.index.v1:
        return _copy(checkpoint, names, directory)
    index = checkpoint.index._replace(entries=rekey(checkpoint.index.entries, names))
    # An index has the checksum of every tensor: one of the same bytes is of the same view, which a
    # job that was stopped, or another worker, has made here already.
    digest = hashlib.sha256(encode_index(index)).hexdigest()[:16]
    prefix = os.path.join(directory, f"view-{digest}")
    if files.exists(f"{prefix}.index"):
        return prefix
    for shard in range(index.num_shards):
        source, link = (
            shard_path(one, shard, index.num_shards) for one in (checkpoint.prefix, prefix)
        )
        try:
            if not files.exists(link):
                files.link_or_copy(source, link)
        except WriteError:
            if not files.exists(link):
                raise
    write_index(prefix, index)
    return prefix


def _copy(checkpoint: Checkpoint, names: Mapping[str, Sequence[str]], directory: str) -> str:
    """A checkpoint of these tensors of one in the V1 format, whose file no view can share."""
    index = checkpoint.index
    tensors = {
        name: source_content(index, key, index.entries[key_bytes(key)])
        for key, new in names.items()
        for name in new
    }
    # The same digest as of a view, for the same reason; but the values have to be read for it.
    entries = rekey(index.entries, names)
    whole = {key: entry for key, entry in entries.items() if not entry.slices}
    for key, entry in whole.items():
        entries[key] = entry._replace(crc32c=checkpoint.reader.crc32c(entry))
    digest = hashlib.sha256(encode_index(index._replace(entries=entries))).hexdigest()[:16]
    prefix = os.path.join(directory, f"copy-{digest}")
    if files.exists(f"{prefix}.index"):
        return prefix
    try:
        with (
            contextlib.closing(Transfer(checkpoint.prefix, index, tensors)) as transfer,
            claimed(prefix, wait=_MOST_WAITED) as site,
        ):
            if not files.exists(f"{prefix}.index"):
                transfer.write_new(site, copy=False, compact=True, prove=None)
    except WriteError:
        if not files.exists(f"{prefix}.index"):  # else another task of the job has made it
            raise
    return prefix


def _pattern(text: str) -> str:
    compile_pattern(text, "exclude")
    return text


def _vocab_info(tf: Any, given: Any) -> Any:
    return tf.estimator.VocabInfo(**given) if isinstance(given, Mapping) else given

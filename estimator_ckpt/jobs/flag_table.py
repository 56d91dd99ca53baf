"""The flags of a job: names, defaults, help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from absl import flags

from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.options import ON_CORRUPT, ON_INPUT_CHANGE, ON_UNSAVABLE_INPUT

# Name -> how to define it, and with what.
FLAGS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "model_dir": (
        flags.DEFINE_string,
        {"default": None, "help": "Where checkpoints are; a job resumes from the newest one."},
    ),
    "checkpoint_format": (
        flags.DEFINE_enum,
        {
            "default": "checkpoint",
            "enum_values": list(CHECKPOINT_FORMATS),
            "help": "What is written: name-based (TF1) checkpoints (saver), object-based (TF2) ones"
            " (checkpoint), or both in one set of files. Every format is read.",
        },
    ),
    "save_checkpoints_steps": (
        flags.DEFINE_integer,
        {"default": None, "lower_bound": 1, "help": "Save every so many steps."},
    ),
    "save_checkpoints_secs": (
        flags.DEFINE_integer,
        {
            "default": None,
            "lower_bound": 1,
            "help": "Save every so many seconds; 600 unless --save_checkpoints_steps is given.",
        },
    ),
    "keep_checkpoint_max": (
        flags.DEFINE_integer,
        {"default": None, "lower_bound": 0, "help": "How many stay; 0 for all. 5 unless given."},
    ),
    "keep_checkpoint_every_n_hours": (
        flags.DEFINE_float,
        {"default": None, "help": "One more stays for every so many hours of training."},
    ),
    "keep_checkpoint_every_n_steps": (
        flags.DEFINE_integer,
        {
            "default": None,
            "lower_bound": 1,
            "help": "One more stays for every so many steps: the first at or after each multiple.",
        },
    ),
    "keep_best": (
        flags.DEFINE_multi_string,
        {
            "default": [],
            "help": "METRIC:COUNT, or METRIC:COUNT:min, as accuracy:3: so many checkpoints stay"
            " that evaluations found best, in MODEL_DIR/best. May be repeated, for other metrics.",
        },
    ),
    "reset": (
        flags.DEFINE_multi_string,
        {
            "default": [],
            "help": "What a job initializes, once, although the checkpoint that it resumes from has"
            " it: optimizer, averages, statistics, early_stopping, or a regular expression of"
            " names. May be repeated; all are one request.",
        },
    ),
    "reset_once": (
        flags.DEFINE_string,
        {"default": None, "help": "A name for what --reset asks for, to ask for the same again."},
    ),
    "deletion_grace_secs": (
        flags.DEFINE_float,
        {
            "default": 0.0,
            "lower_bound": 0.0,
            "help": "Seconds that a replaced checkpoint stays for an evaluator that reads it.",
        },
    ),
    "on_missing": (
        flags.DEFINE_string,
        {
            "default": "error",
            "help": "What to do with a variable that the checkpoint to resume from lacks: error,"
            " warn, init, or a YAML mapping from patterns to these, '{head/.*: init}'.",
        },
    ),
    "match_by": (
        flags.DEFINE_enum,
        {
            "default": None,
            "enum_values": ["path", "name"],
            "help": "What decides where a variable's object path and its name lead to different"
            " tensors of the checkpoint; an error unless given.",
        },
    ),
    "durable": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Save no faster than the disk: the state file names a checkpoint when its data"
            " are on the disk. Otherwise that happens beside training.",
        },
    ),
    "async_checkpoint": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Train on while a checkpoint is written, from a snapshot of its step. Takes the"
            " memory of the variables once more.",
        },
    ),
    "on_corrupt": (
        flags.DEFINE_enum,
        {
            "default": "error",
            "enum_values": list(ON_CORRUPT),
            "help": "What to do where the newest checkpoint is damaged: error, or fall_back to the"
            " newest one before it that is sound.",
        },
    ),
    "check_data": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Read the newest checkpoint through before resuming from it, to see whether it"
            " is whole; one that may have been cut by a power failure is in any case.",
        },
    ),
    "ema": (
        flags.DEFINE_string,
        {
            "default": None,
            "help": "The name of the ExponentialMovingAverage whose averages evaluation and"
            " prediction read. A checkpoint without them is an error, unless --on_missing allows"
            " it.",
        },
    ),
    "save_input": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Save the position of the input beside each checkpoint, so that a job that"
            " resumes goes on with the next batch.",
        },
    ),
    "on_input_change": (
        flags.DEFINE_enum,
        {
            "default": "error",
            "enum_values": list(ON_INPUT_CHANGE),
            "help": "What to do where the pipeline is not the one of the saved position: error, or"
            " restart, which begins the input anew.",
        },
    ),
    "on_unsavable_input": (
        flags.DEFINE_enum,
        {
            "default": "error",
            "enum_values": list(ON_UNSAVABLE_INPUT),
            "help": "What to do with --save_input where the position cannot be saved: error, or"
            " warn, which trains without.",
        },
    ),
    "save_input_max_bytes": (
        flags.DEFINE_integer,
        {
            "default": None,
            "lower_bound": 1,
            "help": "How large one position may be, in bytes: it holds what stands in buffers.",
        },
    ),
    "warm_start_from": (
        flags.DEFINE_string,
        {
            "default": None,
            "help": "The checkpoint, of any format, that training starts from where model_dir has"
            " none to resume from.",
        },
    ),
    "warm_start_config": (
        flags.DEFINE_string,
        {
            "default": None,
            "help": "A YAML file with the fields of WarmStart: by which rules it starts.",
        },
    ),
    "warm_start_override": (
        flags.DEFINE_multi_string,
        {
            "default": [],
            "help": "FIELD=VALUE or FIELD.KEY=VALUE, a field of WarmStart with a YAML value, over"
            " what the file says: on_missing=init, on_missing.head/.*=init. May be repeated.",
        },
    ),
    "warm_start_dry_run": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Print what each variable would start from, and exit without training.",
        },
    ),
    "checkpoint_exclude_scopes": (
        flags.DEFINE_list,
        {
            "default": [],
            "help": "Comma-separated beginnings of the names of variables that are not warm-started"
            " but initialized.",
        },
    ),
    "ignore_missing_vars": (
        flags.DEFINE_bool,
        {
            "default": False,
            "help": "Initialize, with a warning, what the checkpoint to start from lacks. Short for"
            " --warm_start_override=on_missing=warn.",
        },
    ),
}
# The name in the scripts of many programs -> ours.
ALIASES = {"init_checkpoint": "warm_start_from"}


def help_text(name: str, prefix: str) -> str:
    """The help of a flag; the flags that it mentions get the prefix, too."""
    text: str = FLAGS[name][1]["help"]
    return re.sub(r"--(?=\w)", f"--{prefix}", text)

"""usage: estimator-ckpt convert --checkpoint_format=FORMAT [flags] SOURCE DESTINATION
       estimator-ckpt convert --checkpoint_format=FORMAT --in_place [flags] SOURCE

Converts checkpoints between names (saver, TF1), objects (checkpoint, TF2) and both in one set of
files, by a new index and links to the same data. SOURCE is a prefix, PREFIX.index or a SavedModel's
directory, and DESTINATION a new prefix or a directory; or SOURCE is a directory with checkpoints,
or with many such directories below it, and DESTINATION one that gets the same tree of results.
Every rule below reads FROM:TO, divided at the last colon; regular expressions match whole names.
What belongs to a variable, its slots, its moving average and all below its name, goes along where
the rules take the variable, and is left out with it, unless a rule names it alone; --dry_run tells.
A `step` of a TF2 program's root object keeps the name that it has, which may be `Variable`; a TF1
job finds its global step there after --rename=NAME:global_step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Union

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.cli import EXIT_ERROR, EXIT_OK, UsageError
from estimator_ckpt.conversion.batch import Outcome, convert_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.conversion.translate_optimizer import TARGETS
from estimator_ckpt.convert import convert_with
from estimator_ckpt.errors import printable
from estimator_ckpt.formats import CHECKPOINT_FORMATS
from estimator_ckpt.reading.locate import is_saved_model
from estimator_ckpt.roles.dialects import class_names
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.report import counted, print_table, size_text


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def enum(name: str, choices: Sequence[str], text: str) -> None:
        flags.DEFINE_enum(name, None, list(choices), text, flag_values=flag_values)

    def boolean(name: str, default: bool | None, text: str) -> None:
        flags.DEFINE_boolean(name, default, text, flag_values=flag_values)

    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, None, text, flag_values=flag_values)

    def rules(name: str, text: str) -> None:
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)

    enum("checkpoint_format", CHECKPOINT_FORMATS, "What the result is. Required.")
    enum(
        "layout",
        LAYOUTS,
        "The objects for names: one child of var_list for each, or an object for each scope, as a"
        " tf.Module tree has them. Unless given: var_list for a name-based source, and the objects"
        " that are there for another.",
    )
    string("like", "An object-based checkpoint whose objects the result is to have.")
    rules("rename", r"REGEX:REPLACEMENT, as in 'old/(.*):new/\1'. The first that matches decides.")
    rules(
        "assignment_map",
        "FROM:TO, two names, or two scopes that end in '/', as init_from_checkpoint takes them."
        " FROM may be an object path.",
    )
    rules("exclude", "REGEX of names, or of object paths, to leave out.")
    boolean("drop_slots", False, "Leave out the optimizers' variables.")
    boolean(
        "drop_configs",
        False,
        "Leave out the classes of layers that Keras of TensorFlow 2.0 saved (OBJECT_CONFIG_JSON).",
    )
    flags.DEFINE_flag(
        flags.Flag(
            AveragesParser(),
            None,
            "use_averages",
            False,
            "Put the averages (tf.train.ExponentialMovingAverage) in the places of their variables,"
            " without the optimizers' variables; --use_averages=NAME for those of another name.",
            boolean=True,
        ),
        flag_values=flag_values,
    )
    string("keep_raw", "With --use_averages: the raw value of X stays as X/KEEP_RAW.")
    enum(
        "optimizer",
        TARGETS,
        "Make the slots those of tf.compat.v1's optimizers (tf1), of Keras' legacy ones (keras), or"
        " of those since 2.11, as --like has them (keras2, keras3).",
    )
    enum(
        "from_optimizer",
        tuple(class_names()),
        "The class of the optimizer, where the checkpoint does not say it.",
    )
    flags.DEFINE_list(
        "hyperparameters",
        [],
        "NAME=NUMBER,...: numbers of the optimizer, to be written or to convert with:"
        " learning_rate, momentum, beta_1, iter, ...; of several optimizers"
        " Momentum/learning_rate, Adam/beta_1, ...",
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "dtype",
        [],
        "DTYPE to cast all floating-point variables to, or FROM:TO,... Slots go along; steps and an"
        " optimizer's own numbers stay. Writes new data files.",
        flag_values=flag_values,
    )
    boolean("copy", False, "Copy data files instead of linking them.")
    boolean("compact", False, "Write new data files without what was left out.")
    boolean(
        "in_place",
        False,
        "Rewrite the index where it is, and append what is new to the last data file: to a copy of"
        " it, if that is linked from elsewhere.",
    )
    boolean(
        "verify",
        None,
        "Check the source before, and compare the result with it. Unless given, the result is"
        " compared if bytes were copied or cast.",
    )
    boolean("dry_run", False, "Print the whole plan and touch nothing.")
    string(
        "log",
        "For a directory: a file that gets a line of JSON for each checkpoint; what it says is"
        " converted is not converted again.",
    )
    boolean("json", False, "Print JSON.")


class AveragesParser(flags.ArgumentParser):  # type: ignore[type-arg]
    """A flag that is given alone, or with a name."""

    def parse(self, argument: str | bool) -> str | bool:
        return {"true": True, "false": False}.get(str(argument).lower(), argument)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Converts a checkpoint, or all in a directory; 2 if one of them failed."""
    options = _options(flag_values)
    wanted = 1 if options.in_place else 2
    if len(arguments) != wanted:
        expected = "one path, SOURCE" if wanted == 1 else "two paths, SOURCE and DESTINATION"
        raise UsageError(f"convert: expected {expected}, found {len(arguments)}")
    source, destination = arguments[0], None if wanted == 1 else arguments[1]
    if files.is_dir(source) and not is_saved_model(source):
        return _run_directory(source, destination, options, flag_values)
    if flag_values.log is not None:
        raise UsageError("convert: --log is for a directory of checkpoints")
    with progress_bar(f"converting {printable(source)}") as progress:
        conversion = convert_with(
            source, destination, options, dry_run=flag_values.dry_run, progress=progress
        )
    if flag_values.json:
        print(json.dumps(conversion_json(conversion), indent=2))
    elif flag_values.dry_run:
        _print_plan(conversion)
    else:
        print(printable(summary(conversion)))
        if conversion.warning:
            print(f"estimator-ckpt: {printable(conversion.warning)}", file=sys.stderr)
    return EXIT_OK


def _run_directory(
    source: str, destination: str | None, options: ConvertOptions, flag_values: flags.FlagValues
) -> int:
    def report(outcome: Outcome, number: int, total: int) -> None:
        if flag_values.json:
            return
        note = f": {outcome.message}" if outcome.message else ""
        place = outcome.source
        if outcome.destination != outcome.source:
            place += f" -> {outcome.destination}"
        print(f"[{number}/{total}] {outcome.status} {printable(place + note)}", flush=True)
        if outcome.status == "planned" and outcome.conversion is not None:
            _print_plan(outcome.conversion)

    with progress_bar(f"converting {printable(source)}") as progress:
        outcomes = convert_directory(
            source,
            destination,
            options,
            dry_run=flag_values.dry_run,
            log=flag_values.log,
            report=report,
            progress=progress,
        )
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("converted", "planned", "already", "failed")
    }
    if flag_values.json:
        lines = [_outcome_json(outcome) for outcome in outcomes]
        print(json.dumps({"totals": counts, "checkpoints": lines}, indent=2))
    else:
        print(", ".join(f"{count:,} {status}" for status, count in counts.items() if count))
        for outcome in outcomes:
            if outcome.status == "failed":
                print(f"estimator-ckpt: {outcome.message}", file=sys.stderr)
    return EXIT_ERROR if counts["failed"] else EXIT_OK


def _options(values: flags.FlagValues) -> ConvertOptions:
    if values.checkpoint_format is None:
        raise UsageError("convert: --checkpoint_format is missing: saver, checkpoint or both")
    return ConvertOptions(
        values.checkpoint_format,
        layout=values.layout,
        like=values.like,
        rename=[parse_rule("convert", "rename", text) for text in values.rename],
        assignment_map=[
            parse_rule("convert", "assignment_map", text) for text in values.assignment_map
        ],
        exclude=values.exclude,
        drop_slots=values.drop_slots,
        drop_configs=values.drop_configs,
        use_averages=values.use_averages,
        keep_raw=values.keep_raw,
        optimizer=values.optimizer,
        from_optimizer=values.from_optimizer,
        hyperparameters=dict(_number(text) for text in values.hyperparameters),
        dtype=parse_dtype("convert", values.dtype),
        copy=values.copy,
        compact=values.compact,
        in_place=values.in_place,
        verify=values.verify,
    )


def parse_rule(verb: str, flag: str, text: str) -> tuple[str, str]:
    """FROM:TO, divided at the last colon."""
    start, colon, end = text.rpartition(":")
    if not colon:
        raise UsageError(f"{verb}: --{flag}: expected FROM:TO, found {text!r}")
    return start, end


def _number(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.isdecimal() else float(number)
    except ValueError:
        raise UsageError(
            f"convert: --hyperparameters: expected NAME=NUMBER, found {text!r}"
        ) from None


def parse_dtype(verb: str, texts: list[str]) -> Union[str, dict[str, str], None]:
    """One dtype for all, or FROM:TO for some."""
    if not texts:
        return None
    if len(texts) == 1 and ":" not in texts[0]:
        return texts[0]
    return dict(parse_rule(verb, "dtype", text) for text in texts)


# --- what is printed ---


def _print_plan(conversion: Conversion) -> None:
    rows = [
        [row.action, row.source, " ".join(row.targets), row.why, f"{row.nbytes:,}"]
        for row in conversion.rows
    ]
    print(f"source:      {printable(conversion.source)} ({conversion.source_format})")
    print(f"destination: {printable(conversion.destination)} ({conversion.checkpoint_format})\n")
    headers = ["action", "old key", "new key", "why", "bytes"]
    print_table(headers, rows, _total(conversion), right=["bytes"])


def _total(conversion: Conversion) -> str:
    kept = [row for row in conversion.rows if row.targets]
    left = len(conversion.rows) - len(kept)
    size = size_text(sum(row.nbytes for row in kept))
    return f"{counted(len(kept), 'tensor')}, {size}" + (f"; {left:,} left out" if left else "")


def summary(conversion: Conversion) -> str:
    """A line on what was done."""
    if not conversion.written:
        return f"{conversion.destination}: {conversion.source_format} already"
    how: dict[str, int] = {}
    for _, way in conversion.data_files:
        how[way] = how.get(way, 0) + 1
    ways = {
        "link": "linked",
        "reflink": "shared",
        "copy": "copied",
        "write": "written",
        "append": "appended to",
        "same": "unchanged",
    }
    data_files = ", ".join(f"{count} {ways[way]}" for way, count in how.items())
    compared = ""
    if conversion.verified is not None:
        compared = f"; {counted(conversion.verified, 'key')} compared"
    return (
        f"{conversion.destination}: {conversion.checkpoint_format}, {_total(conversion)}; "
        f"data files: {data_files}{compared}"
    )


def conversion_json(conversion: Conversion) -> dict[str, Any]:
    """What was done, as JSON has it."""
    return {
        "source": conversion.source,
        "destination": conversion.destination,
        "source_format": conversion.source_format,
        "checkpoint_format": conversion.checkpoint_format,
        "written": conversion.written,
        "verified": conversion.verified,
        "underflows": dict(conversion.underflows),
        "data_files": [{"path": path, "how": how} for path, how in conversion.data_files],
        "rows": [row._asdict() for row in conversion.rows],
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "source": outcome.source,
        "destination": outcome.destination,
        "message": outcome.message,
        "seconds": outcome.seconds,
        "conversion": outcome.conversion and conversion_json(outcome.conversion),
    }

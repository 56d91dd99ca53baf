"""usage: estimator-ckpt convert --checkpoint_format=FORMAT [flags] SOURCE DESTINATION
       estimator-ckpt convert --checkpoint_format=FORMAT --in_place [flags] SOURCE

Converts checkpoints between names (saver, TF1), objects (checkpoint, TF2) and both in one set of
files, by a new index and links to the same data. SOURCE is a prefix, PREFIX.index or a SavedModel's
directory, and DESTINATION a new prefix or a directory; or SOURCE is a directory with checkpoints,
or with many such directories below it, and DESTINATION one that gets the same tree of results. What
else such a tree has, event files, exported SavedModels, graph.pbtxt, stays where it is; a line says
so. Every rule below reads FROM:TO, divided at the last colon; regular expressions match whole
names. What belongs to a variable, its slots, its moving average and all below its name, goes along
where the rules take the variable, and is left out with it, unless a rule names it alone; --dry_run
shows it. A `step` of a TF2 program's root object keeps the name that it has, which may be
`Variable`; a TF1 job finds its global step there after --rename=NAME:global_step.

Examples:
  estimator-ckpt convert --checkpoint_format=both --dry_run run/model.ckpt-1000 converted/
  estimator-ckpt convert --checkpoint_format=checkpoint run converted/model.ckpt
  estimator-ckpt convert --checkpoint_format=both --in_place run/model.ckpt-2000
  estimator-ckpt convert --checkpoint_format=saver --log=converted.log all_runs all_converted
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.cli import EXIT_ERROR, EXIT_INTERRUPT, EXIT_OK, UsageError
from estimator_ckpt.commands.beam_flags import beam_arguments, define_beam, interruptible
from estimator_ckpt.commands.convert_flags import define_options, read_options
from estimator_ckpt.commands.html_flag import check_html, define_html, write_html
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.convert import convert_with
from estimator_ckpt.errors import printable
from estimator_ckpt.reading.locate import is_saved_model
from estimator_ckpt.text.progress import counting_bar, progress_bar
from estimator_ckpt.text.quantities import counted, size_text
from estimator_ckpt.text.tables import print_table

if TYPE_CHECKING:
    from estimator_ckpt.conversion.outcomes import Outcome

_MOST_KINDS = 8
_EVENTS = "event file"
_WAYS = {
    "link": "linked",
    "reflink": "shared",
    "copy": "copied",
    "write": "written",
    "append": "appended to",
    "same": "unchanged",
}

EXIT_CODES = {
    0: "converted, or already so; with --dry_run, planned",
    2: "an error; of a directory, one checkpoint or more failed, and the others are converted",
    130: "interrupted; of a directory, the same command goes on",
}
GROUPS = {
    "Common": "checkpoint_format dry_run in_place verify json html",
    "Which variables, by what names": (
        "rename exclude assignment_map drop_slots use_averages keep_raw dtype drop_configs"
    ),
    "Objects": "layout like match_by",
    "Optimizers": "optimizer from_optimizer hyperparameters",
    "Data files": "copy compact with_input",
    "Directories": "log quiet beam",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_boolean(name, False, text, flag_values=flag_values)

    define_options(flag_values)
    boolean(
        "in_place",
        "Rewrite the index where it is, and append what is new to the last data file: to a copy of"
        " it, if that is linked from elsewhere.",
    )
    boolean("dry_run", "Print the whole plan and touch nothing.")
    flags.DEFINE_string(
        "log",
        None,
        "For a directory: a file that gets a line of JSON for each checkpoint; what it says is"
        " converted is not converted again.",
        flag_values=flag_values,
    )
    define_beam(flag_values)
    boolean("quiet", "For a directory: print failures and totals alone.")
    boolean("json", "Print JSON.")
    define_html(flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Converts a checkpoint, or all in a directory; 2 if one of them failed."""
    options = read_options(flag_values, in_place=flag_values.in_place)
    wanted = 1 if options.in_place else 2
    if len(arguments) != wanted:
        expected = "one path, SOURCE" if wanted == 1 else "two paths, SOURCE and DESTINATION"
        raise UsageError(f"convert: expected {expected}, found {len(arguments)}")
    source, destination = arguments[0], None if wanted == 1 else arguments[1]
    if files.is_dir(source) and not is_saved_model(source):
        if flag_values.html:
            raise UsageError("convert: --html is for one checkpoint, not for a directory of them")
        if flag_values.beam is not None:
            return _run_on_beam(source, destination, options, flag_values)
        return _run_directory(source, destination, options, flag_values)
    for name in ("log", "beam"):
        if flag_values[name].value is not None:
            raise UsageError(f"convert: --{name} is for a directory of checkpoints")
    check_html(flag_values)
    with progress_bar(f"converting {printable(source)}") as progress:
        conversion = convert_with(
            source, destination, options, dry_run=flag_values.dry_run, progress=progress
        )
    if flag_values.html:
        from estimator_ckpt.pages.mapping import plan_view

        title = f"{conversion.source} to {conversion.destination}"
        with progress_bar("making the page"):
            write_html(flag_values, title, [plan_view(title, conversion.rows)])
    if flag_values.json:
        print(json.dumps(conversion_json(conversion), indent=2))
    elif flag_values.dry_run and not conversion.already:
        _print_plan(conversion)
    else:
        print(printable(summary(conversion)))
    if conversion.warning and not flag_values.json:
        print(f"estimator-ckpt: {printable(conversion.warning)}", file=sys.stderr)
    return EXIT_OK


def _run_directory(
    source: str, destination: str | None, options: ConvertOptions, flag_values: flags.FlagValues
) -> int:
    from estimator_ckpt.conversion.batch import convert_directory
    from estimator_ckpt.conversion.trees import find_left

    outcomes: list[Outcome] = []
    through = total = 0
    interrupted = False
    on_terminal = sys.stdout.isatty()  # asked before the bar puts something of rich in its place
    with counting_bar(f"converting {printable(source)}") as count:
        lines = not (flag_values.json or flag_values.quiet)
        lines = lines and (count is None or flag_values.dry_run or not on_terminal)

        def report(outcome: Outcome, number: int, of: int) -> None:
            nonlocal through, total
            through, total = number, of
            outcomes.append(outcome)
            if lines:
                print(f"[{number}/{of}] {_line(outcome)}", flush=True)
                if outcome.status == "planned" and outcome.conversion is not None:
                    _print_plan(outcome.conversion)
            if count is not None:
                count(number, of)

        def progress(done: int, nbytes: int) -> None:
            if count is not None and total:
                count(through + done / max(nbytes, 1), total)

        try:
            convert_directory(
                source,
                destination,
                options,
                dry_run=flag_values.dry_run,
                log=flag_values.log,
                report=report,
                progress=None if count is None else progress,
            )
        except KeyboardInterrupt:
            interrupted = True
    left = [] if options.in_place or interrupted else find_left(source)
    if not lines and not flag_values.json:
        _print_noteworthy(outcomes)
    code = _tell(outcomes, left, flag_values, interrupted=interrupted)
    if interrupted:
        when = f"after {through:,} of {total:,} checkpoints" if total else "before the first one"
        again = "the same command goes on from there"
        print(f"estimator-ckpt: interrupted {when}; {again}", file=sys.stderr)
        return EXIT_INTERRUPT
    return code


def _run_on_beam(
    source: str, destination: str | None, options: ConvertOptions, flag_values: flags.FlagValues
) -> int:
    if destination is None or flag_values.dry_run:
        raise UsageError("convert: --beam neither goes with --in_place nor with --dry_run")
    if flag_values.log is None:
        raise UsageError("convert: --beam needs --log, where the workers tell what they have done")
    arguments = beam_arguments("convert", flag_values.beam)
    from estimator_ckpt import beam  # which is slow to import, and an extra
    from estimator_ckpt.conversion.trees import find_left

    with interruptible():
        outcomes = beam.convert_directory(
            source, destination, options, log=flag_values.log, arguments=arguments
        )
    if not flag_values.json:
        _print_noteworthy(outcomes)
    return _tell(outcomes, find_left(source), flag_values)


# --- what is printed ---


def _line(outcome: Outcome) -> str:
    note = f": {outcome.message}" if outcome.message else ""
    path = outcome.source
    if outcome.destination != outcome.source:
        path += f" -> {outcome.destination}"
    return f"{outcome.status} {printable(path + note)}"


def _tell(
    outcomes: list[Outcome],
    left: list[str],
    flag_values: flags.FlagValues,
    *,
    interrupted: bool = False,
) -> int:
    """Prints what became of a directory; returns the exit code."""
    if flag_values.json:
        print(json.dumps(_directory_json(outcomes, left, interrupted), indent=2))
    else:
        _print_totals(outcomes, left, quiet=flag_values.quiet)
    return EXIT_ERROR if any(one.status == "failed" for one in outcomes) else EXIT_OK


def _print_noteworthy(outcomes: list[Outcome]) -> None:
    """Of those that had no line, the ones of which there is something to say; failures follow."""
    for outcome in outcomes:
        told = outcome.status == "converted" and outcome.message
        if told or (outcome.is_state and outcome.status != "failed"):
            print(_line(outcome))


def _print_totals(outcomes: list[Outcome], left: list[str], *, quiet: bool) -> None:
    """What became of all: checkpoints, state files, the rest; then the failures."""
    totals = [f"{count:,} {status}" for status, count in _totals(outcomes).items() if count]
    print(", ".join(totals) or "nothing done")
    of_states = Counter(outcome.status for outcome in outcomes if outcome.is_state)
    for status, text in (("failed", "failed"), ("already", "left as they are")):
        if of_states[status]:
            print(f"`checkpoint` files: {of_states[status]:,} {text}")
    if not quiet:
        _print_beside(outcomes, left)
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"estimator-ckpt: {outcome.message}", file=sys.stderr)


def _print_beside(outcomes: list[Outcome], left: list[str]) -> None:
    """What went along with the checkpoints of a tree, and what did not."""
    conversions = [outcome.conversion for outcome in outcomes if outcome.conversion is not None]
    beside = [companion for one in conversions for companion in one.companions]
    metas = [companion for companion in beside if companion.path.endswith(".meta")]
    inputs = Counter(companion.how for companion in beside if companion not in metas)
    for how, count in inputs.items():
        print(f"positions of the input: {count:,} {_WAYS.get(how, how)}")
    if metas:
        misfits = sum(bool(companion.why) for companion in metas)
        fits = f"{len(metas) - misfits:,} restore from the results"
        print(f".meta files: {fits}" + (f", {misfits:,} do not" if misfits else ""))
    if left:
        names = Counter(map(_kind, left))
        shown = [
            counted(count, name) if name == _EVENTS else f"{count:,} {name}"
            for name, count in names.most_common(_MOST_KINDS)
        ]
        more = len(names) - len(shown)
        shown += [f"{more:,} other names"] if more else []
        print(f"not taken along: {printable(', '.join(shown))}")


def _kind(path: str) -> str:
    """What to count a file or a directory as."""
    name = os.path.basename(path.rstrip("/"))
    if name.startswith("events.out.tfevents."):
        return _EVENTS
    return f"{name}/" if path.endswith("/") else name


def _totals(outcomes: list[Outcome]) -> dict[str, int]:
    found = Counter(outcome.status for outcome in outcomes if not outcome.is_state)
    return {status: found[status] for status in ("converted", "planned", "already", "failed")}


def _directory_json(outcomes: list[Outcome], left: list[str], interrupted: bool) -> dict[str, Any]:
    return {
        "totals": _totals(outcomes),
        "checkpoints": [_outcome_json(one) for one in outcomes if not one.is_state],
        "state_files": [_outcome_json(one) for one in outcomes if one.is_state],
        "not_taken_along": left,
        "interrupted": interrupted,
    }


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
    if conversion.already:
        return (
            f"{conversion.destination}: converted by the same options already; to apply them once "
            "more, convert to a new place"
        )
    if not conversion.written:
        return f"{conversion.destination}: {conversion.source_format} already"
    how: dict[str, int] = {}
    for _, way in conversion.data_files:
        how[way] = how.get(way, 0) + 1
    data_files = ", ".join(f"{count} {_WAYS[way]}" for way, count in how.items())
    compared = ""
    if conversion.verified is not None:
        compared = f"; {counted(conversion.verified, 'key')} compared"
    return (
        f"{conversion.destination}: {conversion.checkpoint_format}, {_total(conversion)}; "
        f"data files: {data_files}{compared}{_companions(conversion)}"
    )


def _companions(conversion: Conversion) -> str:
    """What is to be said of the files beside the data."""
    texts = []
    for path, how, why in conversion.companions:
        name = os.path.basename(path)
        texts.append(f"; {name} {_WAYS.get(how, how)}" + (f": {why}" if why else ""))
    return "".join(texts)


def conversion_json(conversion: Conversion) -> dict[str, Any]:
    """What was done, as JSON has it."""
    return {
        "source": conversion.source,
        "destination": conversion.destination,
        "source_format": conversion.source_format,
        "checkpoint_format": conversion.checkpoint_format,
        "written": conversion.written,
        "already": conversion.already,
        "verified": conversion.verified,
        "underflows": dict(conversion.underflows),
        "notes": list(conversion.notes),
        "data_files": [{"path": path, "how": how} for path, how in conversion.data_files],
        "companions": [companion._asdict() for companion in conversion.companions],
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

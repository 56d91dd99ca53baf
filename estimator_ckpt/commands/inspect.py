"""usage: estimator-ckpt inspect [flags] PATH

Lists the variables of a checkpoint, its objects (--tree) or one value (--tensor). PATH is a prefix,
PREFIX.index, a directory with checkpoints (the newest counts), a SavedModel's directory or a Keras
save_weights prefix; RUN@best, RUN@step=1200, RUN@NAME of a pinned one. No value is read but
scalars, and those that are asked for. Layers that differ in a number are one line, layer_{0…11},
with their count and the bytes of all; --all unfolds.

Examples:
  estimator-ckpt inspect run
  estimator-ckpt inspect run/model.ckpt-1000 --filter=kernel --sort=size
  estimator-ckpt inspect keras/ckpt-5 --tree
  estimator-ckpt inspect run --tensor=dense/kernel --values
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import compress

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.cli import EXIT_NO, EXIT_OK, UsageError
from estimator_ckpt.commands.listing import owner_names, print_listing, totals
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.reading.best import read_best
from estimator_ckpt.reading.input_files import position_size
from estimator_ckpt.reading.named import pins
from estimator_ckpt.reading.variables import Columns, Variable
from estimator_ckpt.text.names import first_names
from estimator_ckpt.text.patterns import compile_pattern
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.quantities import counted

EXIT_CODES = {
    0: "listed",
    1: "listed, but data files are missing or cut off",
    2: "an error: a wrong flag, a path without a checkpoint, a broken index",
}
GROUPS = {
    "What is shown": "filter sort all tree tensor values json",
    "As TensorFlow's inspect_checkpoint has them": (
        "file_name tensor_name all_tensors all_tensor_names count_exclude_pattern printoptions"
    ),
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb; the last six are those of TensorFlow's inspect_checkpoint."""
    flags.DEFINE_string(
        "filter",
        None,
        "Only variables with a match of this regular expression somewhere in their names.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "sort",
        "name",
        ["name", "size"],
        "By scope and name, or by size with the largest first.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean("tree", False, "Print the object graph.", flag_values=flag_values)
    flags.DEFINE_boolean(
        "all",
        False,
        "A line for each variable: otherwise repeated layers are one line, and slots are columns of"
        " their variables. With --tree, the branches without values, too.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "tensor",
        None,
        "Print the statistics of the variable with this name, key or object path.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "values", False, "With --tensor, print the values.", flag_values=flag_values
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)
    flags.DEFINE_string("file_name", None, "The same as PATH.", flag_values=flag_values)
    flags.DEFINE_string(
        "tensor_name", None, "The same as --tensor with --values.", flag_values=flag_values
    )
    flags.DEFINE_boolean(
        "all_tensors", False, "Print the values of all variables.", flag_values=flag_values
    )
    flags.DEFINE_boolean(
        "all_tensor_names", False, "List the variables, as without it.", flag_values=flag_values
    )
    flags.DEFINE_string(
        "count_exclude_pattern",
        None,
        "Leave variables that match this regular expression out of the totals.",
        flag_values=flag_values,
    )
    flags.DEFINE_multi_string(
        "printoptions",
        [],
        "An option of numpy.set_printoptions() for values, as in threshold=100; may be repeated.",
        flag_values=flag_values,
    )


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Prints what the flags ask for."""
    paths = [*arguments, *([flag_values.file_name] if flag_values.file_name else [])]
    if len(paths) != 1:
        raise UsageError(
            "inspect: expected one path, of a checkpoint or of a directory with checkpoints, found "
            f"{len(paths) or 'none'}"
        )
    pattern = _pattern("filter", flag_values.filter)
    excluded = _pattern("count_exclude_pattern", flag_values.count_exclude_pattern)
    tensor = flag_values.tensor if flag_values.tensor_name is None else flag_values.tensor_name
    _check_flags(flag_values)
    data_error = _run(paths[0], tensor, pattern, excluded, flag_values)
    if data_error is None:
        return EXIT_OK
    sys.stdout.flush()
    print(f"estimator-ckpt: {data_error}", file=sys.stderr)
    return EXIT_NO


def _check_flags(flag_values: flags.FlagValues) -> None:
    """Raises UsageError for flags that have no meaning together, as the others would be ignored."""
    modes = ("tree", "tensor", "tensor_name", "all_tensors")
    given = [mode for mode in modes if flag_values[mode].value not in (None, False)]
    if len(given) > 1:
        names = ", ".join(f"--{mode}" for mode in modes)
        raise UsageError(f"inspect: of {names} one at most can be given")
    mode = given[0] if given else ""
    if flag_values.values and mode in ("", "tree"):
        raise UsageError("inspect: --values needs --tensor=NAME; --all_tensors prints all values")
    for flag, is_given in (
        ("filter", flag_values.filter is not None),
        ("sort", flag_values.sort != "name"),
        ("all", flag_values.all and mode != "tree"),
    ):
        if is_given and mode not in ("", "all_tensors"):
            raise UsageError(f"inspect: --{flag} is for a list of variables, not for --{mode}")


@collector_paused()
def _run(
    path: str,
    tensor: str | None,
    pattern: re.Pattern[str] | None,
    excluded: re.Pattern[str] | None,
    flag_values: flags.FlagValues,
) -> CheckpointError | None:
    """Prints it; returns what is wrong with data files that a listing does without."""
    by_size = flag_values.sort == "size"
    needs_data = bool(flag_values.tree or tensor is not None or flag_values.all_tensors)
    with progress_bar(f"reading {printable(path)}"):
        opened = open_checkpoint(path, need_data=needs_data)
    with opened as checkpoint:
        if flag_values.tree:
            from estimator_ckpt.commands.tree import tree_json, tree_lines

            if flag_values.json:
                _write_lines(tree_json(checkpoint))
            else:
                _write_lines(tree_lines(checkpoint, all_branches=flag_values.all))
            return None
        if tensor is not None or flag_values.all_tensors:
            from estimator_ckpt.commands.tensor import print_tensors, set_print_options

            set_print_options(flag_values.printoptions)
            if tensor is None:
                columns = _chosen(checkpoint, pattern, by_size=by_size)
                if not len(columns) and pattern and not flag_values.json:
                    print(_no_match(checkpoint, pattern))
                chosen: Iterable[Variable] = columns.rows()
            else:
                chosen = [checkpoint.variable(tensor)]
            values = bool(flag_values.values or flag_values.tensor_name or tensor is None)
            print_tensors(checkpoint, chosen, values=values, as_json=flag_values.json)
            return None
        variables = selected = _chosen(checkpoint, pattern, by_size=by_size)
        if excluded:
            selected = variables.take(
                [n for n, name in enumerate(variables.name) if not excluded.search(name)]
            )
        if flag_values.json:
            _print_json(checkpoint, variables, selected)
        else:
            print_listing(checkpoint, variables, selected, unfolded=flag_values.all or by_size)
            if pattern and not len(variables):
                print(_no_match(checkpoint, pattern))
        return checkpoint.data_error


def _pattern(flag: str, text: str | None) -> re.Pattern[str] | None:
    return None if text is None else compile_pattern(text, f"--{flag}")


def _chosen(
    checkpoint: Checkpoint, pattern: re.Pattern[str] | None, *, by_size: bool = False
) -> Columns:
    """The variables by scope, each followed by its slots; or by size."""
    columns = checkpoint.columns
    owners = owner_names(columns)
    scopes = [owner.rpartition("/")[0] for owner in owners]
    numbers = list(range(len(owners)))
    if pattern:
        numbers = [n for n, name in enumerate(columns.name) if pattern.search(name)]
    if any(columns.slot_of):
        slots = compress(columns.name, columns.slot_of)
        if not all(map(str.startswith, slots, filter(None, columns.slot_of))):  # Adam/m/dense/bias
            numbers.sort(key=lambda number: columns.slot_of[number] is not None)
        numbers.sort(key=owners.__getitem__)
    numbers.sort(key=scopes.__getitem__)
    if by_size:
        numbers.sort(key=columns.nbytes.__getitem__, reverse=True)
    return columns.take(numbers)


def _no_match(checkpoint: Checkpoint, pattern: re.Pattern[str]) -> str:
    names = list(checkpoint.variables)
    such = f", as {first_names(names)}" if names else ""
    return printable(
        f"no name has a match of --filter={pattern.pattern}; "
        f"the checkpoint has {counted(len(names), 'variable')}{such}"
    )


def _print_json(checkpoint: Checkpoint, variables: Columns, selected: Columns) -> None:
    """One JSON object, a variable a line."""
    head = {
        "path": checkpoint.path,
        "prefix": checkpoint.prefix,
        "format": checkpoint.format,
        "global_step": checkpoint.global_step,
        "data_files": checkpoint.index.num_shards,
        "input_bytes": position_size(checkpoint.prefix),
        "totals": totals(selected),
        **_kept(checkpoint.path),
    }
    print("{" + json.dumps(head)[1:-1] + ', "variables": [')
    _write_lines(
        json.dumps(one.to_json()) + ("," if number < len(variables) else "")
        for number, one in enumerate(variables.rows(), 1)
    )
    print("]}")


def _kept(path: str) -> dict[str, object]:
    """The best and the pinned checkpoints of the run whose directory `path` is, as JSON."""
    if not files.is_dir(path):
        return {}
    try:
        best = read_best(path)
    except CheckpointError as error:
        return {"best_error": str(error), "pinned": pins(path)}
    pinned = pins(path)
    ranked = {one.metric: [e._asdict() for e in best.ranked(one)] for one in best.criteria}
    return {**({"best": ranked} if ranked else {}), **({"pinned": pinned} if pinned else {})}


def _write_lines(lines: Iterable[str] | Iterator[str]) -> None:
    sys.stdout.writelines(line + "\n" for line in lines)

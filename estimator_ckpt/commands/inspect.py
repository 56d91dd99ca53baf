"""usage: estimator-ckpt inspect [flags] PATH

Lists the variables of a checkpoint, its objects (--tree) or one value (--tensor). PATH is a
prefix, PREFIX.index, a directory with checkpoints (the newest counts), a SavedModel's directory or
a Keras save_weights prefix. No value is read but those that are asked for.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import compress, count
from operator import ne
from typing import TypeVar

from absl import flags

from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.cli import EXIT_OK, UsageError
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.object_graph import VAR_LIST, escape_all
from estimator_ckpt.report import print_columns, print_table, size_text
from estimator_ckpt.variables import Variable

_MOST_SCOPES = 40
_T = TypeVar("_T", bound=Hashable)


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
        raise UsageError(f"inspect: expected one path, found {len(paths)}")
    pattern = _pattern("filter", flag_values.filter)
    excluded = _pattern("count_exclude_pattern", flag_values.count_exclude_pattern)
    tensor = flag_values.tensor or flag_values.tensor_name
    if sum(map(bool, (flag_values.tree, tensor, flag_values.all_tensors))) > 1:
        raise UsageError("inspect: --tree, --tensor and --all_tensors do not go together")
    # Paused until all is let go of: a collector that came back before would walk through it.
    with collector_paused():
        _run(paths[0], tensor, pattern, excluded, flag_values)
    return EXIT_OK


def _run(
    path: str,
    tensor: str | None,
    pattern: re.Pattern[str] | None,
    excluded: re.Pattern[str] | None,
    flag_values: flags.FlagValues,
) -> None:
    with open_checkpoint(path) as checkpoint:
        if flag_values.tree:
            from estimator_ckpt.commands.tree import tree_lines

            _write_lines(tree_lines(checkpoint))
            return
        if tensor or flag_values.all_tensors:
            from estimator_ckpt.commands.tensor import print_tensors, set_print_options

            set_print_options(flag_values.printoptions)
            chosen = [checkpoint.variable(tensor)] if tensor else _chosen(checkpoint, pattern)
            values = bool(flag_values.values or flag_values.tensor_name or not tensor)
            print_tensors(checkpoint, chosen, values=values, as_json=flag_values.json)
            return
        variables = _chosen(checkpoint, pattern)
        if flag_values.sort == "size":
            variables.sort(key=lambda one: -one.nbytes)
        counted = [one for one in variables if not (excluded and excluded.search(one.name))]
        if flag_values.json:
            _print_json(checkpoint, variables, counted)
        else:
            _print_listing(checkpoint, variables, counted)


def _pattern(flag: str, text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"--{flag}: {text!r} is no regular expression: {error}") from None


def _chosen(checkpoint: Checkpoint, pattern: re.Pattern[str] | None) -> list[Variable]:
    """The variables by scope, each followed by its slots."""
    found = [
        one for one in checkpoint.variables.values() if not pattern or pattern.search(one.name)
    ]

    def place(one: Variable) -> tuple[str, str, str]:
        owner = one.slot_of or one.name
        return owner.rpartition("/")[0], owner, one.name

    return sorted(found, key=place)


def _totals(counted: list[Variable]) -> dict[str, int]:
    slots = [one for one in counted if one.slot_of is not None]
    shapes = Counter(one.shape for one in counted)
    return {
        "variables": len(counted),
        "values": sum(count * math.prod(shape) for shape, count in shapes.items()),
        "bytes": sum(one.nbytes for one in counted),
        "slot_variables": len(slots),
        "slot_bytes": sum(one.nbytes for one in slots),
    }


def _total_line(totals: dict[str, int]) -> str:
    line = (
        f"{totals['variables']:,} variables, {totals['values']:,} values, "
        f"{size_text(totals['bytes'])}"
    )
    if totals["slot_variables"]:
        line += (
            f"; {totals['slot_variables']:,} of them optimizer slots, "
            f"{size_text(totals['slot_bytes'])} ({_share(totals['slot_bytes'], totals['bytes'])})"
        )
    return line


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _print_listing(
    checkpoint: Checkpoint, variables: list[Variable], counted: list[Variable]
) -> None:
    step = checkpoint.global_step
    shards = checkpoint.index.num_shards
    details = [checkpoint.format] + ([f"global step {step}"] if step is not None else [])
    details.append(f"{shards} data file" + ("s" if shards > 1 else ""))
    print(f"{checkpoint.prefix}: {', '.join(details)}\n")
    cells = {
        "name": [one.name for one in variables],
        "shape": _texts([one.shape for one in variables], _shape_text),
        "dtype": [one.dtype for one in variables],
        "bytes": _texts([one.nbytes for one in variables], "{:,}".format),
        "slices": _texts([one.slices or "" for one in variables], str),
        "slot of": [f"{one.slot_of} ({one.slot_name})" if one.slot_of else "" for one in variables],
        "object path": _paths_to_show(variables),
    }
    for header in ("slices", "slot of", "object path"):
        if not any(cells[header]):
            del cells[header]
    total = _total_line(_totals(counted))
    print_columns(cells, total, right=["bytes", "slices"])
    _print_scopes(counted)


def _texts(values: list[_T], text: Callable[[_T], str]) -> list[str]:
    """The values as text, of which few are different."""
    texts = {value: text(value) for value in set(values)}
    return list(map(texts.__getitem__, values))


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _paths_to_show(variables: list[Variable]) -> list[str]:
    """The object paths, without those that say no more than the name."""
    start = f"{VAR_LIST}/"
    paths = [one.object_path or "" for one in variables]
    if not any(paths):
        return paths
    in_var_list = escape_all([one.name for one in variables], start)
    shown = [""] * len(variables)
    # Nearly all are where var_list has their names: no loop of Python's over these.
    for place in compress(count(), map(ne, paths, in_var_list)):
        path, name = paths[place], variables[place].name
        known = in_var_list[place] if path.startswith(start) else name
        shown[place] = "" if known.startswith(path) else path
    return shown


def _print_scopes(counted: list[Variable]) -> None:
    """How the bytes are divided among the outermost scopes, slots with their variables."""
    owners = [one.slot_of or one.name for one in counted]
    scopes = [owner[: owner.find("/") + 1] or owner for owner in owners]
    counts = Counter(scopes)
    if not 1 < len(counts) <= _MOST_SCOPES:
        return
    sizes = dict.fromkeys(counts, 0)
    for scope, one in zip(scopes, counted):
        sizes[scope] += one.nbytes
    total = sum(sizes.values())
    print()
    print_table(
        ["scope", "variables", "bytes", "share"],
        [
            [scope, f"{counts[scope]:,}", f"{nbytes:,}", _share(nbytes, total)]
            for scope, nbytes in sorted(sizes.items(), key=lambda item: -item[1])
        ],
        right=["variables", "bytes", "share"],
    )


def _print_json(checkpoint: Checkpoint, variables: list[Variable], counted: list[Variable]) -> None:
    """One JSON object, a variable a line."""
    head = {
        "path": checkpoint.path,
        "prefix": checkpoint.prefix,
        "format": checkpoint.format,
        "global_step": checkpoint.global_step,
        "data_files": checkpoint.index.num_shards,
        "totals": _totals(counted),
    }
    print("{" + json.dumps(head)[1:-1] + ', "variables": [')
    _write_lines(
        json.dumps(one.to_json()) + ("," if place < len(variables) else "")
        for place, one in enumerate(variables, 1)
    )
    print("]}")


def _write_lines(lines: Iterable[str] | Iterator[str]) -> None:
    sys.stdout.writelines(line + "\n" for line in lines)

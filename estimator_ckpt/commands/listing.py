"""The listing of inspect: a table of variables, totals, and what the graph beside them tells."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import compress, count
from operator import ne
from typing import TypeVar

from estimator_ckpt import files
from estimator_ckpt.bulk import AT_ONCE
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.objects.object_graph import VAR_LIST, escape
from estimator_ckpt.reading.best import BestList, read_best
from estimator_ckpt.reading.graph_facts import GraphFacts, read_graph_facts
from estimator_ckpt.reading.input_files import position_size
from estimator_ckpt.reading.named import pins
from estimator_ckpt.reading.variables import Columns
from estimator_ckpt.saving.resets import read_resets
from estimator_ckpt.text.quantities import counted, size_text
from estimator_ckpt.text.rows import Row, fold_groups
from estimator_ckpt.text.tables import print_columns, print_table

_MOST_SCOPES = 40
_MOST_FOLDED = 50_000  # variables; more take seconds to fold
_FEWEST_FOLDED = 3
_MOST_SLOTS = 6
_MOST_SCALARS = 200
_T = TypeVar("_T", bound=Hashable)
_FORMATS = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
_ITERATIONS = ("iter", "iterations", "_iterations")  # as Keras' optimizers call them

# The columns by their headers, all equally long.
_Cells = dict[str, list[str]]


def print_listing(
    checkpoint: Checkpoint, variables: Columns, selected: Columns, *, unfolded: bool
) -> None:
    """Prints the variables, and the totals of those that are `selected`."""
    facts = read_graph_facts(checkpoint.prefix)
    print(f"{printable(checkpoint.prefix)}: {', '.join(_details(checkpoint, facts))}")
    for label, texts in (
        ("tags", facts.tags),
        ("signature", facts.signatures),
        ("asset", facts.assets),
    ):
        for text in texts:
            print(f"{label}: {printable(text)}")
    for line in (*kept_lines(checkpoint.path), *_reset_lines(checkpoint)):
        print(printable(line))
    print()
    cells = _cells(checkpoint, variables, facts)
    if not unfolded and len(variables) <= _MOST_FOLDED:
        cells = _fold(_slots_as_columns(cells, variables))
    optional = [header for header in cells if header not in ("name", "shape", "dtype", "bytes")]
    for header in optional:
        if not any(cells[header]):
            del cells[header]
    left = ("name", "shape", "dtype", "value", "trainable", "slot of", "object path")
    print_columns(
        cells,
        _total_line(totals(selected)),
        right=[header for header in cells if header not in left],
        spare=("object path", "trainable", "value"),
    )
    _print_further_totals(selected, facts)
    _print_scopes(selected)


def kept_lines(path: str) -> list[str]:
    """What stays of the run whose directory `path` is: the best, with their metrics; the pinned."""
    if not files.is_dir(path):
        return []
    lines = []
    try:
        best = read_best(path)
    except CheckpointError as error:
        best = BestList()
        lines.append(f"note: {error}")
    for one in best.criteria:
        ranked = [f"{_base(e.prefix)} {e.metrics[one.metric]:.6g}" for e in best.ranked(one)]
        word = "largest" if one.mode == "max" else "smallest"
        lines.append(f"best by {one.metric} (the {word}): {', '.join(ranked) or 'none yet'}")
    lines += [f"pinned as {name}: {_base(prefix)}" for name, prefix in pins(path).items()]
    return lines


def _reset_lines(checkpoint: Checkpoint) -> list[str]:
    """The resets that led to a checkpoint."""
    try:
        resets = read_resets(checkpoint)
    except CheckpointError as error:
        return [f"note: {error}"]
    return [f"reset at step {one.step}: {', '.join(one.reset)}" for one in resets if one.step]


def _base(prefix: str) -> str:
    return prefix.rpartition("/")[2]


def _details(checkpoint: Checkpoint, facts: GraphFacts) -> list[str]:
    details = [checkpoint.format + (" (V1)" if checkpoint.index.v1 else "")]
    if checkpoint.global_step is not None:
        details.append(f"global step {checkpoint.global_step}")
    elif (iterations := _iterations(checkpoint)) is not None:
        details.append(f"the optimizer's step {iterations}")
    shards = checkpoint.index.num_shards
    details.append(counted(shards, "data file"))
    input_bytes = position_size(checkpoint.prefix)
    if input_bytes:
        details.append(f"the input's position beside it, {size_text(input_bytes)}")
    if facts.tensorflow_version:
        details.append(f"written by TensorFlow {printable(facts.tensorflow_version)}")
    return details


def _iterations(checkpoint: Checkpoint) -> str | None:
    """How often an optimizer of Keras was run; None without one, or if several disagree."""
    columns = checkpoint.columns
    found = {
        _scalar(checkpoint, columns, number)
        for number, path in enumerate(columns.object_path)
        if path is not None
        and path.rpartition("/")[2] in _ITERATIONS
        and columns.shape[number] == ()
        and columns.dtype[number].startswith("int")
    }
    return found.pop() or None if len(found) == 1 else None


def _scalar(checkpoint: Checkpoint, variables: Columns, number: int) -> str:
    """The value of a scalar as text; empty for text, and where it cannot be read."""
    form = _FORMATS.get(variables.dtype[number])
    if form is None:
        return ""
    try:
        entry = checkpoint.index.entries[key_bytes(variables.key[number])]
        checkpoint.reader.check(entry)
        (value,) = struct.unpack(f"<{form}", checkpoint.reader.raw(entry))
    except (CheckpointError, KeyError, struct.error):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cells(checkpoint: Checkpoint, variables: Columns, facts: GraphFacts) -> _Cells:
    """A row for each variable."""
    values = [""] * len(variables)
    if not files.is_remote(checkpoint.prefix):
        scalars = [number for number, shape in enumerate(variables.shape) if shape == ()]
        for number in scalars[:_MOST_SCALARS]:
            values[number] = _scalar(checkpoint, variables, number)
    known = facts.trainable
    words = {True: "yes", False: "no", None: ""}
    slots = zip(variables.slot_of, variables.slot_name)
    return {
        "name": list(variables.name),
        "shape": _texts(variables.shape, _shape_text),
        "dtype": list(variables.dtype),
        "bytes": _texts(variables.nbytes, "{:,}".format),
        "slices": _texts(variables.slices, lambda slices: str(slices or "")),
        "value": values,
        "trainable": [words[known.get(name)] for name in variables.name] if known else [],
        "slot of": [f"{slot_of} ({name})" if slot_of else "" for slot_of, name in slots],
        "object path": _paths_to_show(variables),
    }


def _slots_as_columns(cells: _Cells, variables: Columns) -> _Cells:
    """A column for each kind of slot, with its bytes, instead of a row for each slot."""
    row_of = {name: number for number, name in enumerate(variables.name)}
    kinds: dict[str, dict[int, int]] = {}  # by the slot's name: row of the variable -> of the slot
    for number, (slot_of, kind) in enumerate(zip(variables.slot_of, variables.slot_name)):
        if slot_of in row_of and kind is not None:
            kinds.setdefault(kind, {}).setdefault(row_of[slot_of], number)
    if not kinds or len(kinds) > _MOST_SLOTS:
        return cells
    moved = {number for slots in kinds.values() for number in slots.values()}
    if moved & {owner for slots in kinds.values() for owner in slots}:
        return cells  # slots of slots
    kept = [number for number in range(len(variables)) if number not in moved]
    found = {
        header: [column[number] for number in kept] if column else []
        for header, column in cells.items()
    }
    for kind, slots in kinds.items():
        header = f"slot {kind}" if kind in found else kind
        found[header] = [
            cells["bytes"][slots[number]] if number in slots else "" for number in kept
        ]
    order = [header for header in found if header not in ("slot of", "object path")]
    return {header: found[header] for header in (*order, "slot of", "object path")}


def _fold(cells: _Cells) -> _Cells:
    """One row for three or more whose names differ in integers alone, with the bytes of all."""
    fixed = [h for h in cells if h not in ("name", "slot of", "object path") and cells[h]]
    rows = zip(
        cells["name"], cells["slot of"], cells["object path"], zip(*(cells[h] for h in fixed))
    )
    facts: dict[str, tuple[str, ...]] = {}
    listed = []
    for name, slot_of, path, others in rows:
        status = "\0".join(others)
        facts[status] = others
        listed.append(Row(status, name, found=path, note=slot_of))
    found: _Cells = {header: [] for header in (*cells, "count")}
    for folded, members in fold_groups(listed):
        shown = [folded] if len(members) >= _FEWEST_FOLDED else members
        times = len(members) if shown == [folded] and len(members) > 1 else 1
        for row in shown:
            found["name"].append(row.name)
            found["slot of"].append(row.note)
            found["object path"].append(row.found)
            found["count"].append(f"{times:,}" if times > 1 else "")
            for header, text in zip(fixed, facts[row.status]):
                sized = header not in ("shape", "dtype", "slices", "value", "trainable")
                if sized and text and times > 1:
                    text = f"{int(text.replace(',', '')) * times:,}"
                found[header].append(text)
    order = [h for h in cells if h not in ("name", "shape", "dtype")]
    return {header: found[header] for header in ("name", "count", "shape", "dtype", *order)}


def owner_names(variables: Columns) -> list[str]:
    """The name of each variable; a slot's is that of its variable."""
    return [slot_of or name for name, slot_of in zip(variables.name, variables.slot_of)]


def totals(selected: Columns) -> dict[str, int]:
    """How many variables, values and bytes; of them slots."""
    slots = [slot_of is not None for slot_of in selected.slot_of]
    return {
        "variables": len(selected),
        "values": _values_in(selected.shape),
        "bytes": sum(selected.nbytes),
        "slot_variables": sum(slots),
        "slot_bytes": sum(compress(selected.nbytes, slots)),
    }


def _values_in(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(times * math.prod(shape) for shape, times in Counter(shapes).items())


def _total_line(totals: Mapping[str, int]) -> str:
    line = (
        f"{counted(totals['variables'], 'variable')}, {counted(totals['values'], 'value')}, "
        f"{size_text(totals['bytes'])}"
    )
    if totals["slot_variables"]:
        line += (
            f"; {totals['slot_variables']:,} of them optimizer slots, "
            f"{size_text(totals['slot_bytes'])} ({_share(totals['slot_bytes'], totals['bytes'])})"
        )
    return line


def _print_further_totals(selected: Columns, facts: GraphFacts) -> None:
    """Totals without slots, of what is trainable, and by dtype, where these are not all."""

    def print_part(label: str, chosen: Sequence[bool]) -> None:
        if any(chosen) and not all(chosen):
            variables = counted(sum(chosen), "variable")
            values = counted(_values_in(compress(selected.shape, chosen)), "value")
            print(f"{label}: {variables}, {values}, ", end="")
            print(size_text(sum(compress(selected.nbytes, chosen))))

    print_part("without slots", [slot_of is None for slot_of in selected.slot_of])
    if facts.trainable:
        print_part("trainable", [facts.trainable.get(name, False) for name in selected.name])
    dtypes = Counter(selected.dtype)
    for dtype in sorted(dtypes) if len(dtypes) > 1 else ():
        print_part(dtype, [one == dtype for one in selected.dtype])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _texts(values: Sequence[_T], text: Callable[[_T], str]) -> list[str]:
    """The values as text, of which few are different."""
    texts = {value: text(value) for value in set(values)}
    return list(map(texts.__getitem__, values))


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _paths_to_show(variables: Columns) -> list[str]:
    """The object paths, without those that say no more than the name."""
    start = f"{VAR_LIST}/"
    shown = [""] * len(variables)
    if not any(variables.object_path):
        return shown
    for first in range(0, len(shown), AT_ONCE):
        names = variables.name[first : first + AT_ONCE]
        paths = [path or "" for path in variables.object_path[first : first + AT_ONCE]]
        # Nearly all are where var_list has their names: these are compared as one text.
        text = start + escape("\n".join(names)).replace("\n", f"\n{start}")
        if text == "\n".join(paths) and text.count("\n") == len(names) - 1:
            continue
        in_var_list = [start + escape(name) for name in names]
        for index in compress(count(), map(ne, paths, in_var_list)):
            path = paths[index]
            known = in_var_list[index] if path.startswith(start) else names[index]
            shown[first + index] = "" if known.startswith(path) else path
    return shown


def _print_scopes(selected: Columns) -> None:
    """How the bytes are divided among the outermost scopes, slots with their variables."""
    scopes = (owner[: owner.find("/") + 1] or owner for owner in owner_names(selected))
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for (scope, nbytes), times in Counter(zip(scopes, selected.nbytes)).items():
        counts[scope] += times
        sizes[scope] += nbytes * times
    if not 1 < len(counts) <= _MOST_SCOPES:
        return
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

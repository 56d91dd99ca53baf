"""Which keys of a checkpoint a saver reads: the match of what it wants, and what does not fit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MismatchError
from estimator_ckpt.formats import IN_WORDS
from estimator_ckpt.matching.hints import scopes_that_fit
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.resolve import resolve as resolve_model
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles import SLOT
from estimator_ckpt.roles.training_state import state_by_names
from estimator_ckpt.text.names import NameIndex, meant
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import text_table

# Beyond so many pairs of names a hint for each missing tensor costs more time than it saves.
_MOST_COMPARED = 500_000


@dataclass(frozen=True)
class Wanted:
    """One tensor that a model restores.

    Attributes:
      name: the variable name, as a Saver knows it.
      suffix: what the tensor's key has after the object's own (`-keys` of a lookup table), or "".
      node: its object in the model's object graph.
      attribute: the name of its value there (VARIABLE_VALUE, `table`, ...).
      shape: of the whole variable, not of a slice; None where it is not known.
      dtype: its name, `float32`.
      is_named: whether a mapping of the user's gives it a name other than the variable's own. It
        is found by that name alone then, wherever its object is.
      weak: for each segment of the name, whether a counter may have made it: the class of an object
        of the user's that holds the variable is called so. Empty where no object does.
      average: the variable name of its average, to be read instead where there is one, or "".
      is_averaged: whether the model knows that there is one.
      is_trainable: whether the model trains it.
    """

    name: str
    suffix: str
    node: int
    attribute: str
    shape: tuple[int, ...] | None
    dtype: str
    is_named: bool = False
    weak: tuple[bool, ...] = ()
    average: str = ""
    is_averaged: bool = False
    is_trainable: bool = False

    @property
    def tensor(self) -> str:
        return self.name + self.suffix

    @property
    def variable(self) -> str:
        """The name that a pattern matches; a tensor without one stands for itself."""
        return self.name or self.suffix


@dataclass(frozen=True)
class Resolution:
    """What a checkpoint has of what a model wants.

    Attributes:
      keys: the key of every tensor that fits, by its Wanted.tensor.
      ways: what led to each of these: `same name`, `object path net/kernel`.
      missing: the tensors that the checkpoint lacks.
      problems: one row for each that does not fit: a path and a name that lead to different
        tensors, a name that two variables share, another shape or dtype.
      averages: the tensors, by their Wanted.tensor, of which `keys` has the average.
      notes: why a missing one is missing, where there is a reason, by its Wanted.tensor.
    """

    keys: Mapping[str, str]
    ways: Mapping[str, str]
    missing: Sequence[Wanted]
    problems: Sequence[Row]
    averages: Collection[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def without(self, tensors: Collection[str]) -> Resolution:
        """The same for what is wanted beside these tensors."""
        return replace(
            self,
            keys={tensor: key for tensor, key in self.keys.items() if tensor not in tensors},
            missing=[want for want in self.missing if want.tensor not in tensors],
            problems=[row for row in self.problems if row.name not in tensors],
        )


@collector_paused()
def resolve(
    checkpoint: Checkpoint,
    wanted: Sequence[Wanted],
    structure: ObjectGraph,
    *,
    match_by: str | None = None,
    reshape: bool = False,
) -> Resolution:
    """Finds the key of every wanted tensor, by the rules of matching/resolve.py.

    Args:
      checkpoint: name-based, object-based or both.
      wanted: what the model needs.
      structure: the model's object graph, whose node ids `wanted` names, without the edges that
        only repeat the variables' names.
      match_by: "path" or "name" decides where the two lead to different tensors.
      reshape: whether another shape with as many elements will do.
    """
    model = Model([_variable(want) for want in wanted], structure)
    found = resolve_model(model, Saved(checkpoint), match_by=match_by)
    keys: dict[str, str] = {}
    ways: dict[str, str] = {}
    missing: list[Wanted] = []
    notes: dict[str, str] = {}
    rows: list[Row] = []
    averages: list[str] = []
    for want in wanted:
        match = found.matches[want.tensor]
        if match.source is not None:
            row = _misfit(want, match.source, reshape=reshape)
            if row is not None:
                rows.append(row)
                continue
            keys[want.tensor], ways[want.tensor] = match.source.key, match.rule
            if match.is_average:
                averages.append(want.tensor)
        elif match.problem is not None and match.problem.status == "missing":
            missing.append(want)
            notes[want.tensor] = match.problem.note
        elif match.problem is not None:
            rows.append(match.problem)
    return Resolution(keys, ways, missing, rows, averages, notes)


def _variable(want: Wanted) -> ModelVariable:
    return ModelVariable(
        name=want.tensor,
        shape=want.shape,
        dtype=want.dtype,
        trainable=want.is_trainable,
        parts=(),
        called=want.name,
        is_given=want.is_named,
        weak=want.weak,
        node=want.node,
        attribute=want.attribute,
        suffix=want.suffix,
        average=want.average,
    )


def mismatch(
    checkpoint: Checkpoint, rows: Iterable[Row], *, may_be_missing: bool = True
) -> MismatchError:
    """The error that shows everything which does not fit, folded, in one table.

    Args:
      checkpoint: which does not fit.
      rows: one for each variable.
      may_be_missing: whether a policy can allow what is missing.
    """
    rows = list(rows)
    table = text_table(
        ("problem", "variable", "expected", "found", "note"),
        [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
    )
    if may_be_missing and any(row.status == "missing" for row in rows):
        table += "\non_missing='warn' or 'init' initializes what is missing instead."
    if any(row.status == "no average" for row in rows):
        table += "\non_missing='warn' or 'init' for these names reads the variables themselves."
    do = "does" if len(rows) == 1 else "do"
    return MismatchError(
        f"{counted(len(rows), 'variable')} {do} not fit this {IN_WORDS[checkpoint.format]}:\n"
        f"{table}",
        path=checkpoint.prefix,
    )


def missing_rows(
    checkpoint: Checkpoint,
    resolution: Resolution,
    missing: Sequence[Wanted],
    status: str = "missing",
) -> list[Row]:
    """A row for each tensor that the checkpoint lacks, with the reason or the nearest name."""
    near = _near_names(checkpoint, resolution, missing)
    at = {v.object_path: v.name for v in checkpoint.variables.values() if v.name != v.object_path}
    rows = []
    for want in missing:
        note = near.get(want.tensor, "")
        if resolution.notes.get(want.tensor):
            note = resolution.notes[want.tensor]
        elif want.tensor in at:
            note = f"the object there is {at[want.tensor]}; `checkpoint=` gives the model objects"
        elif want.tensor in checkpoint.variables:
            note = "an object of the checkpoint is called so, and no variable"
        if want.is_named:
            note = f"the Saver's mapping gives this name; {note}".removesuffix("; ")
        rows.append(Row(status, want.tensor, tensor_text(want.dtype, want.shape), note=note))
    return rows


def _near_names(
    checkpoint: Checkpoint, resolution: Resolution, missing: Sequence[Wanted]
) -> dict[str, str]:
    """What each may be that was not found, as a note; of slots only other slots are named."""
    if not missing or len(missing) * len(checkpoint.variables) > _MOST_COMPARED:
        return {}
    keys = resolution.keys
    taken = set(keys.values())
    saved = Saved(checkpoint)
    shapes = {name: saved.checkpoint.index.entries[key_bytes(k)].shape for name, k in keys.items()}
    state = state_by_names({**shapes, **{want.tensor: want.shape for want in missing}})
    slots = NameIndex(v.name for v in saved.values() if v.slot_of is not None)

    def note(want: Wanted) -> str:
        if state.get(want.tensor, ("",))[0] != SLOT:
            return saved.hint(want.tensor, want.shape, want.dtype, taken)
        # Another optimizer's slot means something else: the name of the slot is in its end.
        end = want.tensor.rpartition("/")[2]
        return meant([name for name in slots.near(want.tensor) if name.endswith(f"/{end}")])

    return {want.tensor: note(want) for want in missing}


def conversion_that_helps(
    checkpoint: Checkpoint, resolution: Resolution, missing: Sequence[Wanted]
) -> str:
    """The end of an error's message: the conversion of which most is found that is missing, or "".

    What stands in a dictionary of the user's own has its names in no `var_list`; so it is with the
    files of converters that write `vars`.
    """
    if any(resolution.notes.get(want.tensor) or any(want.weak) for want in missing):
        return ""  # there are reasons beside the names
    saved = Saved(checkpoint)
    if not missing or not saved.has_objects:
        return ""
    state = state_by_names({want.tensor: want.shape for want in missing})
    model = Model([_variable(want) for want in missing if want.tensor not in state])
    lacking = [want.tensor for want in missing]
    alike = [want for want in missing if _is_at_name(want, saved)]
    scopes = [pair for pair in scopes_that_fit(model, lacking, saved) if pair[0] != pair[1]]
    options, count = "", len(alike)
    if not alike and scopes:
        theirs, ours = scopes[0]
        options = f" --assignment_map={shlex.quote(f'{theirs}:{ours}')}"
        source, target = ("" if one == "/" else one for one in (theirs, ours))
        names = {source + want.name[len(target) :] for want in missing if want.name}
        count = sum(name in saved or name in saved.object_paths for name in names)
    if count * 2 < len(missing) or not count:
        return ""
    return (
        f"\nA copy under the names of the variables would have {count} of {len(missing)}:\n"
        f"estimator-ckpt convert {shlex.quote(checkpoint.prefix)} COPY "
        f"--checkpoint_format=both{options}"
    )


def _is_at_name(want: Wanted, saved: Saved) -> bool:
    found = saved.get(want.tensor)
    return (
        found is not None
        and found.slot_of is None
        and found.dtype == want.dtype
        and want.shape in (None, found.shape)
    )


def _misfit(want: Wanted, found: Variable, *, reshape: bool) -> Row | None:
    def row(status: str) -> Row:
        expected = tensor_text(want.dtype, want.shape)
        has = tensor_text(found.dtype, found.shape)
        return Row(status, want.tensor, expected, has, f"key {found.keys[-1]}")

    if found.dtype != want.dtype:
        return row("dtype")
    if want.shape is None or found.shape == want.shape:
        return None
    if reshape and math.prod(found.shape) == math.prod(want.shape):
        return None
    return row("shape")

"""The optimizers, what each calls its slots and numbers, and which variables are slots by name.

One table for all that asks: listings, warm starts, checks and conversions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

# tf.compat.v1 optimizers name a slot `X/OPTIMIZER`, `X/OPTIMIZER_1`, ... in the order in which
# they create it (tensorflow/python/training/slot_creator.py and each optimizer's _create_slots).
# A second optimizer of the kind goes on counting.
TF1_SLOTS = {
    "Adadelta": ("accum", "accum_update"),
    "Adagrad": ("accumulator",),
    "AddSignOptimizer": ("m",),
    "AdagradDA": ("gradient_accumulator", "gradient_squared_accumulator"),
    "Adam": ("m", "v"),
    "AdamW": ("m", "v"),
    "AdaMax": ("m", "v"),
    "Ftrl": ("accum", "linear"),
    "LARSOptimizer": ("momentum",),
    "LazyAdam": ("m", "v"),
    "Momentum": ("momentum",),
    "MomentumW": ("momentum",),
    "PowerSignOptimizer": ("m",),
    "ProximalAdagrad": ("accumulator",),
    "RMSProp": ("rms", "momentum"),
}
CENTERED_RMSPROP = ("rms", "mg", "momentum")
# Those that keep powers of their betas beside the slots.
BETA_POWERS = ("Adam", "AdaMax", "AdamW", "LazyAdam")
BETA_POWER = re.compile(r"(?:.*/)?(beta[12]_power)(?:_\d+)?(?::0)?")
# An optimizer may have been given a name, by one who trains two: G_Adam, MyAdamOptimizer.
_KINDS = "|".join(sorted(TF1_SLOTS, key=len, reverse=True))
_NAMED_KIND = re.compile(rf"(?:\w*(?:_|[a-z](?=[A-Z])))?({_KINDS})(?:Optimizer)?")

# The optimizer that came with BERT, in many repositories: X/adam_m.
BERT_SLOTS = {"adam_m": "m", "adam_v": "v"}

# Keras' optimizers up to 2.10, now `legacy`: X/m below a scope of the optimizer's, of which the
# group is the class.
KERAS_SLOTS = frozenset(
    ["m", "v", "vhat", "momentum", "rms", "mg", "accumulator", "accum_grad", "accum_var", "linear"]
)
KERAS_NUMBERS = frozenset(
    ["iter", "learning_rate", "decay", "beta_1", "beta_2", "rho", "momentum", "momentum_cache"]
    + ["learning_rate_power", "l1_regularization_strength", "l2_regularization_strength", "beta"]
)
KERAS_CLASSES = ("Adadelta", "Adagrad", "Adam", "Adamax", "Ftrl", "Nadam", "RMSprop", "SGD")
KERAS_SCOPE = re.compile(rf"(?:training(?:_\d+)?/)?({'|'.join(KERAS_CLASSES)})(?:_\d+)?/")

# Keras' optimizers since 2.11 keep one list of variables. A slot is called SCOPE/m/X in Keras 2 and
# SCOPE/X_momentum in Keras 3, there with "_" for each "/" in X (add_variable_from_reference() of
# keras/src/optimizers). What the slots are called in the one and in the other:
NEWER_KERAS_CLASSES = (*KERAS_CLASSES, "Adafactor", "AdamW", "Lamb", "Lion", "Muon")
NEWER_KERAS_SLOTS = (
    *("accumulated_delta_var", "gradient_accumulator", "accumulated_grad", "average_gradient"),
    *("velocity_hat", "accumulator", "momentum", "velocity", "average", "linear", "norm"),
    *("vhat", "m", "u", "v"),
)

# What a scope or slot is called, and the number that made it unique.
COUNTED = re.compile(r"(\w+?)(?:_([1-9]\d*))?")
_PART = re.compile(r"\d+$")
_OUTPUT = ":0"  # of a Saver({v.name: v}), behind all names


def slot_by_name(
    name: str, shape_of: Callable[[str], tuple[int, ...] | None]
) -> tuple[str, str] | None:
    """The variable whose slot `name` is and the slot's name; None where it is none for sure.

    Args:
      name: a variable name.
      shape_of: the shape of a variable, None if the checkpoint has none of that name. A slot's
        variable is there and has the slot's shape.
    """
    if name.endswith(_OUTPUT):
        found = slot_by_name(name[: -len(_OUTPUT)], lambda other: shape_of(other + _OUTPUT))
        return None if found is None else (found[0] + _OUTPUT, found[1])
    start, _, last = name.rpartition("/")
    candidates = _slot_names(last)
    if not candidates or not start:
        return None
    shape = shape_of(name)
    if last in KERAS_SLOTS:
        scope = KERAS_SCOPE.match(start)
        below = start[scope.end() :] if scope else start
        owner = next((one for one in (start, below) if shape_of(one) == shape), None)
    else:
        owner = slot_variable(start, shape, shape_of)
    if owner is None:
        return None
    label = re.sub(r"_\d+$", "", last)
    centered = len(candidates) > 1 and shape_of(f"{start}/{label}_2") is not None
    return owner, candidates[centered]


def slots_by_name(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], order: Iterable[int]
) -> tuple[list[str | None], list[str | None]]:
    """slot_by_name() of each variable of a checkpoint, by columns.

    Args:
      names, shapes: of the variables.
      order: their numbers, counted from 0, in the order of their names.
    """
    variables: list[str | None] = [None] * len(names)
    slots: list[str | None] = [None] * len(names)
    slot_names = functools.cache(_slot_names)
    shape_of: dict[str, tuple[int, ...]] = {}
    variable = ""  # the last that is no slot: the next ones may be its slots
    shape_of_variable: tuple[int, ...] = ()
    for number in order:
        name = names[number]
        cut = name.rfind("/")
        candidates = slot_names(name[cut + 1 :])
        if not candidates:
            variable, shape_of_variable = name, shapes[number]
        elif (
            cut > 0
            and name[:cut] == variable
            and shapes[number] == shape_of_variable
            and len(candidates) == 1
        ):
            variables[number], slots[number] = variable, candidates[0]
        else:
            shape_of = shape_of or dict(zip(names, shapes))
            variables[number], slots[number] = slot_by_name(name, shape_of.get) or (None, None)
    return variables, slots


def slot_variable(
    start: str,
    shape: tuple[int, ...] | None,
    shape_of: Callable[[str], tuple[int, ...] | None],
) -> str | None:
    """The variable of a TF1 slot, by what the slot's name has before its last part.

    That is the variable's own name, or more: the scopes that the optimizer was made in before it;
    or behind it the end of `NAME/part_N`, as long as those scopes are. slot_creator.py cuts a
    partitioned variable's slot there, as if it were in no scope. So the canned Estimators of
    tf.compat.v1 have slots `dnn/logits/kernel/t_0/Adagrad` and `linear/.../weights/part_0/Ftrl`.

    Args:
      start: without the last part.
      shape: of the slot.
      shape_of: as slot_by_name() takes it.
    """
    if shape_of(start) == shape:
        return start
    variable, _, tail = start.rpartition("/")
    part = _PART.search(tail)
    while part and variable:
        if f"{variable}/part_{part.group()}".endswith(tail) and shape_of(variable) == shape:
            return variable
        variable, _, above = variable.rpartition("/")
        tail = f"{above}/{tail}"
    while "/" in start:
        start = start.partition("/")[2]
        if shape_of(start) == shape:
            return start
    return None


def newer_keras_slot(
    name: str,
    shape: tuple[int, ...],
    shape_of: Callable[[str], tuple[int, ...] | None],
    by_flat_name: Mapping[str, Sequence[str]],
) -> tuple[str, str] | None:
    """The variable of a slot of Keras' newer optimizers and the slot's name, by the name of both.

    Args:
      name: of the slot variable.
      shape: of it.
      shape_of: as slot_by_name() takes it.
      by_flat_name: the variable names, as flat_names() makes it.
    """
    scopes = name.split("/")
    for number, scope in enumerate(scopes[:-1]):
        variable = "/".join(scopes[number + 1 :])
        if scope in NEWER_KERAS_SLOTS and shape_of(variable) == shape:
            return variable, scope
    last = scopes[-1]
    slot = next((slot for slot in NEWER_KERAS_SLOTS if last.endswith(f"_{slot}")), None)
    if slot is None or len(scopes) == 1:
        return None
    flat = last[: -len(slot) - 1]
    # A variable that is none of Keras' own is called `X:0` there.
    flats = {flat, flat.removesuffix("_0")}
    variables = [v for one in flats for v in by_flat_name.get(one, ()) if shape_of(v) == shape]
    return (variables[0], slot) if len(variables) == 1 else None


def flat_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Variable names by what they are with "_" for each "/", as in the names of Keras 3's slots."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.replace("/", "_"), []).append(name)
    return found


def kind_of(label: str) -> str:
    """The class in TF1_SLOTS of an optimizer by its name: `Adam` of `G_Adam`; "" if none."""
    if label in TF1_SLOTS:
        return label
    named = _NAMED_KIND.fullmatch(label)
    return named.group(1) if named else ""


def _slot_names(last: str) -> tuple[str, ...]:
    """The slot that a name ending so may be; for RMSProp also the one that it is if centered."""
    last = last.removesuffix(_OUTPUT)
    if last in KERAS_SLOTS:
        return (last,)
    if last in BERT_SLOTS:
        return (BERT_SLOTS[last],)
    counted = COUNTED.fullmatch(last)
    kind = kind_of(counted.group(1)) if counted is not None else ""
    if counted is None or not kind:
        return ()
    orders = [TF1_SLOTS[kind]]
    if kind == "RMSProp":
        orders.append(CENTERED_RMSPROP)
    return tuple(order[int(counted.group(2) or 0) % len(order)] for order in orders)

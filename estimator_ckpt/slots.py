"""Which variables of a name-based checkpoint are an optimizer's slots: by their names alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

# tf.compat.v1 optimizers name a slot `X/OPTIMIZER`, `X/OPTIMIZER_1`, ... in the order in which
# they create it (tensorflow/python/training/slot_creator.py and each optimizer's _create_slots).
# A second optimizer of the kind goes on counting.
_TF1 = {
    "Adadelta": ("accum", "accum_update"),
    "Adagrad": ("accumulator",),
    "AdagradDA": ("gradient_accumulator", "gradient_squared_accumulator"),
    "Adam": ("m", "v"),
    "AdamW": ("m", "v"),
    "AdaMax": ("m", "v"),
    "Ftrl": ("accum", "linear"),
    "LazyAdam": ("m", "v"),
    "Momentum": ("momentum",),
    "ProximalAdagrad": ("accumulator",),
    "RMSProp": ("rms", "momentum"),
}
_CENTERED_RMSPROP = ("rms", "mg", "momentum")

# The optimizer that came with BERT, in many repositories: X/adam_m.
_BERT = {"adam_m": "m", "adam_v": "v"}

# Keras' optimizers up to 2.10, now `legacy`: X/m below a scope of the optimizer's.
_KERAS = frozenset(
    ["m", "v", "vhat", "momentum", "rms", "mg", "accumulator", "accum_grad", "accum_var", "linear"]
)
_KERAS_SCOPE = re.compile(
    r"(?:training(?:_\d+)?/)?(?:Adadelta|Adagrad|Adam|Adamax|Ftrl|Nadam|RMSprop|SGD)(?:_\d+)?/"
)
_COUNTED = re.compile(r"(\w+?)(?:_([1-9]\d*))?")


def slot_by_name(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """The variable whose slot `name` is and the slot's name; None where it is none for sure.

    Args:
      name: a variable name.
      shapes: all variables of the checkpoint. A slot's variable is one of them and has its shape.
    """
    variable, _, last = name.rpartition("/")
    if not variable:
        return None
    shape = shapes[name]
    if shapes.get(variable) == shape:
        if last in _BERT:
            return variable, _BERT[last]
        counted = _COUNTED.fullmatch(last)
        slots = _TF1.get(counted.group(1)) if counted else None
        if counted and slots:
            if counted.group(1) == "RMSProp" and f"{variable}/RMSProp_2" in shapes:
                slots = _CENTERED_RMSPROP
            return variable, slots[int(counted.group(2) or 0) % len(slots)]
    if last in _KERAS:
        scope = _KERAS_SCOPE.match(variable)
        model_variable = variable[scope.end() :] if scope else variable
        if shapes.get(model_variable) == shape:
            return model_variable, last
    return None

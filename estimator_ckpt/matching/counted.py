"""Names that a counter may have made: `dense_1` of a Dense, `Variable` of a variable without name.

Nobody can tell who made a name. A segment of it is weak if the class of its own object, or nobody,
would have made it: then another program, which makes one object more before, gives it to another.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence

_UNNAMED = re.compile(r"[Vv]ariable(_\d+)?")
# The layers of Keras that have variables, and its models.
_KERAS_CLASSES = frozenset(
    re.findall(
        r"\w+",
        """
        Attention AdditiveAttention BatchNormalization Bidirectional Conv1D Conv1DTranspose Conv2D
        Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Dense
        DepthwiseConv1D DepthwiseConv2D Discretization EinsumDense Embedding Functional GRU GRUCell
        GroupNormalization GroupQueryAttention LSTM LSTMCell LayerNormalization LocallyConnected1D
        LocallyConnected2D Model MultiHeadAttention Normalization PReLU RNN SeparableConv1D
        SeparableConv2D Sequential SimpleRNN SimpleRNNCell SpectralNormalization StackedRNNCells
        TimeDistributed UnitNormalization
        """,
    )
)
_COUNT = re.compile(r"_\d+$")
_POSITION = re.compile(r"(?:layer-|layer_with_weights-)?\d+")

# How a class's name becomes an object's, in Keras 2 (keras/src/utils/generic_utils.py), Keras 3
# (keras/src/utils/naming.py) and tf.Module (tensorflow/python/module/module.py).
_STYLES = (
    (re.compile(r"(.)([A-Z][a-z0-9]+)"), re.compile(r"([a-z])([A-Z])")),
    (re.compile(r"(.)([A-Z][a-z]+)"), re.compile(r"([a-z])([A-Z])")),
    (re.compile(r"()((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))"), re.compile(r"(?!)()()")),
)


@functools.cache
def default_names(class_name: str) -> frozenset[str]:
    """What an object of a class is called if nobody names it, without a count."""
    found = {"model", "functional"} if class_name == "Functional" else set()
    for first, second in _STYLES:
        name = re.sub(r"\W+", "", class_name)
        name = second.sub(r"\1_\2", first.sub(r"\1_\2", name)).lower()
        found.add(f"private{name}" if name.startswith("_") else name)
    return frozenset(found)


def weak_segments(name: str, class_names: Iterable[str]) -> tuple[bool, ...]:
    """For each segment of a variable name, whether a counter may have made it.

    Args:
      name: `net/dense_1/kernel`.
      class_names: the classes of the objects that hold the variable, from the root to it.
    """
    defaults: set[str] = set()
    for class_name in class_names:
        defaults |= default_names(class_name)
    segments = name.split("/")
    weak = [_is_default(segment, defaults) for segment in segments[:-1]]
    return (*weak, _UNNAMED.fullmatch(segments[-1]) is not None)


def _is_default(segment: str, defaults: Collection[str]) -> bool:
    return segment in defaults or _COUNT.sub("", segment) in defaults


def may_be_counted(names: Sequence[str]) -> list[bool]:
    """For each variable name whether a class of the program would call a layer so, with a count.

    Keras counts layers through the whole life of an eager program, so that the names of a model
    depend on what was made before it. A variable in a list does not show which layer it is of.
    """
    import tensorflow as tf

    known = {tf.__internal__.tracking.Trackable: None}  # in the order of their finding
    waiting = list(known)
    for one in waiting:
        new = [below for below in one.__subclasses__() if below not in known]
        known.update(dict.fromkeys(new))
        waiting += new
    class_names = {
        one.__name__
        for one in known
        if issubclass(one, tf.Module) or all(hasattr(one, name) for name in ("call", "weights"))
    }
    defaults = frozenset().union(*map(default_names, class_names - {"Layer"}))
    return [any(_is_default(part, defaults) for part in name.split("/")[:-1]) for name in names]


def keras_segments(name: str) -> tuple[bool, ...]:
    """weak_segments() where only names are known: Keras' own classes may hold the variable."""
    return weak_segments(name, _KERAS_CLASSES)


def without_counts(name: str) -> str:
    """A name without what counters may have added: `net/dense/kernel` of `net_1/dense_2/kernel`."""
    return "/".join(_COUNT.sub("", segment) for segment in name.split("/"))


def counts_tell_apart(name: str, other: str) -> bool:
    """Whether two names, read from their ends, differ in a count: `a/dense_1/k` and `dense/k`.

    The one is no hint for the other then: what was made first got the lower count.
    """
    pairs = zip(reversed(name.split("/")), reversed(other.split("/")))
    return any(a != b and without_counts(a) == without_counts(b) for a, b in pairs)


def is_position(local_name: str) -> bool:
    """Whether the name of an edge only counts: an item of a list, a layer of a Keras model."""
    return _POSITION.fullmatch(local_name) is not None

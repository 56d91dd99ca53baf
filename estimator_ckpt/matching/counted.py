"""Names that a counter may have made: `dense_1` of a Dense, `Variable` of a variable without name.

Nobody can tell who made a name. A segment of it is weak if the class of its own object, or nobody,
would have made it: then another program, which makes one object more before, gives it to another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_UNNAMED = re.compile(r"[Vv]ariable(_\d+)?")
_COUNT = re.compile(r"_\d+$")
_POSITION = re.compile(r"(?:layer-|layer_with_weights-)?\d+")

# How a class's name becomes an object's, in Keras 2 (keras/src/utils/generic_utils.py), Keras 3
# (keras/src/utils/naming.py) and tf.Module (tensorflow/python/module/module.py).
_STYLES = (
    (re.compile(r"(.)([A-Z][a-z0-9]+)"), re.compile(r"([a-z])([A-Z])")),
    (re.compile(r"(.)([A-Z][a-z]+)"), re.compile(r"([a-z])([A-Z])")),
    (re.compile(r"()((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))"), re.compile(r"(?!)()()")),
)


def default_names(class_name: str) -> set[str]:
    """What an object of a class is called if nobody names it, without a count."""
    found = {"model", "functional"} if class_name == "Functional" else set()
    for first, second in _STYLES:
        name = re.sub(r"\W+", "", class_name)
        name = second.sub(r"\1_\2", first.sub(r"\1_\2", name)).lower()
        found.add(f"private{name}" if name.startswith("_") else name)
    return found


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


def without_counts(name: str) -> str:
    """A name without what counters may have added: `net/dense/kernel` of `net_1/dense_2/kernel`."""
    return "/".join(_COUNT.sub("", segment) for segment in name.split("/"))


def is_position(local_name: str) -> bool:
    """Whether the name of an edge only counts: an item of a list, a layer of a Keras model."""
    return _POSITION.fullmatch(local_name) is not None


def differ_in_weak_segments_only(name: str, weak: tuple[bool, ...], other: str) -> bool:
    """Whether a weak name is another one's but for the segments that a counter may have made."""
    ours, theirs = name.split("/"), other.split("/")
    if len(ours) != len(theirs):
        return any(weak)
    return all(is_weak or a == b for a, is_weak, b in zip(ours, weak, theirs))

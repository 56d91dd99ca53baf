"""What a model has: its variables, each with all that tells which it is, and its objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator_ckpt.objects.object_graph import DEFAULT_EDGES, VAR_LIST, ObjectGraph
from estimator_ckpt.roles import STATISTIC, WEIGHT

NO_NODE = -1


@dataclass(frozen=True)
class ModelVariable:
    """A variable of a model, whole.

    Attributes:
      name: its full name; where the model has several of one name its object path. Unique.
      shape: of the whole variable; None where it is not known.
      dtype: its name, `float32`.
      trainable: whether it is one of the trainable variables.
      parts: the names that its parts have, `name/part_0:0`; for an undivided one `name:0`.
      called: the name that a checkpoint may have it under; "" if nobody has named it. None: `name`.
      is_given: whether the user has given that name on purpose: it decides.
      weak: for each segment of that, whether a counter may have made it; see counted.py.
      is_counted: whether one may have made it that no object shows: the variable stands in a list,
        and a class of the program would call a layer so.
      node: its object in the model's structure; NO_NODE if none holds it.
      attribute: the name of its value there; "" for a variable's own.
      suffix: what its key has behind the value's, and its name behind the object's: `-keys` of a
        lookup table.
      average: the name of its average, which is read in its place where there is one, or "".
      role: what it is for.
      optimizer: of an optimizer's slot or number, which one's: any text; else "".
      owner: of a slot, the name of its variable, if the model tells; else "".
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    trainable: bool
    parts: tuple[str, ...]
    called: str | None = None
    is_given: bool = False
    weak: tuple[bool, ...] = ()
    is_counted: bool = False
    node: int = NO_NODE
    attribute: str = ""
    suffix: str = ""
    average: str = ""
    role: str = WEIGHT
    optimizer: str = ""
    owner: str = ""

    @property
    def known_as(self) -> str:
        """The name that a checkpoint may have it under."""
        return self.name if self.called is None else self.called

    @property
    def tensor(self) -> str:
        """The same, of one tensor of several that an object has."""
        return self.known_as + self.suffix

    @property
    def is_weak(self) -> bool:
        """Whether a counter may have made its name."""
        return any(self.weak)

    @property
    def is_required(self) -> bool:
        """Whether a model that starts without it is not the one that was saved."""
        return self.role in (WEIGHT, STATISTIC)


class OtherState(NamedTuple):
    """An object with state that no variable and no lookup table of the program holds.

    Attributes:
      name: its object path, or its name in a graph; no variable of the model is called so.
      kind: what it is, `OwnedIterator`.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class LiveOptimizer:
    """An optimizer of a program, as far as another kind's state can be made its own.

    All variables are given by their names in the model.

    Attributes:
      name: the text that its variables have for it: of an object its path.
      label: its class, as the table of optimizers has it.
      fitting: the classes that it may be of, where nothing but names tells; else none.
      dialect: TF1, LEGACY or NEWER; see roles/records.py.
      is_keras_3: whether it is Keras 3's.
      slots: its slot variables, by the variable and the table's name of the slot.
      own: its other variables, by their names in the object: `iter`, `_iterations`, `beta1_power`.
      scale: the numbers of the wrapper that scales its losses, by their names in the table.
      numbers: the hyperparameters that it works with, as far as it tells.
      is_built: whether it has its slots, if it is to have any.
      problem: why nothing can be made its state; "" if something can.
    """

    name: str
    label: str
    dialect: str
    fitting: Sequence[str] = ()
    is_keras_3: bool = False
    slots: Mapping[tuple[str, str], str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    is_built: bool = True
    problem: str = ""

    def variables(self) -> Iterator[str]:
        """The names of all its variables, as far as they are known."""
        yield from self.slots.values()
        yield from self.own.values()
        yield from self.scale.values()


@dataclass(frozen=True)
class Model:
    """The variables of a model and the objects that hold them.

    Attributes:
      variables: each once.
      structure: the objects, of which node 0 was given; those of the variables have no attributes.
      optimizers: the node ids of the optimizers, by the text that their variables have for them.
      is_bare: whether that object may stand anywhere in a checkpoint; a tf.train.Checkpoint stands
        at the root.
      starts_all: whether all variables start where no setting selects some; otherwise those that
        are trainable do, as in a job.
      scope: with what all names begin that the model itself has given: its own name and a slash,
        as in Keras 3; or "". A checkpoint of names alone may lack it.
      others: its objects with state of another kind. A restore gives them their state; a warm start
        leaves them alone, and says so.
    """

    variables: Sequence[ModelVariable]
    structure: ObjectGraph = field(default_factory=ObjectGraph)
    optimizers: dict[str, int] = field(default_factory=dict)
    is_bare: bool = False
    starts_all: bool = False
    scope: str = ""
    others: Sequence[OtherState] = ()
    live_optimizers: Sequence[LiveOptimizer] = ()

    @property
    def has_names_alone(self) -> bool:
        """Whether no objects of the user's own hold its variables, as in most jobs."""
        if self.starts_all:
            return all(variable.node == NO_NODE for variable in self.variables)
        nodes = self.structure.nodes
        edges = nodes.children(0)
        listed = edges.get(VAR_LIST)
        return edges.keys() <= set(DEFAULT_EDGES) and (listed is None or not nodes.children(listed))

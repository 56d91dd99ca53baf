"""What a checkpoint has: its variables by all names that a rule or a model may call them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import NamedTuple

from estimator_ckpt.bundle.index import same_tensor
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.matching.averaged import with_averages
from estimator_ckpt.matching.counted import counts_tell_apart, without_counts
from estimator_ckpt.matching.rules import Rules
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import (
    DEFAULT_EDGES,
    VAR_LIST,
    ObjectGraph,
    parse_path,
    path_string,
)
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.names import NameIndex, meant

_MOST_NEAR = 5


class Named(NamedTuple):
    """The variables that a name leads to, by what has the name; of a renamed one `key` alone.

    Attributes:
      var_list: the object that `var_list` has under it.
      full_name: the objects that had it in their graph.
      key: the tensor whose key it is.
    """

    var_list: Sequence[Variable] = ()
    full_name: Sequence[Variable] = ()
    key: Sequence[Variable] = ()

    def all(self) -> list[Variable]:
        return [*self.var_list, *self.full_name, *self.key]


class Saved(dict[str, Variable]):
    """The checkpoint's variables by the names that the rename rules give them.

    Attributes:
      checkpoint: whose they are.
      graph: its objects; an empty one if it has none.
      object_paths: those that no rule has renamed, by their shortest object paths.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rename: Sequence[tuple[str, str]] = (),
        *,
        require_all_rules_match: bool = True,
        use_averages: str | bool = False,
        names: Mapping[str, Variable] | None = None,
        given: Collection[str] = (),
    ) -> None:
        """Gives names to what a checkpoint has.

        Args:
          checkpoint: whose variables they are.
          rename, require_all_rules_match, use_averages: as WarmStart has them.
          names: the variables by the names that others have given them; no rule is applied then.
          given: which of these names were given on purpose.
        """
        variables: Mapping[str, Variable] = checkpoint.variables
        if use_averages:
            variables = with_averages(variables, use_averages)
        self._given = set(given)
        if names is not None:
            super().__init__(names)
        elif rename:
            lines = Rules(rename=rename).resolve(
                variables, require_all_rules_match=require_all_rules_match
            )
            super().__init__((line.target, variables[line.source]) for line in lines if line.target)
            self._given = {name for name, variable in self.items() if name != variable.name}
        else:
            super().__init__(variables)
        # An object's path often is its variable's name, which must not find it when it is renamed.
        kept = [variable for name, variable in self.items() if name not in self._given]
        self.object_paths: dict[str, Variable] = {}
        for variable in kept:
            if variable.object_path is not None:
                self.object_paths.setdefault(variable.object_path, variable)
        # By the keys of its own object, also where its value is another's: its average's.
        self._by_key = {
            key: variable for variable in kept for key in checkpoint.variables[variable.name].keys
        }
        self.checkpoint = checkpoint
        self.graph = checkpoint.object_graph or ObjectGraph()
        self._var_list: Mapping[str, int] = {}
        listed = self.graph.child_at((VAR_LIST,))
        if listed is not None:
            self._var_list = self.graph.nodes.children(listed)
        self._masked: dict[tuple[bool, ...], dict[tuple[str, ...], list[Variable]]] = {}
        self._names: NameIndex | None = None

    def find(self, source: str) -> Variable | None:
        """The variable of that name, any object path, or key.

        Raises:
          ConflictError: it is the name of one variable and the object path of another.
        """
        named, placed = self.get(source), self.at_path(source)
        if named is None or placed is None or named is placed:
            return named or placed or self._by_key.get(source)
        if self.same(named, placed):
            return named
        raise ConflictError(
            f"this is the name of one variable (key {named.key}) and the object path of another "
            f"({placed.name}, key {placed.key}); rename one with a `rename` rule",
            path=self.checkpoint.prefix,
            key=source,
        )

    def at_path(self, path: str) -> Variable | None:
        """The variable at any object path of it."""
        found = self.object_paths.get(path)
        node = self.graph.child_at(parse_path(path)) if found is None else None
        return self.at_node(node) if node is not None else found

    def at_node(self, node: int, attribute: str = "", suffix: str = "") -> Variable | None:
        """The variable that an object is; or the tensor that one of its values is, or a part of it.

        Args:
          node: the node id of the object.
          attribute: the name of the value; "" for the variable's own.
          suffix: what the tensor's key has behind the value's, `-keys` of a lookup table.
        """
        nodes = self.graph.nodes
        if node not in nodes.others:  # nearly all
            is_it = not attribute or nodes.names[node] == attribute
            return self._by_key.get(nodes.keys[node] + suffix) if is_it else None
        values = nodes[node].attributes
        if attribute or len(values) > 1:
            values = tuple(v for v in values if v.name == (attribute or VARIABLE_VALUE))
        return self._by_key.get(values[0].checkpoint_key + suffix) if len(values) == 1 else None

    def same(self, one: Variable, other: Variable) -> bool:
        """Whether two variables are one, or have equal bytes."""
        return one is other or same_tensor(self.checkpoint.index, one.key, other.key)

    def distinct(self, variables: Sequence[Variable]) -> list[Variable]:
        """The first of those that have equal bytes."""
        if all(variable is variables[0] for variable in variables):
            return list(variables[:1])
        found: list[Variable] = []
        for variable in variables:
            if not any(self.same(variable, other) for other in found):
                found.append(variable)
        return found

    @cached_property
    def has_objects(self) -> bool:
        """Whether it has variables in objects, and not only names or a `var_list` of them."""
        return has_objects_of_its_own(self.graph)

    @cached_property
    def _full_names(self) -> Mapping[str, tuple[int, ...]]:
        """The node ids of the objects that had a name in their graph."""
        nodes = self.graph.nodes
        found: dict[str, tuple[int, ...]] = {}
        for number, name in zip(count(), nodes.full_names):
            if name:
                found[name] = (*found[name], number) if name in found else (number,)
        for number, node in nodes.others.items():
            for name in {a.full_name for a in node.attributes if len(node.attributes) > 1} - {""}:
                found[name] = (*found.get(name, ()), number)
        return found

    def is_renamed(self, name: str) -> bool:
        """Whether a rule has given this name, on purpose."""
        return name in self._given

    def named(self, name: str, attribute: str = "", suffix: str = "") -> Named:
        """What has a name; `attribute` and `suffix` as at_node() has them."""
        text = name + suffix
        if self.is_renamed(text):
            return Named(key=[self[text]])
        by_key = self._by_key.get(text)
        key = (by_key,) if by_key is not None else ()
        nodes = self._full_names.get(name, ())
        if name in self._var_list:
            listed = (self._var_list[name],)
            var_list = self._at(listed, attribute, suffix)
            return Named(
                var_list,
                var_list if nodes == listed else self._at(nodes, attribute, suffix),
                key,
            )
        return Named((), self._at(nodes, attribute, suffix) if nodes else (), key)

    def _at(self, nodes: Iterable[int], attribute: str, suffix: str) -> tuple[Variable, ...]:
        found = [self.at_node(node, attribute, suffix) for node in nodes]
        return tuple(variable for variable in found if variable is not None)

    def of_name(self, name: str) -> list[Variable]:
        """The variables that have a name, in the object graph too; of equal ones the first."""
        return self.distinct(self.named(name).all())

    def place(self, variable: Variable) -> object:
        """Where its bytes are; a tensor without bytes is nowhere but under its key."""
        entry = variable.entry
        if entry.slices:
            entry = self.checkpoint.index.entries[slice_key(variable.key, entry.slices[0])]
        return (entry.shard, entry.offset) if entry.size else variable.key

    def of_masked_name(self, name: str, weak: tuple[bool, ...]) -> list[Variable]:
        """The variables whose names differ from `name` in its weak segments at most."""
        by_strong = self._masked.get(weak)
        if by_strong is None:
            by_strong = self._masked[weak] = {}
            for other, variables in self._all_names:
                segments = other.split("/")
                if len(segments) == len(weak):
                    strong = tuple(s for s, is_weak in zip(segments, weak) if not is_weak)
                    by_strong.setdefault(strong, []).extend(variables)
        strong = tuple(s for s, is_weak in zip(name.split("/"), weak) if not is_weak)
        return self.distinct(by_strong.get(strong, []))

    @cached_property
    def _all_names(self) -> Sequence[tuple[str, Sequence[Variable]]]:
        """Every name, of the object graph too, with what has it."""
        names = dict.fromkeys((*self, *self._var_list, *self._full_names))
        return [
            (name, [*self.named(name).all(), *([self[name]] if name in self else [])])
            for name in names
        ]

    @cached_property
    def _by_counted_name(self) -> Mapping[str, Sequence[Variable]]:
        found: dict[str, list[Variable]] = {}
        for name, variables in self._all_names:
            found.setdefault(without_counts(name), []).extend(variables)
        return found

    def of_counted_name(self, name: str) -> list[Variable]:
        """The variables whose names differ from `name` in counts at most, `dense_1` for `dense`."""
        return self.distinct(self._by_counted_name.get(without_counts(name), []))

    @cached_property
    def _path_of(self) -> Mapping[int, tuple[str, ...]]:
        return self.graph.paths()

    def path_of(self, node: int) -> str:
        """The shortest path to an object; `/` for the root."""
        return path_string(self._path_of.get(node, ("?",))) or "/"

    def hint(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        dtype: str = "",
        taken: Collection[str] = (),
    ) -> str:
        """What a variable that was not found may be, as a row's note; "" where nothing is near.

        It has its shape and dtype, is no slot, and not told from it by a count alone.

        Args:
          name: of the variable.
          shape, dtype: of it; None and "" where they are not known.
          taken: the keys that other variables have.
        """
        sharing = {
            variable.object_path
            for variable in self.of_name(name)
            if variable.object_path is not None
        }
        if len(sharing) > 1:
            return f"the name of {len(sharing)} variables: {', '.join(sorted(sharing)[:3])}"
        if self._names is None:
            weights = (name for name, variable in self.items() if variable.slot_of is None)
            paths = (p for p, variable in self.object_paths.items() if variable.slot_of is None)
            self._names = NameIndex([*weights, *paths])
        near = [
            other
            for other in self._names.near(name, limit=_MOST_NEAR)
            for variable in [self.get(other) or self.object_paths[other]]
            if variable.key not in taken
            and (shape is None or variable.shape == shape)
            and dtype in ("", variable.dtype)
        ]
        sure = [other for other in near if not counts_tell_apart(other, name)]
        if near and not sure:
            return f"a count alone tells it from {near[0]}: say which is meant"
        return meant(sure)


def has_objects_of_its_own(graph: ObjectGraph) -> bool:
    """Whether variables stand in objects, and not only in `var_list`, or as the root's step."""
    nodes = graph.nodes
    flat = {0}
    for local_name, child in nodes.children(0).items():
        if local_name in DEFAULT_EDGES:
            flat.add(child)
    parents = [parent for parent in nodes.others if parent not in flat]
    edges = [child for parent in parents for child in nodes.children(parent).values()]
    edges += [child for name, child in nodes.children(0).items() if name not in DEFAULT_EDGES]
    return any(nodes[child].attributes for child in edges)

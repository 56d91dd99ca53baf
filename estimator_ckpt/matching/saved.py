"""What a checkpoint has: its variables by all names that a rule or a model may call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from estimator_ckpt.bundle.index import same_tensor
from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.matching.averaged import with_averages
from estimator_ckpt.matching.rules import Rules
from estimator_ckpt.objects.object_graph import (
    SAVE_COUNTER,
    STEP,
    VAR_LIST,
    VARIABLE_VALUE,
    Attribute,
    ObjectGraph,
    parse_path,
    path_string,
)
from estimator_ckpt.text.names import NameIndex, meant

_FLAT = (SAVE_COUNTER, STEP, VAR_LIST)


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
    ) -> None:
        variables: Mapping[str, Variable] = checkpoint.variables
        if use_averages:
            variables = with_averages(variables, use_averages)
        lines = Rules(rename=rename).resolve(
            variables, require_all_rules_match=require_all_rules_match
        )
        super().__init__((line.target, variables[line.source]) for line in lines if line.target)
        # An object's path often is its variable's name, which must not find it when it is renamed.
        kept = [variable for name, variable in self.items() if name == variable.name]
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

    def at_node(self, node: int) -> Variable | None:
        """The variable that an object is."""
        keys = [a.checkpoint_key for a in self.graph.nodes[node].attributes]
        if len(keys) > 1:
            keys = [
                a.checkpoint_key
                for a in self.graph.nodes[node].attributes
                if a.name == VARIABLE_VALUE
            ]
        return self._by_key.get(keys[0]) if len(keys) == 1 else None

    def same(self, one: Variable, other: Variable) -> bool:
        """Whether two variables are one, or have equal bytes."""
        return one is other or same_tensor(self.checkpoint.index, one.key, other.key)

    def distinct(self, variables: Sequence[Variable]) -> list[Variable]:
        """The first of those that have equal bytes."""
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
    def _graph_names(self) -> Mapping[str, Sequence[tuple[int, Attribute]]]:
        return self.graph.names()

    def of_name(self, name: str) -> list[Variable]:
        """The variables that have a name, in the object graph too; of equal ones the first."""
        named = self.get(name)
        if named is not None and (named.name != name or not self._graph_names):
            return [named]
        found = [named] if named is not None else []
        for _, attribute in self._graph_names.get(name, ()):
            variable = self._by_key.get(attribute.checkpoint_key)
            if variable is not None:
                found.append(variable)
        return self.distinct(found)

    def of_masked_name(self, name: str, weak: tuple[bool, ...]) -> list[Variable]:
        """The variables whose names differ from `name` in its weak segments at most."""
        by_strong = self._masked.get(weak)
        if by_strong is None:
            by_strong = self._masked[weak] = {}
            pairs = [(other, [variable]) for other, variable in self.items()]
            pairs += [(other, self.of_name(other)) for other in self._graph_names]
            for other, variables in pairs:
                segments = other.split("/")
                if len(segments) == len(weak):
                    strong = tuple(s for s, is_weak in zip(segments, weak) if not is_weak)
                    by_strong.setdefault(strong, []).extend(variables)
        strong = tuple(s for s, is_weak in zip(name.split("/"), weak) if not is_weak)
        return self.distinct(by_strong.get(strong, []))

    @cached_property
    def _path_of(self) -> Mapping[int, tuple[str, ...]]:
        return self.graph.paths()

    def path_of(self, node: int) -> str:
        """The shortest path to an object; `/` for the root."""
        return path_string(self._path_of.get(node, ("?",))) or "/"

    def hint(self, source: str) -> str:
        """Which of the names `source` may stand for."""
        sharing = {
            variable.object_path
            for variable in self.of_name(source)
            if variable.object_path is not None
        }
        if len(sharing) > 1:
            return f"the name of {len(sharing)} variables: {', '.join(sorted(sharing)[:3])}"
        if self._names is None:
            weights = (name for name, variable in self.items() if variable.slot_of is None)
            paths = (p for p, variable in self.object_paths.items() if variable.slot_of is None)
            self._names = NameIndex([*weights, *paths])
        return meant(self._names.near(source, limit=1))


def has_objects_of_its_own(graph: ObjectGraph) -> bool:
    """Whether variables stand in objects, and not only in `var_list`, or as the root's step."""
    nodes = graph.nodes
    flat = {0}
    for local_name, child in nodes.children(0).items():
        if local_name in _FLAT:
            flat.add(child)
    parents = [parent for parent in nodes.others if parent not in flat]
    edges = [child for parent in parents for child in nodes.children(parent).values()]
    edges += [child for name, child in nodes.children(0).items() if name not in _FLAT]
    return any(nodes[child].attributes for child in edges)

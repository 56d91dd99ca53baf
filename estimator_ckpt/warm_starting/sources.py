"""The variables of a checkpoint, by all that a rule may call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from estimator_ckpt.bundle.index import same_tensor
from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.mapping import Rules
from estimator_ckpt.object_graph import Attribute, ObjectGraph, parse_path
from estimator_ckpt.report import NameIndex

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart


class Sources(dict[str, Variable]):
    """The checkpoint's variables by the names that the rename rules give them.

    Attributes:
      object_paths: those that no rule has renamed, by their shortest object paths.
    """

    def __init__(self, settings: WarmStart, checkpoint: Checkpoint) -> None:
        lines = Rules(rename=settings.rename).resolve(
            checkpoint.variables, require_all_rules_match=settings.require_all_rules_match
        )
        super().__init__(
            (line.target, checkpoint.variables[line.source]) for line in lines if line.target
        )
        # An object's path often is its variable's name, which must not find it when it is renamed.
        kept = [variable for name, variable in self.items() if name == variable.name]
        self.object_paths: dict[str, Variable] = {}
        for variable in kept:
            if variable.object_path is not None:
                self.object_paths.setdefault(variable.object_path, variable)
        self._by_key = {key: variable for variable in kept for key in variable.keys}
        self._checkpoint = checkpoint
        self._graph = checkpoint.object_graph or ObjectGraph()
        self._names: NameIndex | None = None

    def find(self, source: str) -> Variable | None:
        """The variable of that name, any object path, or key.

        Raises:
          ConflictError: it is the name of one variable and the object path of another.
        """
        named, placed = self.get(source), self._at_path(source)
        if named is None or placed is None or named is placed:
            return named or placed or self._by_key.get(source)
        if same_tensor(self._checkpoint.index, named.key, placed.key):
            return named
        raise ConflictError(
            f"this is the name of one variable (key {named.key}) and the object path of another "
            f"({placed.name}, key {placed.key}); rename one with a `rename` rule",
            path=self._checkpoint.prefix,
            key=source,
        )

    def _at_path(self, path: str) -> Variable | None:
        found = self.object_paths.get(path)
        node = self._graph.child_at(parse_path(path)) if found is None else None
        attributes = self._graph.nodes[node].attributes if node is not None else ()
        if len(attributes) == 1:
            found = self._by_key.get(attributes[0].checkpoint_key)
        return found

    @cached_property
    def _graph_names(self) -> Mapping[str, Sequence[tuple[int, Attribute]]]:
        return self._graph.names()

    def hint(self, source: str) -> str:
        """Which of the names `source` may stand for."""
        sharing = {
            variable.object_path
            for _, attribute in self._graph_names.get(source, ())
            for variable in [self._by_key.get(attribute.checkpoint_key)]
            if variable is not None and variable.object_path is not None
        }
        if len(sharing) > 1:
            return f"the name of {len(sharing)} variables: {', '.join(sorted(sharing)[:3])}"
        if self._names is None:
            self._names = NameIndex([*self, *self.object_paths])
        near = self._names.near(source, limit=1)
        return f"did you mean {near[0]}?" if near else ""

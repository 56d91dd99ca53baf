"""Warm-starts a graph: once, in the session that finds no checkpoint to resume from.

A Scaffold runs its init_op and then its init_fn only there (tensorflow/python/training/
session_manager.py). The values are read by the ops that the saver has anyway, whose names are fed:
no op is added per variable. All is done by the init_fn, in this order: what the checkpoint has is
assigned, then the rest is initialized, and may be computed from it. An init_op of the user's own
has initialized everything before. Then only what is computed from the new values is initialized
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf
from absl import logging

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.conversion.live_starts import content_value
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.errors import CheckpointError, SettingsError
from estimator_ckpt.matching.model import NO_NODE, Model, ModelVariable, OtherState
from estimator_ckpt.roles import STATISTIC, WEIGHT
from estimator_ckpt.roles.training_state import state_by_names
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.initial_values import Initialization, warn_of_resets
from estimator_ckpt.saving.readiness import assigned_by
from estimator_ckpt.saving.saveables import source
from estimator_ckpt.saving.saver import Saver
from estimator_ckpt.saving.upstream import upstream
from estimator_ckpt.warm_starting.fitted_parts import FittedPart
from estimator_ckpt.warm_starting.graph_optimizers import (
    graph_optimizers,
    graph_updates,
    state_by_ops,
)
from estimator_ckpt.warm_starting.report import WarmStartReport
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.values import find_starting_values, starting_values

_MOST_BYTES = 1 << 26


class Starter:
    """Applies a WarmStart to the graph of a Scaffold.

    Attributes:
      report: what came from where, once a session has been warm-started.
    """

    def __init__(self, settings: Settings, scaffold: tf.compat.v1.train.Scaffold) -> None:
        """Reads the default graph; the model is there, hooks and strategies may add to it.

        Args:
          settings: what to start from.
          scaffold: one with a Saver, which tells when the graph is complete. Its init_op and
            init_fn are changed in place; an init_op or init_fn of the user's own still runs.
        """
        self._settings = settings
        self._saver: Saver = scaffold.saver
        self._users_init_fn = scaffold.init_fn
        self._error: CheckpointError | None = None
        self._found: WarmStartReport | None = None
        self._fetches: list[Any] = []
        self._feeds: dict[Any, Any] = {}
        self._reader = self._saver
        self._computed: dict[str, Content] = {}
        self._rest: list[Initialization] = []
        self._fitted: list[FittedPart] = []
        self.report: WarmStartReport | None = None
        # A strategy groups the replicas' init_ops, and cannot do so with what is fed to them.
        replaces = scaffold.init_op is None and not tf.distribute.has_strategy()
        self._init_op = tf.no_op(name="warm_start_init") if replaces else None
        self._users_feeds = dict(scaffold.init_feed_dict or {})
        tf_internals.put_start(scaffold, self._init_op, self.init_fn)
        try:
            self._remap_vocabularies()
        except CheckpointError as error:
            self._error = error
        self._saver.when_built(self._prepare)

    def init_fn(self, scaffold: Any, session: tf.compat.v1.Session) -> None:
        """What the Scaffold runs after its init_op.

        Raises:
          CheckpointError: the settings do not fit the checkpoint or the model; see WarmStart.
        """
        del scaffold
        if self._error is not None:
            raise self._error
        session.run(self._fetches, self._feeds)
        self._assign_computed(session)
        self._rest[0].run(session, self._users_feeds)
        self._put_fitted(session)
        for initialization in self._rest[1:]:
            initialization.run(session, self._users_feeds)
        self.report = self._found
        assert self.report is not None
        self._saver.write_beside_first_checkpoint("warm_start.json", self.report.as_json())
        logging.info("Warm start:\n%s", self.report)
        if self._users_init_fn is not None:
            self._users_init_fn(session)

    def _assign_computed(self, session: tf.compat.v1.Session) -> None:
        """Assigns what is computed from the checkpoint: slots that are scaled, counts of steps."""
        if not self._computed:
            return
        with open_checkpoint(self._settings.ckpt_to_initialize_from) as checkpoint:
            for names in _groups(self._computed):
                values = {n: content_value(checkpoint, self._computed[n]) for n in names}
                session.run(*self._reader.built.ops.assigning(values))

    def _remap_vocabularies(self) -> None:
        """Leaves the remapping of vocabularies to TensorFlow, which changes the initializers."""
        vocabularies = self._settings.var_name_to_vocab_info
        if not vocabularies:
            return
        with open_checkpoint(self._settings.ckpt_to_initialize_from) as checkpoint:
            # These have their sources by name. What is wrong is told when the objects are known.
            lenient = replace(self._settings, require_all_rules_match=False)
            found, _, _ = find_starting_values(lenient, checkpoint, graph_model())
            prefix = checkpoint.prefix
        keys = {v.target: v.source for v in found.values if v.has_vocabulary and v.source}
        variables = {name: parts for name, parts in graph_variables().items() if name in keys}
        names = {
            tf_internals.full_name(replica): name
            for name, parts in variables.items()
            for part in parts
            for replica in tf_internals.replicas(part)
        }
        tf.compat.v1.train.warm_start(
            prefix,
            [
                r
                for parts in variables.values()
                for part in parts
                for r in tf_internals.replicas(part)
            ],
            {replica: _vocab_info(vocabularies[name]) for replica, name in names.items()},
            {replica: keys[name] for replica, name in names.items()},
        )

    def _prepare(self) -> None:
        """Decides what comes from where, when the graph is complete and about to be finalized.

        A job that resumes comes here too, and the checkpoint that it once started from may be gone:
        an error waits until the values are really needed.
        """
        if self._error is not None:
            return
        variables = graph_variables()
        try:
            with open_checkpoint(self._settings.ckpt_to_initialize_from) as checkpoint:
                model = _model(variables, self._saver)
                self._found = starting_values(self._settings, checkpoint, model)
                reading = {
                    value.target: value.source
                    for value in self._found.values
                    if value.source is not None
                    and value.content is None
                    and not value.has_vocabulary
                    and not value.fitting
                }
                self._computed = {
                    value.target: value.content
                    for value in self._found.values
                    if value.content is not None
                }
                self._fitted = [
                    FittedPart(value, part)
                    for value in self._found.values
                    if value.fitting
                    for part in variables[value.target]
                ]
                saver = self._saver
                if not self._saver.saves_all:
                    # Under names of the user's own, or not all that is to start.
                    saver = Saver("saver")
                    saver.build()
                self._reader = saver
                self._fetches, self._feeds = saver.built.restore_ops(reading, checkpoint)
                self._plan(variables, {*reading, *self._computed})
                self._tell_what_is_started({*reading, *self._computed})
        except CheckpointError as error:
            self._error = error

    def _tell_what_is_started(self, names: Collection[str]) -> None:
        """Tells the saver what certainly has a value after init_fn(): the session need not ask.

        Args:
          names: of the variables that are assigned.
        """
        ops = self._reader.built.assigns(names)
        for initialization in self._rest:
            ops += initialization.initializers
        self._saver.built.warm_started.update(assigned_by(ops).values())

    def _put_fitted(self, session: tf.compat.v1.Session) -> None:
        """Assigns what has another shape in the checkpoint; these have their initial values."""
        if not self._fitted:
            return
        with open_checkpoint(self._settings.ckpt_to_initialize_from) as checkpoint:
            for one in self._fitted:
                value = checkpoint.get_tensor(str(one.value.source))
                one.put(session, value)

    def _plan(self, variables: dict[str, list[tf.Variable]], reading: Collection[str]) -> None:
        """Decides what is initialized after what is read, in which order."""
        assert self._found is not None
        remapped = {v.target for v in self._found.values if v.has_vocabulary or v.fitting}
        started = {*reading, *remapped}
        restored = _holders(variables, started)
        beside = self._saver.built.initial_values.beside
        # Also after an init_op of the user's own, which may know only the initializers from before.
        self._rest = [beside(_holders(variables, remapped), _holders(variables, reading))]
        if self._init_op is None:
            rounds = _followers(variables, started, self._saver.built.initial_values.waited_for)
            later = {name for names in rounds for name in names}
            for names in rounds:
                initialized = set(_holders(variables, variables)) - later
                self._rest.append(beside(names, restored, initialized=initialized))
                later -= set(names)
            return
        graph = tf.compat.v1.get_default_graph()
        others = [
            tf_internals.initialize_shared_resources(),
            *graph.get_collection("saved_model_initializers"),
        ]
        names = _holders(variables, [name for name in variables if name not in started])
        self._rest.append(beside(names, restored, ops=others))


def apply_warm_start(scaffold: tf.compat.v1.train.Scaffold, settings: Settings | None) -> None:
    """Makes a Scaffold start from a checkpoint where it has none to resume from.

    A Scaffold whose local_init_op writes again what is restored is warned about, in any case.

    Args:
      scaffold: changed in place.
      settings: what to start from, or None.

    Raises:
      SettingsError: the Scaffold has a saver of another kind.
    """
    saver = scaffold.saver
    if isinstance(saver, Saver):
        saver.when_built(
            lambda: warn_of_resets(scaffold.local_init_op, saver.built.contents.held()[0])
        )
    if settings is None:
        return
    if not isinstance(saver, Saver):
        raise SettingsError(
            f"the Scaffold keeps its own {type(saver).__name__}, which cannot warm-start",
            key="warm_start",
        )
    Starter(settings, scaffold)


def graph_variables() -> dict[str, list[tf.Variable]]:
    """The global variables by full name, the parts of partitioned ones together."""
    found: dict[str, list[tf.Variable]] = {}
    for variable in tf.compat.v1.global_variables():
        found.setdefault(tf_internals.full_name(variable), []).append(variable)
    return found


def graph_model(saver: Saver | None = None) -> Model:
    """The global variables of the default graph.

    Args:
      saver: one that is built, whose objects say where the variables stand; None: names alone.
    """
    return _model(graph_variables(), saver)


def _model(variables: dict[str, list[tf.Variable]], saver: Saver | None) -> Model:
    contents = None if saver is None else saver.built.contents
    wanted = {} if contents is None else contents.by_holder()
    trainable = {variable.name for variable in tf.compat.v1.trainable_variables()}
    shapes = {name: tf_internals.full_shape(parts[0]) for name, parts in variables.items()}
    updates = graph_updates(variables)
    state = {**state_by_names(shapes), **state_by_ops(updates)}
    found = []
    for name, parts in variables.items():
        is_trainable = any(part.name in trainable for part in parts)
        role, optimizer, owner = ("", "", "")
        if not is_trainable:
            role, optimizer, owner = state.get(name, ("", "", ""))
        own = wanted.get(_replica_ops(parts[0])[0].name)
        found.append(
            ModelVariable(
                name=name,
                weak=() if own is None else own.weak,
                node=NO_NODE if own is None else own.node,
                shape=shapes[name],
                dtype=parts[0].dtype.base_dtype.name,
                trainable=is_trainable,
                parts=tuple(part.name for part in parts),
                role=role or (WEIGHT if is_trainable else STATISTIC),
                optimizer=optimizer,
                owner=owner,
            )
        )
    optimizers = graph_optimizers(found, updates)
    if contents is None:
        return Model(found, live_optimizers=optimizers, others=_saveable_objects())
    others = contents.other_state(set(_holders(variables, variables)))
    return Model(found, contents.structure, live_optimizers=optimizers, others=others)


def _saveable_objects() -> list[OtherState]:
    """What a Saver of the default graph would save beside its variables: lookup tables."""
    saveables = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVEABLE_OBJECTS)
    graph = tf.compat.v1.get_default_graph()
    return [
        OtherState(one.name, graph.get_operation_by_name(source(one)).type) for one in saveables
    ]


def _holders(variables: dict[str, list[tf.Variable]], names: Iterable[str]) -> list[str]:
    """The ops that hold these variables: all their parts and replicas."""
    return [op.name for name in names for part in variables[name] for op in _replica_ops(part)]


def _groups(contents: Mapping[str, Content]) -> Iterator[list[str]]:
    """Names of what is held in memory at once: some 64 MB, or one that is larger."""
    names: list[str] = []
    size = 0
    for name, content in contents.items():
        if names and size + content.nbytes > _MOST_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += content.nbytes
    if names:
        yield names


def _followers(
    variables: dict[str, list[tf.Variable]],
    started: Collection[str],
    waited_for: Mapping[str, str],
) -> list[list[str]]:
    """The variables that start from values of those that are started, to be initialized again.

    An exponential moving average, say, begins with the value of its variable. They come in rounds:
    what one of them sets, those of the next may read; in the same round, if they wait for its
    initializer. Each is named by the ops that hold it.

    Args:
      variables: all, by name.
      started: the names of those that are started.
      waited_for: see InitialValues.
    """
    rounds = dict.fromkeys(_holders(variables, started), 0)
    found: list[list[str]] = []
    for name, parts in variables.items():
        if name in started:
            continue
        for part in parts:
            own = [op.name for op in _replica_ops(part)]
            number = _round(part.initializer, rounds, own, waited_for)
            if number is not None:
                rounds.update((op, number) for op in own)
                found += [[]] * (number - len(found))
                found[number - 1] = [*found[number - 1], *own]
    return found


def _round(
    initializer: Any,
    rounds: Mapping[str, int],
    own: Collection[str],
    waited_for: Mapping[str, str],
) -> int | None:
    """The round in which to run an initializer; None if it computes from none of `rounds`."""
    element = tf.compat.v1.get_default_graph().as_graph_element(initializer)
    names = {op.name for op in upstream([getattr(element, "op", element)])}
    waits = {waited_for[name] for name in names if name in waited_for}
    return max(
        (
            rounds[name] if rounds[name] and name in waits else rounds[name] + 1
            for name in names
            if name in rounds and name not in own
        ),
        default=None,
    )


def _replica_ops(variable: tf.Variable) -> list[tf.Operation]:
    """The ops that hold a variable."""
    return [replica.op for replica in tf_internals.replicas(variable)]


def _vocab_info(given: Any) -> Any:
    return tf.compat.v1.train.VocabInfo(**given) if isinstance(given, dict) else given

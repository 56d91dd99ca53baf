"""Starts variables of an eager program when they are made, so that the first call computes with it.

By name as each variable is made; where the object is known that will hold them, by structure what
it holds already, and as each of its Keras layers has been built, and by name what is made outside
of that, in a call. When the block ends all is decided as apply() does it, with all variables
there: what that finds otherwise is put right, and an error takes all back.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.matching.eager import EagerModel, as_object, eager_model, of_objects
from estimator_ckpt.matching.kinds import is_layer
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.lookup_tables import TablePart
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.text.names import some_of
from estimator_ckpt.warm_starting.eager import (
    assign,
    check_eager,
    checked_values,
    fit_value,
    model_to_start,
)
from estimator_ckpt.warm_starting.report import WarmStartReport
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.values import find_starting_values

_MOST_SHOWN = 5


class Deferred:
    """What WarmStart.deferred() yields.

    Attributes:
      report: what came from where; None until the block has ended.
    """

    report: WarmStartReport | None = None


@contextlib.contextmanager
def deferred_start(settings: Settings, root: Any = None) -> Iterator[Deferred]:
    """See WarmStart.deferred()."""
    import tensorflow as tf

    check_eager(settings)
    deferred = Deferred()
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        early = _Early(settings, checkpoint, as_object(root))
        try:
            with tf.variable_creator_scope(early.creator), early.building():
                yield deferred
            deferred.report = early.finish()
        except BaseException:
            early.take_back()
            raise
    logging.info("Warm start:\n%s", deferred.report)


class _Started(NamedTuple):
    """A variable that was started when it was made."""

    variable: Any
    source: str
    initial_value: Any
    is_by_name: bool


class _Early:
    """The variables that are made in the block.

    Attributes:
      created: all of them, but for counters without names.
      started: those that have their values already, by id().
    """

    def __init__(self, settings: Settings, checkpoint: Checkpoint, root: Any) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._root = root
        # What is not clear yet may be when all is there; it is no error before.
        self._lenient = replace(
            settings,
            on_missing="init",
            on_unexpected="ignore",
            require_all_rules_match=False,
            match_by=settings.match_by or "path",
        )
        self._saved = Saved(
            checkpoint,
            settings.rename,
            require_all_rules_match=False,
            use_averages=settings.use_averages,
        )
        self._initial: dict[int, Any] = {}
        self._late: set[int] = set()  # those that cannot be started before the end
        self._wrapped: list[tuple[Any, Any]] = []
        self._builds = 0  # how many of them are under way, one in another
        self.created: list[Any] = []
        self.started: dict[int, _Started] = {}

    def creator(self, next_creator: Any, **arguments: Any) -> Any:
        """Makes a variable, and starts it if its name says from what."""
        variable = next_creator(**arguments)
        self._initial[id(variable)] = arguments.get("initial_value")
        # A Keras model makes counters without names, which are no part of what it learns.
        if arguments.get("name") is not None or not variable.dtype.is_integer:
            self.created.append(variable)
            if not self._can_start(variable):
                self._late.add(id(variable))
            elif not self._builds:
                self._start(eager_model([variable]), is_by_name=True)
        return variable

    def _start(self, found: EagerModel, *, is_by_name: bool = False) -> None:
        import tensorflow as tf

        settings = self._lenient
        if any(not isinstance(target, str) for _, target in settings.assignment_map):
            return  # by the variables themselves, of which not all are there
        if not isinstance(settings.vars_to_warm_start, str) and not settings.selects_by_default:
            return
        model = replace(found.model, live_optimizers=())  # they wait for what they train
        report, problems, _ = find_starting_values(
            settings, self._checkpoint, model, saved=self._saved, explain=False
        )
        if any(row.status == "ambiguous" for row in problems):
            return
        for value in report.values:
            if value.source is None:
                continue
            variable = _inner(found.variables[value.target])
            early = self.started.get(id(variable))
            is_open = early is None or (early.is_by_name and early.source != value.source)
            is_open = is_open and isinstance(variable, tf.Variable)
            if is_open and self._can_start(variable):
                with tf.init_scope():
                    if id(variable) not in self._initial:  # made before the block
                        self._initial[id(variable)] = variable.numpy()
                    initial_value = self._initial[id(variable)]
                    if value.fitting and (early is not None or not variable.is_initialized()):
                        _reset(variable, initial_value)
                    array = self._checkpoint.get_tensor(value.source)
                    assign(variable, fit_value(value, array, variable))
                self.started[id(variable)] = _Started(
                    variable, value.source, initial_value, is_by_name
                )

    def _can_start(self, variable: Any) -> bool:
        """Whether it can be assigned now. A variable that a tf.function makes has no value yet; the
        function gives it its initial value later, if it has none then: so TensorFlow's lifting does
        (tensorflow/python/eager/polymorphic_function/polymorphic_function.py)."""
        import tensorflow as tf

        with tf.init_scope():
            if not tf.executing_eagerly():
                return False
            initial = self._initial.get(id(variable))
            is_of_graph = isinstance(initial, tf.Tensor) and not hasattr(initial, "numpy")
            is_made_here = id(variable) in self._initial
            return bool((is_made_here and not is_of_graph) or variable.is_initialized())

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Has the layers below the root tell when they have been built."""
        try:
            if self._root is not None:
                self._watch()
                self._start_below_root()
            yield
        finally:
            for layer, build in self._wrapped:
                if build is None:
                    del layer.build
                else:
                    layer.build = build

    def _watch(self) -> None:
        known = {id(layer) for layer, _ in self._wrapped}
        for layer in LiveObjects(self._root).live:
            if not is_layer(layer) or layer.built or id(layer) in known:
                continue
            self._wrapped.append((layer, vars(layer).get("build")))
            layer.build = self._telling(layer.build)

    def _telling(self, build: Any) -> Any:
        @functools.wraps(build)
        def build_and_start(*arguments: Any, **keywords: Any) -> Any:
            self._watch()
            self._builds += 1
            try:
                result = build(*arguments, **keywords)
            finally:
                self._builds -= 1
            self._watch()
            self._start_below_root()
            return result

        return build_and_start

    def _start_below_root(self) -> None:
        objects = LiveObjects(self._root)
        if objects.hold_anything:
            self._start(of_objects(objects))

    def finish(self) -> WarmStartReport:
        """Decides as apply() does, and puts right what was started otherwise.

        Raises:
          CheckpointError: as apply() does.
        """
        given = self.created if self._root is None else self._root
        found = model_to_start(self._settings, given)
        with checked_values(self._settings, found) as (report, values):
            late = [n for n, v in found.variables.items() if id(_inner(v)) in self._late]
            _tell_of_late([name for name in late if name in values])
            sources = {value.target: value.source for value in report.values}
            for name, variable in found.variables.items():
                early = self.started.pop(id(_inner(variable)), None)
                if early is not None and sources[name] == early.source:
                    continue  # and may have been trained since
                if early is not None:
                    _reset(early.variable, early.initial_value)
                if name in values:
                    assign(variable, values[name])
        self.take_back()  # what the root does not hold in the end
        return report

    def take_back(self) -> None:
        """Gives the variables the values that they had before."""
        for early in self.started.values():
            _reset(early.variable, early.initial_value)
        self.started.clear()


def _reset(variable: Any, initial_value: Any) -> None:
    variable.assign(initial_value() if callable(initial_value) else initial_value)


def _tell_of_late(names: Sequence[str]) -> None:
    if names:
        logging.warning(
            "A tf.function computes the initial value of %s, and its first call has computed with "
            "that, not with the checkpoint's; call it again, or give the variable a function as "
            "its initial value",
            some_of(names, _MOST_SHOWN),
        )


def _inner(variable: Any) -> Any:
    """The tf.Variable that Keras 3 has in its own."""
    import tensorflow as tf

    return variable if isinstance(variable, (tf.Variable, TablePart)) else variable.value

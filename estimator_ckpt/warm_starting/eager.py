"""Warm-starts the variables of an eager program: reads and checks everything, then assigns."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from absl import logging

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.slices import key_text, slice_key
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.live_starts import content_value
from estimator_ckpt.errors import CorruptCheckpointError, SettingsError
from estimator_ckpt.files import is_remote
from estimator_ckpt.matching.eager import EagerModel, as_object, eager_model
from estimator_ckpt.saving.op_errors import reason_of
from estimator_ckpt.warm_starting.building import build_optimizers
from estimator_ckpt.warm_starting.fitting import fitted
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.values import starting_values

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_LARGE = 1 << 20  # bytes
_SELECTED = "vars_to_warm_start"


def apply_eagerly(settings: Settings, variables: Any) -> WarmStartReport:
    """See WarmStart.apply()."""
    check_eager(settings)
    found = model_to_start(settings, variables)
    with checked_values(settings, found) as (report, values):
        for name, value in values.items():
            assign(found.variables[name], value)
    logging.info("Warm start:\n%s", report)
    return report


def model_to_start(settings: Settings, given: Any) -> EagerModel:
    """What a program gives to start, with the slots of its optimizers where these can start.

    Raises:
      SettingsError: as eager_model() does.
    """
    given = as_object(given)
    found = eager_model(given)
    if any(not one.is_built for one in found.model.live_optimizers) and not settings.use_averages:
        with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
            has_slots = any(checkpoint.columns.slot_of)
        if has_slots and build_optimizers(found.model, given):
            return eager_model(given)
    return found


def assign(variable: Any, value: Any) -> None:
    """Assigns what a checkpoint has, an array or a tensor, to a variable of the same dtype."""
    import numpy as np

    variable.assign(tensorflow_array(value) if isinstance(value, np.ndarray) else value)


def tensorflow_array(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values in TensorFlow's own NumPy dtype: that of 2.12 for bfloat16 and float8 is not
    the one of ml_dtypes, which it refuses."""
    import tensorflow as tf

    if value.dtype.isbuiltin == 1 or value.dtype.hasobject:
        return value
    return value.view(tf.as_dtype(value.dtype.name).as_numpy_dtype)


def check_eager(settings: Settings) -> None:
    """Raises SettingsError where settings cannot be applied to variables of an eager program."""
    import tensorflow as tf

    if not tf.executing_eagerly():
        raise SettingsError(
            "a graph is warm-started by its Scaffold: give warm_start= to a scaffold factory or to "
            "wrap_model_fn()",
            key="variables",
        )
    if settings.var_name_to_vocab_info:
        raise SettingsError(
            "vocabularies are remapped in graphs only: give warm_start= to a scaffold factory",
            key="var_name_to_vocab_info",
        )


@contextlib.contextmanager
def checked_values(
    settings: Settings, found: EagerModel
) -> Iterator[tuple[WarmStartReport, Mapping[str, Any]]]:
    """What came from where, and the values by the names of the variables; assigns nothing.

    All values were read once and checked. Those of a local checkpoint are read again when they are
    asked for, so that one is in memory at a time; those of a remote one are in memory.

    Raises:
      CheckpointError: as WarmStart.apply() does.
    """
    settings = with_names(settings, found.variables)
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        report = starting_values(settings, checkpoint, found.model)
        values = _Values(checkpoint, found, report)
        if is_remote(checkpoint.prefix):
            values.hold()
        else:
            for _ in values.items():
                pass
            values.are_checked = True
        yield report, values


class _Values(Mapping[str, Any]):
    """What the variables of a program start from, read when it is asked for.

    Attributes:
      are_checked: whether the checksums were verified.
    """

    def __init__(self, checkpoint: Checkpoint, found: EagerModel, report: WarmStartReport) -> None:
        self._checkpoint = checkpoint
        self._variables = found.variables
        self._values = {
            value.target: value
            for value in report.values
            if value.content is not None or value.source is not None
        }
        self._held: dict[str, Any] = {}
        self.are_checked = False

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        found = self._held[name] if name in self._held else self._read(value)
        return fit_value(value, found, self._variables[name])

    def hold(self) -> None:
        """Reads all of them, as a remote checkpoint is read once."""
        self._checkpoint.reader.expect(self._entries())
        self._held = {name: self._read(value) for name, value in self._values.items()}

    def _read(self, value: StartingValue) -> Any:
        if value.content is not None:
            return content_value(self._checkpoint, value.content)
        key = self._checkpoint.key_of(str(value.source))
        if self.are_checked and self._is_plain_and_large(value, key):
            return self._tensor(key)
        return self._checkpoint.reader.read(key, check=not self.are_checked)

    def _is_plain_and_large(self, value: StartingValue, key: bytes) -> bool:
        import tensorflow as tf

        index = self._checkpoint.index
        entry = index.entries[key]
        is_plain = not (value.fitting or entry.slices or index.v1)
        return (
            is_plain
            and entry.size > _LARGE
            and isinstance(self._variables[value.target], tf.Variable)
        )

    def _tensor(self, key: bytes) -> tf.Tensor:
        """A tensor that TensorFlow reads itself: of an array it would first make two copies."""
        import tensorflow as tf

        try:
            (tensor,) = tf.raw_ops.RestoreV2(
                prefix=self._checkpoint.prefix,
                tensor_names=[key],
                shape_and_slices=[""],
                dtypes=[tf.as_dtype(self._checkpoint.index.entries[key].dtype)],
            )
        except tf.errors.OpError as error:
            raise CorruptCheckpointError(
                "it was deleted or replaced while the variables started, and some have: "
                f"{reason_of(error)}",
                path=self._checkpoint.prefix,
                key=key_text(key),
            ) from error
        return tensor

    def _entries(self) -> Iterator[Entry]:
        """What is read of the checkpoint, in the order of the names."""
        entries = self._checkpoint.index.entries
        for value in self._values.values():
            source = value.content.source if value.content is not None else value.source
            if source:
                key = self._checkpoint.key_of(source)
                parts = [slice_key(key_text(key), one) for one in entries[key].slices]
                yield from map(entries.__getitem__, parts or [key])


def fit_value(value: StartingValue, found: Any, variable: Any) -> Any:
    """What a variable starts with: what was read, made to fit where it has another shape.

    Args:
      value: what is known of its start.
      found: the value in the checkpoint; an array, where it is to be made to fit.
      variable: with its initial value.
    """
    import numpy as np

    if not value.fitting:
        return found
    initial = np.asarray(variable).view(found.dtype)
    return fitted(value.fitting, found, value.shape or (), initial)


def with_names(settings: Settings, variables: Mapping[str, Any]) -> Settings:
    """The settings with names for the variables themselves, which a mapping may call otherwise."""

    def named(place: str, given: Any) -> str:
        for one in given if isinstance(given, (list, tuple)) else [given]:
            for name, variable in variables.items():
                if one is variable:
                    return name
        raise SettingsError(f"{given!r} is none of the variables to start", key=place)

    pairs = [
        (source, model if isinstance(model, str) else named(f"assignment_map[{number}]", model))
        for number, (source, model) in enumerate(settings.assignment_map)
    ]
    selected = settings.vars_to_warm_start
    if isinstance(selected, (list, tuple)):
        selected = [
            one if isinstance(one, str) else f"{re.escape(named(f'{_SELECTED}[{number}]', one))}$"
            for number, one in enumerate(selected)
        ]
    return replace(settings, assignment_map=pairs, vars_to_warm_start=selected)

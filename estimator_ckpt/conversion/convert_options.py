"""How checkpoints are converted: the options, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from estimator_ckpt.conversion.casting import Casts, parse_casts
from estimator_ckpt.conversion.hyperparameters import check_hyperparameters
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.files import path_text
from estimator_ckpt.formats import CHECKPOINT_FORMATS, CheckpointFormat
from estimator_ckpt.matching.policies import MATCH_BY
from estimator_ckpt.matching.rules import Pairs, Rules
from estimator_ckpt.roles.dialects import class_names
from estimator_ckpt.roles.records import LEGACY, NEWER_TARGETS, TARGETS


@dataclass(frozen=True)
class ConvertOptions:
    """How checkpoints are converted; the keyword arguments of convert_checkpoint()."""

    checkpoint_format: CheckpointFormat
    layout: str | None = None
    like: Any = None
    match_by: str | None = None
    rename: Pairs = ()
    assignment_map: Pairs = ()
    exclude: Sequence[str] = ()
    drop_slots: bool = False
    drop_configs: bool = False
    use_averages: str | bool = False
    keep_raw: str | None = None
    optimizer: str | None = None
    from_optimizer: str | None = None
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    dtype: Casts = None
    copy: bool = False
    compact: bool = False
    in_place: bool = False
    verify: bool | None = None
    with_input: bool = False

    def __post_init__(self) -> None:
        self._check_values()
        self._check_together()
        self._check_optimizers()
        self._check_hyperparameters()
        self._check_like()
        parse_casts(self.dtype)
        self.rules()

    def _expect(self, name: str, allowed: Iterable[str | None]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed if choice)
            raise SettingsError(f"expected one of {choices}, found {value!r}", key=name)

    def _check_values(self) -> None:
        self._expect("checkpoint_format", CHECKPOINT_FORMATS)
        self._expect("layout", (None, *LAYOUTS))
        self._expect("match_by", (None, *MATCH_BY))
        self._expect("optimizer", (None, *TARGETS))
        self._expect("from_optimizer", (None, *class_names()))
        for name in ("drop_slots", "copy", "compact", "in_place", "verify", "with_input"):
            value = getattr(self, name)
            wrong = not isinstance(value, bool) and not (name == "verify" and value is None)
            _refuse(wrong, name, f"expected True or False, found {value!r}")

    def _check_together(self) -> None:
        names_only = self.checkpoint_format == "saver"
        _refuse(self.layout and names_only, "layout", "a name-based checkpoint has no objects")
        _refuse(
            self.like is not None and names_only, "like", "a name-based checkpoint has no objects"
        )
        _refuse(
            self.optimizer in (LEGACY, *NEWER_TARGETS) and names_only,
            "optimizer",
            "Keras' optimizers are objects; a name-based checkpoint has none",
        )
        _refuse(self.like is not None and self.layout, "layout", "`like` is a layout already")
        _refuse(
            self.match_by and self.like is None,
            "match_by",
            "it says how a template's variables are found; there is no `like`",
        )
        _refuse(self.optimizer and self.drop_slots, "drop_slots", "then there is no optimizer left")
        for name in ("copy", "compact", "dtype"):
            _refuse(
                self.in_place and getattr(self, name),
                name,
                "it writes new data files, and in place none can be replaced",
            )

    def _check_optimizers(self) -> None:
        _refuse(
            self.use_averages not in (True, False) and not isinstance(self.use_averages, str),
            "use_averages",
            f"expected True or the name of the averages, found {self.use_averages!r}",
        )
        _refuse(
            self.optimizer and self.use_averages,
            "use_averages",
            "an optimizer's slots belong to the raw values, so there is no optimizer left",
        )
        _refuse(
            self.keep_raw is not None and not self.use_averages,
            "keep_raw",
            "it is what the raw values are called where averages take their place (use_averages)",
        )
        _refuse(
            self.keep_raw is not None and not self.keep_raw, "keep_raw", "expected a name, found ''"
        )
        _refuse(
            self.from_optimizer and not self.optimizer and not self.drop_slots,
            "from_optimizer",
            "it is the class of an optimizer that is converted, or whose slots are dropped; say to "
            "what by `optimizer`, or drop_slots",
        )

    def _check_hyperparameters(self) -> None:
        _refuse(
            self.hyperparameters and not self.optimizer,
            "hyperparameters",
            "they belong to an optimizer; say which: optimizer='keras' or 'tf1'",
        )
        check_hyperparameters(self.hyperparameters)

    def _check_like(self) -> None:
        if isinstance(self.like, (str, os.PathLike)):
            object.__setattr__(self, "like", path_text(self.like, "like"))
        no_template = self.like is not None and not (
            isinstance(self.like, str) or hasattr(self.like, "write")
        )
        _refuse(
            no_template,
            "like",
            f"expected a checkpoint's path or a tf.train.Checkpoint, found {self.like!r}",
        )

    def rules(self) -> Rules:
        return Rules(self.assignment_map, self.rename, self.exclude)


def _refuse(wrong: object, key: str, message: str) -> None:
    if wrong:
        raise SettingsError(message, key=key)

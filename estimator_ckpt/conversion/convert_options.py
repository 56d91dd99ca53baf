"""How checkpoints are converted: the options, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from estimator_ckpt.conversion.casting import Casts, parse_casts
from estimator_ckpt.conversion.names_to_objects import LAYOUTS
from estimator_ckpt.conversion.translate_optimizer import NEWER_TARGETS, TARGETS
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.files import path_text
from estimator_ckpt.formats import CHECKPOINT_FORMATS, CheckpointFormat
from estimator_ckpt.matching.rules import Pairs, Rules
from estimator_ckpt.roles.dialects import class_names
from estimator_ckpt.roles.records import LEGACY


@dataclass(frozen=True)
class ConvertOptions:
    """How checkpoints are converted; the keyword arguments of convert_checkpoint()."""

    checkpoint_format: CheckpointFormat
    layout: str | None = None
    like: Any = None
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

    def __post_init__(self) -> None:
        def expect(name: str, allowed: Iterable[str | None]) -> None:
            value = getattr(self, name)
            if value not in allowed:
                choices = ", ".join(repr(one) for one in allowed if one)
                raise SettingsError(f"expected one of {choices}, found {value!r}", key=name)

        def refuse(wrong: object, key: str, message: str) -> None:
            if wrong:
                raise SettingsError(message, key=key)

        expect("checkpoint_format", CHECKPOINT_FORMATS)
        expect("layout", (None, *LAYOUTS))
        expect("optimizer", (None, *TARGETS))
        for name in ("drop_slots", "copy", "compact", "in_place", "verify"):
            value = getattr(self, name)
            wrong = not isinstance(value, bool) and not (name == "verify" and value is None)
            refuse(wrong, name, f"expected True or False, found {value!r}")
        names_only = self.checkpoint_format == "saver"
        refuse(self.layout and names_only, "layout", "a name-based checkpoint has no objects")
        refuse(
            self.like is not None and names_only, "like", "a name-based checkpoint has no objects"
        )
        refuse(
            self.optimizer in (LEGACY, *NEWER_TARGETS) and names_only,
            "optimizer",
            "Keras' optimizers are objects; a name-based checkpoint has none",
        )
        refuse(self.like is not None and self.layout, "layout", "`like` is a layout already")
        refuse(self.optimizer and self.drop_slots, "drop_slots", "then there is no optimizer left")
        refuse(
            self.use_averages not in (True, False) and not isinstance(self.use_averages, str),
            "use_averages",
            f"expected True or the name of the averages, found {self.use_averages!r}",
        )
        refuse(
            self.optimizer and self.use_averages,
            "use_averages",
            "an optimizer's slots belong to the raw values, so there is no optimizer left",
        )
        refuse(
            self.keep_raw is not None and not self.use_averages,
            "keep_raw",
            "it is what the raw values are called where averages take their place (use_averages)",
        )
        refuse(
            self.keep_raw is not None and not self.keep_raw, "keep_raw", "expected a name, found ''"
        )
        refuse(
            self.from_optimizer and not self.optimizer and not self.drop_slots,
            "from_optimizer",
            "it is the class of an optimizer that is converted, or whose slots are dropped; say to "
            "what by `optimizer`, or drop_slots",
        )
        expect("from_optimizer", (None, *class_names()))
        refuse(
            self.hyperparameters and not self.optimizer,
            "hyperparameters",
            "they belong to an optimizer; say which: optimizer='keras' or 'tf1'",
        )
        is_mapping = isinstance(self.hyperparameters, Mapping)
        refuse(
            not is_mapping,
            "hyperparameters",
            f"expected a mapping from names to numbers, found {self.hyperparameters!r}",
        )
        for name, value in self.hyperparameters.items():
            wrong = isinstance(value, bool) or not isinstance(value, (int, float))
            refuse(wrong, "hyperparameters", f"expected a number for {name}, found {value!r}")
        for name in ("copy", "compact", "dtype"):
            refuse(
                self.in_place and getattr(self, name),
                name,
                "it writes new data files, and in place none can be replaced",
            )
        if isinstance(self.like, (str, os.PathLike)):
            object.__setattr__(self, "like", path_text(self.like, "like"))
        no_template = self.like is not None and not (
            isinstance(self.like, str) or hasattr(self.like, "write")
        )
        refuse(
            no_template,
            "like",
            f"expected a checkpoint's path or a tf.train.Checkpoint, found {self.like!r}",
        )
        parse_casts(self.dtype)
        self.rules()

    def rules(self) -> Rules:
        return Rules(self.assignment_map, self.rename, self.exclude)

"""Gives an optimizer's state its place in another kind of optimizer; see optimizer_relations."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from estimator_ckpt.conversion.adam_steps import Power, check_given_steps, count_steps
from estimator_ckpt.conversion.optimizer_relations import (
    KINDS,
    kind_of,
    newer_kind,
    several,
    tf1_label,
    unused_momentum,
    with_class,
)
from estimator_ckpt.conversion.plan import (
    FLOAT32,
    INT64,
    Content,
    Item,
    Slot,
    is_counter,
    is_number,
    number_content,
)
from estimator_ckpt.conversion.source_optimizers import Optimizer, check_parts, tf1_slot_name
from estimator_ckpt.errors import ConflictError, SettingsError, UnsupportedCheckpointError
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import ObjectPath
from estimator_ckpt.roles.newer_keras import (
    ITERATIONS,
    LEARNING_RATE,
    U_PRODUCT,
)

TARGETS = ("keras", "keras2", "keras3", "tf1")
# Keras' optimizers since 2.11, as `like` has them.
NEWER = "newer"
OPTIMIZER = "optimizer"

ReadNumber = Callable[[Content], float]


_ALL_NUMBERS = ("learning_rate", "decay")
_POWERS = {"beta_1": "beta1_power", "beta_2": "beta2_power"}


class Relinker:
    """Gives the items of a checkpoint's optimizers their places in another kind of optimizer.

    Args:
      items: of the checkpoint, named; replaced and added to in place.
      step: which of them is the global step.
      target: "keras" for the legacy Keras optimizers, NEWER for those since 2.11, "tf1" for
        those of tf.compat.v1.
      numbers: hyperparameters given by the user, and `iter`; of several optimizers `Adam/iter`.
      read: the value of a scalar.
      template: hyperparameters that the objects of `like` have, for what is not given.
      from_optimizer: the class of Keras' newer optimizers, where the items do not say it.
    """

    def __init__(
        self,
        items: list[Item],
        step: int | None,
        target: str,
        numbers: Mapping[str, float],
        read: ReadNumber,
        *,
        template: Mapping[str, float] | None = None,
        from_optimizer: str | None = None,
    ) -> None:
        self.items = items
        self.step = step
        self._target = target
        self._numbers = numbers
        self._given: Mapping[str, float] = {}  # to the optimizer that is being relinked
        self._start = ""  # of its numbers' names: "Adam/" if there are several optimizers
        self._read = read
        self._template = template or {}
        self._from_optimizer = from_optimizer
        self._used: set[str] = set()

    def relink(self, optimizers: list[Optimizer]) -> None:
        """Relinks all of them.

        Raises:
          UnsupportedCheckpointError: an optimizer whose state means something else in the other
            kind, or is not known; says which and why.
          SettingsError: a number is missing, or given for nothing.
          ConflictError: the numbers given, or the global step, contradict the state.
        """
        if not optimizers:
            raise UnsupportedCheckpointError(
                "found no optimizer's slots; leave out `optimizer`, or rename the variables so "
                "that they read X/Adam, X/Adam_1 or Adam/X/m, Adam/X/v"
            )
        if any(optimizer.dialect == "keras_new" for optimizer in optimizers):
            if self._target == "keras":
                raise UnsupportedCheckpointError(
                    "the state of a Keras optimizer after Keras 2.10 can become that of a TF1 "
                    "optimizer (tf1), or with `like` that of another one after 2.10 (keras2, "
                    "keras3), not of a legacy one. Leave it out (drop_slots), or convert without "
                    "`optimizer`"
                )
            optimizers = [
                with_class(optimizer, self.items, self._target, self._from_optimizer)
                for optimizer in optimizers
            ]
        self._check_several(optimizers)
        for optimizer in optimizers:
            check_parts(self.items, optimizer)
            if len(optimizers) > 1:
                self._start = f"{optimizer.label}/"
            self._given = {
                name[len(self._start) :]: value
                for name, value in self._numbers.items()
                if name.startswith(self._start)
            }
            path = (OPTIMIZER,) if len(optimizers) == 1 else (f"{OPTIMIZER}_{optimizer.label}",)
            if self._target == NEWER:
                self._to_newer(optimizer, path)
            elif self._target == "keras":
                self._to_keras(optimizer, path)
            elif optimizer.dialect == "tf1":
                self._place(optimizer, path)
            else:
                self._to_tf1(optimizer, path)
        unused = sorted(self._numbers.keys() - self._used)
        if unused:
            labels = " and ".join(optimizer.label for optimizer in optimizers)
            raise SettingsError(
                f"{', '.join(unused)}: no such variable in {labels}, to be {self._target}'s",
                key="hyperparameters",
            )

    def _check_several(self, optimizers: list[Optimizer]) -> None:
        """Raises an error where nothing tells which of the optimizers is meant."""
        labels = [optimizer.label for optimizer in optimizers]
        for optimizer in optimizers:
            if labels.count(optimizer.label) > 1:
                raise UnsupportedCheckpointError(several(optimizer))
        counts = {self._count(one.own["iter"]) for one in optimizers if "iter" in one.own}
        if self._target == "tf1" and self.step is None and len(counts) > 1:
            told = " and ".join(sorted(map(str, counts), key=len))
            raise ConflictError(
                f"the optimizers count {told} steps; say which is the "
                f"global step by a rule that calls it {GLOBAL_STEP!r}"
            )
        shared = sorted(name for name in self._numbers if "/" not in name)
        if shared and len(labels) > 1:
            raise SettingsError(
                f"{', '.join(shared)}: there are {len(labels)} optimizers, {', '.join(labels)}; "
                f"say whose it is, as in {labels[0]}/{shared[0]}",
                key="hyperparameters",
            )

    def _number(self, name: str) -> float | None:
        """A hyperparameter: as it is given, or else as the template has it."""
        self._used.add(self._start + name)
        return self._given.get(name, self._template.get(self._start + name))

    def _count(self, number: int) -> float | None:
        content = self.items[number].content
        return self._read(content) if is_counter(content) else None

    def _change(self, number: int, **changes: Any) -> None:
        self.items[number] = self.items[number]._replace(**changes)

    def _place(self, optimizer: Optimizer, path: ObjectPath) -> None:
        """Gives every slot and every variable of its own its place below `path`."""
        if optimizer.others:
            raise UnsupportedCheckpointError(several(optimizer))
        for slot in optimizer.slots:
            place = Slot(self.items[slot.variable].name, path, slot.name, optimizer.label)
            self._change(slot.item, slot=place)
        for name, number in optimizer.own.items():
            self._change(number, place=(*path, name))

    # --- to Keras ---

    def _to_keras(self, optimizer: Optimizer, path: ObjectPath) -> None:
        if optimizer.dialect == "keras":
            self._place(optimizer, path)
            for name in optimizer.own:
                given = self._number(name)
                if given is not None:
                    content = self.items[optimizer.own[name]].content
                    self._change(
                        optimizer.own[name],
                        content=number_content(given, content.dtype),
                        why="given",
                    )
            if "iter" not in optimizer.own:  # its `iterations` were the global step
                self._add_iter(optimizer, optimizer.label, path)
            return
        kind = kind_of(optimizer)
        scale = self._scale(optimizer, optimizer.label, "keras")
        for slot in optimizer.slots:
            item, variable = self.items[slot.item], self.items[slot.variable]
            place = Slot(variable.name, path, kind.slots[slot.name], kind.keras)
            if scale == 1.0:
                self._change(slot.item, slot=place)
                continue
            # Under TF1's name stays what TF1 means by it; Keras' has another value and name.
            name = f"{kind.keras}/{variable.name}/{place.name}"
            why = f"-learning_rate times {item.name}"
            self._change(slot.item, in_objects=False, why=f"{name} is computed from it")
            content = item.content._replace(scale=scale)
            self.items.append(Item(content, name, why, slot=place))
        for name, number in optimizer.own.items():
            self._change(number, in_objects=False, why=f"Keras computes it from iter: {name}")
        scope = kind.keras
        self._add_iter(optimizer, scope, path)
        for name in (*_ALL_NUMBERS, *kind.numbers):
            value = self._number(name)
            if value is not None:
                content = number_content(value, FLOAT32)
                self.items.append(Item(content, f"{scope}/{name}", "given", place=(*path, name)))

    def _scale(self, optimizer: Optimizer, label: str, target: str) -> float:
        """What a slot's values are multiplied by."""
        if label == "Momentum":
            rate = self._number("learning_rate")
            if rate is None and optimizer.newer and LEARNING_RATE in optimizer.newer.own:
                rate = self._read(self.items[optimizer.newer.own[LEARNING_RATE]].content)
            if not rate or rate < 0:
                raise SettingsError(
                    "Keras' SGD keeps -learning_rate times what TF1's Momentum keeps; give the "
                    f"{self._start}learning_rate with which the training goes on, or leave the "
                    "slots out (drop_slots)",
                    key="hyperparameters",
                )
            return -1 / rate if target == "tf1" else -rate
        if label in ("RMSProp", "CenteredRMSProp") and target == "keras":
            momentum = self._number("momentum")
            if not momentum:
                raise SettingsError(
                    f"{label} can be converted only with a {self._start}momentum above 0, given: "
                    "without momentum Keras adds epsilon outside of the root, TF1 inside, and no "
                    "state makes them equal. Or leave the slots out (drop_slots)",
                    key="hyperparameters",
                )
        return 1.0

    def _add_iter(
        self, optimizer: Optimizer, scope: str, path: ObjectPath, *, name: str = "iter"
    ) -> None:
        given = self._number("iter")
        powers = self._powers(optimizer)
        if given is not None:
            steps, why = int(given), "given"
            check_given_steps(powers, steps)
        else:
            step = None if self.step is None else int(self._read(self.items[self.step].content))
            steps, why = count_steps(powers, step, iter_name=f"{self._start}iter")
        content = number_content(steps, INT64)
        if given is None and self.step is not None:
            theirs = self.items[self.step].content
            if theirs.dtype == INT64 and int(self._read(theirs)) == steps:
                content = theirs  # the same bytes under another key
        self.items.append(Item(content, f"{scope}/iter", why, place=(*path, name)))

    def _powers(self, optimizer: Optimizer) -> list[Power]:
        """The powers of beta that TF1's Adam keeps, as far as they can be read."""
        found = []
        for beta, name in _POWERS.items():
            number = optimizer.own.get(name)
            if number is not None and is_number(self.items[number].content):
                value = self._read(self.items[number].content)
                found.append(Power(name, beta, value, self._given_beta(beta)))
        return [power for power in found if 0 <= power.value < 1]

    def _given_beta(self, name: str) -> float | None:
        self._used.add(self._start + name)
        beta = self._given.get(name)
        if beta is not None and not 0 < beta < 1:
            raise SettingsError(
                f"expected {self._start}{name} between 0 and 1, found {beta}", key="hyperparameters"
            )
        return beta

    # --- to Keras' newer optimizers ---

    def _to_newer(self, optimizer: Optimizer, path: ObjectPath) -> None:
        """Names the slots as newer_keras.LISTS does; `like` knows the lists and their order."""
        label, names = newer_kind(optimizer)
        is_momentum = optimizer.dialect == "tf1" and optimizer.label == "Momentum"
        scale = self._scale(optimizer, "Momentum", NEWER) if is_momentum else 1.0
        for slot in optimizer.slots:
            item, variable = self.items[slot.item], self.items[slot.variable]
            place = Slot(variable.name, path, names[slot.name], label)
            if scale == 1.0:
                self._change(slot.item, slot=place, node=-1)
                continue
            why = f"-learning_rate times {item.name}"
            self._change(
                slot.item, in_objects=False, why=f"another slot is computed from it, {why}"
            )
            content = item.content._replace(scale=scale)
            name = f"{label}/{variable.name}/{place.name}"
            self.items.append(Item(content, name, why, slot=place, in_names=False))
        for name, number in optimizer.own.items():
            if name == U_PRODUCT:
                self._change(number, place=(*path, name), node=-1)
            else:
                self._change(number, in_objects=False, why=f"of {optimizer.label} itself: {name}")
        for number in optimizer.others:
            self._change(number, in_objects=False, why=f"of {optimizer.label} itself")
        if optimizer.dialect == "tf1" or self._number("iter") is not None:
            self._add_iter(optimizer, label, path, name=ITERATIONS)
        else:
            counter = optimizer.own["iter"]
            steps = int(self._read(self.items[counter].content))
            content = number_content(steps, INT64)
            name = f"{label}/iteration"
            self.items.append(
                Item(content, name, "its steps", place=(*path, ITERATIONS), in_names=False)
            )

    # --- to TF1 ---

    def _to_tf1(self, optimizer: Optimizer, path: ObjectPath) -> None:
        if optimizer.newer is not None:
            label, names = optimizer.label, {slot.name: slot.name for slot in optimizer.slots}
        else:
            label = tf1_label(optimizer)
            names = {keras: tf1 for tf1, keras in KINDS[label].slots.items()}
        scale = self._scale(optimizer, label, "tf1")
        for slot in optimizer.slots:
            item, variable = self.items[slot.item], self.items[slot.variable]
            slot_name = names[slot.name]
            self._change(
                slot.item,
                content=item.content._replace(scale=scale),
                name=tf1_slot_name(variable.name, label, slot_name, item.name),
                why=f"TF1's slot {slot_name}" + ("" if scale == 1.0 else f", {scale:.6g} times"),
                slot=Slot(variable.name, path, slot_name, label),
                node=-1,
            )
        if optimizer.newer is not None:
            self.items += unused_momentum(self.items, optimizer, path)
            for number in optimizer.others:
                self._change(number, in_names=False, in_objects=False, why="no variable in TF1")
        steps = self._number("iter")
        counter = optimizer.own.get("iter", self.step)  # its `iterations` may be the global step
        if steps is None and counter is not None:
            steps = self._count(counter)
        if label in ("Adam", "AdamW"):
            self._add_beta_powers(optimizer, steps, path)
        for name, number in optimizer.own.items():
            if name == "iter" and self.step in (None, number):
                self._change(number, name=GLOBAL_STEP, why="the optimizer's iter", node=-1)
                self.step = number
            else:
                why = "no variable in TF1"
                if name == "iter" and self.step is not None:
                    why += f", which counts steps in {self.items[self.step].name}"
                self._change(number, in_names=False, in_objects=False, why=why)

    def _add_beta_powers(self, optimizer: Optimizer, steps: float | None, path: ObjectPath) -> None:
        for name, power in _POWERS.items():
            beta = self._number(name)
            if beta is None and name in optimizer.own:
                beta = self._read(self.items[optimizer.own[name]].content)
            if beta is None or steps is None:
                raise SettingsError(
                    f"TF1's Adam keeps {power}, which takes {name} and iter; the checkpoint lacks "
                    f"it; give {self._start}{name if beta is None else 'iter'}",
                    key="hyperparameters",
                )
            beta = struct.unpack("<f", struct.pack("<f", beta))[0]  # as TF1 multiplies it
            content = number_content(beta ** (int(steps) + 1), FLOAT32)
            item = Item(content, power, f"{name}^(iter+1)", place=(*path, power))
            # A checkpoint that was made from TF1's has the name already, of whatever step.
            there = [n for n, one in enumerate(self.items) if one.name == power]
            if there and self.items[there[0]].part is None:
                self.items[there[0]] = item
            else:
                self.items.append(item)

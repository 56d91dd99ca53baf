"""Gives an optimizer's state its place in another kind of optimizer; see optimizer_relations."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from estimator_ckpt.conversion.adam_steps import (
    Power,
    best_assumed,
    bias_is_gone,
    check_given_steps,
    count_steps,
    least_unbiased_steps,
)
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.hyperparameters import Hyperparameters
from estimator_ckpt.conversion.optimizer_relations import (
    Related,
    exactness,
    filled_slots,
    related,
    several,
    unused_slots,
    with_class,
)
from estimator_ckpt.conversion.plan import (
    FLOAT32,
    INT64,
    Item,
    ReadNumber,
    Slot,
    is_counter,
    is_number,
    number_content,
)
from estimator_ckpt.conversion.several_optimizers import check_several, numbered
from estimator_ckpt.conversion.source_optimizers import check_parts, tf1_slot_name
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import ObjectPath
from estimator_ckpt.roles.dialects import (
    DECAY,
    ITERATIONS,
    LEARNING_RATE,
    LEGACY_COUNT,
    NEWER_OWN,
    POWER_OF,
    RATE,
)
from estimator_ckpt.roles.loss_scale import loss_scale_of
from estimator_ckpt.roles.records import LEGACY, NEWER, SCALED, TF1

OPTIMIZER = "optimizer"


class Relinker:
    """Gives the items of a checkpoint's optimizers their places in another kind of optimizer.

    Args:
      items: of the checkpoint, named; replaced and added to in place.
      step: which of them is the global step.
      target: the dialect, LEGACY, NEWER or TF1.
      numbers: hyperparameters given by the user, and `iter`; of several optimizers `Adam/iter`.
      read: the value of a scalar.
      template: hyperparameters that the objects of `like` have, for what is not given.
      from_optimizer: the class of the optimizers, where the items do not say it.
      is_keras_3: whether a NEWER target is Keras 3's.

    Attributes:
      notes: what is to be said of the result: what else must be equal for it to be exact.
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
        is_keras_3: bool = False,
    ) -> None:
        self.items = items
        self.step = step
        self._target = target
        self._numbers = numbers
        self._hyper = Hyperparameters(numbers, template or {})
        self._read = read
        self._from_optimizer = from_optimizer
        self._is_keras_3 = is_keras_3
        self.notes: list[str] = []

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
        optimizers = [
            with_class(optimizer, self.items, self._target, self._from_optimizer)
            for optimizer in optimizers
        ]
        if self._target == NEWER:
            optimizers = numbered(optimizers)
        counts = self._counts(optimizers) if self._target == TF1 and self.step is None else set()
        check_several(optimizers, self._numbers, counts)
        for optimizer in optimizers:
            check_parts(self.items, optimizer)
            if len(optimizers) > 1:
                self._hyper.scope = f"{optimizer.name}/"
            self._hyper.counterpart = optimizer.label
            name = OPTIMIZER if len(optimizers) == 1 else f"{OPTIMIZER}_{optimizer.name}"
            path = self._place_scale(optimizer, (name,))
            if optimizer.dialect == self._target != NEWER:
                self._place(optimizer, path)
            else:
                self._translate(optimizer, path)
        self._hyper.check_used([optimizer.name for optimizer in optimizers], self._target)
        self._hyper.check_asked()

    @property
    def asked(self) -> Mapping[str, str]:
        """The numbers that relink() has asked for, by the names that the user gives them."""
        return self._hyper.asked

    def _count(self, number: int) -> float | None:
        content = self.items[number].content
        return self._read(content) if is_counter(content) else None

    def _counts(self, optimizers: list[Optimizer]) -> set[float | None]:
        own = [optimizer.own for optimizer in optimizers]
        return {self._count(names[LEGACY_COUNT]) for names in own if LEGACY_COUNT in names}

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
        if self._target == LEGACY:
            for name, number in optimizer.own.items():
                given = self._hyper.get(name)
                if given is not None:
                    content = number_content(given, self.items[number].content.dtype)
                    self._change(number, content=content, why="given")
            if LEGACY_COUNT not in optimizer.own:  # its `iterations` were the global step
                self._add_iter(optimizer, f"{optimizer.label}/iter", (*path, LEGACY_COUNT))

    def _place_scale(self, optimizer: Optimizer, path: ObjectPath) -> ObjectPath:
        """Gives the numbers of loss scaling their places; returns the path of the optimizer."""
        for number in optimizer.wrapper.values():
            self._change(number, in_names=False, in_objects=False, why="of the loss scaling alone")
        if not optimizer.scale:
            return path
        wrapper = loss_scale_of(self._target, self._is_keras_3)
        for name, number in optimizer.scale.items():
            content = self.items[number].content
            dtype = INT64 if is_counter(content) else FLOAT32
            if content.dtype != dtype:
                content = number_content(self._read(content), dtype)
            known_as = wrapper.names[name] if self._target == TF1 else self.items[number].name
            self._change(
                number,
                content=content,
                name=known_as,
                place=(*path, *wrapper.paths[name]),
                node=-1,
                why="of the loss scaling",
            )
        return (*path, wrapper.inner) if wrapper.inner else path

    def _translate(self, optimizer: Optimizer, path: ObjectPath) -> None:
        """Gives the slots the names, places and values of the target's; then the numbers."""
        to = related(optimizer, self._target)
        self._hyper.counterpart = to.class_in(self._target)
        self.notes += exactness(optimizer, to, self._target, self._is_keras_3)
        scale = self._scale(optimizer, to)
        label = to.class_in(self._target)
        for slot in optimizer.slots:
            item, variable = self.items[slot.item], self.items[slot.variable]
            name = to.slots[slot.name]
            place = Slot(variable.name, path, name, label)
            if self._target == LEGACY and to.record.legacy is not None:
                place = place._replace(name=to.record.legacy.slots[name])
            content = item.content if scale == 1.0 else item.content._replace(scale=scale)
            if self._target == TF1:
                self._change(
                    slot.item,
                    content=content,
                    name=tf1_slot_name(variable.name, to.record.name, name, item.name),
                    why=f"TF1's slot {name}" + ("" if scale == 1.0 else f", {scale:.6g} times"),
                    slot=place,
                    node=-1,
                )
            elif scale == 1.0:
                node = -1 if self._target == NEWER else item.node
                self._change(slot.item, slot=place, node=node)
            else:
                # Under its name stays what its optimizer means by it; Keras' has another value.
                new = f"{label}/{variable.name}/{place.name}"
                self._change(slot.item, in_objects=False, why=f"{new} is computed from it")
                why = f"-learning_rate times {item.name}"
                in_names = self._target == LEGACY
                self.items.append(Item(content, new, why, slot=place, in_names=in_names))
        if self._target == LEGACY:
            self._numbers_of_legacy(optimizer, to, path)
        elif self._target == NEWER:
            self._numbers_of_newer(optimizer, to, path)
        else:
            self._numbers_of_tf1(optimizer, to, path)

    def _scale(self, optimizer: Optimizer, to: Related) -> float:
        """What a slot's values are multiplied by."""
        for name in to.relation.positive:
            if not self._hyper.get(name):
                self._hyper.ask(
                    name,
                    f"{optimizer.label} can be converted only with a "
                    f"{self._hyper.full_name(name)} above 0, given: {to.relation.why}. "
                    "Or leave the slots out (drop_slots)",
                )
        if to.relation.how != SCALED:
            return 1.0
        rate = self._hyper.get(RATE)
        if rate is None and LEARNING_RATE in optimizer.own:
            rate = self._read(self.items[optimizer.own[LEARNING_RATE]].content)
        if not rate or rate < 0:
            self._hyper.ask(
                RATE,
                "Keras' SGD keeps -learning_rate times what TF1's Momentum keeps; give the "
                f"{self._hyper.full_name(RATE)} with which the training goes on, or leave the "
                "slots out (drop_slots)",
            )
            return 1.0
        return -1 / rate if self._target == TF1 else -rate

    # --- numbers ---

    def _numbers_of_legacy(self, optimizer: Optimizer, to: Related, path: ObjectPath) -> None:
        for name, number in optimizer.own.items():
            self._change(number, in_objects=False, why=f"Keras computes it from iter: {name}")
        scope = to.class_in(LEGACY) + (f"_{optimizer.again}" if optimizer.again else "")
        self._add_iter(optimizer, f"{scope}/{LEGACY_COUNT}", (*path, LEGACY_COUNT), to)
        legacy = to.record.legacy
        for name in (RATE, DECAY, *(legacy.numbers if legacy is not None else ())):
            value = self._hyper.get(name)
            if value is not None:
                content = number_content(value, FLOAT32)
                self.items.append(Item(content, f"{scope}/{name}", "given", place=(*path, name)))

    def _numbers_of_newer(self, optimizer: Optimizer, to: Related, path: ObjectPath) -> None:
        label = to.class_in(NEWER) + (f"_{optimizer.again}" if optimizer.again else "")
        for name, number in optimizer.own.items():
            if name in NEWER_OWN:
                self._change(number, place=(*path, name), node=-1)
            else:
                self._change(number, in_objects=False, why=f"of {label} itself: {name}")
        for number in optimizer.others:
            self._change(number, in_objects=False, why=f"of {label} itself")
        self.items += filled_slots(self.items, optimizer, to, path)
        place = (*path, ITERATIONS)
        if optimizer.dialect == TF1 or self._hyper.get(LEGACY_COUNT) is not None:
            self._add_iter(optimizer, f"{label}/iter", place, to)
        elif LEGACY_COUNT in optimizer.own:
            steps = int(self._read(self.items[optimizer.own[LEGACY_COUNT]].content))
            content = number_content(steps, INT64)
            name = f"{label}/iteration"
            self.items.append(Item(content, name, "its steps", place=place, in_names=False))
        else:  # its `iterations` were the global step
            self._add_iter(optimizer, f"{label}/iter", place, to)

    def _add_iter(
        self, optimizer: Optimizer, name: str, place: ObjectPath, to: Related | None = None
    ) -> None:
        given = self._hyper.get(LEGACY_COUNT)
        powers = self._powers(optimizer)
        if given is not None:
            steps, why = int(given), "given"
            check_given_steps(powers, steps)
        else:
            step = None if self.step is None else int(self._read(self.items[self.step].content))
            iter_name = self._hyper.full_name(LEGACY_COUNT)
            try:
                steps, why = count_steps(powers, step, iter_name=iter_name)
            except SettingsError as error:
                self._hyper.ask(LEGACY_COUNT, error.message)
                return
        if to is not None and to.relation.late:
            beta = max(POWER_OF)
            value = self._hyper.given_beta(beta)
            if not bias_is_gone(beta, value, steps):
                least = least_unbiased_steps(beta, value)
                raise UnsupportedCheckpointError(
                    f"{optimizer.label}: {to.relation.why}. The two are equal from {least:,} steps "
                    f"on, and it has made {steps:,}: give a "
                    f"{self._hyper.full_name(LEGACY_COUNT)} of at least that, where no schedule "
                    "depends on it, or leave the slots out (drop_slots)"
                )
        content = number_content(steps, INT64)
        if given is None and self.step is not None:
            theirs = self.items[self.step].content
            if theirs.dtype == INT64 and int(self._read(theirs)) == steps:
                content = theirs  # the same bytes under another key
        self.items.append(Item(content, name, why, place=place))

    def _powers(self, optimizer: Optimizer) -> list[Power]:
        """The powers of beta that TF1's Adam keeps, as far as they can be read."""
        found = []
        for beta, name in POWER_OF.items():
            number = optimizer.own.get(name)
            if number is not None and is_number(self.items[number].content):
                value = self._read(self.items[number].content)
                assumed = self._hyper.get(beta)
                found.append(Power(name, beta, value, self._hyper.given_beta(beta), assumed))
        step = None if self.step is None else self._count(self.step)
        found = [power for power in found if 0 <= power.value < 1]
        return best_assumed(found, None if step is None else int(step))

    def _numbers_of_tf1(self, optimizer: Optimizer, to: Related, path: ObjectPath) -> None:
        self.items += unused_slots(self.items, optimizer, to, path)
        for number in optimizer.others:
            self._change(number, in_names=False, in_objects=False, why="no variable in TF1")
        steps = self._hyper.get(LEGACY_COUNT)
        counter = optimizer.own.get(LEGACY_COUNT, self.step)  # or the global step is its count
        if steps is None and counter is not None:
            steps = self._count(counter)
        if to.record.tf1 is not None and to.record.tf1.powers:
            self._add_beta_powers(optimizer, to, steps, path)
        for name, number in optimizer.own.items():
            if name == LEGACY_COUNT and self.step in (None, number):
                self._change(number, name=GLOBAL_STEP, why="the optimizer's iter", node=-1)
                self.step = number
            else:
                why = "no variable in TF1"
                if name == LEGACY_COUNT and self.step is not None:
                    why += f", which counts steps in {self.items[self.step].name}"
                self._change(number, in_names=False, in_objects=False, why=why)

    def _add_beta_powers(
        self, optimizer: Optimizer, to: Related, steps: float | None, path: ObjectPath
    ) -> None:
        for name in to.record.tf1.powers if to.record.tf1 is not None else ():
            power = POWER_OF[name]
            beta = self._hyper.get(name)
            if beta is None and name in optimizer.own:
                beta = self._read(self.items[optimizer.own[name]].content)
            if beta is None or steps is None:
                lacking = name if beta is None else LEGACY_COUNT
                self._hyper.ask(
                    lacking,
                    f"TF1's {to.record.name} keeps {power}, which takes {name} and iter; the "
                    f"checkpoint lacks it; give {self._hyper.full_name(lacking)}",
                )
                continue
            beta = struct.unpack("<f", struct.pack("<f", beta))[0]  # as TF1 multiplies it
            content = number_content(beta ** (int(steps) + 1), FLOAT32)
            item = Item(content, power, f"{name}^(iter+1)", place=(*path, power))
            # A checkpoint that was made from TF1's has the name already, of whatever step.
            there = [n for n, one in enumerate(self.items) if one.name == power]
            if there and self.items[there[0]].part is None:
                self.items[there[0]] = item
            else:
                self.items.append(item)

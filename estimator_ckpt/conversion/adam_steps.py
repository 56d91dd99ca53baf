"""How many steps an Adam has made, told by the powers of beta that TF1's keeps.

AdamOptimizer multiplies `beta1_power` by beta_1 in every step, and begins with beta_1 itself, in
float32 (tensorflow/python/training/adam.py). So beta^(steps+1) tells the steps where beta is known,
until it is smaller than float32 can hold: with the defaults after 828 steps for beta_1 = 0.9, after
87,293 for beta_2 = 0.999. The global step may have counted otherwise: a GAN that hands it to both
of its optimizers counts each step twice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from estimator_ckpt.errors import ConflictError, SettingsError

DEFAULT_BETAS = {"beta_1": 0.9, "beta_2": 0.999}
_SMALLEST = 2.0**-126  # below it float32 has few digits, and most processors flush to 0
_ROUNDING = 2.0**-24  # of one product, at most
_MOST_PRODUCTS = 10_000_000


class Power(NamedTuple):
    """A power of beta as a checkpoint has it.

    Attributes:
      name: its name in TF1, `beta1_power`.
      beta_name: the hyperparameter that it is a power of, `beta_1`.
      value: what the checkpoint has.
      given: the hyperparameter's value, where the user gave it.
      assumed: what it is taken for otherwise; None for its default.
    """

    name: str
    beta_name: str
    value: float
    given: float | None = None
    assumed: float | None = None

    @property
    def beta(self) -> float:
        beta = self.assumed if self.given is None else self.given
        beta = DEFAULT_BETAS[self.beta_name] if beta is None else beta
        in_float32: float = struct.unpack("<f", struct.pack("<f", beta))[0]
        return in_float32

    @property
    def tells(self) -> bool:
        """Whether it tells a number of steps, and not just that there have been many."""
        return _SMALLEST <= self.value < 1

    @property
    def steps(self) -> float:
        """The steps that it tells; of one that is 0 by now, the least that there have been."""
        return math.log(max(self.value, _SMALLEST)) / math.log(self.beta) - 1

    def allows(self, steps: float) -> bool:
        """Whether it may have this value after so many steps, for all that rounding does."""
        slack = 0.05 + (steps + 1) * _ROUNDING / -math.log(self.beta)
        return abs(self.steps - steps) < slack if self.tells else steps > self.steps - slack

    def whole_steps(self) -> int:
        """The steps, by the products themselves: what they lose by rounding adds up."""
        import numpy as np

        about = round(self.steps)
        if about > _MOST_PRODUCTS:
            return about
        products = np.full(about + about // 100 + 8, self.beta, np.float32)
        np.multiply.accumulate(products, out=products)
        return int(np.argmin(np.abs(products - np.float32(self.value))))

    def __str__(self) -> str:
        known = f"{self.beta_name} {self.beta:.6g}"
        if self.given is None:
            known = f"{'the default' if self.assumed is None else 'the new optimizer has'} {known}"
        after = "after" if self.tells else "after at least"
        return f"{self.name} is {self.value:.6g}, which is {known} {after} {self.steps:.1f} steps"


def count_steps(
    powers: Sequence[Power], global_step: int | None, *, iter_name: str = "iter"
) -> tuple[int, str]:
    """The steps of an Adam, and what tells them.

    Args:
      powers: those that the checkpoint has.
      global_step: the checkpoint's; None if it has none.
      iter_name: the hyperparameter that gives the steps, for messages.

    Raises:
      ConflictError: a power cannot be one of the beta that was given, or the powers of two given
        betas tell different steps.
      SettingsError: nothing tells the steps for certain; they are asked for.
    """
    certain = _certain(powers, global_step)
    if certain is not None:
        if global_step is not None and certain.allows(global_step):
            return global_step, "the global step"
        other = f", not the global step {global_step}" if global_step is not None else ""
        return certain.whole_steps(), f"told by {certain.name}{other}"
    if global_step is None:
        raise SettingsError(
            "Keras' optimizers count their steps in `iter`, and the checkpoint has no "
            f"global_step to take it from; give {iter_name}",
            key="hyperparameters",
        )
    telling = [power for power in powers if power.tells]
    if any(power.allows(global_step) for power in telling):
        return global_step, "the global step"
    contrary = [power for power in powers if not power.allows(global_step)]
    if contrary:
        raise SettingsError(
            f"{' and '.join(map(str, contrary))}, but the global step is {global_step}; give the "
            f"steps that Adam has made as {iter_name}, or its own "
            f"{' and '.join(power.beta_name for power in contrary)}",
            key="hyperparameters",
        )
    if powers and not telling:
        return global_step, "the global step; Adam's powers of beta are too small to tell"
    return global_step, "the global step"


def best_assumed(powers: Sequence[Power], global_step: int | None) -> list[Power]:
    """The powers of the betas that are assumed, if these say the steps; else of the defaults."""
    if any(power.assumed is not None for power in powers):
        telling = [power for power in powers if power.tells]
        agrees = global_step is not None and any(one.allows(global_step) for one in telling)
        if not agrees and _certain(powers, global_step) is None:
            return [power._replace(assumed=None) for power in powers]
    return list(powers)


def bias_is_gone(beta_name: str, beta: float | None, steps: int) -> bool:
    """Whether 1 - beta^(steps+1) is 1 for a float32, so that nothing is left to correct."""
    return Power(beta_name, beta_name, 0.0, beta).beta ** (steps + 1) < _ROUNDING


def least_unbiased_steps(beta_name: str, beta: float | None) -> int:
    """The first number of steps of which bias_is_gone() is true."""
    power = Power(beta_name, beta_name, 0.0, beta)
    return math.ceil(math.log(_ROUNDING) / math.log(power.beta) - 1)


def check_given_steps(powers: Sequence[Power], steps: int) -> None:
    """Raises ConflictError where the powers tell for certain that `steps` is wrong."""
    certain = _certain(powers, None)
    if certain is not None and not certain.allows(steps):
        raise ConflictError(
            f"iter {steps} was given, but {certain}; give the right iter or {certain.beta_name}"
        )


def _certain(powers: Sequence[Power], global_step: int | None) -> Power | None:
    """The power that tells the steps beyond doubt: its beta was given, or another one agrees."""
    telling = sorted((power for power in powers if power.tells), key=lambda power: power.beta)
    for power in telling:
        others = [other for other in powers if other is not power]
        if power.given is not None:
            if not power.allows(power.whole_steps()):
                raise ConflictError(
                    f"{power}, which is no whole number; give the right {power.beta_name}"
                )
            for other in others:
                is_witness = other.given is not None or (
                    global_step is not None and other.tells and other.allows(global_step)
                )
                if is_witness and not other.allows(power.steps):
                    raise ConflictError(
                        f"{power}, but {other}; give the right {power.beta_name}, or iter"
                    )
            return power
    if len(telling) == 2 and telling[1].allows(telling[0].steps):
        return telling[0]
    return None

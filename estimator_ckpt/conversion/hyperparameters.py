"""The numbers of optimizers that a conversion takes: those given, else those of the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator_ckpt.errors import SettingsError


def check_hyperparameters(given: Any) -> None:
    """Raises SettingsError for what is no mapping from names to numbers."""
    key = "hyperparameters"
    if not isinstance(given, Mapping):
        raise SettingsError(f"expected a mapping from names to numbers, found {given!r}", key=key)
    for name, value in given.items():
        if (
            not isinstance(name, str)
            or isinstance(value, bool)
            or not isinstance(value, (int, float))
        ):
            raise SettingsError(f"expected a number for {name}, found {value!r}", key=key)


class Hyperparameters:
    """Numbers by name; of several optimizers `Adam/beta_1`. Remembers which of them were used.

    Args:
      numbers: those that the user gives.
      template: those that the objects of `like` have, for what is not given.

    Attributes:
      scope: of the optimizer at hand: "Adam/" if there are several, else "".
      counterpart: the class that it is to be, by which a template with several optimizers has it.
      asked: what is needed and was not given, by the names that the user gives it, with the reason.
    """

    def __init__(self, numbers: Mapping[str, float], template: Mapping[str, float]) -> None:
        self.scope = ""
        self.counterpart = ""
        self.asked: dict[str, str] = {}
        self._numbers = numbers
        self._template = template
        self._used: set[str] = set()

    def full_name(self, name: str) -> str:
        """What the user calls a number of the optimizer at hand."""
        return self.scope + name

    def get(self, name: str) -> float | None:
        """A number as it is given, or else as the template has it."""
        given = self.given(name)
        if given is not None:
            return given
        of_class = self._template.get(f"{self.counterpart}/{name}")
        return self._template.get(self.full_name(name), of_class)

    def ask(self, name: str, why: str) -> None:
        """Notes that a number is needed, so that all of them are told at once: check_asked()."""
        self.asked.setdefault(self.full_name(name), why)

    def check_asked(self) -> None:
        """Raises SettingsError for the numbers that are needed."""
        if self.asked:
            raise SettingsError("\n".join(self.asked.values()), key="hyperparameters")

    def given(self, name: str) -> float | None:
        """A number as it is given."""
        self._used.add(self.full_name(name))
        return self._numbers.get(self.full_name(name))

    def given_beta(self, name: str) -> float | None:
        """A number between 0 and 1 as it is given.

        Raises:
          SettingsError: it is another.
        """
        beta = self.given(name)
        if beta is not None and not 0 < beta < 1:
            raise SettingsError(
                f"expected {self.full_name(name)} between 0 and 1, found {beta}",
                key="hyperparameters",
            )
        return beta

    def check_used(self, labels: Iterable[str], target: str) -> None:
        """Raises SettingsError for numbers that none of the optimizers has."""
        unused = sorted(self._numbers.keys() - self._used)
        if unused:
            raise SettingsError(
                f"{', '.join(unused)}: no such variable in {' and '.join(labels)}, to be "
                f"{target}'s",
                key="hyperparameters",
            )

"""Regular expressions that a user gives."""

from __future__ import annotations

import re
from typing import Any

from estimator_ckpt.errors import SettingsError


def compile_pattern(pattern: Any, setting: str) -> re.Pattern[str]:
    """The regular expression that a setting says.

    Raises:
      SettingsError: it is none.
    """
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SettingsError(f"{pattern!r} is no regular expression: {error}", key=setting) from None

"""Flagfiles and warm-start settings to begin with, found as `configs/NAME` from anywhere.

A path that begins with `configs/` names a file of the current directory, or else the one of this
package: `--flagfile=configs/both.flags`, `--warm_start_config=configs/warm_start_new_head.yaml`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
_START = "configs/"
_FLAG = "flagfile"


def find_config(path: str) -> str:
    """The path, or that of the packaged file where there is none: `configs/NAME`."""
    if path.startswith(_START) and not os.path.exists(path):
        packaged = os.path.join(DIRECTORY, path[len(_START) :])
        if os.path.isfile(packaged):
            return packaged
    return path


def find_flagfiles(arguments: Sequence[str]) -> list[str]:
    """A command's arguments, each `--flagfile=configs/NAME` with what find_config() says."""
    found = []
    takes_path = flags_ended = False
    for argument in arguments:
        flag, equals, path = argument.partition("=")
        is_flagfile = flag in (f"--{_FLAG}", f"-{_FLAG}") and not flags_ended
        if takes_path:
            argument = find_config(argument)
        elif is_flagfile and equals:
            argument = f"{flag}={find_config(path)}"
        takes_path = is_flagfile and not equals and not takes_path
        flags_ended = flags_ended or argument == "--"
        found.append(argument)
    return found

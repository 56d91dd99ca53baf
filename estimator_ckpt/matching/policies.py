"""What to do about a variable that a checkpoint lacks, or has in another shape: one word, or words
by patterns of names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Union

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.text.patterns import compile_pattern

Policy = Union[Literal["error", "warn", "init"], Mapping[str, str]]
ShapePolicy = Union[Literal["error", "warn", "init", "reshape", "pad", "slice"], Mapping[str, str]]
POLICIES = ("error", "warn", "init")
# What decides where structure and names lead to different tensors: see resolve.py.
MATCH_BY = ("path", "name")


def policy_for(name: str, policy: str | Mapping[str, str]) -> str:
    """The policy for a variable: the one given, or that of the first pattern matching its name."""
    if isinstance(policy, str):
        return policy
    return next((p for pattern, p in policy.items() if re.fullmatch(pattern, name)), "error")


def may_initialize(policy: str | Mapping[str, str]) -> bool:
    """Whether it lets anything be missing."""
    return (
        policy != "error"
        if isinstance(policy, str)
        else any(choice != "error" for choice in policy.values())
    )


def weaken(policy: Policy) -> Policy:
    """The same policy, with a warning where it would initialize in silence."""
    if isinstance(policy, str):
        return "warn" if policy == "init" else policy
    return {pattern: "warn" if word == "init" else word for pattern, word in policy.items()}


def check_policy(setting: str, policy: object, allowed: Sequence[str] = POLICIES) -> None:
    """Raises SettingsError unless `policy` is one of `allowed` or maps patterns to them."""
    choices = ", ".join(repr(p) for p in allowed)
    if isinstance(policy, str):
        if policy not in allowed:
            raise SettingsError(f"expected one of {choices}, found {policy!r}", key=setting)
        return
    if not isinstance(policy, Mapping):
        raise SettingsError(f"expected one of {choices} or a mapping of patterns", key=setting)
    for pattern, choice in policy.items():
        compile_pattern(pattern, setting)
        if choice not in allowed:
            raise SettingsError(
                f"expected one of {choices} for {pattern!r}, found {choice!r}", key=setting
            )

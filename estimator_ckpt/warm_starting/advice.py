"""What would help where much is missing: a setting to paste, which was applied in thought."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from estimator_ckpt.matching.hints import roots_that_fit, scopes_that_fit
from estimator_ckpt.matching.model import Model
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.warm_starting.settings import Settings

NOTHING = "Nothing of the model is there."

# The sources of the variables that would start under other settings; None if these did any harm.
InThought = Callable[[Settings], "Mapping[str, str] | None"]


def what_helps(
    settings: Settings,
    model: Model,
    missing: Sequence[str],
    saved: Saved,
    in_thought: InThought,
    *,
    is_nothing: bool,
) -> tuple[str, Mapping[str, str]]:
    """The end of an error's message: the one setting that explains most of what is missing, or "".

    Args:
      settings: as they are.
      model: its variables and objects.
      missing: the names of the variables that were to start, and are not there.
      saved: what the checkpoint has.
      in_thought: applies settings, and changes nothing.
      is_nothing: whether nothing starts.

    Returns:
      The text; and what the setting would start from what, by names.
    """
    start = f"\n{NOTHING}" if is_nothing else ""
    for text, tried in _to_try(settings, model, missing, saved, is_nothing=is_nothing):
        sources = in_thought(tried) or {}
        count = len(sources.keys() & set(missing))
        if count and count * 2 >= len(missing):
            rule = f"{start}\nThis rule would find {count} of {len(missing)}:\n{text}"
            return rule, sources
    return start, {}


def _to_try(
    settings: Settings, model: Model, missing: Sequence[str], saved: Saved, *, is_nothing: bool
) -> Iterator[tuple[str, Settings]]:
    """Settings to paste, each with all the settings that it makes."""
    for theirs, ours in scopes_that_fit(model, missing, saved):
        pair = (theirs, ours)
        tried = replace(settings, assignment_map=[*settings.assignment_map, pair])
        yield f"assignment_map: {json.dumps([pair])}", tried
        # An assignment_map selects, too; a renamed variable is found by what is selected anyway.
        old, new = ("" if scope == "/" else scope for scope in pair)
        rule = (f"{re.escape(old)}(.*)", rf"{new}\1")
        yield f"rename: {json.dumps([rule])}", replace(settings, rename=[rule, *settings.rename])
    if settings.root is None:
        for root in roots_that_fit(model, saved):
            yield f"root: {json.dumps(root)}", replace(settings, root=root)
    if is_nothing and settings.match_by is None:
        yield "match_by: name", replace(settings, match_by="name")

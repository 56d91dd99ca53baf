"""The flag --html of the verbs whose answer can be a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags


def define_html(flag_values: flags.FlagValues) -> None:
    """--html=FILE."""
    flags.DEFINE_string(
        "html",
        None,
        "Also write a page to be looked at in a browser: one file that loads nothing else. A page"
        " that is there is replaced; any other file is not.",
        flag_values=flag_values,
    )


def check_html(flag_values: flags.FlagValues) -> None:
    """Raises WriteError, before anything is done, where the page cannot be written."""
    if flag_values.html:
        from estimator_ckpt.report import check_page

        check_page(flag_values.html)


def write_html(flag_values: flags.FlagValues, title: str, views: Sequence[dict[str, Any]]) -> None:
    """Writes the page with these views, if it was asked for."""
    if flag_values.html:
        from estimator_ckpt.report import write_page

        write_page(flag_values.html, title, views)

"""docs/architecture.md: the files that it names are there, and no room is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import estimator_ckpt

PACKAGE = Path(estimator_ckpt.__file__).parent
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_PATH = re.compile(r"[\w/]+\.py\b|\b\w+/(?=[\s,`;]|$)", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(_PATH.findall(PAGE))))
def test_what_the_page_names_is_there(path: str) -> None:
    above = ROOT if path.startswith(("tests/", "estimator_ckpt/")) else PACKAGE
    assert (above / path).exists()


def test_every_room_is_on_the_page() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in PAGE} == {"configs", "examples"}

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


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("a column", "commands/listing.py"),
        ("an optimizer, a new one too", "roles/optimizers.py"),
        ("near to a name", "text/names.py"),
        ("tables are aligned", "text/tables.py"),
        ("variables that are missing", "matching/policies.py"),
        ("a lock", "files/claims.py"),
        ("a dtype", "bundle/dtypes.py"),
        ("`var_list`", "objects/object_graph.py"),
        ("where nothing is said", "warm_starting/settings.py"),
        ("a progress bar", "text/progress.py"),
    ],
)
def test_what_a_reader_wants_to_change_leads_to_one_file(change: str, file: str) -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    found = [where for what, where in rows if change in what]
    assert [_PATH.findall(where)[0] for where in found] == [file]


def test_every_room_is_on_the_page() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in PAGE} == {"configs", "examples"}

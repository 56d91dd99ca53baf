"""A small count of what tests/faults/conversions.py does in full."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import layer

SCRIPT = Path(__file__).parent / "faults" / "conversions.py"
SCENARIOS = ["new", "copy", "compact", "in_place", "detach", "tree", "swap", "swap_tree"]
TO_ONE_CHECKPOINT = ["new", "copy", "in_place", "detach"]


@pytest.mark.faults
@pytest.mark.skipif(bool(layer.lacks()), reason=layer.lacks())
@pytest.mark.parametrize(
    ("chosen", "scenarios"),
    [
        (["--each=3", "--kills=3", "--races=5"], [*SCENARIOS, "race"]),
        ([*TO_ONE_CHECKPOINT, "--kinds=kill", "--kills=0"], TO_ONE_CHECKPOINT),
    ],
    ids=["some calls", "a kill at every call"],
)
def test_kills_full_disks_and_races_lose_nothing(chosen, scenarios):
    command = [sys.executable, str(SCRIPT), *chosen]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    found = re.findall(r"(\w+): .*trials, (\d+) wrong", done.stdout)
    assert found == [(name, "0") for name in scenarios], done.stdout
    assert done.returncode == 0

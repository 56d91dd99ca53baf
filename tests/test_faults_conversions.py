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


@pytest.mark.faults
@pytest.mark.skipif(bool(layer.lacks()), reason=layer.lacks())
def test_kills_full_disks_and_races_lose_nothing():
    command = [sys.executable, str(SCRIPT), "--each=3", "--kills=3", "--races=5"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    names = ["new", "copy", "compact", "in_place", "detach", "tree", "swap", "swap_tree", "race"]
    found = re.findall(r"(\w+): .*trials, (\d+) wrong", done.stdout)
    assert found == [(name, "0") for name in names], done.stdout
    assert done.returncode == 0

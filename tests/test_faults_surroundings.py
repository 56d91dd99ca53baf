"""What happens around a job: one of each kind for which no root is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf  # noqa: F401 (the saves are those of a job)

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import layer

SCRIPT = Path(__file__).parent / "faults" / "surroundings.py"


@pytest.mark.faults
@pytest.mark.skipif(bool(layer.lacks()), reason=layer.lacks())
def test_two_signals_a_tree_that_is_converted_and_a_jumping_clock_lose_nothing():
    command = [sys.executable, str(SCRIPT), "twice", "tree", "clock", "--count=1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    found = re.findall(r"(\w+): 1 trials, (\d+) wrong", done.stdout)
    assert found == [("twice", "0"), ("tree", "0"), ("clock", "0")], done.stdout
    assert done.returncode == 0

"""What happens around a job: a small count of each kind for which no root is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf  # noqa: F401 (the saves are those of a job)

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import layer

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(bool(layer.lacks()), reason=layer.lacks()),
]


def output_of(script: str, *arguments: str) -> str:
    """What a script prints, which has to succeed."""
    command = [sys.executable, str(Path(__file__).parent / "faults" / script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_two_signals_a_tree_that_is_converted_and_a_jumping_clock_lose_nothing():
    printed = output_of("surroundings.py", "twice", "tree", "clock", "--count=1")
    found = re.findall(r"(\w+): 1 trials, (\d+) wrong", printed)
    assert found == [("twice", "0"), ("tree", "0"), ("clock", "0")], printed


def test_trainers_an_evaluator_and_a_converter_in_one_directory_and_signals_lose_nothing():
    printed = output_of("races.py", "--races=2", "--signals=2")
    assert "2 races, 2 signals, 0 wrong" in printed


def test_many_saves_take_no_more_memory_files_threads_or_ops_than_a_few():
    printed = output_of("soak.py", "--count=60", "--async_checkpoint")
    found = re.findall(r"(\w+): 60 saves, .*, grown: \{\}", printed)
    assert found == ["saver", "checkpoint", "both"], printed

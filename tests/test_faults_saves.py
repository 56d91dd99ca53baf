"""Saves that are broken at a few of their file calls; faults/saves.py breaks them at every one."""

import json
import sys
from pathlib import Path

import pytest
import tensorflow as tf  # noqa: F401 (the saves are those of a job)

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import layer

SAVES = Path(__file__).parent / "faults" / "saves.py"

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(bool(layer.lacks()), reason=layer.lacks()),
]


@pytest.mark.parametrize(
    ("scenarios", "option"),
    [
        (["input", "again", "changed", "only", "warm"], []),
        (["input", "warm"], ["--async_checkpoint"]),
    ],
    ids=["", "async"],
)
def test_whatever_breaks_a_save_the_newest_checkpoint_is_whole_and_the_job_goes_on(
    scenarios, option
):
    chosen = ["--formats", "both", "--count", "1", "--seed", "5", *option]
    printed = layer.run(SAVES, *scenarios, *chosen, timeout=300)
    found = json.loads(printed.splitlines()[-1])
    assert found["bad"] == []
    assert found["trials"] == {f"{s}/both {k}": 1 for s in scenarios for k in layer.KINDS}

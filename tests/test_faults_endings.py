"""What a process leaves that ends while its last checkpoint is on its way to the disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf  # noqa: F401 (the jobs save)

SCRIPT = Path(__file__).parent / "faults" / "endings.py"


@pytest.mark.faults
def test_who_ends_without_a_word_leaves_the_deletion_to_the_next_start():
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    # How it ended, the steps on disk, whether the lease stands; and these after the next job.
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "os._exit": ["exit 0", [1, 2], True, [3], False],
        "SIGTERM": ["SIGTERM", [1, 2], True, [3], False],
        "SIGKILL": ["SIGKILL", [1, 2], True, [3], False],
        "sys.exit": ["exit 0", [2], False, [3], False],
        "an error": ["exit 1", [2], False, [3], False],
        "after forks": ["exit 0", [2], False, [3], False],
    }


@pytest.mark.faults
def test_who_ends_in_good_order_waits_for_the_save_beside_training():
    command = [sys.executable, str(SCRIPT.with_name("async_endings.py"))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    # How it ended, the steps that the state file names, those on disk, where the next job starts.
    # Step 1 is under way. A hook that saves at the end adds the step that the training came to.
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "SIGKILL": ["SIGKILL", [0], [0], 0],
        "SIGTERM": ["SIGTERM", [0], [0], 0],
        "SIGTERM, stop_hook": ["exit 143", [0, 1, 3], [0, 1, 3], 3],
        "SIGINT": ["exit 1", [0, 1], [0, 1], 1],
        "sys.exit": ["exit 0", [0, 1], [0, 1], 1],
        "os._exit": ["exit 0", [0], [0], 0],
        "the end": ["exit 0", [0, 1, 2], [0, 1, 2], 2],
    }

"""`estimator-ckpt train` on a terminal: what passes, and what stays on the screen."""

import re

import pytest
from estimator_jobs import latest_step
from terminal_screen import Terminal
from train_runs import JOB

pytestmark = [pytest.mark.estimator, pytest.mark.faults]


def lines_of(screen):
    """What the command itself says; the job prints its losses."""
    return [line for line in screen if not line.startswith("loss ")]


def test_what_matters_stays_and_progress_passes(tmp_path):
    arguments = [*JOB, f"--model_dir={tmp_path}", "--max_steps=9", "--progress_secs=0"]
    with Terminal("estimator_ckpt", "train", *arguments, "--params={hold_at: 5}") as first:
        first.read_until("loss 5 ")
        first.type("\x03")
        first.read_until("finishing the step, saving a checkpoint")
        first.type("\n")
        assert first.finish() == 130
    step = latest_step(tmp_path)
    assert "steps/s" in first.output
    assert [line.replace("^C", "") for line in lines_of(first.screen)] == [
        f"starts at step 0, ends at step 9; model_dir {tmp_path}",
        "SIGINT: finishing the step, saving a checkpoint",
        f"stopped at step {step}; the next start resumes from {tmp_path}/model.ckpt-{step}",
    ]
    with Terminal("estimator_ckpt", "train", *arguments) as second:
        assert second.finish() == 0
    said = lines_of(second.screen)
    assert [line for line in said if "not taken over" not in line][:2] == [
        f"Restoring parameters from {tmp_path}/model.ckpt-{step}",
        f"resumes at step {step}, ends at step 9; model_dir {tmp_path}",
    ]
    assert re.fullmatch(r"evaluated step 9: loss [\d.]+, mean \S+", said[-2])
    assert re.fullmatch(r"finished at step 9, loss [\d.]+", said[-1])
    assert not any("steps/s" in line for line in said)

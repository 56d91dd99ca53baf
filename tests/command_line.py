"""Runs the command in this process; small checkpoints to run it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from stock_files import save, value

from estimator_ckpt import cli
from estimator_ckpt.objects.object_graph import ObjectGraph

NAN, INF = float("nan"), float("inf")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def command_runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs the command in this process."""

    def run(*arguments: Any) -> Result:
        code = cli.main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def model(directory: Path, **more: Any) -> str:
    """A small model with Adam's slots."""
    kernel, bias = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([1, NAN, INF])
    tensors = {
        "dense/kernel": kernel,
        "dense/kernel/Adam": kernel / 2,
        "dense/kernel/Adam_1": kernel / 4,
        "dense/bias": bias,
        "global_step": np.int64(7),
        **more,
    }
    return save(directory / "model.ckpt-7", tensors)


def objects(directory: Path) -> str:
    """Objects with a cycle, a shared one and one without values."""
    graph = ObjectGraph()
    net = graph.add(0, "net")
    kernel = graph.add(net, "kernel", value("dense/kernel", "net/kernel/.ATTRIBUTES/V"))
    graph.add(net, "empty")
    graph.link(net, "up", 0)
    graph.link(0, "again", net)
    graph.link(0, "k/el", kernel)
    return save(directory / "ckpt-1", {"net/kernel/.ATTRIBUTES/V": np.float32([1, 2])}, graph)

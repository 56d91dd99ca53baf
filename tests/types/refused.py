"""Mistakes that a type checker refuses; `mypy` fails if one of these lines is not refused.

Each has the error that is expected of it, and an expectation that comes to nothing is an error
(warn_unused_ignores, a part of `strict`). Nothing runs this file.
"""

from __future__ import annotations

from typing import Any

from estimator_ckpt import (
    checkpoint_scaffold,
    convert_checkpoint,
    dual_scaffold,
    make_scaffold,
    saver_scaffold,
    wrap_estimator,
    wrap_model_fn,
)


def formats(model_fn: Any, estimator: Any) -> None:
    wrap_model_fn(model_fn, "tf2")  # type: ignore[arg-type]
    wrap_estimator(estimator, "tf1")  # type: ignore[arg-type]
    make_scaffold("object-based")  # type: ignore[arg-type]
    convert_checkpoint("run", "converted/", "dual")  # type: ignore[arg-type]


def unknown_options(model_fn: Any, estimator: Any) -> None:
    wrap_model_fn(model_fn, keep_max=3)  # type: ignore[call-arg]
    wrap_estimator(estimator, max_to_keep=3)  # type: ignore[call-arg]
    saver_scaffold(keep_checkpoints_max=3)  # type: ignore[call-arg]
    checkpoint_scaffold(on_mising="init")  # type: ignore[call-arg]
    dual_scaffold(averages=True)  # type: ignore[call-arg]
    make_scaffold("both", checkpoints=None)  # type: ignore[call-arg]


def wrong_values(model_fn: Any) -> None:
    wrap_model_fn(model_fn, on_missing="ignore")  # type: ignore[arg-type]
    wrap_model_fn(model_fn, on_corrupt="skip")  # type: ignore[arg-type]
    wrap_model_fn(model_fn, match_by="names")  # type: ignore[arg-type]
    wrap_model_fn(model_fn, keep_checkpoint_max="3")  # type: ignore[arg-type]
    wrap_model_fn(model_fn, retention={"newest": 3})  # type: ignore[arg-type]

"""Uses of the public names that a type checker accepts; `mypy` reads this file, nothing runs it."""

from __future__ import annotations

from typing import Any

from estimator_ckpt import (
    Retention,
    WarmStart,
    convert_checkpoint,
    dual_scaffold,
    load_warm_start,
    make_scaffold,
    saver_scaffold,
    wrap_estimator,
    wrap_model_fn,
)


def job(model_fn: Any, estimator: Any, flag_values: Any, from_a_file: dict[str, Any]) -> None:
    wrap_model_fn(model_fn)
    wrap_model_fn(model_fn, "both", warm_start=WarmStart("run"), keep_checkpoint_max=3)
    wrap_model_fn(model_fn, flag_values.checkpoint_format, **from_a_file)
    wrap_estimator(estimator, "checkpoint", on_corrupt="fall_back", durable=True)
    wrap_model_fn(model_fn, keep_best=("accuracy", 3), keep_checkpoint_every_n_steps=100)
    wrap_model_fn(model_fn, retention=Retention(newest=3, best=("accuracy", 3)))
    wrap_model_fn(model_fn, keep_best=[("accuracy", 3), ("loss", 1, "min")])
    saver_scaffold(on_missing={"head/.*": "init"}, match_by="name")
    dual_scaffold(on_missing="warn", ema="ema")
    make_scaffold("saver", deletion_grace_secs=1.5, warm_start=load_warm_start("start.yaml"))


def files() -> str:
    return convert_checkpoint("run", "converted/", "both").destination

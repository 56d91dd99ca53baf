"""A warm start that only reports: what each variable of a model would start from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import tensorflow as tf

from estimator_ckpt.checking.model import saver_of
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.reading import state
from estimator_ckpt.warm_start import WarmStart
from estimator_ckpt.warm_starting.report import WarmStartReport
from estimator_ckpt.warm_starting.starter import graph_model
from estimator_ckpt.warm_starting.values import starting_values


def preview_warm_start(settings: WarmStart) -> WarmStartReport:
    """What the variables of the default graph would start from; nothing is changed.

    Raises:
      CheckpointError: the settings do not fit the checkpoint or the model; see WarmStart.
    """
    saver = None if tf.distribute.has_strategy() else saver_of(None)
    if saver is not None:
        saver.build()
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        return starting_values(settings, checkpoint, graph_model(saver))


def print_and_exit(settings: WarmStart, model_dir: str | None) -> NoReturn:
    """Prints the preview, and raises SystemExit(0)."""
    print(preview_warm_start(settings))
    found = state.read_state(model_dir) if model_dir else None
    if found is not None:
        print(
            f"But there would be no warm start: {model_dir} has a checkpoint, and the job resumes "
            f"from it: {found.model_checkpoint_path}"
        )
    raise SystemExit(0)


def stop_after_building(model_fn: Callable[..., Any], settings: WarmStart) -> Callable[..., Any]:
    """A model_fn that builds the model for training, prints the preview and raises SystemExit(0).

    Args:
      model_fn: one that wrap_model_fn() returns: it takes `mode` and `config` by keyword.
      settings: what training would start from.
    """

    @functools.wraps(model_fn, updated=())
    def reporting(*args: Any, **kwargs: Any) -> Any:
        spec = model_fn(*args, **kwargs)
        if kwargs.get("mode") == "train":
            print_and_exit(settings, getattr(kwargs.get("config"), "model_dir", None))
        return spec

    reporting.__signature__ = inspect.signature(model_fn)  # type: ignore[attr-defined]
    return reporting

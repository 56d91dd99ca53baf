"""TF2 checkpoints for tf.estimator and MonitoredSession jobs, without a change in the model_fn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estimator_ckpt.best import record_metrics
    from estimator_ckpt.check import check_checkpoint
    from estimator_ckpt.checkpoint import open_checkpoint
    from estimator_ckpt.compare import compare_checkpoints
    from estimator_ckpt.convert import convert_checkpoint
    from estimator_ckpt.export import export_checkpoint
    from estimator_ckpt.importing import import_checkpoint
    from estimator_ckpt.jobs.resuming import resume_point
    from estimator_ckpt.jobs.stopping import stop_hook
    from estimator_ckpt.manager import save_both
    from estimator_ckpt.model_fn import wrap_estimator, wrap_model_fn
    from estimator_ckpt.options import Retention, SaverOptions
    from estimator_ckpt.pins import pin_checkpoint, unpin_checkpoint
    from estimator_ckpt.report import write_report
    from estimator_ckpt.scaffold import (
        checkpoint_scaffold,
        dual_scaffold,
        make_scaffold,
        saver_scaffold,
    )
    from estimator_ckpt.verify import verify_checkpoint
    from estimator_ckpt.warm_start import WarmStart, load_warm_start

# Where each public name lives. They load on first use: most need TensorFlow, which takes seconds
# to import, and the commands that look at files do without it.
_HOMES = {
    "Retention": "options",
    "SaverOptions": "options",
    "WarmStart": "warm_start",
    "check_checkpoint": "check",
    "checkpoint_scaffold": "scaffold",
    "compare_checkpoints": "compare",
    "convert_checkpoint": "convert",
    "dual_scaffold": "scaffold",
    "export_checkpoint": "export",
    "import_checkpoint": "importing",
    "load_warm_start": "warm_start",
    "make_scaffold": "scaffold",
    "open_checkpoint": "checkpoint",
    "pin_checkpoint": "pins",
    "record_metrics": "best",
    "resume_point": "jobs.resuming",
    "save_both": "manager",
    "saver_scaffold": "scaffold",
    "stop_hook": "jobs.stopping",
    "unpin_checkpoint": "pins",
    "verify_checkpoint": "verify",
    "wrap_estimator": "model_fn",
    "wrap_model_fn": "model_fn",
    "write_report": "report",
}

__all__ = [
    "Retention",
    "SaverOptions",
    "WarmStart",
    "check_checkpoint",
    "checkpoint_scaffold",
    "compare_checkpoints",
    "convert_checkpoint",
    "dual_scaffold",
    "export_checkpoint",
    "import_checkpoint",
    "load_warm_start",
    "make_scaffold",
    "open_checkpoint",
    "pin_checkpoint",
    "record_metrics",
    "resume_point",
    "save_both",
    "saver_scaffold",
    "stop_hook",
    "unpin_checkpoint",
    "verify_checkpoint",
    "wrap_estimator",
    "wrap_model_fn",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        errors = importlib.import_module(f"{__name__}.errors")
        raise errors.needs_tensorflow(f"{__name__}.{name}", error) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The garbage collector, paused while a million objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """For code that makes very many objects and no cycles; also decorates a function.

    The collector would walk through all of them again and again, which doubles the time. It does so
    once more when it comes back, through those that are left: what a decorated function made for
    itself is gone by then.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

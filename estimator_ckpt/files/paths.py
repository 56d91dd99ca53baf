"""Paths, and what goes wrong with them, as errors that name them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from estimator_ckpt.errors import CheckpointError, SettingsError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path_text(given: object, key: str = "path") -> str:
    """A path that a user gives, as text, with the home directory in the place of `~`.

    Args:
      given: a str or an os.PathLike of one.
      key: what the argument or the setting is called, for the error.

    Raises:
      SettingsError: it is neither.
    """
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(text, str):
        raise SettingsError(f"expected a path, found {given!r}", key=key)
    return os.path.expanduser(text)


def is_remote(path: str) -> bool:
    """Whether ``path`` is no local one, such as ``gs://bucket/model.ckpt-7``."""
    return _SCHEME.match(path) is not None


def scheme(path: str) -> str:
    """What a remote path begins with, such as ``gs://``; empty for a local one."""
    found = _SCHEME.match(path)
    return found.group() if found else ""


@contextlib.contextmanager
def raising(kind: type[CheckpointError], action: str, path: str) -> Iterator[None]:
    """Turns what the system raises into a `kind` with the path and the system's words."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or error
        raise kind(f"cannot {action}: {reason}", path=path) from error
    except Exception as error:
        if not is_remote(path):
            raise
        # TensorFlow's file systems raise tf.errors.OpError, which is no OSError.
        raise kind(f"cannot {action}: {getattr(error, 'message', error)}", path=path) from error

"""Every error of the package: what is wrong, in which file, and under which key."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` without what would move the cursor or cannot be encoded: names come from files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CheckpointError(Exception):
    """The base of all errors that this package raises on bad input.

    Args:
      message: what was expected and what was found.
      path: the file, prefix or directory it is about, where there is one.
      key: the key, variable name or setting it is about, where there is one.
    """

    def __init__(self, message: str, *, path: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.key = key

    def __str__(self) -> str:
        where = [] if self.path is None else [printable(self.path)]
        if self.key is not None:
            where.append(self._key_text(self.key))
        lines = map(printable, self.message.split("\n"))  # paths and names come from files
        return ": ".join([*([", ".join(where)] if where else []), "\n".join(lines)])

    def _key_text(self, key: str) -> str:
        return f"key {key!r}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.path, self.key))


def _rebuild(
    kind: type[CheckpointError], message: str, path: str | None, key: str | None
) -> CheckpointError:
    return kind(message, path=path, key=key)


class NotACheckpointError(CheckpointError, ValueError):
    """Nothing at the path, or something that is no checkpoint; a stock Saver raises ValueError."""


class CorruptCheckpointError(CheckpointError):
    """The bytes contradict the format: truncated, out of range, wrong checksum, missing shard."""


class UnsupportedCheckpointError(CheckpointError):
    """A checkpoint, recognised by name, that this package does not read (V1, big-endian, ...)."""


class MissingTensorError(CheckpointError, KeyError):
    """The checkpoint has no tensor of that name or key."""

    __str__ = CheckpointError.__str__  # a KeyError shows its message in quotes


class MismatchError(CheckpointError):
    """The model and the checkpoint do not fit: missing, other shape, other dtype, ambiguous."""


class ConflictError(CheckpointError):
    """One name or key would mean two things."""


class SettingsError(CheckpointError):
    """An option, a flag or a field of a settings file is wrong; `key` names it."""

    def _key_text(self, key: str) -> str:
        return printable(key)


class WriteError(CheckpointError, ValueError):
    """The destination cannot be written: it exists, is read-only, is full, is inside the source.

    A ValueError, as a stock Saver raises it where there is no such directory.
    """


class BusyError(WriteError):
    """Another process is at work at the destination: a job, a conversion; the message tells."""


class RunError(CheckpointError):
    """A run on many machines broke off, or what its workers say is not complete."""


class MissingPackageError(CheckpointError, ImportError):
    """What was asked for needs a package that is not installed; says which, and how to get it."""


def needs_tensorflow(what: str, error: ModuleNotFoundError) -> MissingPackageError:
    """The error for `what`, which needs TensorFlow where none is installed.

    Raises:
      ModuleNotFoundError: `error` itself, if another module than TensorFlow is missing.
    """
    if (error.name or "").partition(".")[0] != "tensorflow":
        raise error
    return MissingPackageError(
        f"{what} needs TensorFlow, which is not installed: pip install "
        "'estimator-ckpt[tensorflow]'; with Estimators, on Python 3.9 to 3.11: pip install "
        "'estimator-ckpt[tensorflow,estimator]' 'tensorflow<2.16'"
    )

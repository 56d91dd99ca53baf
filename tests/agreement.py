"""`check` foretells what a restore and a start do: both run wherever the tests below do one.

A fixture of conftest.py watches every test of the modules in WATCHED, so that a case which is added
there is covered, too.
"""

import contextlib
import types

import pytest
from tensorflow_party import v1

from estimator_ckpt import check_checkpoint, open_checkpoint
from estimator_ckpt.errors import CheckpointError, MismatchError, SettingsError
from estimator_ckpt.matching.restoring import mismatch

WATCHED = (
    "test_restore_match",
    "test_restore_missing",
    "test_restore_sources",
    "test_averages",
    "test_partitioned",
    "test_other_objects",
    "test_warm_start_eager",
    "test_warm_start",
    "test_accounts",
    "test_hints",
)

_FINE = ("matched", "warm-started", "initialized", "not selected", "unused")
_savers = []


def made():
    """What a function for `check` returns: the saver of the restore that is watched."""
    return types.SimpleNamespace(saver=_savers[-1])


def watch(monkeypatch):
    """Has `check` run after every restore of a Saver, every warm start of a job, every
    WarmStart.apply() and every block of WarmStart.deferred()."""
    from estimator_ckpt.saving import tf_internals
    from estimator_ckpt.saving.saver import Saver
    from estimator_ckpt.warm_starting import deferred, eager, starter

    restore, apply = Saver.restore, eager.apply_eagerly
    prepare, defer = starter.Starter._prepare, deferred.deferred_start

    def restore_and_check(saver, session, path):
        refusal = _refusal(restore, saver, session, path)
        if tf_internals.resuming_directory() is None and saver.built.wanted:
            _savers.append(saver)
            fit = check_checkpoint(path, "agreement:made")
            _savers.pop()
            _assert_agrees(path, fit, refusal)
            named = {row.name for row in fit.rows if row.status not in ("unused", "no average")}
            assert named == {want.tensor for want in saver.built.wanted}
        if refusal is not None:
            raise refusal

    def prepare_and_check(self):
        prepare(self)
        if not self._settings.var_name_to_vocab_info:
            _assert_starts_agree(self._settings, v1.get_default_graph(), self._found, self._error)

    def apply_and_check(settings, variables):
        report, refusal = None, None
        try:
            report = apply(settings, variables)
        except CheckpointError as error:
            refusal = error
        if not (isinstance(refusal, SettingsError) and refusal.key == "variables"):
            _assert_starts_agree(settings, variables, report, refusal)
        if refusal is not None:
            raise refusal
        return report

    @contextlib.contextmanager
    def defer_and_check(settings, root=None):
        refusal, start = None, None
        try:
            with defer(settings, root) as start:
                yield start
        except MismatchError as error:
            refusal = error
        if root is not None:
            _assert_starts_agree(settings, root, start.report, refusal)
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(Saver, "restore", restore_and_check)
    monkeypatch.setattr(starter.Starter, "_prepare", prepare_and_check)
    monkeypatch.setattr(eager, "apply_eagerly", apply_and_check)
    monkeypatch.setattr(deferred, "deferred_start", defer_and_check)


def _refusal(restore, *arguments):
    try:
        restore(*arguments)
    except MismatchError as error:
        return error
    return None


def _assert_starts_agree(settings, model, report, refusal):
    """`check` of settings and a model says what the start does, or refuses them as it does."""
    path = settings.ckpt_to_initialize_from
    if refusal is not None and not isinstance(refusal, MismatchError):
        with pytest.raises(type(refusal)):
            check_checkpoint(path, model, warm_start=settings)
        return
    fit = check_checkpoint(path, model, warm_start=settings)
    _assert_agrees(path, fit, refusal)
    if refusal is None:
        rows = {row.name: row.status for row in fit.rows if row.status != "unused"}
        assert rows == {row.name: row.status for row in report.rows()}


def _assert_agrees(path, fit, refusal):
    """Both take the checkpoint, or both refuse it with one table."""
    problems = [row for row in fit.rows if row.status not in _FINE]
    assert fit.fits == (refusal is None)
    if refusal is not None:
        assert fit.hint in refusal.message
        with open_checkpoint(path) as checkpoint:
            lines = mismatch(checkpoint, problems, may_be_missing=False).message.splitlines()
        assert sorted(set(lines) - set(refusal.message.splitlines())) == []

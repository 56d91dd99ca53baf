"""`check` foretells what a restore and a start do: both run wherever the tests below do one.

A fixture of conftest.py watches every test of the modules in WATCHED, so that a case which is added
there is covered, too.
"""

import types
from collections.abc import Mapping

import pytest

from estimator_ckpt import check_checkpoint, open_checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.matching.restoring import mismatch

WATCHED = (
    "test_restore_match",
    "test_restore_missing",
    "test_restore_sources",
    "test_averages",
    "test_partitioned",
    "test_other_objects",
    "test_warm_start_eager",
)

_FINE = ("matched", "warm-started", "initialized", "not selected", "unused")
_savers = []


def made():
    """What a function for `check` returns: the saver of the restore that is watched."""
    return types.SimpleNamespace(saver=_savers[-1])


def watch(monkeypatch):
    """Has `check` run after every restore of a Saver and every WarmStart.apply()."""
    from estimator_ckpt.saving import tf_internals
    from estimator_ckpt.saving.saver import Saver
    from estimator_ckpt.warm_starting import eager

    restore, apply = Saver.restore, eager.apply_eagerly

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

    def apply_and_check(settings, variables):
        report, refusal = [], None
        try:
            report.append(apply(settings, variables))
        except (MismatchError, SettingsError) as error:
            refusal = error
        path = settings.ckpt_to_initialize_from
        if isinstance(refusal, SettingsError):
            if not isinstance(variables, (Mapping, list, tuple)) and refusal.key != "variables":
                with pytest.raises(SettingsError):
                    check_checkpoint(path, variables, warm_start=settings)
        elif not isinstance(variables, (Mapping, list, tuple)):
            fit = check_checkpoint(path, variables, warm_start=settings)
            _assert_agrees(path, fit, refusal)
            for one in report:
                started = {value.target for value in one.values if value.source is not None}
                assert started == {row.name for row in fit.rows if row.status == "warm-started"}
        if refusal is not None:
            raise refusal
        return report[0]

    monkeypatch.setattr(Saver, "restore", restore_and_check)
    monkeypatch.setattr(eager, "apply_eagerly", apply_and_check)


def _refusal(restore, *arguments):
    try:
        restore(*arguments)
    except MismatchError as error:
        return error
    return None


def _assert_agrees(path, fit, refusal):
    """Both take the checkpoint, or both refuse it with one table."""
    problems = [row for row in fit.rows if row.status not in _FINE]
    assert fit.fits == (refusal is None)
    if refusal is not None:
        with open_checkpoint(path) as checkpoint:
            lines = mismatch(checkpoint, problems).message.splitlines()
        assert sorted(set(lines) - set(refusal.message.splitlines())) == []

"""Settings for all tests: a quiet TensorFlow, a fresh graph, and what TensorFlow is there.

ESTIMATOR_REQUIRED=1 makes a run fail if it skips anything, as it must not where tf.estimator is.

Where TensorFlow is not installed, whatever a test or a test module itself imports of it skips it,
and the summary counts these. The package is not helped: what it imports fails, and the test too.
WITHOUT_TENSORFLOW=1 makes a run fail that skips for any other reason, or has a TensorFlow.
"""

import gc
import importlib.abc
import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings
from tensorflow_party import WITH_TENSORFLOW

# A busy machine is no failure: tests are bounded in examples, not in seconds each.
settings.register_profile("bounded_by_examples", deadline=None)
settings.load_profile("bounded_by_examples")

# A shell starts what is to run in the background with Ctrl-C ignored, and that is handed on: the
# programs that tests interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_NO_TENSORFLOW = "needs TensorFlow"
_TESTS = str(pathlib.Path(__file__).parent)


class _SkipsTests(importlib.abc.MetaPathFinder):
    """Skips the test that asks for TensorFlow; to others it says, as all finders do, nothing."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ("tensorflow", "tensorflow_estimator", "tf_keras"):
            return
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame and frame.f_code.co_filename.startswith(_TESTS):
            pytest.skip(_NO_TENSORFLOW, allow_module_level=True)
        return


if not WITH_TENSORFLOW:
    sys.meta_path.append(_SkipsTests())


def has_estimator() -> bool:
    if not WITH_TENSORFLOW:
        return False
    import tensorflow as tf

    try:
        return hasattr(tf.estimator, "Estimator")
    except AttributeError:
        return False


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("estimator")]
    if marked and not has_estimator():
        skip = pytest.mark.skip(
            reason="this TensorFlow has no tf.estimator" if WITH_TENSORFLOW else _NO_TENSORFLOW
        )
        for item in marked:
            item.add_marker(skip)


def pytest_collection_finish():
    """What has been imported by now lives as long as the process: neither the collector nor those
    of our functions that ask it what there is need go through it for each test again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    outcomes = {
        outcome: [
            report
            for report in terminalreporter.stats.get(outcome, ())
            if "estimator" in getattr(report, "keywords", ())
        ]
        for outcome in ("passed", "failed", "skipped")
    }
    counts = ", ".join(f"{len(reports)} {outcome}" for outcome, reports in outcomes.items())
    terminalreporter.write_line(f"tests that need tf.estimator: {counts}")
    if not WITH_TENSORFLOW:
        without, _ = skipped_reports(terminalreporter)
        modules = sum(report.nodeid.endswith(".py") for report in without)
        terminalreporter.write_line(
            f"without TensorFlow: {modules} modules and {len(without) - modules} tests are skipped"
        )


def skipped_reports(terminalreporter):
    """Those that were skipped because they need TensorFlow, and the others."""
    skipped = terminalreporter.stats.get("skipped", ())
    without = [report for report in skipped if _NO_TENSORFLOW in str(report.longrepr)]
    return without, [report for report in skipped if report not in without]


def _places(reports):
    return "; ".join(sorted(f"{report.nodeid}: {report.longrepr[-1]}" for report in reports))


def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workerinput"):
        return  # the process that started the workers counts what they skip
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    complaint = ""
    if os.environ.get("ESTIMATOR_REQUIRED") == "1" and reporter.stats.get("skipped"):
        skipped = _places(reporter.stats["skipped"])
        complaint = f"ESTIMATOR_REQUIRED=1, but tests were skipped: {skipped}"
    elif os.environ.get("WITHOUT_TENSORFLOW") == "1":
        if WITH_TENSORFLOW:
            complaint = "WITHOUT_TENSORFLOW=1, but there is a TensorFlow"
        elif others := skipped_reports(reporter)[1]:
            complaint = f"WITHOUT_TENSORFLOW=1, but tests were skipped: {_places(others)}"
    if complaint:
        reporter.write_line(f"\n{complaint}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def graph():
    """A graph of its own for a test, as the default one."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(autouse=True)
def check_agrees(request, monkeypatch):
    """`check` says beforehand what a restore or a start does; see agreement.py."""
    if WITH_TENSORFLOW:
        import agreement

        if request.module.__name__ in agreement.WATCHED:
            agreement.watch(monkeypatch)

"""Settings for all tests: a quiet TensorFlow, a fresh graph, and the mark for Estimator.

ESTIMATOR_REQUIRED=1 makes a run fail if it skips anything, as it must not where tf.estimator is.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest
from hypothesis import settings

# A busy machine is no failure: tests are bounded in examples, not in seconds each.
settings.register_profile("bounded_by_examples", deadline=None)
settings.load_profile("bounded_by_examples")


def has_estimator() -> bool:
    import tensorflow as tf

    try:
        return hasattr(tf.estimator, "Estimator")
    except AttributeError:
        return False


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("estimator")]
    if marked and not has_estimator():
        skip = pytest.mark.skip(reason="this TensorFlow has no tf.estimator")
        for item in marked:
            item.add_marker(skip)


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


def pytest_sessionfinish(session, exitstatus):
    if os.environ.get("ESTIMATOR_REQUIRED") != "1" or hasattr(session.config, "workerinput"):
        return  # the process that started the workers counts what they skip
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter.stats.get("skipped"):
        reporter.write_line("\nESTIMATOR_REQUIRED=1, but tests were skipped")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def graph():
    """A graph of its own for a test, as the default one."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        yield graph

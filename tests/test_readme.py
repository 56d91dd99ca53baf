"""What the README and the pages that it leads to say is true: the table of readers, names."""

import pathlib
import re

import numpy as np
import pytest
from graph_jobs import (
    build_model,
    build_plain_model,
    global_values,
    latest,
    read_with_checkpoint,
    read_with_stock_saver,
    run_job,
    v1,
    value_of,
)
from tensorflow_party import tf

import estimator_ckpt

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("promises", "jobs", "warm_start")]


def stock_saver(model_dir, end):
    return read_with_stock_saver(latest(model_dir), build_plain_model)


def stock_saver_of_partitions(model_dir, end):
    return read_with_stock_saver(latest(model_dir))


def stock_job(model_dir, end):
    return run_job(model_dir)[0]


def saver_in_a_final_graph(model_dir, end):
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build_plain_model()
        saver = v1.train.Saver()
        graph.finalize()
        saver.restore(session, latest(model_dir))
        return global_values(session)


def guide_job(model_dir, end):
    def scaffold():
        variables = {v.op.name: v for v in v1.global_variables()}
        objects = tf.train.Checkpoint(var_list=variables, step=v1.train.get_global_step())
        return v1.train.Scaffold(saver=objects)

    return run_job(model_dir, scaffold, build=build_plain_model)[0]


def checkpoint(model_dir, end):
    return read_with_checkpoint(latest(model_dir), end)


def init_from_checkpoint(model_dir, end):
    with tf.Graph().as_default():
        v1.get_variable("scope/w", [2, 3])
        v1.train.init_from_checkpoint(str(model_dir), {"scope/w": "scope/w"})
        return initial_values()


def warm_start(model_dir, end):
    with tf.Graph().as_default():
        v1.get_variable("scope/w", [2, 3])
        v1.train.warm_start(str(model_dir))
        return initial_values()


def initial_values():
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return {"scope/w": value_of(session, "scope/w")}


def load_variable(model_dir, end):
    return {name: tf.train.load_variable(str(model_dir), name) for name in end}


def load_global_step(model_dir, end):
    return {"global_step": tf.train.load_variable(str(model_dir), "global_step")}


def meta_graph(model_dir, end):
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{latest(model_dir)}.meta")
        saver.restore(session, latest(model_dir))
        return {"scope/w": value_of(session, "scope/w")}


READERS = {
    "`tf.compat.v1.train.Saver` in an open graph": (stock_saver, build_plain_model),
    "`tf.compat.v1.train.Saver`, partitioned variables": (stock_saver_of_partitions, build_model),
    "`tf.compat.v1.train.Saver` in a final graph (an `init_fn`, a hook)": (
        saver_in_a_final_graph,
        build_plain_model,
    ),
    "a stock job that resumes": (stock_job, build_model),
    "a stock job that follows the guide (`saver=tf.train.Checkpoint(...)` in a Scaffold)": (
        guide_job,
        build_plain_model,
    ),
    "`tf.train.Checkpoint`, `assert_consumed()`": (checkpoint, build_model),
    "`init_from_checkpoint`, by variable name": (init_from_checkpoint, build_model),
    "`tf.compat.v1.train.warm_start`": (warm_start, build_model),
    "`tf.train.load_variable`, by variable name": (load_variable, build_model),
    "`tf.train.load_variable` of `global_step`": (load_global_step, build_model),
    "`import_meta_graph` and the `.meta` file beside it": (meta_graph, build_model),
}


def test_every_script_that_backs_a_promise_is_there_and_runs_in_full():
    for path in re.findall(r"`(tests/[\w/]+\.py)", README + PAGES[0]):
        assert (ROOT / path).exists(), path
    scripts = (ROOT / "tests" / "faults").glob("*.py")
    programs = {path.stem for path in scripts if "__main__" in path.read_text()}
    full = (ROOT / ".ci" / "faults").read_text()
    assert set(re.findall(r"^ *faults (\w+)", full, re.M)) == programs


def table():
    lines = PAGES[0][PAGES[0].index("| reader |") :].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in lines[: len(READERS) + 2]
    ]
    formats = [cell.strip('`"') for cell in rows[0][1:]]
    return {(row[0], f): cell for row in rows[2:] for f, cell in zip(formats, row[1:])}


def test_the_table_has_all_readers_and_formats():
    formats = ("saver", "checkpoint", "both")
    assert set(table()) == {(reader, f) for reader in READERS for f in formats}
    assert set(table().values()) == {"yes", "no"}


@pytest.mark.parametrize(("reader", "checkpoint_format"), table())
def test_the_table_of_readers_is_true(tmp_path, reader, checkpoint_format):
    read, build = READERS[reader]
    _, end = run_job(tmp_path, lambda: estimator_ckpt.make_scaffold(checkpoint_format), build=build)
    try:
        found = read(tmp_path, end)
        reads = all(np.array_equal(found[name], end[name]) for name in found)
    except (AssertionError, KeyError, RuntimeError, ValueError, tf.errors.OpError):
        reads = False
    assert {"yes": True, "no": False}[table()[reader, checkpoint_format]] == reads


def test_every_public_function_that_they_name_exists():
    text = "\n".join([README, *PAGES])
    named = set(re.findall(r"`(?:estimator_ckpt\.)?(\w+)\(", text))
    named |= set(re.findall(r"estimator_ckpt\.(\w+)\(", text))
    named -= {"assert_consumed", "Estimator", "MonitoredTrainingSession"}
    assert named
    assert named <= set(estimator_ckpt.__all__)

"""The tasks with files, each beside the stock or the guide's way and beside its physical limit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import convert
import inspect_speed
import larger_than_memory
import starts
from measuring import (
    Case,
    Size,
    cat,
    disk_write,
    hard_link,
    into_new,
    run_script,
    scratch,
    timed,
)

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    export_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.bundle.index import shard_path

VARIABLES = 300  # of a checkpoint that is measured by its bytes

Cases = Iterator[Case]


def data_file(prefix: str) -> str:
    return shard_path(prefix, 0, 1)


# --- the stock ways ---


def read_all(prefix: str) -> None:
    """Every tensor by TensorFlow's reader, which verifies its checksum."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def compare_all(a: str, b: str) -> None:
    import numpy as np
    import tensorflow as tf

    ours, theirs = tf.train.load_checkpoint(a), tf.train.load_checkpoint(b)
    assert all(
        np.array_equal(ours.get_tensor(name).view("u1"), theirs.get_tensor(name).view("u1"))
        for name in ours.get_variable_to_shape_map()
    )


def export_all(prefix: str, path: str) -> None:
    import tensorflow as tf
    from safetensors.numpy import save_file

    reader = tf.train.load_checkpoint(prefix)
    save_file({n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}, path)


def cast_all(prefix: str, path: str) -> None:
    """As the guide converts, with another dtype."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    variables = {
        name: tf.Variable(tf.cast(reader.get_tensor(name), tf.bfloat16))
        for name in reader.get_variable_to_shape_map()
    }
    tf.train.Checkpoint(var_list=variables).save(path)


# --- cases ---


def conversions(size: Size, directory: str) -> Cases:
    """The guide's converters, beside a link."""
    with scratch(directory) as place:
        nbytes = size.megabytes * 10**6
        names = convert.write_checkpoint(f"{place}/names/model", VARIABLES, nbytes)
        objects = f"{place}/objects/model"
        convert_checkpoint(names, objects, "checkpoint")
        for way, source, target in (
            ("saver to checkpoint", names, "checkpoint"),
            ("checkpoint to saver", objects, "saver"),
        ):
            yield Case(
                f"convert, {way}",
                {
                    "guide": guide(way, source, place),
                    "ours": into_new(place, convert.library(source, target)),
                    "hard link": hard_link(place, data_file(names)),
                },
                limit="hard link",
                nbytes=nbytes,
                variables=VARIABLES,
            )
            yield Case(
                f"convert, {way}, as a process",
                {
                    "guide": guide(way, source, place, with_start=True),
                    "ours": into_new(place, convert.command(source, target, [])),
                },
                nbytes=nbytes,
                variables=VARIABLES,
            )


def guide(way: str, source: str, place: str, *, with_start: bool = False) -> Callable[[], float]:
    def run() -> float:
        found = 0.0

        def convert_there(path: str) -> None:
            nonlocal found
            found = run_script("convert.py", "--guide", way, source, path)["seconds"]

        whole = into_new(place, convert_there)()
        return whole if with_start else found

    return run


def by_bytes(size: Size, directory: str) -> Cases:
    """What reads or writes all bytes, at several sizes."""
    import tensorflow  # noqa: F401, which no way is to wait for

    for megabytes in size.growing():
        nbytes = megabytes * 10**6
        with scratch(directory) as place:
            a = convert.write_checkpoint(f"{place}/a/model", VARIABLES, nbytes)
            b = f"{place}/b/model"
            shutil.copytree(f"{place}/a", f"{place}/b")
            facts = {"nbytes": nbytes, "variables": VARIABLES, "grows": "bytes"}
            yield Case(
                "verify",
                {
                    "stock": lambda a=a: timed(lambda: read_all(a)),
                    "ours": lambda a=a: timed(lambda: verify_checkpoint(a)),
                    "cat": cat(data_file(a)),
                },
                limit="cat",
                **facts,
            )
            yield Case(
                "compare",
                {
                    "stock": lambda a=a, b=b: timed(lambda: compare_all(a, b)),
                    "ours": lambda a=a, b=b: timed(lambda: compare_checkpoints(a, b)),
                    "cat": cat(data_file(a), data_file(b)),
                },
                limit="cat",
                **facts,
            )
            yield Case(
                "export",
                {
                    "stock": into_new(place, lambda path, a=a: export_all(a, path)),
                    "ours": into_new(
                        place, lambda path, a=a: export_checkpoint(a, f"{path}.safetensors")
                    ),
                    "disk write": disk_write(place, nbytes),
                },
                limit="disk write",
                **facts,
            )
            floats = f"{place}/floats"
            larger_than_memory.write_checkpoint(floats, nbytes / (1 << 20))
            yield Case(
                "convert to bfloat16",
                {
                    "guide": into_new(place, lambda path, f=floats: cast_all(f, path)),
                    "ours": into_new(
                        place,
                        lambda path, f=floats: convert_checkpoint(
                            f, path, "checkpoint", dtype="bfloat16"
                        ),
                    ),
                    "disk write": disk_write(place, nbytes // 2),
                },
                limit="disk write",
                **facts,
            )
            yield Case(
                "convert, linked",
                {"ours": into_new(place, convert.library(a, "both"))},
                **facts,
            )


def by_variables(size: Size, directory: str) -> Cases:
    """What looks at each variable, at several counts of small ones."""
    import tensorflow  # noqa: F401, which no way is to wait for

    for count in size.variables:
        with scratch(directory) as place:
            prefix = f"{place}/names"
            inspect_speed.write_checkpoint(prefix, count, "saver")
            distinct = convert.write_checkpoint(f"{place}/many/model", count, count * 4)
            facts = {"variables": count, "nbytes": count * 16, "grows": "variables"}
            yield Case(
                "inspect, as a process",
                {
                    "stock": lambda p=prefix: inspect_speed.best_time(
                        [*inspect_speed.THEIRS, f"--file_name={p}"], 1
                    ),
                    "ours": lambda p=prefix: inspect_speed.best_time([*inspect_speed.OURS, p], 1),
                },
                **facts,
            )
            facts["nbytes"] = count * 4
            for task, stock, ours in (
                ("verify", lambda p: read_all(p), lambda p: verify_checkpoint(p)),
                ("compare", lambda p: compare_all(p, p), lambda p: compare_checkpoints(p, p)),
            ):
                yield Case(
                    f"{task} small ones",
                    {
                        "stock": lambda f=stock, p=distinct: timed(lambda: f(p)),
                        "ours": lambda f=ours, p=distinct: timed(lambda: f(p)),
                    },
                    **facts,
                )
            yield Case(
                "export small ones",
                {
                    "stock": into_new(place, lambda path, p=distinct: export_all(p, path)),
                    "ours": into_new(
                        place, lambda path, p=distinct: export_checkpoint(p, f"{path}.safetensors")
                    ),
                },
                **facts,
            )
            yield Case(
                "convert small ones",
                {
                    "guide": guide("saver to checkpoint", distinct, place),
                    "ours": into_new(place, convert.library(distinct, "checkpoint")),
                },
                **facts,
            )


def verbs(size: Size, directory: str) -> Cases:
    """The start of each verb, and an import, beside Python's own start: processor's seconds."""
    with starts.prepared(directory) as tasks:
        python = tasks.pop("pass")
        del tasks["import numpy"]
        for name, run in tasks.items():
            yield Case(
                name if name.startswith("import ") else f"start of {name}",
                {"ours": run, "python": python},
                limit="python",
                variables=starts.VARIABLES,
            )


SECTIONS = {
    "convert": conversions,
    "bytes": by_bytes,
    "variables": by_variables,
    "verbs": verbs,
}

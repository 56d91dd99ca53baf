"""The tasks of jobs: saves, starts and restores, each beside the stock way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import convert
import restore
import save_async
import warm_start
from measuring import Case, Size, disk_write, memory_copy, scratch

Cases = Iterator[Case]
LARGE = 16  # MiB of a variable


def saves(size: Size, directory: str) -> Cases:
    """A save in each format, and both against two savers."""
    import save_both
    import tensorflow as tf

    v1 = tf.compat.v1
    count = max(1, size.megabytes // LARGE)
    nbytes = count * LARGE << 20
    with tf.Graph().as_default():
        variables = save_both.build(count, LARGE)
        init = v1.global_variables_initializer()
        ways = save_both.savers(variables)
        with v1.Session() as session:
            session.run(init)
            for save in ways.values():  # the first run of each op is slower
                save_both.measure(save, session, directory)
            measured: dict[str, Callable[[], float]] = {
                name: lambda save=save: save_both.measure(save, session, directory)[0]
                for name, save in ways.items()
            }
            measured["disk write"] = disk_write(directory, nbytes)
            yield Case("save", measured, "disk write", nbytes, count)


def trainings(size: Size, directory: str) -> Cases:
    """What a training loses for a save: asynchronous and not, durable and not."""
    count = max(1, size.megabytes // LARGE)
    nbytes = count * LARGE << 20
    flags = [f"--gigabytes={size.megabytes / 1024}", f"--steps={size.steps}", "--saves=2"]
    flags += [f"--directory={directory}", f"--matrix={1024 if size.steps < 20 else 2048}"]
    traces: dict[str, Any] = {}

    def lost(name: str, way: str, *more: str) -> Callable[[], float]:
        def run() -> float:
            found = save_async.train_alone(way, [*flags, *more])
            traces[name] = found["times"]
            return max(0.0, found["lost"])

        return run

    yield Case(
        "lost to a save",
        {
            "stock": lost("stock", "stock"),
            "ours": lost("ours", "sync"),
            "ours, async": lost("ours, async", "async"),
            "ours, durable": lost("ours, durable", "sync", "--durable"),
            "ours, async, durable": lost("ours, async, durable", "async", "--durable"),
            "memory copy": memory_copy(nbytes),
        },
        "memory copy",
        nbytes,
        count,
        traces=traces,
    )


def starts(size: Size, directory: str) -> Cases:
    """The start of a job, from nothing, from its own checkpoint, and from another's."""
    for count in size.job_variables:
        with scratch(directory) as source:
            given = {"variables": count, "checkpoint_format": "saver"}
            warm_start.measure("source", source, **given)

            def start(kind: str, source: str = source, given: Any = given) -> Callable[[], float]:
                return lambda: warm_start.measure(kind, source, **given)[0]

            facts = {"variables": count, "nbytes": count * 32, "grows": "variables"}
            for what in ("first", "resume"):
                ways = {how: start(f"{what}, {how}") for how in ("stock", "checkpoint", "both")}
                yield Case(f"{what} start" if what == "first" else what, ways, **facts)
            yield Case("warm start", {"stock": start("stock"), "ours": start("ours")}, **facts)


def restores(size: Size, directory: str) -> Cases:
    """Of few large variables, and of many small ones."""
    few, many = 12, size.variables[1]
    with scratch(directory) as place:
        for name, count, nbytes in (
            ("few large", few, size.megabytes * 10**6),
            (f"{many:,} small", many, many * 400),
        ):
            source = convert.write_checkpoint(f"{place}/{count}/model", count, nbytes)
            for task in restore.TASKS:
                yield Case(
                    f"{task}, {name}",
                    {
                        way: lambda task=task, way=way, source=source: restore.measure(
                            task, way, source
                        )
                        for way in restore.WAYS
                    }
                    | {"memory copy": memory_copy(nbytes)},
                    "memory copy",
                    nbytes,
                    count,
                )


SECTIONS = {
    "saves": saves,
    "trainings": trainings,
    "starts": starts,
    "restores": restores,
}

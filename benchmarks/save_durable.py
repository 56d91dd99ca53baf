"""What a training pays for saves, beside the stock Saver: python benchmarks/save_durable.py.

A training alternates between work and a save, and keeps one checkpoint, so that each save meets
the sync of the one before, and what that deletes, where these are still under way. Stock and ours
run in turns, each round in a new directory. Printed are the medians of the seconds that a call of
save() took, and that a save took with the work behind it; and the ratios of the latter to stock.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import tensorflow as tf

from estimator_ckpt.options import SaverOptions
from estimator_ckpt.saving.keeping import keeper_of
from estimator_ckpt.saving.saver import Saver

v1 = tf.compat.v1
_VARIABLE = 1 << 22  # elements: 16 MiB


def ours(*, durable: bool) -> Saver:
    return Saver("both", options=SaverOptions(keep_checkpoint_max=1, durable=durable))


SAVERS: dict[str, Callable[[], v1.train.Saver]] = {
    "stock": lambda: v1.train.Saver(sharded=True, max_to_keep=1),
    "ours": lambda: ours(durable=False),
    "ours, durable": lambda: ours(durable=True),
}


def train(
    make: Callable[[], v1.train.Saver], *, gigabytes: float, saves: int, steps: int
) -> list[tuple[float, float]]:
    """The seconds of each save() but the first, and of it with the work behind it.

    Args:
      make: makes the saver.
      gigabytes: the size of a checkpoint, in GiB.
      saves: how many.
      steps: of work between two saves.
    """
    directory = tempfile.mkdtemp()
    try:
        with tf.Graph().as_default():
            for number in range(max(1, round(gigabytes * (1 << 28) / _VARIABLE))):
                v1.get_variable(f"w{number}", [_VARIABLE], initializer=v1.ones_initializer())
            step = work()
            saver = make()
            saver.build()
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                taken = []
                for number in range(saves + 1):
                    start = time.perf_counter()
                    saver.save(session, f"{directory}/model", number, write_meta_graph=False)
                    saved = time.perf_counter()
                    for _ in range(steps):
                        session.run(step)
                    taken.append((saved - start, time.perf_counter() - start))
        keeper_of(directory, "checkpoint").join()
        return taken[1:]
    finally:
        shutil.rmtree(directory)


def work() -> tf.Operation:
    """A step of some milliseconds."""
    matrix = v1.random_uniform([512, 512])
    return tf.matmul(matrix, matrix).op


def steps_in(seconds: float) -> int:
    """How many steps of work take so long, where nothing else is under way."""
    with tf.Graph().as_default():
        step = work()
        with v1.Session() as session:
            session.run(step)
            start = time.perf_counter()
            for _ in range(50):
                session.run(step)
            return max(1, round(seconds / ((time.perf_counter() - start) / 50)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--saves", type=int, default=4, help="in each round, after a first one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=float, default=5.0, help="seconds between two saves")
    arguments = parser.parse_args()
    steps = steps_in(arguments.work)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SAVERS}
    for _ in range(arguments.rounds):
        for name, make in SAVERS.items():
            taken[name] += train(
                make, gigabytes=arguments.gigabytes, saves=arguments.saves, steps=steps
            )
    stock = statistics.median(both for _, both in taken["stock"])
    for name, found in taken.items():
        save, both = (statistics.median(column) for column in zip(*found))
        print(
            f"{name}: save() {save:.3f} s, with the work {both:.3f} s, {both / stock:.3f} of stock"
        )


if __name__ == "__main__":
    main()

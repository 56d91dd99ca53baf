"""What a training pays for saves, beside the stock Saver: python benchmarks/save_durable.py [GB].

Each saver writes three checkpoints of that size, of which one is kept. Printed are the seconds that
each call of save() took, and those from the last one to the end of its sync.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from estimator_ckpt.options import SaverOptions
from estimator_ckpt.saving.keeping import keeper_of
from estimator_ckpt.saving.saver import Saver

v1 = tf.compat.v1


def measure(name: str, make: Callable[[], Any], gigabytes: float) -> None:
    directory = tempfile.mkdtemp()
    try:
        with tf.Graph().as_default():
            count = int(gigabytes * 16)
            for number in range(count):
                v1.get_variable(f"w{number}", [1 << 24], initializer=v1.zeros_initializer())
            saver = make()
            saver.build()
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                taken = []
                for step in range(3):
                    start = time.perf_counter()
                    saver.save(session, f"{directory}/model", step, write_meta_graph=False)
                    taken.append(time.perf_counter() - start)
        start = time.perf_counter()
        keeper_of(directory, "checkpoint").join()
        rest = time.perf_counter() - start
        print(f"{name}: {', '.join(f'{t:.2f}' for t in taken)} s; then {rest:.2f} s", flush=True)
    finally:
        shutil.rmtree(directory)


def main() -> None:
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    measure("stock", lambda: v1.train.Saver(sharded=True, max_to_keep=1), gigabytes)
    for durable in (False, True):
        options = SaverOptions(keep_checkpoint_max=1, durable=durable)
        measure(f"ours, durable={durable}", lambda o=options: Saver("both", options=o), gigabytes)


if __name__ == "__main__":
    main()

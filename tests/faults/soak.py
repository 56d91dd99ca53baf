"""Many saves with retention in each format: python soak.py [--count N] [--async_checkpoint].

After them as few files are there as before, and the process has as much memory, as many open files,
threads and ops in its graph as after the first tenth.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import layer
import saves
import tensorflow as tf

from estimator_ckpt import make_scaffold

v1 = tf.compat.v1


def usage(directory: str) -> dict[str, int]:
    """What must not grow, when no save is under way; the memory in KiB."""
    layer.join_threads()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") >> 10,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "ops": len(v1.get_default_graph().get_operations()),
        "files": len(os.listdir(directory)),
    }


def soak(checkpoint_format: str, count: int, *, is_async: bool) -> bool:
    with tempfile.TemporaryDirectory() as directory, tf.Graph().as_default():
        op = saves.build()
        scaffold = make_scaffold(
            checkpoint_format, keep_checkpoint_max=3, async_checkpoint=is_async
        )
        creator = v1.train.ChiefSessionCreator(scaffold, checkpoint_dir=directory)
        with v1.train.MonitoredSession(creator) as session:
            raw = session._tf_sess()
            early: dict[str, int] = {}
            for step in range(1, count + 1):
                session.run(op)
                scaffold.saver.save(raw, f"{directory}/model.ckpt", step)
                if step == max(count // 10, 5):
                    early = usage(directory)
            late = usage(directory)
        grown = {name: (early[name], late[name]) for name in late if late[name] > early[name]}
        if "memory" in grown and late["memory"] < early["memory"] * 1.05:
            del grown["memory"]
        print(f"{checkpoint_format}: {count} saves, then {late}, grown: {grown}", flush=True)
        return not grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--formats", nargs="*", default=saves.FORMATS)
    parser.add_argument("--async_checkpoint", action="store_true", help="save beside training")
    arguments = parser.parse_args()
    is_async = arguments.async_checkpoint
    results = [soak(one, arguments.count, is_async=is_async) for one in arguments.formats]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

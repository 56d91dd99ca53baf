"""What export and import take: memory and time, beside a checkpoint's size.

    python benchmarks/exchange_memory.py [--megabytes=1024] [--directory=DIR]

Half of the checkpoint is one variable in four slices, two along each dimension; the rest 30
variables. Each verb is a process of its own; memory is the most that it had of its own at a time
(RssAnon, looked at every few milliseconds: mapped files are not its own), without what `--help`
takes. Aimed at: less than 100 MB, whatever the size. For comparison, the library `safetensors`
writes from what it has in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index
from estimator_ckpt.bundle.slices import slice_key

FLOAT32 = 1
COLUMNS = 1024
SMALL = 30


def write_checkpoint(prefix: str, nbytes: int) -> None:
    rows = nbytes // 2 // 4 // COLUMNS // 2 * 2
    quarter = os.urandom(rows * COLUMNS)  # four bytes for each of its values
    small = os.urandom(nbytes // 2 // SMALL // 4 * 4)
    entries: dict[bytes, Entry] = {}
    extents = [
        ((row, rows // 2), (column, COLUMNS // 2))
        for row in (0, rows // 2)
        for column in (0, COLUMNS // 2)
    ]
    entries[b"table"] = Entry(FLOAT32, (rows, COLUMNS), 0, 0, 0, 0, tuple(extents))
    parts = [(slice_key("table", one), (rows // 2, COLUMNS // 2), quarter) for one in extents]
    parts += [(b"layer_%d/kernel" % n, (len(small) // 4,), small) for n in range(SMALL)]
    with open(shard_path(prefix, 0, 1), "wb") as file:
        for key, shape, data in parts:
            crc = masked_crc32c(data)
            entries[key] = Entry(FLOAT32, shape, 0, file.tell(), len(data), crc)
            file.write(data)
    write_index(prefix, Index(1, entries))


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the most megabytes that it had of its own.

    Raises:
      RuntimeError: it fails.
    """
    most = 0
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                status = Path(f"/proc/{process.pid}/status").read_text()
                own = status.partition("RssAnon:")[2].split()
                most = max(most, int(own[0]) if own else 0)
            time.sleep(0.003)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - start, most / 1024


LIBRARY = """
import sys
from estimator_ckpt import open_checkpoint
from safetensors.numpy import save_file
save_file(dict(open_checkpoint(sys.argv[1]).items()), sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        prefix = f"{directory}/model"
        write_checkpoint(prefix, options.megabytes << 20)
        os.sync()
        verb = ["-m", "estimator_ckpt"]
        start = measure([*verb, "export", "--help"])[1]
        rows = {}
        for ending in ("safetensors", "npz"):
            path = f"{directory}/out.{ending}"
            back = f"{directory}/{ending}/model"
            rows[f"export, {ending}"] = measure([*verb, "export", prefix, path])
            rows[f"import, {ending}"] = measure(
                [*verb, "import", "--checkpoint_format=both", path, back]
            )
        rows["the library"] = measure(["-c", LIBRARY, prefix, f"{directory}/library.safetensors"])
    print(f"{options.megabytes} MB; {'MB of memory':>27} {'seconds':>8}")
    for name, (seconds, memory) in rows.items():
        print(f"{name:<22} {memory - start:12.0f} {seconds:8.2f}")


if __name__ == "__main__":
    main()

"""Breaks real checkpoints at random and looks whether the readers notice.

    PYTHONPATH=. python tests/fuzz_bundle.py --count 100000 --seed 0

Whatever is done to a file: nothing but a `CheckpointError` may come out, in bounded time and
memory; and what is accepted must be what was there before, every entry and every value. A third of
the mutations get fitting checksums again, to reach what lies behind them: those may be accepted
with other entries, which no reader could know to be wrong.

A failure is printed with the number of its case, which `--only` repeats.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from estimator_ckpt.bundle import table
from estimator_ckpt.bundle.coding import decode_varint
from estimator_ckpt.bundle.dtypes import STRING
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.errors import CheckpointError, UnsupportedCheckpointError
from estimator_ckpt.reading.locate import read_any_index

GOLDENS = Path(__file__).parent / "goldens"
KINDS = [
    "name_based",
    "object_based",
    "multi_shard",
    "partitioned",
    "strings",
    "dtypes",
    "iterator",
    "snappy",
    "v1_format",
    "v1_sharded",
]
SECONDS = 5  # for one case
MEGABYTES = 200  # for all of them, beyond what the first reading took

ABSURD = [b"\xff" * 9 + b"\x01", b"\xff" * 8 + b"\x7f", b"\xff\xff\xff\xff\x0f", b"\x80" * 12]
ABSURD += [b"\xff\xff\xff\x7f", b"\x00" * 8, b"\xff" * 4, b"\x80\x00"]


# --- mutations: (random numbers, the file, another file) -> the file as broken ---


def flip(rng, data, other):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def overwrite(rng, data, other):
    at = rng.randrange(len(data))
    noise = rng.randbytes(rng.randint(1, 16))
    return data[:at] + noise + data[at + len(noise) :]


def absurd_varint(rng, data, other):
    at = rng.randrange(len(data))
    varint = rng.choice(ABSURD)
    return data[:at] + varint + data[at + rng.choice([0, 1, len(varint)]) :]


def truncate(rng, data, other):
    return data[: rng.randrange(len(data))]


def cut(rng, data, other):
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:start] + data[end:]


def insert(rng, data, other):
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]


def splice(rng, data, other):
    at, start, end = (rng.randint(0, len(part)) for part in (data, other, other))
    return data[:at] + other[start:end] + data[rng.randint(at, len(data)) :]


def repeat(rng, data, other):
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:end] + data[start:end] * rng.randint(1, 3) + data[end:]


MUTATIONS = [flip, flip, overwrite, absurd_varint, truncate, cut, insert, splice, repeat]


def mutate(rng, data, other):
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if data:
            data = rng.choice(MUTATIONS)(rng, data, other)
    return data


def mutate_block(rng, data, other):
    """Breaks one block of a table, of the same size as before, and gives it its checksum."""
    footer_at = len(data) - table.FOOTER_SIZE
    at, blocks = footer_at, []
    for _ in range(2):  # metaindex and index
        offset, at = decode_varint(data, at)
        size, at = decode_varint(data, at)
        blocks.append((offset, size))
    start, end = 0, blocks[0][0] - 5  # these files have one data block each
    blocks.append((start, end))
    offset, size = rng.choice([*blocks, blocks[-1]])
    block = data[offset : offset + size]
    for _ in range(rng.randint(1, 3)):
        block = rng.choice([flip, overwrite, absurd_varint])(rng, block, other)[:size].ljust(size)
    block += data[offset + size : offset + size + 1]  # how it is compressed
    block += struct.pack("<I", table.masked_crc32c(block))
    return data[:offset] + block + data[offset + len(block) :]


def mutate_item(rng, data, other):
    """Breaks one key or value of a table and writes the table anew."""
    items = dict(
        item
        for keys, values in table.read_table(memoryview(data), "")
        for item in zip(keys, values)
    )
    key = rng.choice(list(items))
    value = items.pop(key)
    if rng.random() < 0.3:
        key = mutate(rng, key or b"\0", other)
    else:
        value = mutate(rng, value, rng.choice(list(items.values()) or [b""]))
    items[key] = value
    return table.encode_table(sorted(items.items()))


# --- the judgement ---


class Checkpoint:
    """A copy of a golden checkpoint and what is in it."""

    def __init__(self, source, directory):
        name = json.loads((source / "expected.json").read_text(encoding="utf-8"))["prefix"]
        self.directory = directory
        self.prefix = str(directory / name)
        directory.mkdir()
        for path in source.glob(f"{name}*"):  # `?` in the name of a V1 checkpoint is a pattern
            shutil.copy(path, directory)
        self.files = {path: path.read_bytes() for path in sorted(directory.iterdir())}
        self.index = read_any_index(self.prefix)
        self.values = contents(self.prefix, self.index)

    def judge(self, path, data, *, resealed):
        """Reads the checkpoint with one file broken; says what came out, or fails."""
        path.write_bytes(data)
        try:
            found = read_any_index(self.prefix)
            if resealed:
                contents(self.prefix, found)
                return "sealed again, accepted"
            assert plain(found) == plain(self.index), "other entries were accepted"
            values = contents(self.prefix, found)
        except CheckpointError:
            return "refused"
        finally:
            path.write_bytes(self.files[path])
        refused = [key for key, value in values.items() if isinstance(value, CheckpointError)]
        for key, value in values.items():
            assert key in refused or value == self.values[key], f"a wrong value under {key!r}"
        return "refused by tensor" if refused else "accepted, unharmed"


def plain(found):
    """An index, of the V1 format without the sizes of strings, which their values alone tell."""
    if found.v1 is None:
        return found
    sizes = {
        key: e._replace(size=0) if e.dtype == STRING else e for key, e in found.entries.items()
    }
    return found._replace(entries=sizes)


def contents(prefix, found):
    """Every value, or the error that stands for it."""
    values = {}
    with open_reader(prefix, found) as reader:
        for key, entry in found.entries.items():
            try:
                reader.check(entry)
                array = reader.read(key)
                values[key] = array.tolist() if array.dtype == object else array.tobytes()
            except UnsupportedCheckpointError:
                values[key] = "cannot be shown"
            except CheckpointError as error:
                values[key] = error
    return values


def time_is_up(signal_number, frame):
    raise TimeoutError(f"not done after {SECONDS} seconds")


def run(count, seed, directory, only=None):
    """Runs the cases; returns the failures as texts, and the counts of outcomes."""
    checkpoints = []
    for source in sorted(GOLDENS.glob("tf*")):
        for kind in KINDS:
            if (source / kind).is_dir():
                target = Path(directory) / f"{source.name}_{kind}"
                checkpoints.append(Checkpoint(source / kind, target))
    assert checkpoints, f"no checkpoints under {GOLDENS}"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures, outcomes = [], Counter()
    handler = signal.signal(signal.SIGALRM, time_is_up)
    for case in range(count) if only is None else [only]:
        rng = random.Random(f"{seed} {case}")
        checkpoint, other = rng.choices(checkpoints, k=2)
        path = rng.choice(list(checkpoint.files))
        tables = [path for path in checkpoint.files if ".data-" not in path.name]
        change = rng.choice([mutate, mutate, mutate_block, mutate_item])
        if change is not mutate:
            path = rng.choice(tables)
        data = checkpoint.files[path]
        broken = change(rng, data, rng.choice(list(other.files.values())))
        if broken == data:
            outcomes["unchanged"] += 1
            continue
        signal.alarm(SECONDS)
        try:
            outcomes[checkpoint.judge(path, broken, resealed=change is not mutate)] += 1
        except Exception:
            failures.append(f"case {case}, {path.name}:\n{traceback.format_exc()}")
        finally:
            signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024
    if grown > MEGABYTES:
        failures.append(f"the cases took {grown} MB more than the whole checkpoints did")
    return failures, outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of the one case to run")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        failures, outcomes = run(arguments.count, arguments.seed, directory, arguments.only)
    print(*failures[:20], sep="\n")
    for outcome, count in outcomes.most_common():
        print(f"{count:8}  {outcome}")
    print(f"{len(failures):8}  FAILURES, in {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""What tells a process from all others: the machine's boot, the pid namespace, when it began."""

from __future__ import annotations

import os


def boot() -> str:
    """Of this start of the machine. Source: random(4)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def namespace() -> str:
    """In which the process ids are meant. Source: namespaces(7)."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process(pid: int) -> tuple[str, int] | None:
    """A process's state and when it began, in ticks since the boot. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None

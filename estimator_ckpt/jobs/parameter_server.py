"""A parameter server that serves until nobody has anything to save on it."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import threading
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TRAINERS = ("chief", "master", "worker")
_ASK_SECS = 0.5
_CONNECT_SECS = 2.0


def serve_until_trainers_end() -> None:
    """In a process that TF_CONFIG makes a parameter server, SIGTERM waits for the others' end.

    Whoever stops a cluster stops all processes at once; the chief needs the servers to save. A
    second signal ends this process at once. In other processes this does nothing, and in threads
    other than the main one.

    The main thread waits in C++ (`Server.join()`), where no Python handler runs. So a thread does
    what the handler would; signal.set_wakeup_fd() tells it.
    """
    addresses = _trainers()
    if addresses is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is _leave_to_thread:
        return
    here, there = socket.socketpair()
    there.setblocking(False)
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave_to_thread)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    threading.Thread(
        target=_end_after_trainers, args=(here, there, addresses), name="stop", daemon=True
    ).start()


def _leave_to_thread(number: int, frame: Any) -> None:
    del number, frame


def _trainers() -> list[str] | None:
    """The addresses of those who train, where this is a parameter server; else None."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        if config["task"]["type"] != "ps":
            return None
        cluster = config["cluster"]
        return [str(one) for kind in _TRAINERS for one in cluster.get(kind, ())]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # RunConfig says what is wrong with it


def _end_after_trainers(here: socket.socket, there: socket.socket, addresses: list[str]) -> None:
    number = here.recv(1)[0]
    while number not in _SIGNALS:
        number = here.recv(1)[0]
    name = signal.Signals(number).name
    os.write(2, f"{name}: serving until the chief and the workers have ended\n".encode())
    while any(map(_listens, addresses)):
        if select.select([here], [], [], _ASK_SECS)[0] and here.recv(1)[0] in _SIGNALS:
            break
    there.close()  # until now it was open for the handler
    _end_by(number)


def _end_by(number: int) -> None:
    """Ends the process by a signal, as that would have without a handler.

    Python changes handlers in the main thread alone, and that does not come back from C++.
    """
    ctypes.CDLL(None).signal(number, 0)  # SIG_DFL
    signal.raise_signal(number)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECS).close()
        return True
    except (OSError, ValueError):
        return False

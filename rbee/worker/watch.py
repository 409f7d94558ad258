"""Watches an engine load: polls whether it is ready, and reports to systemd how far it has loaded."""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rbee.engines.order import Order
from rbee.worker.notify import notify

LOAD_MAX = 3600.0
"""Seconds that a load may take in all, even with signs of life: more than any model needs."""

EXTENSION = 30.0
"""Seconds until the next sign of life must come, the same as TimeoutStartSec= of the unit."""

REPORT_EVERY = 0.5
"""The least seconds between two reports."""

ANSWER_TIMEOUT = 2.0
"""Seconds for connecting to the engine, and for each part of its answer."""

LOCALHOST = "127.0.0.1"
"""In the network namespace of the worker, which has nothing else."""

ANSWER_MAX = 64 * 1024
"""The most bytes of an answer that are read."""

FIRST_PAUSE, LAST_PAUSE = 0.005, 0.25
"""Seconds between two polls, which grow from the first to the last: a small model is ready in 20 ms."""

BYTES_MOVED = 1024 * 1024
CPU_SHARE = 0.1
"""What counts as a sign of life: so many bytes since the last sign, or this share of one processor."""


class Progress(NamedTuple):
    """What the processes of a worker have done: bytes read or resident, and CPU time in seconds."""

    bytes: int
    cpu: float

    def is_sign_of_life(self, sign: Progress, before: Progress, seconds: float) -> bool:
        """Return whether this is a sign of life, after the last `sign` and `before`, measured `seconds` ago.

        CPU time counts since `before` only: since the last sign, that of answering the polls would add up.
        """
        return self.bytes - sign.bytes >= BYTES_MOVED or self.cpu - before.cpu >= CPU_SHARE * seconds


def watch(order: Order, engine: int) -> None:
    """Report to systemd until the engine is ready or has ended; `engine` is its pidfd.

    Each sign of life, which is that it reads, that its memory grows or that it computes, extends the unit's
    start timeout. Without one, systemd ends the engine.
    """
    began = reported = time.monotonic()
    sign = before = Progress(0, 0.0)
    pause = FIRST_PAUSE
    while (now := time.monotonic()) < began + LOAD_MAX:
        if is_ready(order):
            notify(f"READY=1\nSTATUS=serving {order.name}")
            return
        if now - reported >= REPORT_EVERY:
            progress = measure()
            text = f"STATUS={loading(progress.bytes, order.size)}"
            if progress.is_sign_of_life(sign, before, now - reported):
                text += f"\nEXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}"
                sign = progress
            notify(text)
            before, reported = progress, now
        if has_ended(engine, pause):
            return
        pause = min(pause * 1.3, LAST_PAUSE)


def loading(read: int, total: int) -> str:
    """Return the status text of a load; `total` is 0 if it is not known."""
    return f"loading {min(99, read * 100 // total)} %" if total else "loading"


def has_ended(engine: int, seconds: float) -> bool:
    """Wait until the process of a pidfd has ended, `seconds` at most; return whether it has."""
    poll = select.poll()
    poll.register(engine, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def is_ready(order: Order) -> bool:
    """Return whether the engine answers 200 to GET `ready` where it listens."""
    request = f"GET {order.ready} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.socket(socket.AF_UNIX if order.port is None else socket.AF_INET) as channel:
            channel.settimeout(ANSWER_TIMEOUT)
            channel.connect(os.fspath(order.socket) if order.port is None else (LOCALHOST, order.port))
            channel.sendall(request)
            answer = b""
            # Read all of the answer: an engine may log an error if it cannot send the rest.
            while not _is_whole(answer) and (part := channel.recv(4096)):
                answer += part
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.") and answer[9:12] == b"200"


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]{1,9})", head)
    return len(answer) > ANSWER_MAX or bool(end and length and len(body) >= int(length[1]))


def measure(proc: Path = Path("/proc")) -> Progress:
    """Return what all processes of this user have done, except this one: those are the engine's.

    `bytes` is the larger of what was read and what is resident, as a mapped file is not read.
    """
    read = resident = 0
    cpu = 0.0
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for folder in _processes(proc):
        with suppress(OSError, ValueError, IndexError):
            read += _field((folder / "io").read_text(), "rchar:")
        with suppress(OSError, ValueError, IndexError):
            resident += int((folder / "statm").read_text().split()[1]) * page
            ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            cpu += sum(map(int, ticks)) / tick
    return Progress(max(read, resident), cpu)


def _processes(proc: Path) -> Iterator[Path]:
    own, uid = str(os.getpid()), os.getuid()
    for folder in proc.iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and folder.name != own and folder.stat().st_uid == uid:
                yield folder


def _field(text: str, name: str) -> int:
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(name)))

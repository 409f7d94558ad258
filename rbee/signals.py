"""The signals that end a program, and where one that comes has to wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_put_off() -> Iterator[None]:
    """One of ENDING that comes in this context takes effect after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
        return
    came: list[int] = []
    # Not by a mask, which another thread of the process would not have.
    before = {number: signal.getsignal(number) for number in ENDING}
    put_off = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in put_off:
            signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        for number in put_off:
            signal.signal(number, before[number])
        if came:
            signal.raise_signal(came[0])

"""The signals that end a program, and a context that delays them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_put_off() -> Iterator[None]:
    """Delay the signals of ENDING: the first that arrives in this context takes effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
        return
    came: list[int] = []
    try:
        # Each gets its handler back, even if a signal arrives meanwhile.
        with ExitStack() as end:
            for number in ENDING:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    end.callback(signal.signal, number, handler)
                    # Not by a mask, which another thread of the process would not have.
                    signal.signal(number, lambda number, _frame: came.append(number))
            yield
    finally:
        if came:
            signal.raise_signal(came[0])

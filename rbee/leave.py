"""The end of a program whose work is done."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process with this exit status, and its output written.

    An ordinary exit of Python would take apart all modules first. Whatever must be closed has been closed
    by now: no program leaves that to atexit.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # it has been reported, or the stream is closed
            if stream is not None:
                stream.flush()
    os._exit(code)

"""Runs a daemon from its start to its exit status. Only here is SIGTERM handled."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from rbee.errors import RbeeError
from rbee.narration import Event, Journal
from rbee.systemd.daemon import Notifier, failure_in_a_line
from rbee.text import printable


def run_daemon(
    identifier: str, failed: Event, run: Callable[[Notifier, Journal], Coroutine[Any, Any, int | None]]
) -> int:
    """Run a daemon's coroutine to its end and return the exit status: its result, 0 for None.

    A failure is also reported in STATUS=, which the group rbee may read, unlike the journal.
    """
    _log_to_journal()
    notifier = Notifier()
    journal = Journal(identifier)
    try:
        return asyncio.run(run(notifier, journal)) or 0
    except RbeeError as error:
        cause = failure_in_a_line(error)
        notifier.status(cause)
        journal.narrate(failed, f"{identifier} cannot run: {cause}")
        return error.exit_code
    except Exception as error:
        notifier.status(f"internal error: {error!r}")
        raise


def _log_to_journal() -> None:
    """Send Python's log to stderr with sd-daemon(3) levels; systemd forwards it to the journal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SdDaemonFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _SdDaemonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        # Each line of a traceback is a separate entry in the journal and needs its own level.
        return "\n".join(f"<{level}>{printable(line)}" for line in super().format(record).splitlines())


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event

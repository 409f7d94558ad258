"""The journal, as journalctl(1) shows it to this user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from rbee.scope import SYSTEM, Scope


class Entry(NamedTuple):
    """A line that a service has printed, with its priority of syslog(3).

    `at_us` is when journald received it, in microseconds since 1970. `invocation` is that of the service, ''
    if that had ended before journald saw the line.
    """

    text: str
    priority: int
    at_us: int
    invocation: str


class Tail(NamedTuple):
    """The last entries of a log, oldest first; `is_cut` if there may be others before them."""

    entries: tuple[Entry, ...] = ()
    is_cut: bool = False


def tail_of(lines: Sequence[str], limit: int) -> Tail:
    """Return the entries in the output of `journalctl --output=json`, which has `limit` lines at most.

    A line that is not an entry, as the first one of a cut output, is left out.
    """
    entries = [_entry(line) for line in lines]
    is_cut = len(lines) >= limit or (bool(lines) and entries[0] is None)
    return Tail(tuple(entry for entry in entries if entry is not None), is_cut)


def _entry(line: str) -> Entry | None:
    try:
        fields = json.loads(line)
        return Entry(
            _text(fields["MESSAGE"]),
            int(fields.get("PRIORITY", "6")),
            int(fields["__REALTIME_TIMESTAMP"]),
            str(fields.get("_SYSTEMD_INVOCATION_ID", "")),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _text(message: Any) -> str:
    """A value as text; journalctl shows one that is not printable UTF-8 as a list of its bytes."""
    return message if isinstance(message, str) else bytes(message).decode(errors="replace")


def journal_tail(*matches: str, lines: int = 5, scope: Scope = SYSTEM) -> list[str]:
    """The last lines of the journal that match; [] if the caller may not read them, or after 3 s."""
    import subprocess  # only for failures, and to show a hive

    command = scope.command("journalctl", "--quiet", "--no-pager", f"--lines={lines}", *matches)
    try:
        shown = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=3)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return shown.stdout.splitlines() if shown.returncode == 0 else []

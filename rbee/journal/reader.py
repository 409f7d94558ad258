"""Shows entries to who may read the journal by journalctl itself, and to others by the door of group rbee."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from rbee.client.answers import cannot_connect
from rbee.errors import Disconnected, RbeeError, TimedOut, Unreachable, from_problem
from rbee.journal.matches import WITHOUT_ENGINES, matches
from rbee.scope import LOGS_SOCKET_UNIT, SYSTEM, Scope
from rbee.systemd.journal import journal_tail
from rbee.wire.codec import decode, encode
from rbee.wire.logs import LogEnd, LogQuery

FOLDERS = (Path("var/log/journal"), Path("run/log/journal"))
"""The persistent and the volatile journal (systemd-journald.service(8))."""

BEGIN_TIMEOUT = 10.0
"""Seconds until the door has started journalctl."""

TAIL_TIMEOUT = 3.0
"""Seconds for the last lines, which are shown beside other things."""

ANSWER_MAX = 64 * 1024
"""Bytes of an answer of the door."""

TAIL_MAX = 1024 * 1024
"""Bytes of last lines that are read."""


def is_readable(root: Path = Path("/")) -> bool:
    """May this process read the journal of the system? True if there is no journal.

    To a user who may not, journalctl shows the user's own entries, with exit status 0.
    """
    files = [file for folder in FOLDERS for file in (root / folder).glob("*/system.journal")]
    return not files or any(os.access(file, os.R_OK) for file in files)


class Outputs(NamedTuple):
    """The descriptors that journalctl writes to."""

    output: int = 1
    errors: int = 2


def ask_door(query: LogQuery, outputs: Outputs, scope: Scope, *, timeout: float | None = None) -> int:
    """Have the door write the entries to these descriptors; return the exit status of journalctl.

    Without `timeout` in seconds it waits until journalctl has ended. Raises NotRunning if there is no door,
    NotPermitted if it is not open to this user, TimedOut, Unreachable, Disconnected, or the door's refusal.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        try:
            channel.settimeout(BEGIN_TIMEOUT)
            channel.connect(os.fspath(scope.logs_socket))
            socket.send_fds(channel, [json.dumps(encode(query)).encode()], list(outputs))
            _answer(channel, scope)
            channel.settimeout(timeout)
            return decode(LogEnd, _answer(channel, scope)).status
        except TimeoutError as error:
            raise TimedOut(f"{scope.logs_socket} did not answer in time", hint=_status(scope)) from error
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _ended(scope) from error
        except OSError as error:
            raise cannot_connect(scope.logs_socket, error, scope) from error


def tail(query: LogQuery, lines: int, scope: Scope = SYSTEM) -> list[str]:
    """The last lines of a query; [] if this user may not read them, or after TAIL_TIMEOUT s."""
    if scope.kind == "user" or is_readable():
        level = () if query.model or query.worker else (WITHOUT_ENGINES,)
        return journal_tail(*level, *matches(query, scope), lines=lines, scope=scope)
    written = os.memfd_create("rbee-journal")
    try:
        options = ("--quiet", f"--lines={lines}")
        if ask_door(query._replace(options=options), Outputs(written, written), scope, timeout=TAIL_TIMEOUT):
            return []
        return os.pread(written, TAIL_MAX, 0).decode(errors="replace").splitlines()
    except (RbeeError, OSError):
        return []
    finally:
        os.close(written)


def _answer(channel: socket.socket, scope: Scope) -> dict[str, Any]:
    content = channel.recv(ANSWER_MAX)
    if not content:
        raise _ended(scope)
    try:
        answer = json.loads(content)
    except ValueError as error:
        raise Unreachable(f"the answer of {scope.logs_socket} is not JSON ({error})") from error
    if not isinstance(answer, dict):
        raise Unreachable(f"the answer of {scope.logs_socket} is not an object")
    if "type" in answer:
        raise from_problem(answer)
    return answer


def _ended(scope: Scope) -> Disconnected:
    return Disconnected(f"{LOGS_SOCKET_UNIT} ended the connection without an answer", hint=_status(scope))


def _status(scope: Scope) -> str:
    return scope.systemctl(f"status {LOGS_SOCKET_UNIT}")

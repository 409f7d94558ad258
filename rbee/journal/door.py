"""queen-rbee-logs@.service: shows members of group rbee the entries of rbee's units, and no others.

A connection is one query: a LogQuery, with the two descriptors that journalctl(1) is to write to, its output
and its errors. So it writes to the terminal or the file of who asks, and nothing is copied. Answers are {} as
soon as journalctl runs, and a LogEnd; or a problem document. If who asks goes, journalctl is ended.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import select
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from rbee.errors import BadInput, RbeeError
from rbee.files import reason
from rbee.journal.matches import command
from rbee.scope import Scope, scope_of
from rbee.wire.codec import decode, encode
from rbee.wire.logs import LogEnd, LogQuery

QUERY_MAX = 16 * 1024
"""Bytes of a query."""

QUERY_TIMEOUT = 5.0
"""Seconds for the query to come."""

END_TIMEOUT = 2.0
"""Seconds for journalctl to end after SIGTERM; SIGKILL then."""

SHORT_OPTIONS = "fxqlreabn:S:U:o:p:g:"
LONG_OPTIONS = (
    "follow", "catalog", "quiet", "full", "reverse", "pager-end", "all", "boot", "no-pager", "no-hostname",
    "no-tail", "utc", "lines=", "since=", "until=", "output=", "output-fields=", "priority=", "grep=",
    "case-sensitive=",
)  # fmt: skip
"""journalctl's options that select among the entries, or say how they are shown. None names a file or another
journal, and none is a match, which would widen what is shown."""


FIELD = re.compile(r"RBEE_[A-Z_]+=.+", re.DOTALL)
"""A match that only narrows what is shown, as each of a query's terms gets it."""


def permitted(query: LogQuery) -> LogQuery:
    """Return a query with journalctl's options, each in a word of its own, and fields. Raises BadInput."""
    try:
        known, others = getopt.gnu_getopt(query.options, SHORT_OPTIONS, LONG_OPTIONS)
    except getopt.GetoptError as error:
        raise _not_here(str(error)) from error
    for other in (*others, *query.fields):
        if not FIELD.fullmatch(other):
            raise _not_here(f"'{other:.100}' is neither an option nor a field RBEE_NAME=VALUE")
    options = tuple(name + ("=" if value and name.startswith("--") else "") + value for name, value in known)
    return query._replace(options=options, fields=(*query.fields, *others))


def _not_here(why: str) -> BadInput:
    shown = " ".join(f"--{name.removesuffix('=')}" for name in LONG_OPTIONS)
    return BadInput(
        f"{why}, or is only for those who may read the whole journal", hint=f"As root, or one of: {shown}"
    )


def main() -> int:
    """Answer the query on the socket that is the standard input; return 0."""
    with socket.socket(fileno=os.dup(0)) as channel:
        serve(channel, scope_of(sys.argv[1:]))
    return 0


def serve(channel: socket.socket, scope: Scope) -> None:
    """Answer the query on a connection."""
    try:
        status = answer(channel, scope)
    except RbeeError as error:
        _send(channel, error.to_problem())
    else:
        if status is not None:
            _send(channel, encode(LogEnd(status)))


def answer(channel: socket.socket, scope: Scope) -> int | None:
    """Run journalctl for a query, and return its exit status; None if who asked has gone.

    Raises BadInput, or RbeeError if journalctl cannot be run.
    """
    query, descriptors = _receive(channel)
    try:
        process = _start(query, scope, *descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    with process:
        try:
            _send(channel, {})
            watched = select.poll()
            watched.register(channel, select.POLLIN)
            ended = os.pidfd_open(process.pid)
            try:
                watched.register(ended, select.POLLIN)
                # Without a deadline: to follow the journal has no end but those two.
                is_over = any(descriptor == ended for descriptor, _ in watched.poll())
            finally:
                os.close(ended)
            if not is_over:
                return None
            code = process.wait()
            return code if code >= 0 else 128 - code
        finally:
            _end(process)


def _receive(channel: socket.socket) -> tuple[LogQuery, list[int]]:
    channel.settimeout(QUERY_TIMEOUT)
    try:
        content, descriptors, flags, _ = socket.recv_fds(channel, QUERY_MAX, 2, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        raise BadInput(f"no query came within {QUERY_TIMEOUT:g} s") from error
    try:
        if len(descriptors) != 2 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise BadInput(f"a query is at most {QUERY_MAX} bytes long, and brings two descriptors")
        query = decode(LogQuery, _parsed(content), "query")
        return permitted(query), descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the query is not JSON: {error}") from error


def _start(query: LogQuery, scope: Scope, output: int, errors: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SYSTEMD_COLORS": "16" if query.has_colour else "false", "SYSTEMD_PAGER": ""}
    try:
        return subprocess.Popen(
            command(query, scope), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
        )
    except OSError as error:
        raise RbeeError(f"journalctl cannot be run: {reason(error)}") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End journalctl, which may wait for a reader that has stopped."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()


def _send(channel: socket.socket, answer: Any) -> None:
    with suppress(OSError):  # who asked has gone
        channel.send(json.dumps(answer).encode(), socket.MSG_NOSIGNAL)

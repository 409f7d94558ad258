"""How both clients read an answer, a refusal, and a failure to connect."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from rbee.errors import (
    BadInput,
    Disconnected,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    Unreachable,
    WrongQueen,
    from_problem,
)
from rbee.scope import HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, REMOTE, SYSTEM, Scope
from rbee.wire.codec import decode
from rbee.wire.routes import Answer, Route
from rbee.wire.rows import read_rows

ANSWER_LIMIT = 4 * 1024 * 1024
"""The most bytes of an answer, or of one event of a stream."""


def read_answer(route: Route[Answer], content: bytes, status: int) -> Answer:
    """Return the shape in an answer, or its bytes if the route has bytes. Raises Unreachable.

    A bad row of a list is returned with its `problem`, and does not hide the others.
    """
    assert route.answer is not None, f"{route.name} answers with a story"
    answer: Any = content if route.answer is bytes else parse(content, status)
    if route.answer in (bytes, dict):
        as_it_is: Answer = answer
        return as_it_is
    try:
        return decode(route.answer, answer)
    except BadInput:
        pass  # rare; read_rows() is slower
    try:
        return read_rows(route.answer, answer)
    except BadInput as error:
        raise Unreachable(f"the answer is not valid: {error.message}") from error


def parse(content: bytes, status: int) -> Any:
    """Return an answer's JSON; raises Unreachable."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"the answer (status {status}) is not JSON") from error


def refusal(content: bytes, status: int) -> RbeeError:
    """Return the error in an answer; Unreachable if it is not a problem document."""
    problem = parse(content, status)
    if not isinstance(problem, dict):
        return Unreachable(f"the answer (status {status}) is not a problem document")
    return from_problem(problem)


def os_error(error: BaseException | None) -> Exception:
    """Return the operating system's error that a library's error was raised from, or that error itself."""
    root = error
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        below = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):  # from anyio, for a name with several addresses
            below = error.exceptions[0]
        error = below
    assert isinstance(root, Exception)
    return root


_OUT_OF_TIME = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of openssl/x509_vfy.h."""


def _cannot_connect_remote(place: object, error: Exception, scope: Scope) -> RbeeError:
    import ssl
    from socket import gaierror

    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OUT_OF_TIME:
        return Unreachable(
            f"the queen's certificate at {place} is not valid at this time: {error.verify_message}",
            hint="Compare the clocks of both machines: timedatectl",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return WrongQueen(
            f"the server at {place} is another queen ({error.verify_message})",
            hint=f"If the queen has made new keys: {scope.rejoin}",
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Disconnected(f"the connection to {place} broke during the TLS handshake")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "unknown ca" in reason or "certificate" in reason:
            return WrongQueen(
                f"the queen at {place} does not know this hive's certificate ({reason})",
                hint=f"To join: {scope.rejoin}",
            )
        return Unreachable(f"the server at {place} does not speak TLS as expected ({reason})")
    if isinstance(error, gaierror):
        host = str(place).rpartition(":")[0]
        return Unreachable(
            f"the name in {place} is not known ({error.strerror})", hint=f"getent hosts {host}"
        )
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return NotRunning(
            f"nobody listens on {place}",
            hint=f"On the queen's machine: {REMOTE.rbeectl('tcp enable')}; {REMOTE.rbeectl('wake')}",
        )
    if isinstance(error, TimeoutError):
        return TimedOut(f"{place} did not accept the connection in time")
    if isinstance(error, OSError) and error.errno not in (errno.ECONNRESET, errno.EPIPE):
        return Unreachable(f"{place} cannot be reached ({_text(error)})")
    return Disconnected(f"the connection to {place} broke")


def _text(error: Exception) -> str:
    """Return the operating system's text; asyncio's own would be 'Connect call failed' and a tuple."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def cannot_connect(place: Path | object, error: Exception, scope: Scope = SYSTEM) -> RbeeError:
    """Return the error for a connection that was not made, or broke, to a socket's path or to HOST:PORT."""
    if not isinstance(place, Path):
        return _cannot_connect_remote(place, error, scope)
    path = place
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"{path} is not open to you")
    if code in (errno.ENOENT, errno.ECONNREFUSED):
        return NotRunning(
            f"nobody listens on {path}",
            hint=scope.systemctl(f"status {QUEEN_SOCKET_UNIT} {HIVE_SOCKET_UNIT}"),
        )
    if isinstance(error, TimeoutError):
        return TimedOut(f"{path} did not accept the connection in time")
    return Unreachable(f"{path} does not answer ({_text(error)})")

"""What both clients make of an answer, and of none."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from rbee.contracts import Route, decode
from rbee.errors import BadInput, NotPermitted, NotRunning, RbeeError, TimedOut, Unreachable, from_problem

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer, or of one event of a story, that are read at the most."""


def read_answer(route: Route, content: bytes, status: int) -> Any:
    """The shape that a route answers with; what is not as agreed is the other side's fault."""
    assert route.answer is not None, f"{route.name} answers with a story"
    answer = parse(content, status)
    if route.answer is dict:
        return answer
    try:
        return decode(route.answer, answer)
    except BadInput as error:
        raise Unreachable(f"the answer is not as agreed: {error.message}") from error


def parse(content: bytes, status: int) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"the answer (status {status}) is not JSON") from error


def refusal(content: bytes, status: int) -> RbeeError:
    problem = parse(content, status)
    if not isinstance(problem, dict):
        return Unreachable(f"the answer (status {status}) is not a problem document")
    return from_problem(problem)


def os_error(error: BaseException | None) -> Exception:
    """The operating system's own error below a library's."""
    root = error
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    assert isinstance(root, Exception)
    return root


def cannot_connect(path: Path, error: Exception) -> RbeeError:
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"{path} is not open to you")
    if code in (errno.ENOENT, errno.ECONNREFUSED):
        return NotRunning(
            f"nobody listens on {path}", hint="systemctl status queen-rbee.socket rbee-hive.socket"
        )
    if isinstance(error, TimeoutError):
        return TimedOut(f"{path} did not take the connection in time")
    return Unreachable(f"{path} does not answer ({error or type(error).__name__})")

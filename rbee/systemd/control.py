"""What the queen has systemd do, by units of root's that know what she may have done, and do nothing else.

polkit is not told the mode of a job, and by its mode whoever may start one unit may cancel every job of the
machine. So her user may do nothing over D-Bus.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Literal

from rbee.errors import UnitFailed
from rbee.scope import CONTROL_SOCKET_UNIT, Scope
from rbee.systemd.errors import error_for

ANSWER_TIMEOUT = 30.0
"""Seconds for an answer: systemd, which answers no call while it reads its unit files, has 25 of them."""

AHEAD_TIMEOUT = 5.0
"""Seconds for which a connection is kept for a request that may come; its service would wait for 40."""

ANSWER_BYTES = 4096
"""The longest answer that is read; systemd's own are one line."""

Verb = Literal["start", "stop", "reset-failed"]

_DOING: dict[Verb, str] = {"start": "starting", "stop": "stopping", "reset-failed": "resetting"}
_JOB = 'o "'
_DONE = "done"
_FAILED = "Call failed: "


class NoAnswer(UnitFailed):
    """The socket is not there, or has ended the connection: systemd does that to one that it is stopping."""


class Control:
    """The client of queen-rbee-control.socket: a connection for each request, on which busctl(1) answers."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._ahead: socket.socket | None = None

    def prepare(self) -> None:
        """Connect for the next request, which then need not wait until systemd has started its service.

        That takes 20 ms; it is closed if there is no request within AHEAD_TIMEOUT seconds. In the event loop.
        """
        ahead = socket.socket(socket.AF_UNIX)
        ahead.setblocking(False)
        try:
            ahead.connect(os.fspath(self._scope.control_socket))
        except OSError:  # the request itself will say so
            ahead.close()
            return
        self._ahead = ahead
        asyncio.get_running_loop().call_later(AHEAD_TIMEOUT, self._expire)

    def _expire(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()

    async def ask(self, verb: Verb, unit: str) -> str:
        """Have systemd do this, and return the job's object path ('' for reset-failed, which has none).

        A start raises Stopping if the unit, or one that it needs, is being stopped. Raises TimedOut after
        ANSWER_TIMEOUT seconds, UnitFailed with systemd's reason, and NoAnswer.
        """
        doing = f"{_DOING[verb]} {unit}"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await self._answer(f"{verb} {unit}\n")
        except TimeoutError as error:
            raise error_for(doing, "TimedOut", "systemd is silent", self._scope, ANSWER_TIMEOUT) from error
        except OSError as error:
            why = f"{CONTROL_SOCKET_UNIT} does not answer ({error.strerror})"
            raise self._failed(f"{doing}: {why}") from error
        if answer.endswith(_DONE):
            return answer.removesuffix(_DONE).strip().removeprefix(_JOB).removesuffix('"')
        if _FAILED in answer:
            said = answer.partition(_FAILED)[2]
            raise error_for(doing, "", said, self._scope, ANSWER_TIMEOUT)
        raise self._failed(f"{doing}: {CONTROL_SOCKET_UNIT} ended with {answer or 'no answer'}")

    async def _answer(self, request: str) -> str:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            reader, writer = await asyncio.open_unix_connection(sock=ahead)
        else:
            reader, writer = await asyncio.open_unix_connection(self._scope.control_socket)
        try:
            writer.write(request.encode())
            answer = await reader.readexactly(ANSWER_BYTES)
        except asyncio.IncompleteReadError as end:
            answer = end.partial
        finally:
            writer.close()
        return answer.decode(errors="replace").strip()

    def _failed(self, message: str) -> NoAnswer:
        restart = self._scope.systemctl(f"restart {CONTROL_SOCKET_UNIT}", as_root=True)
        return NoAnswer(message, hint=f"{restart}\n{self._scope.where_to_look(CONTROL_SOCKET_UNIT)}")

"""What a daemon has systemd do, through units of root's that permit the daemon this and nothing else.

polkit does not learn the mode of a job, and there is a mode in which whoever may start one unit can cancel
every job of the machine. So the daemons' users may do nothing over D-Bus.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Literal

from rbee.errors import UnitFailed
from rbee.scope import CONTROL_SOCKET_UNIT, HIVE_CONTROL_SOCKET_UNIT, Scope
from rbee.systemd.errors import error_for

ANSWER_TIMEOUT = 30.0
"""Seconds for an answer: systemd, which answers no call while it reads its unit files, has 25 of them."""

AHEAD_TIMEOUT = 5.0
"""Seconds for which a connection is kept for a request that may come; its service would wait for 40."""

ANSWER_BYTES = 4096
"""The longest answer that is read; systemd's own are one line."""

LOG_ENTRIES = 400
LOG_BYTES = 256 * 1024
"""The most entries of a worker's log that are read, and the most bytes of them in JSON."""

Verb = Literal["start", "stop", "reset-failed"]

_DOING: dict[Verb, str] = {"start": "starting", "stop": "stopping", "reset-failed": "resetting"}
_JOB = 'o "'
_DONE = "done"
_FAILED = "Call failed: "


class NoAnswer(UnitFailed):
    """The socket does not exist, or ended the connection without an answer, as while systemd stops it."""


class Control:
    """The client of such a socket: a connection for each request, on which busctl(1) answers.

    This one is the queen's, which may start and stop the hive, and stop everything.
    """

    socket_unit = CONTROL_SOCKET_UNIT
    """The unit that listens."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._ahead: socket.socket | None = None

    @property
    def path(self) -> Path:
        """The socket."""
        return self._scope.control_socket

    def prepare(self) -> None:
        """Connect for the next request, which then need not wait until systemd has started its service.

        That takes 20 ms; it is closed if there is no request within AHEAD_TIMEOUT seconds.
        """
        ahead = socket.socket(socket.AF_UNIX)
        ahead.setblocking(False)
        try:
            ahead.connect(os.fspath(self.path))
        except OSError:  # the request itself will report it
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
                answer = await self._answer(f"{verb} {unit}\n", ANSWER_BYTES)
        except TimeoutError as error:
            raise error_for(doing, "TimedOut", "systemd is silent", self._scope, ANSWER_TIMEOUT) from error
        except OSError as error:
            why = f"{self.socket_unit} does not answer ({error.strerror})"
            raise self._failed(f"{doing}: {why}") from error
        if answer.endswith(_DONE):
            return answer.removesuffix(_DONE).strip().removeprefix(_JOB).removesuffix('"')
        if _FAILED in answer:
            said = answer.partition(_FAILED)[2]
            raise error_for(doing, "", said, self._scope, ANSWER_TIMEOUT)
        raise self._failed(f"{doing}: {self.socket_unit} ended with {answer or 'no answer'}")

    async def _answer(self, request: str, limit: int) -> str:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            reader, writer = await asyncio.open_unix_connection(sock=ahead)
        else:
            reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(request.encode())
            answer = await reader.readexactly(limit)
        except asyncio.IncompleteReadError as end:
            answer = end.partial
        finally:
            writer.close()
        return answer.decode(errors="replace").strip()

    def _failed(self, message: str) -> NoAnswer:
        restart = self._scope.systemctl(f"restart {self.socket_unit}", as_root=True)
        return NoAnswer(message, hint=f"{restart}\n{self._scope.where_to_look(self.socket_unit)}")


class HiveControl(Control):
    """That of the hive, which may start and stop workers and fetches, and read the log of a worker."""

    socket_unit = HIVE_CONTROL_SOCKET_UNIT

    @property
    def path(self) -> Path:
        return self._scope.hive_control_socket

    async def log(self, unit: str, time: tuple[int, int] | None = None) -> list[str]:
        """The last entries of a worker's engine, oldest first, as JSON; [] if they cannot be read.

        `time` is their first and last one, in seconds since 1970. At most LOG_ENTRIES, and LOG_BYTES: the
        first entry may lack its beginning. The hive's user may not read the journal, which has everybody's
        lines.
        """
        request = " ".join(["log", unit, *map(str, time or ())])
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await self._answer(f"{request}\n", LOG_BYTES)
        except (TimeoutError, OSError):
            return []
        # Not splitlines(): what it also takes for the end of a line is not escaped in JSON.
        return [] if answer.startswith(_FAILED) or not answer else answer.split("\n")

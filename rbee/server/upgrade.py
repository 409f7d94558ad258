"""A connection that begins with an HTTP request and continues with another protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SEND_TIMEOUT = 30.0
"""Seconds within which the other side must take what is sent to it."""


class Upgraded(asyncio.Protocol):
    """The protocol that a connection continues with. It keeps the connection's place in the limits.

    If the client has left by then, connection_lost() is called without a connection_made().
    """

    is_read_together = False
    """May received data wait a moment, so that many connections are read at once (transport.Together)?"""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.give_back: Callable[[], None] = _nothing
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # pause_writing() is called as soon as data waits

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self.give_back()

    def pause_writing(self) -> None:
        assert self.transport is not None
        self._stalled = asyncio.get_running_loop().call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def upgrade_to(protocol: Upgraded) -> Response:
    """Return a response after which the connection continues with `protocol`, for a request with Upgrade."""
    return _Upgrade(protocol)


class _Upgrade(Response):
    def __init__(self, protocol: Upgraded) -> None:
        super().__init__(None, 101)
        self._protocol = protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upgrade: Any = scope["rbee.upgrade"]
        upgrade(self._protocol)


def _nothing() -> None:
    pass

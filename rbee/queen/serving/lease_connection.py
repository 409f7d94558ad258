"""The connection by which the gateway holds leases, one after the other (rbee.wire.leases)."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from rbee.errors import BadInput, RbeeError
from rbee.server.upgrade import SEND_TIMEOUT, Upgraded
from rbee.wire.leases import Ask, End, Frame, FrameBuffer, Granted, Refused, Wait, encode_frame

ASK_TIMEOUT = 10.0
"""Seconds from the 101 to the first Ask; for the next one the gateway keeps the connection."""


class LeaseConnection(Upgraded):
    """One lease: from its Ask until its End, or the end of its connection; and the leases after it.

    `serve` handles an Ask; `finished` is called at an End, and `ended` with the connection. The queen keeps a
    descriptor of the connection to the engine, too: shutting that down ends the answer, even if the gateway
    keeps its own descriptor open.
    """

    def __init__(
        self,
        serve: Callable[[LeaseConnection, Ask], Coroutine[Any, Any, None]],
        finished: Callable[[LeaseConnection], None],
        ended: Callable[[LeaseConnection], None],
    ) -> None:
        super().__init__()
        self._serve = serve
        self._finished = finished
        self._ended = ended
        self._buffer = FrameBuffer()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._channel: socket.socket | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._is_granted = False
        self.is_over = False

    @property
    def is_idle(self) -> bool:
        """Is there no lease, after one that has ended?"""
        return self._task is None and self._timer is None

    # From the gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        late = BadInput(f"the lease got no Ask within {ASK_TIMEOUT:g} s")
        self._timer = asyncio.get_running_loop().call_later(ASK_TIMEOUT, self.refuse, late)

    def data_received(self, data: bytes) -> None:
        try:
            frame = self._buffer.add(data)
            if frame is not None:
                self._take(frame)
        except BadInput as error:
            self.refuse(error)

    def _take(self, frame: Frame) -> None:
        """Take a frame of the gateway's. Raises BadInput if it is not its turn."""
        if isinstance(frame, Ask) and self._task is None:
            self._stop_timer()
            self._task = asyncio.get_running_loop().create_task(self._run(frame))
        elif isinstance(frame, End) and self._is_granted:
            self._is_granted, self._task = False, None
            self._let_go()
            self._finished(self)
            self._write(encode_frame(End()))
        else:
            raise BadInput("a lease begins with one Ask, and ends with one End once it was granted")

    async def _run(self, ask: Ask) -> None:
        try:
            await self._serve(self, ask)
        except RbeeError as error:
            self.refuse(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            self.refuse(RbeeError("internal error", hint="The journal has its traceback."))
            raise

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport = None
        self._end()

    # To the gateway

    def wait(self, frame: Wait) -> None:
        """Send how far the worker is; dropped while the gateway does not read."""
        if self._drained.is_set():
            self._write(encode_frame(frame))

    def refuse(self, error: RbeeError, retry_s: int | None = None) -> None:
        """Send why there is no worker, and end the lease."""
        self._write(encode_frame(Refused(error.to_problem(), retry_s)))
        if self.transport is not None:
            self.transport.close()
        self._end()

    async def grant(self, granted: Granted, channel: socket.socket | None) -> None:
        """Send the worker, and the connection to it unless the lease is resumed. Takes over `channel`."""
        self._channel = channel
        if self.is_over:
            self._let_go()
            return
        line = encode_frame(granted)
        self._is_granted = True
        if channel is None:
            self._write(line)
            return
        try:
            if not self._drained.is_set():
                async with asyncio.timeout(SEND_TIMEOUT):
                    await self._drained.wait()
            self._write(line[self._send_descriptor(line, channel) :])
        except OSError:  # the gateway does not read, or has gone; TimeoutError is an OSError
            self._drop()

    def _send_descriptor(self, line: bytes, channel: socket.socket) -> int:
        """Send a connection with the first bytes of a line, and return how many that were."""
        if self.transport is None:
            raise ConnectionResetError
        # asyncio's transport has no sendmsg(2), and its buffer is empty.
        own = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        with own:
            rights = array.array("i", [channel.fileno()])
            return own.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def _write(self, data: bytes) -> None:
        if self.transport is not None and data:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self._drained.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drained.set()

    # The end

    def cut(self, reason: RbeeError) -> None:
        """End the lease, and its connection to the engine; the gateway gets the reason."""
        self.refuse(reason)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self._end()

    def abandon(self) -> None:
        """Close the connection, and leave the one to the engine to the gateway: the queen stops."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._drop()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._stop_timer()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._let_go()
        self._ended(self)

    def _let_go(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with suppress(OSError):  # the engine has closed it
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""Connects to a worker's engine, and hands the connection over."""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
from pathlib import Path

from rbee.errors import WorkerNotReady
from rbee.server.upgrade import Upgraded
from rbee.wire.leases import Granted, encode_frame

log = logging.getLogger("rbee")

CONNECT_TIMEOUT = 5.0
"""Seconds for which an engine may be too busy to accept a connection."""

RETRY_INTERVAL = 0.01
"""Seconds between two tries, while as many connections wait as may."""


async def connect_to(path: Path, worker_id: str) -> socket.socket:
    """Return a connection to an engine, non-blocking. Raises WorkerNotReady."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            # Not sock_connect(): it takes EAGAIN of a Unix socket for a connection that is being made.
            while not _is_connected(channel, path):  # noqa: ASYNC110  # the kernel reports no end of it
                await asyncio.sleep(RETRY_INTERVAL)
    except (OSError, TimeoutError) as error:
        channel.close()
        why = (
            f"it accepted none for {CONNECT_TIMEOUT:g} s"
            if isinstance(error, TimeoutError)
            else error.strerror
        )
        raise WorkerNotReady(f"the worker {worker_id} takes no connection: {why}") from error
    except BaseException:
        channel.close()
        raise
    return channel


def _is_connected(channel: socket.socket, path: Path) -> bool:
    try:
        channel.connect(os.fspath(path))
    except BlockingIOError:
        return False
    return True


class Handed(Upgraded):
    """A connection on which one line is sent, with a connection to an engine, and that is then closed."""

    def __init__(self, worker_id: str, engine: socket.socket) -> None:
        super().__init__()
        self._line = encode_frame(Granted(worker_id, was_cold=False))
        self._engine = engine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        try:
            self._send(self.transport)
        except OSError as error:
            log.warning("a connection to a worker could not be handed over: %s", error)
            self.transport.abort()
        else:
            self.transport.close()

    def _send(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            raise BlockingIOError("the other side does not read")
        # asyncio's own socket has no sendmsg(); a duplicate's descriptor is another, its socket the same.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as channel:
            descriptors = array.array("i", [self._engine.fileno()])
            sent = channel.sendmsg([self._line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        if sent != len(self._line):
            raise BlockingIOError("the other side does not read")

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.close()
        super().connection_lost(exc)

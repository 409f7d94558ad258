"""Connects to a worker's engine, and passes the connection to the client of the hive."""

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
"""Seconds to retry while the engine's backlog is full."""

RETRY_INTERVAL = 0.01
"""Seconds between two retries."""


async def connect_to(path: Path, worker_id: str) -> socket.socket:
    """Return a connection to an engine, non-blocking. Raises WorkerNotReady."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            # Not loop.sock_connect(): it would wait for ever after EAGAIN, which here means a full backlog.
            while not _is_connected(channel, path):  # noqa: ASYNC110  # nothing signals room in a backlog
                await asyncio.sleep(RETRY_INTERVAL)
    except (OSError, TimeoutError) as error:
        channel.close()
        why = f"timed out after {CONNECT_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error.strerror
        raise WorkerNotReady(f"the worker {worker_id} does not accept connections: {why}") from error
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
    """A connection on which a Granted is sent with a connection to an engine; then it is closed."""

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
        # asyncio's TransportSocket has no sendmsg(): a duplicate of its descriptor is the same connection.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as channel:
            descriptors = array.array("i", [self._engine.fileno()])
            sent = channel.sendmsg([self._line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        if sent != len(self._line):
            raise BlockingIOError("the other side does not read")

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.close()
        super().connection_lost(exc)

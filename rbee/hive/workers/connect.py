"""Connects to workers' engines, and passes the connections to the client of the hive."""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee.errors import BadInput, RbeeError, WorkerNotReady
from rbee.server.upgrade import Upgraded
from rbee.wire.leases import Connect, FrameBuffer, Granted, Refused, encode_frame

log = logging.getLogger("rbee")

CONNECT_TIMEOUT = 5.0
"""Seconds to retry while the engine's backlog is full."""

RETRY_INTERVAL = 0.01
"""Seconds between two retries."""


async def connect_to(path: Path, worker_id: str) -> socket.socket:
    """Return a connection to an engine's socket, non-blocking; no link is followed. Raises WorkerNotReady."""
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
    with _opened(path) as fd:
        try:
            channel.connect(f"/proc/self/fd/{fd}")
        except BlockingIOError:
            return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a socket's file itself, without connecting. Raises OSError, also if a link is in its place.

    The folder belongs to the engine, which may put a link there to a socket that only the hive may use.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTSOCK, f"{path} is not a socket")
        yield fd
    finally:
        os.close(fd)


class Handing(Upgraded):
    """A connection over which connections to engines are handed: to one worker's, and then to others'.

    `connect` returns a connection to the engine of a worker; it is called for each Connect.
    """

    def __init__(
        self, worker_id: str, engine: socket.socket, connect: Callable[[str], Awaitable[socket.socket]]
    ) -> None:
        super().__init__()
        self._first: tuple[str, socket.socket] | None = (worker_id, engine)
        self._connect = connect
        self._buffer = FrameBuffer()
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._first is not None
        first, self._first = self._first, None
        self._hand(*first)

    def data_received(self, data: bytes) -> None:
        try:
            frame = self._buffer.add(data)
            if frame is None:
                return
            if not isinstance(frame, Connect) or self._connecting is not None:
                raise BadInput("one Connect at a time is answered")
        except BadInput as error:
            self._refuse(error)
            self._close()
            return
        self._connecting = asyncio.ensure_future(self._answer(frame.worker))

    async def _answer(self, worker_id: str) -> None:
        try:
            engine = await self._connect(worker_id)
        except RbeeError as error:
            self._connecting = None
            self._refuse(error)
        except Exception:
            log.exception("connecting to the worker %s failed", worker_id)
            self._close()
        else:
            self._connecting = None
            self._hand(worker_id, engine)

    def _refuse(self, error: RbeeError) -> None:
        if self.transport is not None:
            self.transport.write(encode_frame(Refused(error.to_problem())))

    def _hand(self, worker_id: str, engine: socket.socket) -> None:
        with engine:
            if self.transport is None:
                return
            try:
                _send(self.transport, encode_frame(Granted(worker_id, was_cold=False)), engine)
            except OSError as error:
                log.warning("a connection to a worker could not be handed over: %s", error)
                self.transport.abort()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport = None
        if self._first is not None:
            self._first[1].close()
        if self._connecting is not None:
            self._connecting.cancel()


def _send(transport: asyncio.Transport, line: bytes, engine: socket.socket) -> None:
    if transport.get_write_buffer_size():
        raise BlockingIOError("the other side does not read")
    # asyncio's TransportSocket has no sendmsg(): a duplicate of its descriptor is the same connection.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as channel:
        descriptors = array.array("i", [engine.fileno()])
        sent = channel.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    if sent != len(line):
        raise BlockingIOError("the other side does not read")

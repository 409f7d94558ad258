"""A client for requests that continue as frames of rbee.wire.leases, of which one brings a descriptor.

The socket is read with recvmsg(2), as a transport of asyncio would drop the descriptor.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httptools

from rbee.client.answers import ANSWER_LIMIT, cannot_connect, refusal
from rbee.errors import BadInput, Disconnected, TimedOut, Unreachable
from rbee.scope import SYSTEM, Scope
from rbee.text import shown_span
from rbee.wire.leases import LINE_MAX, Frame, decode_frame, encode_frame

READ_SIZE = 16 * 1024
"""Bytes that are read at once."""

_DESCRIPTORS = 8
"""Descriptors for which there is room in a read; the kernel closes any more, and reports it."""


@asynccontextmanager
async def handover(
    path: Path, target: str, protocol: str, *, timeout: float = 10.0, scope: Scope = SYSTEM
) -> AsyncIterator[Handover]:
    """Yield the connection of open_handover(), and close it at the end of the context."""
    connection = await open_handover(path, target, protocol, timeout=timeout, scope=scope)
    try:
        yield connection
    finally:
        connection.close()


async def open_handover(
    path: Path, target: str, protocol: str, *, timeout: float = 10.0, scope: Scope = SYSTEM
) -> Handover:
    """Return the connection that `GET target` with `Upgrade: protocol` at a Unix socket has become.

    `timeout` in seconds bounds the time until the 101. Raises the other side's refusal, NotRunning,
    NotPermitted, TimedOut or Unreachable. The caller closes the connection.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.setblocking(False)
    connection = Handover(channel, path, scope)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(channel, os.fspath(path))
            await connection.upgrade(target, protocol)
    except TimeoutError as error:
        connection.close()
        raise TimedOut(f"{path} did not answer within {shown_span(timeout)}") from error
    except OSError as error:
        connection.close()
        raise _failure(path, error, scope) from error
    except BaseException:
        connection.close()
        raise
    return connection


class Handover:
    """A connection over which frames are sent and received. One task at a time receives.

    A descriptor that has come belongs to the connection, and is closed with it, until it is taken.
    """

    def __init__(self, channel: socket.socket, path: Path, scope: Scope = SYSTEM) -> None:
        self._channel = channel
        self._path = path
        self._scope = scope
        self._received = bytearray()
        self._descriptor: int | None = None

    def close(self) -> None:
        """Close the connection, and the descriptor if nobody has taken it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        # Whoever reads may end later: a reader that is left would take away that of the next connection
        # with this number.
        _stop_reading(self._channel)
        self._channel.close()

    @property
    def is_quiet(self) -> bool:
        """Is the connection open, and has nothing come that was not received?"""
        if self._received or self._descriptor is not None:
            return False
        try:
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # data, or the end

    async def upgrade(self, target: str, protocol: str) -> None:
        """Send the request and read the answer. Raises the refusal, Unreachable, or OSError."""
        head = (
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        )
        await asyncio.get_running_loop().sock_sendall(self._channel, head.encode())
        answer = _Answer()
        while (rest := answer.feed(await self._read(), self._path)) is None:
            pass
        if answer.upgrade != protocol:
            raise Unreachable(f"{self._path} switched to '{answer.upgrade:.100}' instead of {protocol}")
        self._received += rest

    async def send(self, frame: Frame) -> None:
        """Send a frame; the caller bounds the time. Raises Disconnected, or Unreachable."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._channel, encode_frame(frame))
        except OSError as error:
            raise _failure(self._path, error, self._scope) from error

    async def receive(self) -> Frame:
        """Return the next frame; the caller bounds the time.

        Raises Disconnected at the end, or Unreachable. What has arrived is kept if this is cancelled.
        """
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched >= LINE_MAX:
                raise Unreachable(f"{self._path} sent more than {LINE_MAX} bytes without the end of a line")
            try:
                self._received += await self._read()
            except OSError as error:
                raise _failure(self._path, error, self._scope) from error
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        try:
            return decode_frame(line)
        except BadInput as error:
            raise Unreachable(f"{self._path} sent a frame that is not valid: {error.message}") from error

    def take(self) -> socket.socket:
        """Return the connection that came with a Granted, which the caller closes. Raises Unreachable."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            raise Unreachable(f"{self._path} granted a connection and sent none")
        try:
            taken = socket.socket(fileno=descriptor)
        except OSError as error:
            os.close(descriptor)
            raise Unreachable(f"{self._path} sent a descriptor that is not a socket") from error
        taken.setblocking(False)
        return taken

    async def _read(self) -> bytes:
        """Return what comes next, and keep a descriptor that comes with it."""
        while True:
            try:
                data, ancillary, flags, _ = self._channel.recvmsg(
                    READ_SIZE, socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize),
                    socket.MSG_CMSG_CLOEXEC,
                )  # fmt: skip
                break
            except BlockingIOError:
                await _readable(self._channel)
        self._keep(_descriptors(ancillary), is_cut=bool(flags & socket.MSG_CTRUNC))
        if not data:
            raise Disconnected(f"the connection to {self._path} broke")
        return data

    def _keep(self, descriptors: list[int], *, is_cut: bool) -> None:
        """Keep one descriptor. Raises Unreachable if there are more, after closing them."""
        if len(descriptors) == 1 and self._descriptor is None and not is_cut:
            self._descriptor = descriptors[0]
            return
        for one in descriptors:
            os.close(one)
        if descriptors or is_cut:
            raise Unreachable(f"{self._path} sent more than one descriptor")


class _Answer:
    """The answer to the request that asks for an upgrade."""

    def __init__(self) -> None:
        self.upgrade = ""
        """What the connection has become."""
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._body = b""
        self._is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"upgrade":
            self.upgrade = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._is_complete = True

    def feed(self, data: bytes, path: Path) -> bytes | None:
        """Return the data after a 101, or None if more is to come. Raises the refusal, or Unreachable."""
        self._size += len(data)
        if self._size > ANSWER_LIMIT:
            raise Unreachable(f"the answer from {path} is larger than {ANSWER_LIMIT} bytes")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._parser.get_status_code() == 101:
                return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise Unreachable(f"the server at {path} does not speak HTTP ({error})") from error
        if not self._is_complete:
            return None
        status = self._parser.get_status_code()
        if status >= 400:
            raise refusal(self._body, status)
        raise Unreachable(f"{path} answers with {status} and does not switch protocols")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return list(received)


async def _readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    # By its number: asyncio would format a socket object for an error that nobody sees.
    loop.add_reader(channel.fileno(), _wake, readable)
    try:
        await readable
    finally:
        _stop_reading(channel)


def _stop_reading(channel: socket.socket) -> None:
    if channel.fileno() >= 0:  # not closed, which was after this
        asyncio.get_running_loop().remove_reader(channel.fileno())


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _failure(path: Path, error: OSError, scope: Scope) -> Exception:
    """Return Disconnected for a connection that was reset, as by a queen that is killed."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Disconnected(f"the connection to {path} broke")
    return cannot_connect(path, error, scope)

"""TLS on a socket that the loop's readers drive, at either end of a connection.

asyncio's own TLS keeps two memory buffers and a protocol of its own for each connection, which is most of
what a hive at rest costs its queen. OpenSSL reads from the socket and writes to it by itself; what is left
to do is to wait for the socket.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

READ_SIZE = 16 * 1024
"""Bytes that are read at once: what a record of TLS has at most, so that none is left within OpenSSL."""

GOODBYE_TIMEOUT = 0.2
"""Seconds that the other side has to read what was sent, and to close the connection, too."""

TOGETHER = 0.1
"""Seconds in which what comes is left for the next time, by those who read together, at the most."""

TOGETHER_EACH = 0.001
"""Seconds of it for each connection: few are not worth waiting for."""

HIGH_WATER = 64 * 1024
"""Bytes that wait to be sent, after which the protocol is asked to pause."""


async def handshake(channel: ssl.SSLSocket) -> None:
    """Do a TLS handshake on a socket that does not block. Raises what is wrong with it, an OSError."""
    while True:
        try:
            channel.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _is_ready(channel, asyncio.get_running_loop().add_reader)
        except ssl.SSLWantWriteError:
            await _is_ready(channel, asyncio.get_running_loop().add_writer)


async def _is_ready(channel: ssl.SSLSocket, watch: Callable[..., None]) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch(channel, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(channel)
        loop.remove_writer(channel)


class Readers(Protocol):
    """Calls a function when something has come on a socket: the loop, or Together."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object: ...

    def remove_reader(self, fd: int) -> object: ...


class Together:
    """Reads what comes on many connections together: at once, and then a moment later what came meanwhile.

    What a wake-up costs is more than what it takes to read a heartbeat.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._ready, self._read)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._ready.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._ready.unregister(fd)

    def _read(self) -> None:
        self._loop.remove_reader(self._ready)
        pause = min(TOGETHER, TOGETHER_EACH * len(self._readers))
        self._pause = self._loop.call_later(pause, self._loop.add_reader, self._ready, self._read)
        for fd, _ in self._ready.poll(0):
            reader = self._readers.get(fd)
            if reader is not None:  # or one before it has ended this one
                reader()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._ready)
        self._ready.close()


class TlsTransport(asyncio.Transport):
    """A socket whose handshake is over, as a transport. `ended` is called with it once it is closed.

    Long because asyncio.Transport has as many methods.
    """

    __slots__ = (
        "_channel", "_ended", "_fd", "_goodbye", "_high", "_is_closing", "_is_ended", "_is_paused",
        "_is_reading", "_loop", "_protocol", "_readers", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        channel: ssl.SSLSocket,
        protocol: asyncio.BaseProtocol,
        ended: Callable[[TlsTransport], None] = lambda transport: None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._readers: Readers = self._loop
        self._channel = channel
        self._fd = channel.fileno()
        self._protocol: Any = protocol
        self._ended = ended
        self._waiting = bytearray()
        self._high = HIGH_WATER
        self._is_closing = False
        self._is_ended = False
        self._is_paused = False
        self._is_reading = False
        self._goodbye: asyncio.TimerHandle | None = None
        protocol.connection_made(self)
        self.resume_reading()

    # Who it is

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("socket", "ssl_object"):
            return self._channel
        if name == "sslcontext":
            return self._channel.context
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    # What comes

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        if self._is_reading and not self._is_closing:
            self._is_reading = False
            self._readers.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            self._readers.add_reader(self._fd, self._read)

    def read_with(self, readers: Readers) -> None:
        """Have what comes read by others than the loop."""
        is_reading = self._is_reading
        self.pause_reading()
        self._readers = readers
        if is_reading:
            self.resume_reading()

    def _read(self) -> None:
        while self._is_reading and not self._is_closing:
            try:
                data = self._channel.recv(READ_SIZE)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._end(error)
                return
            try:
                if not data:
                    self._protocol.eof_received()
                    self._end(None)
                    return
                self._protocol.data_received(data)
            except Exception as error:
                self._fail("a connection's protocol failed at what it received", error)
                return
            if not self._channel.pending():
                return

    # What goes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        if self._waiting:
            self._waiting += data
        else:
            sent = self._send(data)
            if sent == len(data) or self._is_ended:
                return
            self._waiting += memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._write)
        if len(self._waiting) > self._high and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """How much of it was taken; all that the socket takes now."""
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    sent += self._channel.send(view[sent:])
                except ssl.SSLWantWriteError:
                    break
                except OSError as error:  # SSLWantReadError, too: TLS 1.3 has no renegotiation
                    self._end(error)
                    break
        return sent

    def _write(self) -> None:
        sent = self._send(self._waiting)
        if self._is_ended:
            return
        del self._waiting[:sent]
        if self._waiting:
            return
        self._loop.remove_writer(self._fd)
        if self._is_closing:
            self._say_goodbye()
        elif self._is_paused:
            self._is_paused = False
            self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pause beyond `high` bytes; `low` is 0, whatever is asked for."""
        self._high = HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, self._high

    def can_write_eof(self) -> bool:
        return False

    # The end

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """Send what waits, and end. The other side then has GOODBYE_TIMEOUT to do the same."""
        if self._is_closing:
            return
        self.pause_reading()
        self._is_closing = True
        if not self._waiting:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        with suppress(OSError, ValueError):  # it waits for the other side's goodbye, which _drain() does
            self._channel.unwrap()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        # A socket that is closed with something unread has the kernel throw away what was sent.
        self._loop.add_reader(self._fd, self._drain)
        self._goodbye = self._loop.call_later(GOODBYE_TIMEOUT, self._end, None)

    def _drain(self) -> None:
        try:
            data = self._channel.recv(READ_SIZE)  # what comes is no TLS any more
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(None)

    def abort(self) -> None:
        """End at once, whatever was not sent."""
        self._end(None)

    def _fail(self, told: str, error: Exception) -> None:
        context = {"message": told, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._is_ended:
            return
        self._is_ended = self._is_closing = True
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._readers.remove_reader(self._fd)
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._waiting = bytearray()
        # Not at once: a protocol is not told of the end in the middle of its own write().
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._protocol = None
            self._channel.close()
            self._ended(self)

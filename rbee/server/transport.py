"""A transport for TLS in which OpenSSL reads and writes the socket itself, for either end of a connection.

asyncio's own TLS keeps two memory buffers and a protocol for each connection, which is most of what an idle
hive costs its queen. Here only waiting for the socket is left to the event loop.
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
"""Bytes that are read at once: the most in a TLS record, so that nothing is left inside OpenSSL."""

GOODBYE_TIMEOUT = 0.2
"""Seconds for the other side to read what was sent and to close the connection."""

TOGETHER = 0.1
"""Seconds that received data waits at the most, on connections that are read together."""

TOGETHER_EACH = 0.001
"""Seconds of that wait for each connection: with few connections it is short."""

HIGH_WATER = 64 * 1024
"""Bytes waiting to be sent above which the protocol is paused."""


async def handshake(channel: ssl.SSLSocket) -> None:
    """Do a TLS handshake on a non-blocking socket. Raises OSError, which ssl.SSLError is too."""
    while True:
        try:
            channel.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _is_ready(channel.fileno(), asyncio.get_running_loop().add_reader)
        except ssl.SSLWantWriteError:
            await _is_ready(channel.fileno(), asyncio.get_running_loop().add_writer)


async def _is_ready(fd: int, watch: Callable[..., None]) -> None:
    # Not the socket itself: selectors would format its repr() in an error each time it is not registered.
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        loop.remove_writer(fd)


class Readers(Protocol):
    """Calls a function when a socket is readable: the event loop, or Together."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object:
        """Call `callback` each time the descriptor is readable."""

    def remove_reader(self, fd: int) -> object:
        """Stop calling it."""


class Together:
    """Readers that are called together: at once, and then after a pause for all that came meanwhile.

    A wake-up of the event loop costs more than reading a heartbeat.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._wait()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback
        self._ready.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._ready.unregister(fd)

    def _wait(self) -> None:
        """Read as soon as a descriptor is readable."""
        self._loop.add_reader(self._ready, self._read_first)

    def _read_first(self) -> None:
        self._loop.remove_reader(self._ready)
        self._read()

    def _read(self) -> None:
        ready = self._ready.poll(0)
        if not ready:
            # Only now: for each add_reader() of an epoll the kernel goes through all that it watches.
            self._wait()
            return
        pause = min(TOGETHER, TOGETHER_EACH * len(self._readers))
        self._pause = self._loop.call_later(pause, self._read)
        for fd, _ in ready:
            reader = self._readers.get(fd)
            if reader is not None:  # None if an earlier one has ended it
                reader()

    def close(self) -> None:
        """Call no reader any more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._ready)
        self._ready.close()


class TlsTransport(asyncio.Transport):
    """A TLS socket after its handshake, as an asyncio.Transport. `ended` is called once it is closed.

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

    # Information

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

    # Reading

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
        """Use other readers than the event loop."""
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
                self._fail("a connection's protocol failed on received data", error)
                return
            if not self._channel.pending():
                return

    # Writing

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
        """Write what the socket takes now, and return how many bytes that was."""
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    sent += self._channel.send(view[sent:])
                except ssl.SSLWantWriteError:
                    break
                except OSError as error:  # also SSLWantReadError: TLS 1.3 has no renegotiation
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
        """Pause the protocol above `high` bytes; `low` is always 0."""
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
        """Send what waits, then end; the other side has GOODBYE_TIMEOUT seconds to close too."""
        if self._is_closing:
            return
        self.pause_reading()
        self._is_closing = True
        if not self._waiting:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        with suppress(OSError, ValueError):  # it would wait for the other side's, as _drain() does
            self._channel.unwrap()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        # If a socket is closed with unread data, the kernel discards what was sent.
        self._loop.add_reader(self._fd, self._drain)
        self._goodbye = self._loop.call_later(GOODBYE_TIMEOUT, self._end, None)

    def _drain(self) -> None:
        try:
            data = self._channel.recv(READ_SIZE)  # plain data, as TLS has ended
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(None)

    def abort(self) -> None:
        """End at once, without sending what waits."""
        self._end(None)

    def _fail(self, message: str, error: Exception) -> None:
        context = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._is_ended:
            return
        self._is_ended = self._is_closing = True
        if self._is_reading:
            self._readers.remove_reader(self._fd)
        if self._goodbye is not None:
            self._goodbye.cancel()
            self._loop.remove_reader(self._fd)
        if self._waiting:
            self._loop.remove_writer(self._fd)
            self._waiting = bytearray()
        # Not at once: the protocol may be in the middle of its own write().
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._protocol = None
            self._channel.close()
            self._ended(self)

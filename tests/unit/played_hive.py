"""A hive at the other end of an uplink, without a network: it dials what it is asked for, and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rbee.errors import RbeeError
from rbee.uplink.accept import Uplink
from rbee.uplink.frames import Dial, Frame, read_frame, write_frame
from rbee.wire.heartbeats import Heartbeat

WELL = b'{"status": "ok", "version": "1"}'

Answers = Callable[[str, str], tuple[int, bytes]]
"""What is answered to a method and a path."""


class Pipe(asyncio.Transport):
    """The queen's end of a connection whose other end is a function."""

    def __init__(self, protocol: asyncio.Protocol, taken: Callable[[bytes], None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._taken = taken
        self._is_closing = False
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._taken(bytes(data))

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = self.is_aborted or not self._is_closing
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class PlayedHive:
    """`said` are the frames that came down, `asked` the requests, `pipes` the connections that it dialled."""

    def __init__(self, uplink: Uplink, answers: Answers = lambda method, path: (200, WELL)) -> None:
        self.uplink = uplink
        self.answers = answers
        self.dials = True
        self.lives = True
        self.said: list[Frame] = []
        self.asked: list[tuple[str, str, bytes]] = []
        self.pipes: list[Pipe] = []
        self.control = Pipe(uplink, self._heard)
        uplink.connection_made(self.control)

    def beat(self, beat: Heartbeat) -> None:
        self.uplink.data_received(write_frame(beat))

    def go(self) -> None:
        """As a process that dies."""
        self.control.abort()

    def _heard(self, data: bytes) -> None:
        for line in data.splitlines():
            frame = read_frame(line)
            self.said.append(frame)
            if isinstance(frame, Dial) and self.dials and self.lives:
                asyncio.get_running_loop().call_soon(self.dial, frame.id)

    def dial(self, dial_id: str) -> None:
        try:
            stream = self.uplink.take_carrier(dial_id)
        except RbeeError:
            return
        pipe = Pipe(stream, lambda request: self._answer(stream, request))
        self.pipes.append(pipe)
        stream.connection_made(pipe)

    def _answer(self, stream: asyncio.Protocol, request: bytes) -> None:
        """A request comes as its head, and its body."""
        if not request.startswith((b"GET", b"POST", b"DELETE")):
            return
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.decode().split(" ", 2)
        self.asked.append((method, path, head + body))
        if self.lives:
            status, content = self.answers(method, path)
            answer = b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, len(content)) + content
            asyncio.get_running_loop().call_soon(self._deliver, stream, answer)

    def _deliver(self, stream: asyncio.Protocol, answer: bytes) -> None:
        if not self.control.is_closing():
            stream.data_received(answer)

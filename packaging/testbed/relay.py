"""A TCP relay that delays, loses, goes silent or breaks, as the kernel here has no netem.

    with Relay((bridge.host("gpu1-far"), 22), (gpu1.address, 22), delay=0.1) as relay:
        ...
        relay.blackhole()

Up is from the client to the target, down is back. Two things differ from a real network: the relay accepts
a client at once, even if the target does not; and the target sees the relay's address.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from testbed.lifetime import Lifetime

T = TypeVar("T")
Address = tuple[str, int]
Direction = Literal["up", "down", "both"]

SEGMENT = 1448
"""Bytes of TCP in a packet of 1500."""
CHUNK = 16 * 1024
HELD = 256
"""Chunks on their way in a direction of a connection; then its sender has to wait, as for a window."""
RETRANSMISSION = (0.2, 1.0)
"""Seconds by which a lost segment comes late: from Linux's shortest timeout to its first."""
REPLY_SECONDS = 10.0

RESETS = struct.pack("ii", 1, 0)
CLOSES = struct.pack("ii", 0, 0)
"""What SO_LINGER has close(2) do: struct linger, on or off and seconds."""


@dataclass
class _Way:
    """One direction, of all connections."""

    bytes: int = 0
    flows: asyncio.Event = field(default_factory=asyncio.Event)


Parcels = asyncio.Queue[tuple[float, bytes | None]]
"""What is on its way, each with when it is due by the loop's clock: b"" is the end, and None a reset."""


class Relay(Lifetime):
    """Relays while its context is entered, in a thread of its own; connections left at its end are reset."""

    def __init__(
        self,
        listen_address: Address,
        target: Address,
        *,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        """delay: seconds each way. loss: the share of segments, 0 to 1, drawn by seed for each connection.

        Both may be set anew while it relays, for all that it reads from then on.
        """
        self.delay = delay
        self.loss = loss
        self.address = listen_address
        """With the port that was chosen if 0 was given."""
        self.accepted = 0
        """Connections, in all."""
        self.lost = 0
        """Segments, in all; they, and what is behind them, come late."""
        self._target = target
        self._seed = seed
        self._ways = {"up": _Way(), "down": _Way()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], tuple[socket.socket, socket.socket]] = {}

    @property
    def up_bytes(self) -> int:
        """Bytes that were passed to the target, in all."""
        return self._ways["up"].bytes

    @property
    def down_bytes(self) -> int:
        """Bytes that were passed back to clients, in all."""
        return self._ways["down"].bytes

    def _start(self) -> None:
        self._thread.start()
        self._do(self._begin())

    def _stop(self) -> None:
        try:
            self._do(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(REPLY_SECONDS)
            self._loop.close()

    def blackhole(self, direction: Direction = "both") -> None:
        """From now on nothing is passed on, no end or reset either; what comes in is held back."""
        self._do(self._let_flow(direction, flows=False))

    def heal(self, direction: Direction = "both") -> None:
        """Passes on what was held back, as TCP would have sent it again."""
        self._do(self._let_flow(direction, flows=True))

    def reset_all(self) -> int:
        """Resets each connection at both ends; returns how many there were."""
        return self._do(self._reset_all())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(REPLY_SECONDS)

    # In the thread.

    async def _begin(self) -> None:
        await self._let_flow("both", flows=True)
        listener = socket.create_server(self.address)
        listener.setblocking(False)
        self.address = listener.getsockname()
        self._accepting = asyncio.create_task(self._accept(listener))
        self._accepting.add_done_callback(lambda task: listener.close())

    async def _end(self) -> None:
        if self._accepting:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        await self._reset_all()

    async def _let_flow(self, direction: Direction, *, flows: bool) -> None:
        for way in ("up", "down") if direction == "both" else (direction,):
            if flows:
                self._ways[way].flows.set()
            else:
                self._ways[way].flows.clear()

    async def _reset_all(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            self.accepted += 1
            target = socket.socket()
            target.setblocking(False)
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Unless both sides have closed, closing is a reset.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            connection = asyncio.create_task(self._connect(client, target, self.accepted))
            self._connections[connection] = (client, target)
            connection.add_done_callback(self._close)

    def _close(self, connection: asyncio.Task[None]) -> None:
        # Here, as a task that is cancelled at once does not even begin.
        for end in self._connections.pop(connection):
            end.close()

    async def _connect(self, client: socket.socket, target: socket.socket, number: int) -> None:
        try:
            await self._cross("up")
            await self._loop.sock_connect(target, self._target)
            await self._cross("down")
            async with asyncio.TaskGroup() as group:
                for way, source, sink in (("up", client, target), ("down", target, client)):
                    parcels = Parcels(HELD)
                    draw = random.Random(f"{self._seed} {number} {way}")
                    group.create_task(self._take(source, parcels, draw))
                    group.create_task(self._hand_out(parcels, sink, self._ways[way]))
            for end in (client, target):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSES)
        except* OSError:
            pass  # and so reset

    async def _cross(self, way: str) -> None:
        """Wait as long as a packet that opens a connection is on its way."""
        await asyncio.sleep(self.delay)
        await self._ways[way].flows.wait()

    async def _take(self, source: socket.socket, parcels: Parcels, draw: random.Random) -> None:
        due = 0.0
        while True:
            chunk: bytes | None
            try:
                chunk = await self._loop.sock_recv(source, CHUNK)
            except OSError:
                chunk = None
            # Not before what went ahead.
            due = max(due, self._loop.time() + self.delay + self._lateness(len(chunk or b""), draw))
            await parcels.put((due, chunk))
            if not chunk:
                return

    def _lateness(self, length: int, draw: random.Random) -> float:
        segments = max(1, math.ceil(length / SEGMENT))
        lost = sum(draw.random() < self.loss for _ in range(segments))
        self.lost += lost
        return draw.uniform(*RETRANSMISSION) if lost else 0.0

    async def _hand_out(self, parcels: Parcels, sink: socket.socket, way: _Way) -> None:
        while True:
            due, chunk = await parcels.get()
            await asyncio.sleep(due - self._loop.time())
            await way.flows.wait()
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, chunk)
            way.bytes += len(chunk)

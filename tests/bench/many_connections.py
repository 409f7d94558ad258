"""Run in a machine: plays many hives with little memory for each, for scale.py.

many_connections.py QUEEN FOLDER COUNT. FOLDER has ca.pem, key.pem, devices.json and members.json (scale.py's
MAKE). Each hive has a TLS connection with its own certificate and the frames of rbee.uplink.frames; it dials
for the queen's requests, and answers them. The program prints a line of JSON for each word on stdin: for
'held' and 'again' the seconds until every hive has had a heartbeat acknowledged, for 'back' the seconds until
every hive has lost its connection and then has had one acknowledged, for 'beats' the number of heartbeats
since then, and for 'late' the longest wait for an acknowledgement in ms; 'drop' ends all connections.
"""

from __future__ import annotations

import errno
import heapq
import json
import math
import random
import resource
import secrets
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rbee import __version__
from rbee.narration import now_rfc3339
from rbee.tls import QUEEN_NAME, client_context
from rbee.uplink.frames import UplinkRoutes, hello, write_frame
from rbee.wire.heartbeats import Heartbeat
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER

THREADS = 16
"""Each plays a part of the hives, and dials for one at a time: the queen has as many handshakes at once."""

DIAL_AGAIN = 2.0
"""Seconds after its loss within which a connection is dialled again, at random."""

PORT = 8500

Due = tuple[float, int, Callable[[], None]]
"""When, by the monotonic clock; the order among those of one moment; and what is to be called."""


class Player(threading.Thread):
    """A thread that plays a part of the hives in one event loop."""

    def __init__(self, queen: str, folder: Path, members: list[tuple[str, str]]) -> None:
        super().__init__(daemon=True)
        self._queen = queen
        self._folder = folder
        self._context = client_context((folder / "ca.pem").read_text(), None, None)
        self._key = (folder / "key.pem").read_text()
        self._devices = (folder / "devices.json").read_bytes()
        self._poll = select.epoll()
        self._beats: list[Due] = []
        self._dials: list[Due] = []
        self._order = 0
        self._readers: dict[int, Callable[[], None]] = {}
        self._hives = [Hive(self, name, certificate) for name, certificate in members]
        self.heard: set[str] = set()
        self.beats = 0
        self.latest = 0.0
        self.losses = 0
        self.is_dropping = False

    def run(self) -> None:
        for hive in self._hives:
            self.dial_after(0.0, hive.dial)
        while True:
            while _is_due(self._beats):
                _, _, beat = heapq.heappop(self._beats)
                beat()
            if _is_due(self._dials):
                # Only one: a dial waits for the queen, which may itself wait for an answer.
                _, _, dial = heapq.heappop(self._dials)
                dial()
            for descriptor, _ in self._poll.poll(self._wait()):
                reader = self._readers.get(descriptor)
                if reader is not None:
                    reader()
            if self.is_dropping:
                self.is_dropping = False
                for hive in self._hives:
                    hive.lose()

    def _wait(self) -> float:
        """Return the seconds until the next beat or dial; half a second at most."""
        due = min((queue[0][0] for queue in (self._beats, self._dials) if queue), default=math.inf)
        return max(0.0, min(due - time.monotonic(), 0.5))

    def beat_after(self, seconds: float, beat: Callable[[], None]) -> None:
        """Call `beat` after this many seconds, before any dial that is due."""
        self._push(self._beats, seconds, beat)

    def dial_after(self, seconds: float, dial: Callable[[], None]) -> None:
        """Call `dial` after this many seconds."""
        self._push(self._dials, seconds, dial)

    def _push(self, queue: list[Due], seconds: float, work: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(queue, (time.monotonic() + seconds, self._order, work))

    def connect(self, certificate: str, request: bytes) -> tuple[ssl.SSLSocket, bytes]:
        """Return a new connection over which the queen has accepted `request`, and what followed its answer.

        Raises OSError; ConnectionRefusedError with the answer if the queen refuses.
        """
        path = self._folder / f"{self.name}.pem"
        path.write_text(certificate + self._key)
        self._context.load_cert_chain(path)  # existing connections keep theirs
        plain = socket.create_connection((self._queen, PORT), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = self._context.wrap_socket(plain, server_hostname=QUEEN_NAME)
        channel.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (part := channel.recv(4096)):
                raise ConnectionResetError
            answer += part
        head, _, rest = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            channel.close()
            raise ConnectionRefusedError(answer)
        channel.setblocking(False)
        return channel, rest

    def read_with(self, channel: ssl.SSLSocket, reader: Callable[[], None]) -> None:
        self._readers[channel.fileno()] = reader
        self._poll.register(channel, select.EPOLLIN)

    def forget(self, channel: ssl.SSLSocket) -> None:
        """Close a connection, and read no more from it."""
        if channel.fileno() != -1:
            self._readers.pop(channel.fileno(), None)
            self._poll.unregister(channel)
            channel.close()

    def answer(self, channel: ssl.SSLSocket) -> None:
        """Answer the queen's request for the devices or for the hive's health."""
        request = _received(channel)
        if request is None:
            self.forget(channel)
        elif request:
            devices = b"GET /v1/devices " in request
            body = self._devices if devices else b'{"status":"ok","version":"%b"}' % __version__.encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            channel.sendall(head.encode() + body)


class Hive:
    """One hive: its control connection and its next beat."""

    __slots__ = (
        "_certificate",
        "_channel",
        "_instance",
        "_interval",
        "_name",
        "_player",
        "_sent",
        "_waiting",
    )

    def __init__(self, player: Player, name: str, certificate: str) -> None:
        self._player = player
        self._name = name
        self._certificate = certificate
        self._instance = secrets.token_hex(16)
        self._channel: ssl.SSLSocket | None = None
        self._waiting = b""
        self._sent = 0.0

    def dial(self) -> None:
        headers = {INSTANCE_HEADER: self._instance, VERSION_HEADER: __version__}
        try:
            connected = self._player.connect(
                self._certificate, hello(UplinkRoutes.CONTROL, QUEEN_NAME, headers)
            )
        except OSError as error:
            if isinstance(error, ConnectionRefusedError) and error.args[0] != errno.ECONNREFUSED:
                print(error, file=sys.stderr)
            self._player.dial_after(random.uniform(0.1, DIAL_AGAIN), self.dial)
            return
        self._channel, self._waiting = connected
        self._player.read_with(self._channel, self._read)
        self._beat()

    def lose(self) -> None:
        """Close the connection, and dial again."""
        if self._channel is not None:
            self._player.forget(self._channel)
            self._channel = None
            self._player.losses += 1
            self._player.heard.discard(self._name)
            self._player.dial_after(random.uniform(0.0, DIAL_AGAIN), self.dial)

    def _beat(self) -> None:
        if self._channel is None:
            return
        beat = Heartbeat(self._name, now_rfc3339(), (), self._instance, version=__version__, fingerprint="f")
        self._sent = time.monotonic()
        try:
            self._channel.sendall(write_frame(beat))
        except OSError:
            self.lose()

    def _read(self) -> None:
        assert self._channel is not None
        data = _received(self._channel)
        if data is None:
            self.lose()
            return
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        for line in lines:
            [(kind, value)] = json.loads(line).items()
            if kind == "ack":
                self._acknowledged(value["interval_ms"] / 1000)
            elif kind == "dial":
                self._carry(value["id"])
            elif kind == "goodbye":
                self.lose()
                return
            else:
                print(self._name, line, file=sys.stderr)

    def _acknowledged(self, interval: float) -> None:
        player = self._player
        player.beats += 1
        player.heard.add(self._name)
        player.latest = max(player.latest, time.monotonic() - self._sent)
        player.beat_after(interval * random.uniform(0.9, 1), self._beat)

    def _carry(self, dial_id: str) -> None:
        request = hello(UplinkRoutes.CARRIER, QUEEN_NAME, {}, dial_id=dial_id)
        try:
            channel, _ = self._player.connect(self._certificate, request)
        except OSError:
            return  # the queen asks again
        self._player.read_with(channel, lambda: self._player.answer(channel))
        self._player.answer(channel)


def _is_due(queue: list[Due]) -> bool:
    return bool(queue) and queue[0][0] <= time.monotonic()


def _received(channel: ssl.SSLSocket) -> bytes | None:
    """Return what has arrived, b"" if nothing has; None at the end of the connection."""
    try:
        return channel.recv(16384) or None
    except ssl.SSLWantReadError:
        return b""
    except OSError:
        return None


def report(**results: float) -> None:
    print(json.dumps(results), flush=True)


def main(queen: str, folder: Path, count: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    members = json.loads((folder / "members.json").read_text())[:count]
    players = [Player(queen, folder, members[number::THREADS]) for number in range(THREADS)]
    report(seconds=0)
    began = time.monotonic()
    for player in players:
        player.start()
    for line in sys.stdin:
        word = line.strip()
        if word == "beats":
            report(beats=sum(player.beats for player in players))
        elif word == "late":
            report(late=1000 * max(player.latest for player in players))
        elif word == "drop":
            for player in players:
                player.is_dropping = True
            report(dropped=1)
        else:
            if word == "again":
                began = time.monotonic()
                for player in players:
                    player.heard = set()
            elif word == "back":
                began = time.monotonic()
                while sum(player.losses for player in players) < count:
                    time.sleep(0.05)
            while sum(len(player.heard) for player in players) < count:
                time.sleep(0.05)
            for player in players:
                player.beats, player.latest, player.losses = 0, 0.0, 0
            report(seconds=time.monotonic() - began)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

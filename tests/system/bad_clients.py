"""Bad clients, many in one process; run inside a machine, which has nothing but Python's own library.

    bad_clients.py KIND COUNT SOCKET [PATH]

says 'ready' when all have connected, and then one line of JSON: how many ended in which way, by the status
of the answer, or 'cut' where the connection was ended without one. A line on stdin ends those that hold.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections import Counter, deque
from contextlib import suppress

PATIENCE = 60.0
"""Seconds in which the other side must have answered, or ended all of them."""

DRIP = 0.5
"""Seconds between two bytes of a slow client."""

AT_ONCE = 12
"""Streams that are read at the same time; a process may have 64, those that it has just dropped included."""

BEGINNINGS = {
    "silent": b"",
    "slow": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "half": b'POST /add-hive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"host": ',
    "unread": b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 16,
}


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(path)
    return client


def status_of(answer: bytes) -> str:
    return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1.1 ") else "cut"


def suffer(kind: str, count: int, path: str) -> Counter[str]:
    """Connect, behave badly, and wait until the other side has ended every connection."""
    poll, ended = select.poll(), Counter[str]()
    clients: dict[int, socket.socket] = {}
    for _ in range(count):
        client = connect(path)
        clients[client.fileno()] = client
        # Whoever does not read learns of the end alone.
        poll.register(client, 0 if kind == "unread" else select.POLLIN)
        with suppress(OSError):  # refused at once; the answer says why
            client.sendall(BEGINNINGS[kind])
    print("ready", flush=True)
    rounds = int(PATIENCE / DRIP)
    while clients and rounds:
        events = poll.poll(1000 * DRIP)
        for number, _ in events:
            client = clients.pop(number)
            poll.unregister(number)
            try:
                ended["cut" if kind == "unread" else status_of(client.recv(65536))] += 1
            except OSError:
                ended["cut"] += 1
            client.close()
        if not events:
            rounds -= 1
            for client in clients.values() if kind == "slow" else ():
                with suppress(OSError):  # the answer says why
                    client.send(b"a")
    ended["left"] += len(clients)
    return ended


def hold(count: int, path: str, story: bytes) -> Counter[str]:
    """Ask for a story or something else each, and read nothing of it until told to end."""
    clients = [connect(path) for _ in range(count)]
    for client in clients:
        client.sendall(story)
    for client in clients:
        select.select([client], [], [], PATIENCE)
    print("ready", flush=True)
    sys.stdin.readline()
    return Counter(status_of(client.recv(65536)) for client in clients)


def drop(count: int, path: str, story: bytes) -> Counter[str]:
    """Open streams and drop them, every other one after the first bytes and the rest at once."""
    print("ready", flush=True)
    ended = Counter[str]()
    waiting: deque[socket.socket] = deque()
    for number in range(count):
        client = connect(path)
        try:
            client.sendall(story)
            waiting.append(client)
        except OSError:
            ended["cut"] += 1
        if number % 2:
            waiting.pop().close()
            ended["dropped at once"] += 1
        if len(waiting) == AT_ONCE or number == count - 1:
            while waiting:
                client = waiting.popleft()
                ended[status_of(client.recv(64))] += 1
                client.close()
    return ended


def main(kind: str, count: int, path: str, *story: str) -> None:
    asked = "".join(f"GET {one} HTTP/1.1\r\nHost: localhost\r\n\r\n" for one in story).encode()
    if kind == "hold":
        ended = hold(count, path, asked)
    elif kind == "drop":
        ended = drop(count, path, asked)
    else:
        ended = suffer(kind, count, path)
    print(json.dumps({how: number for how, number in ended.items() if number}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

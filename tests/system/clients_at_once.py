"""Clients that ask for things all at once; run inside a machine, which has nothing but Python's own library.

    clients_at_once.py METHOD PATH BODY [METHOD PATH BODY]...

lets a client for each stand ready, then all ask for its story at the same time, and says what each heard:
a JSON list of the events of each, [id, event, data].
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any

SOCKET = "/run/rbee/queen.sock"
PATIENCE = 60.0
"""Seconds without a byte after which a story counts as broken."""


def heard(method: str, path: str, body: str, at_once: threading.Barrier) -> list[Any]:
    """The events of the story that a request is answered with; of another answer its status and content."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(SOCKET)
        asked = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        asked += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        at_once.wait(PATIENCE)
        client.sendall(asked.encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, content = answer.decode().partition("\r\n\r\n")
    if "text/event-stream" not in head:
        return [head.split()[1], json.loads(content)]
    return [event_of(block) for block in unchunked(content).split("\n\n") if block.startswith("id:")]


def unchunked(content: str) -> str:
    """What came in chunks; it is ASCII, so that a character is a byte."""
    told = ""
    while content:
        size, _, rest = content.partition("\r\n")
        told, content = told + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return told


def event_of(block: str) -> list[Any]:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return [int(fields["id"]), fields["event"], json.loads(fields["data"])]


def main(*asked: str) -> None:
    requests = list(zip(asked[::3], asked[1::3], asked[2::3], strict=True))
    at_once = threading.Barrier(len(requests))
    stories: list[Any] = [None] * len(requests)

    def client(number: int) -> None:
        stories[number] = heard(*requests[number], at_once)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(stories))


if __name__ == "__main__":
    main(*sys.argv[1:])

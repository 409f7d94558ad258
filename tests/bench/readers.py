"""Run in a machine: reads the queen's events with many clients, and prints what a line costs the queen.

readers.py CGROUP READERS LINES VERSION: each line comes with a heartbeat of the local hive. The readers
belong to several users and processes, because the queen limits the streams of each.
"""

import grp
import json
import os
import selectors
import socket
import sys
import time

QUEEN = "/run/rbee/queen.sock"
A_PROCESS = 32
A_USER = 96
FIRST_USER = 20000


def connected() -> socket.socket:
    """Return a connection to the queen."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(QUEEN)
    return channel


def read(number: int, count: int, heard: int) -> None:
    """Read with `count` clients, and write a byte to `heard` for each line that all of them have."""
    os.setgroups([])
    os.setgid(grp.getgrnam("rbee").gr_gid)
    os.setuid(FIRST_USER + number * A_PROCESS // A_USER)
    ready = selectors.DefaultSelector()
    for _ in range(count):
        channel = connected()
        channel.sendall(b"GET /v1/events HTTP/1.1\r\nHost: rbee\r\nAccept: text/event-stream\r\n\r\n")
        head = b""
        while b"\r\nid: " not in head:  # the first event, which has only an id
            head += channel.recv(65536)
            assert b" 200 " in head[:20], head
        ready.register(channel, selectors.EVENT_READ)
    os.write(heard, b".")
    missing = count
    while True:
        for key, _ in ready.select():
            assert isinstance(key.fileobj, socket.socket)
            content = key.fileobj.recv(65536)
            assert content, "the queen has closed a stream"
            missing -= content.count(b"a line of the benchmark")
        if not missing:
            missing = count
            os.write(heard, b".")


def cpu_us(cgroup: str) -> int:
    """Return the CPU time of a cgroup in µs."""
    with open(f"/sys/fs/cgroup{cgroup}/cpu.stat") as file:
        return int(dict(line.split() for line in file)["usage_usec"])


class Hive:
    """The local hive, whose heartbeats carry lines."""

    def __init__(self, version: str) -> None:
        self._channel = connected()
        self._beat = {
            "hive_id": "localhost", "workers": [], "instance": "1" * 32, "state": "ready",
            "version": version, "fingerprint": "f",
        }  # fmt: skip

    def beat(self, *texts: str) -> None:
        """Send a heartbeat with these lines; the queen must accept it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = [{"speaker": "bee hive", "text": text, "event": "hive-said", "at": now} for text in texts]
        body = json.dumps({**self._beat, "timestamp": now, "lines": lines}).encode()
        head = f"POST /heartbeat HTTP/1.1\r\nHost: rbee\r\nContent-Length: {len(body)}\r\n"
        self._channel.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        answer = b""
        while b'"job_id"' not in answer:
            answer += self._channel.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer


def main() -> None:
    """Print, for each line, the ms of the queen's CPU, and the ms until all readers have it."""
    cgroup, readers, lines, version = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    heard, hear = os.pipe()
    counts = [min(A_PROCESS, readers - first) for first in range(0, readers, A_PROCESS)]

    def await_all() -> None:
        missing = len(counts)
        while missing:
            missing -= len(os.read(heard, missing))

    processes = []
    for number, count in enumerate(counts):
        processes.append(os.fork())
        if not processes[-1]:
            read(number, count, hear)
        os.read(heard, 1)  # one after the other: the socket's backlog is limited
    hive = Hive(version)
    hive.beat()
    time.sleep(1)  # the queen asks the hive for its devices, once
    cpu, clock = [], []
    for number in range(lines):
        used, began = cpu_us(cgroup), time.monotonic()
        hive.beat(f"{number}: a line of the benchmark")
        await_all()
        clock.append(1000 * (time.monotonic() - began))
        cpu.append((cpu_us(cgroup) - used) / 1000)
    for process in processes:
        os.kill(process, 9)
    print(json.dumps({"cpu": cpu, "clock": clock}))


if __name__ == "__main__":
    main()

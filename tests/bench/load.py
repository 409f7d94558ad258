"""Run in a machine: sends one request after the other, and prints the CPU time of a unit for each.

load.py TALK CGROUP CONNECTIONS RATE SECONDS VERSION: TALK is beat, echo or keepalive; RATE is the requests a
second on all connections, 0 for as many as possible.
"""

import json
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod


class Talk(ABC):
    """A connection over which requests go."""

    @abstractmethod
    def send(self) -> None:
        """Send one request, and read its answer."""


class Beat(Talk):
    """The heartbeats of the local hive, to the queen."""

    path = "/run/rbee/queen.sock"

    def __init__(self, version: str, _number: int) -> None:
        self._beat = {
            "hive_id": "localhost",
            "timestamp": "",
            "workers": [],
            "instance": "1" * 32,
            "state": "ready",
            "version": version,
            "fingerprint": "f",
        }
        self.channel = socket.socket(socket.AF_UNIX)
        self.channel.connect(self.path)

    def request(self) -> bytes:
        """Return a beat of this second."""
        self._beat["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = json.dumps(self._beat).encode()
        head = ["POST /heartbeat HTTP/1.1", "Host: rbee", "Content-Type: application/json"]
        head += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(head).encode() + body

    def send(self) -> None:
        """Send a beat; the queen must accept it."""
        self.channel.sendall(self.request())
        answer = self.channel.recv(65536)
        while b'"job_id"' not in answer:  # 0.4.0 sends the head separately
            answer += self.channel.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer


class Echo(Beat):
    """The same bytes, to a socket that returns them."""

    path = "/run/echo.sock"

    def send(self) -> None:
        """Send the bytes of a beat, and read them back."""
        request = self.request()
        self.channel.sendall(request)
        left = len(request)
        while left:
            left -= len(self.channel.recv(65536))


class Keepalive(Talk):
    """The keepalives of a lease, to etcd, by the least gRPC that these need (RFC 9113, RFC 7541)."""

    DATA, HEADERS, SETTINGS, PING, WINDOW = 0, 1, 4, 6, 8
    END_STREAM = ACK = 1
    END_HEADERS = 4
    SERVICE = "/etcdserverpb.Lease/"
    WIDE = 2**31 - 1

    def __init__(self, _version: str, number: int) -> None:
        self.channel = socket.create_connection(("127.0.0.1", 2379))
        self.channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = b""
        self.channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._write(self.SETTINGS, 0, 0, struct.pack("!HI", 4, self.WIDE))
        self._write(self.WINDOW, 0, 0, struct.pack("!I", self.WIDE - 65535))
        self._lease = number + 1
        self._begin(1, "LeaseGrant")
        # LeaseGrantRequest: TTL=3600, ID. The lease of the load before will do, if it exists.
        grant = b"\x08\x90\x1c\x10" + bytes([self._lease])
        self._write(self.DATA, self.END_STREAM, 1, struct.pack("!BI", 0, len(grant)) + grant)
        while not self._read(1)[1] & self.END_STREAM:
            pass
        self._begin(3, "LeaseKeepAlive")

    def send(self) -> None:
        """Send a keepalive; the lease must be alive."""
        self._write(self.DATA, 0, 3, struct.pack("!BIBB", 0, 2, 0x08, self._lease))
        kind, flags, content = self._read(3)
        while kind != self.DATA:  # the head of the answer, before the first
            assert kind == self.HEADERS, content
            assert not flags & self.END_STREAM, content
            kind, flags, content = self._read(3)
        # LeaseKeepAliveResponse: header, ID and TTL, which is missing for a lease that has ended.
        assert bytes([0x10, self._lease, 0x18]) in content, content

    def _begin(self, stream: int, method: str) -> None:
        path = self.SERVICE + method
        fields = [
            b"\x83\x86",  # :method POST, :scheme http
            # Names of the static table: 4, 1 and 31 are :path, :authority and content-type.
            b"\x04" + bytes([len(path)]) + path.encode(),
            b"\x01\x04etcd\x0f\x10\x10application/grpc",
            b"\x00\x02te\x08trailers",
        ]
        self._write(self.HEADERS, self.END_HEADERS, stream, b"".join(fields))

    def _write(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        length = struct.pack("!I", len(content))[1:]
        self.channel.sendall(length + struct.pack("!BBI", kind, flags, stream) + content)

    def _read(self, wanted: int) -> tuple[int, int, bytes]:
        """Return the kind, the flags and the content of the next frame of a stream."""
        while True:
            head = self._take(9)
            kind, flags, stream = struct.unpack("!BBI", head[3:])
            content = self._take(int.from_bytes(head[:3], "big"))
            if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                self._write(kind, self.ACK, 0, content if kind == self.PING else b"")
            if stream == wanted and kind != self.WINDOW:
                return kind, flags, content

    def _take(self, length: int) -> bytes:
        while len(self._input) < length:
            arrived = self.channel.recv(65536)
            assert arrived, "etcd has closed the connection"
            self._input += arrived
        taken, self._input = self._input[:length], self._input[length:]
        return taken


TALKS: dict[str, type[Beat] | type[Keepalive]] = {"beat": Beat, "echo": Echo, "keepalive": Keepalive}


def cpu_us(cgroup: str) -> int:
    """Return the CPU time of a cgroup in µs."""
    with open(f"/sys/fs/cgroup{cgroup}/cpu.stat") as file:
        return int(dict(line.split() for line in file)["usage_usec"])


def work(talk: Talk, rate: float, seconds: float, took: list[float]) -> None:
    """Send requests for this many seconds, and append to `took` the seconds that each took."""
    end = time.monotonic() + seconds
    due = time.monotonic()
    while (began := time.monotonic()) < end:
        talk.send()
        took.append(time.monotonic() - began)
        if rate:
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))


def main() -> None:
    """Print the µs of CPU for a request, the median µs until its answer, and how many there were."""
    talk, cgroup, version = sys.argv[1], sys.argv[2], sys.argv[6]
    connections, rate, seconds = int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    talks = [TALKS[talk](version, number) for number in range(connections)]
    talks[0].send()
    time.sleep(1)  # the queen asks the hive for its devices, once
    took: list[float] = []
    before = cpu_us(cgroup)
    threads = [threading.Thread(target=work, args=(one, rate, seconds, took)) for one in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = cpu_us(cgroup) - before
    median = sorted(took)[len(took) // 2]
    print(json.dumps({"cpu": used / len(took), "clock": 1e6 * median, "count": len(took)}))


if __name__ == "__main__":
    main()

"""Sends heartbeats to the queen as its local hive does, and reads from its cgroup what they take.

The hive's own program is replaced by one that answers requests and sends no heartbeats. Otherwise the queen
would get heartbeats of two processes, and ask for the devices whenever they alternate.
"""

from __future__ import annotations

import json
import time

from testbed.machine import Machine

from tests.bench.lines import Column, CpuAndClock, Goal, Results
from tests.bench.subject import HERE, Peers, Release, Subject
from tests.bench.usage import HIVE

LOADS = (
    (1, 0, CpuAndClock("beat, 1 connection, saturated", "µs", Goal(at_most=65))),
    (32, 0, CpuAndClock("beat, 32 connections, saturated", "µs", Goal(at_most=32))),
    (1, 667, CpuAndClock("beat, 667 a second", "µs", Goal(at_most=110))),
    (1, 50, CpuAndClock("beat, 50 a second", "µs", Goal(at_most=450))),
)
"""Connections, heartbeats a second on all of them (0: as many as possible), and the lines of each load."""

SECONDS = 4.0

SETTLE = 2.0
"""Seconds after a boot until the machine is idle."""

QUIET_HIVE = """
import http.server, os, socket, socketserver

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = "devices" if "devices" in self.path else "health"
        content = b'{"workers": []}'
        if "workers" not in self.path:
            content = open("/usr/lib/quiet/" + name, "rb").read()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def address_string(self):
        return "queen"
    def log_message(self, *_):
        pass

class Served(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

server = Served("", Answers, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\\0"))
server.serve_forever()
"""

ECHO = """
import os, selectors, socket

listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/echo.sock")
listener.listen(64)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            ready.register(listener.accept()[0], selectors.EVENT_READ)
        elif content := key.fileobj.recv(65536):
            key.fileobj.sendall(content)
        else:
            ready.unregister(key.fileobj)
            key.fileobj.close()
"""


class Beat(Subject):
    """What a heartbeat takes; the floor is a socket that echoes it, the peer etcd's keepalive of a lease."""

    name = "beat"
    lines = tuple(line for _, _, load in LOADS for line in load.lines)

    def measure(self, release: Release, results: Results) -> None:
        """Add a sample of each load."""
        with Machine(release.queen()) as machine:
            version = prepare(machine)
            self._send(machine, "beat", "/rbee.slice/queen-rbee.service", results, release.column, version)
            if release.is_now:
                machine.run("systemd-run", "--quiet", "--unit=echo", "python3", "-I", "-c", ECHO)
                time.sleep(SETTLE)
                self._send(machine, "echo", "/system.slice/echo.service", results, "floor")

    def measure_peer(self, peers: Peers, results: Results) -> None:
        """Add a sample of each load, with keepalives of a lease instead of heartbeats."""
        with Machine(peers.tree()) as machine:
            time.sleep(SETTLE)
            self._send(machine, "keepalive", "/system.slice/etcd.service", results, "peer")

    def _send(
        self, machine: Machine, talk: str, cgroup: str, results: Results, column: Column, version: str = ""
    ) -> None:
        program = (HERE / "load.py").read_text()
        for connections, rate, load in LOADS:
            arguments = (talk, cgroup, str(connections), str(rate), str(SECONDS), version)
            sent = json.loads(machine.run("python3", "-c", program, *arguments, timeout=60).stdout)
            results.add(load.cpu.name, column, sent["cpu"])
            results.add(load.clock.name, column, sent["clock"])


def prepare(machine: Machine) -> str:
    """Add the local hive and stop its heartbeats; return its version, for those that are sent for it."""
    machine.run("mkdir", "-p", "/etc/rbee")
    beats = "[Queen]\nHeartbeatIntervalSec=600\nHeartbeatGraceSec=180\n"
    machine.run("tee", "/etc/rbee/rbee.conf", input=beats)
    machine.run("rbeectl", "add-hive", "localhost", user="ada")
    be_quiet(machine)
    shown = machine.run("rbeectl", "list-hives", "--json").stdout
    version: str = json.loads(shown)["hives"][0]["version"]
    return version


def be_quiet(machine: Machine) -> None:
    """Replace the hive's program by one that repeats its answers and sends no heartbeats."""
    machine.run("mkdir", "-p", "/usr/lib/quiet", f"/etc/systemd/system/{HIVE}.d")
    for name, path in (("devices", "/v1/devices"), ("health", "/health")):
        ask = f"curl --silent --fail --unix-socket /run/rbee/hive.sock http://rbee{path}"
        machine.run("sh", "-c", f"{ask} >/usr/lib/quiet/{name}")
    machine.run("tee", "/usr/lib/quiet/hive.py", input=QUIET_HIVE)
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /usr/lib/quiet/hive.py\nWatchdogSec=0\n"
    machine.run("tee", f"/etc/systemd/system/{HIVE}.d/quiet.conf", input=dropin)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", HIVE)

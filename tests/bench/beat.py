"""Sends the queen heartbeats as her local hive does, and reads from her cgroup what they took.

The hive's own program is replaced by one that answers and sends no beats: to the queen its beats and those
sent here would be of two processes, and she would ask for its devices with each change.
"""

from __future__ import annotations

import json
import time

from testbed.machine import Machine

from tests.bench.lines import Column, Found, Goal, Line
from tests.bench.subject import HERE, Peers, Release, Subject
from tests.bench.usage import HIVE

LOADS = (
    (1, 0, "1 connection, saturated", 65),
    (32, 0, "32 connections, saturated", 32),
    (1, 667, "667 a second", 110),
    (1, 50, "50 a second", 450),
)
"""Connections, beats a second in all (0 is as many as there can be), words, and the µs that are the goal."""

SECONDS = 4.0

SETTLE = 2.0
"""Seconds after a boot until nothing is left of it."""

QUIET_HIVE = """
import http.server, os, socket, socketserver

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = "devices" if "devices" in self.path else "health"
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


def cpu_of(words: str) -> str:
    """Return the name of the line with the CPU time of a load."""
    return f"beat, {words}: CPU"


def clock_of(words: str) -> str:
    """Return the name of the line with the time that a beat of a load takes."""
    return f"beat, {words}: clock"


class Beat(Subject):
    """The queen's CPU time for a beat; the floor is a socket that echoes, the peer an etcd with leases."""

    name = "beat"
    lines = tuple(
        line
        for _, _, words, most in LOADS
        for line in (Line(cpu_of(words), "µs", Goal(at_most=most)), Line(clock_of(words), "µs"))
    )

    def measure(self, release: Release, found: Found) -> None:
        """Add a sample of each load."""
        with Machine(release.queen()) as machine:
            prepare(machine)
            shown = machine.run("rbeectl", "list-hives", "--json").stdout
            version = json.loads(shown)["hives"][0]["version"]
            self._send(machine, "beat", "/rbee.slice/queen-rbee.service", found, release.column, version)
            if release.is_now:
                machine.run("systemd-run", "--quiet", "--unit=echo", "python3", "-I", "-c", ECHO)
                time.sleep(SETTLE)
                self._send(machine, "echo", "/system.slice/echo.service", found, "floor")

    def measure_peer(self, peers: Peers, found: Found) -> None:
        """Add a sample of each load, of keepalives of a lease instead of beats."""
        with Machine(peers.tree()) as machine:
            time.sleep(SETTLE)
            self._send(machine, "keepalive", "/system.slice/etcd.service", found, "peer")

    def _send(
        self, machine: Machine, talk: str, cgroup: str, found: Found, column: Column, version: str = ""
    ) -> None:
        program = (HERE / "load.py").read_text()
        for connections, rate, words, _ in LOADS:
            load = (talk, cgroup, str(connections), str(rate), str(SECONDS), version)
            sent = json.loads(machine.run("python3", "-c", program, *load, timeout=60).stdout)
            found.add(cpu_of(words), column, sent["cpu"])
            found.add(clock_of(words), column, sent["clock"])


def prepare(machine: Machine) -> None:
    """Add the local hive, and have nobody but load.py send beats."""
    machine.run("mkdir", "-p", "/etc/rbee")
    beats = "[Queen]\nHeartbeatIntervalSec=600\nHeartbeatGraceSec=180\n"
    machine.run("tee", "/etc/rbee/rbee.conf", input=beats)
    machine.run("rbeectl", "add-hive", "localhost", user="ada")
    be_quiet(machine)


def be_quiet(machine: Machine) -> None:
    """Replace the hive's program, and keep its answers."""
    machine.run("mkdir", "-p", "/usr/lib/quiet", f"/etc/systemd/system/{HIVE}.d")
    for name, path in (("devices", "/v1/devices"), ("health", "/health")):
        ask = f"curl --silent --fail --unix-socket /run/rbee/hive.sock http://rbee{path}"
        machine.run("sh", "-c", f"{ask} >/usr/lib/quiet/{name}")
    machine.run("tee", "/usr/lib/quiet/hive.py", input=QUIET_HIVE)
    dropin = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /usr/lib/quiet/hive.py\nWatchdogSec=0\n"
    machine.run("tee", f"/etc/systemd/system/{HIVE}.d/quiet.conf", input=dropin)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", HIVE)

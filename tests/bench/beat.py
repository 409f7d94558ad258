"""Sends the queen heartbeats as her local hive does, and reads from her cgroup what they took.

The hive's own program is replaced by one that answers and sends no beats: to the queen its beats and those
sent here would be of two processes, and she would ask for its devices with each change.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from testbed.machine import Machine
from testbed.trees import Trees

LOADS = ((1, 0), (32, 0), (1, 667), (1, 50))
"""Connections, and beats a second in all; 0 is as many as there can be."""

SECONDS = 4.0

HIVE = "rbee-hive.service"

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

CLIENT = """
import json, os, socket, subprocess, sys, threading, time

connections, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
beat = {"hive_id": "localhost", "timestamp": "", "workers": [], "instance": "1" * 32, "state": "ready",
        "version": sys.argv[4], "fingerprint": "f"}

def cpu_us():
    lines = open("/sys/fs/cgroup/rbee.slice/queen-rbee.service/cpu.stat").read().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])

def send(channel):
    beat["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    body = json.dumps(beat).encode()
    head = ["POST /heartbeat HTTP/1.1", "Host: rbee", "Content-Type: application/json",
            f"Content-Length: {len(body)}", "", ""]
    channel.sendall("\\r\\n".join(head).encode() + body)
    answer = channel.recv(65536)
    while b'"job_id"' not in answer:  # 0.4.0 writes the head by itself
        answer += channel.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200"), answer

def dialled():
    channel = socket.socket(socket.AF_UNIX)
    channel.connect("/run/rbee/queen.sock")
    return channel

def work(channel, counts):
    end = time.monotonic() + seconds
    due = time.monotonic()
    while time.monotonic() < end:
        send(channel)
        counts.append(1)
        if rate:
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))

channels = [dialled() for _ in range(connections)]
send(channels[0])
time.sleep(1)  # she asks the hive for its devices, once
counts, before = [], cpu_us()
threads = [threading.Thread(target=work, args=(channel, counts)) for channel in channels]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"us": (cpu_us() - before) / len(counts), "beats": len(counts)}))
"""


def measure(machine: Machine) -> list[float]:
    """CPU µs of the queen for a beat, of each of LOADS."""
    machine.run("mkdir", "-p", "/etc/rbee")
    machine.run(
        "sh",
        "-c",
        "printf '[Queen]\\nHeartbeatIntervalSec=600\\nHeartbeatGraceSec=180\\n' >/etc/rbee/rbee.conf",
    )
    machine.run("rbeectl", "add-hive", "localhost", user="ada")
    be_quiet(machine)
    version = json.loads(machine.run("rbeectl", "list-hives", "--json").stdout)["hives"][0]["version"]
    taken = []
    for connections, rate in LOADS:
        words = ("python3", "-c", CLIENT, str(connections), str(rate), str(SECONDS), version)
        taken.append(json.loads(machine.run(*words, timeout=60).stdout)["us"])
    return taken


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


def main() -> None:
    suite, rounds = sys.argv[1], int(sys.argv[2])
    debs = sorted(Path("dist").glob("*.deb"))
    found: dict[str, list[list[float]]] = {"before": [], "now": []}
    with Trees(Trees.default_cache(), say=lambda line: print(line, file=sys.stderr)) as trees:
        for _ in range(rounds):
            for name, tree in (("before", trees.previous(suite)), ("now", trees.installed(suite, debs))):
                with Machine(tree) as machine:
                    found[name].append(measure(machine))
    print(f"{'connections':>12}{'beats/s':>9}{'before µs':>11}{'now µs':>9}{'ratio':>7}")
    for number, (connections, rate) in enumerate(LOADS):
        before, now = (statistics.median(one[number] for one in found[name]) for name in ("before", "now"))
        print(f"{connections:>12}{rate or 'all':>9}{before:>11.0f}{now:>9.0f}{now / before:>7.2f}")


if __name__ == "__main__":
    main()

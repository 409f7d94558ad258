"""What the hive takes to find the devices of a machine without a GPU."""

from __future__ import annotations

import json

from testbed.machine import Machine

from tests.bench.lines import Found, Goal, Line
from tests.bench.subject import Release, Subject

RUNS = 7

ANSWER = Line("devices without a GPU: clock", "ms", Goal(at_most=15))
CPU = Line("devices without a GPU: CPU of the hive", "ms")

ASK = """
import json, socket, time

def cpu_us():
    lines = open("/sys/fs/cgroup/rbee.slice/rbee-hive.service/cpu.stat").read().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])

used, began = cpu_us(), time.perf_counter()
channel = socket.socket(socket.AF_UNIX)
channel.connect("/run/rbee/hive.sock")
channel.sendall(b"GET /v1/devices HTTP/1.1\\r\\nHost: rbee\\r\\nConnection: close\\r\\n\\r\\n")
answer = b""
while part := channel.recv(65536):
    answer += part
took = time.perf_counter() - began
assert answer.startswith(b"HTTP/1.1 200"), answer
print(json.dumps([1000 * took, (cpu_us() - used) / 1000]))
"""
"""Each time to a hive that has not been asked before: with what it imports, and a thread for NVML."""


class Detection(Subject):
    """The first answer of a hive's process, as in an add-hive."""

    name = "detection"
    lines = (ANSWER, CPU)

    def measure(self, release: Release, found: Found) -> None:
        """Start hives without a queen, who would ask them before, and ask each once."""
        with Machine(release.queen()) as machine:
            machine.run("systemctl", "mask", "--now", "queen-rbee.service", "queen-rbee.socket")
            machine.run("rm", "-rf", "/usr/lib/systemd/system/rbee-hive.service.d")
            machine.run("systemctl", "daemon-reload")
            for _ in range(RUNS):
                machine.run("systemctl", "restart", "rbee-hive.service")
                clock, cpu = json.loads(machine.run("python3", "-c", ASK).stdout)
                found.add(ANSWER.name, release.column, clock)
                found.add(CPU.name, release.column, cpu)

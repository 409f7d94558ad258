"""What it takes the hive to detect the devices of a machine without a GPU."""

from __future__ import annotations

import json

from testbed.machine import Machine

from tests.bench.lines import Goal, Line, Results
from tests.bench.subject import Release, Subject

RUNS = 7

ANSWER = Line("devices without a GPU: clock", "ms", Goal(at_most=15))
CPU = Line("devices without a GPU: CPU of the hive", "ms")

ASK = """
import json, socket, time

def cpu_us():
    lines = open("/sys/fs/cgroup/rbee.slice/rbee-hive.service/cpu.stat").read().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])

time.sleep(1)  # as in add-hive the first heartbeat is over, with what it imports; it finds no queen here
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
"""Asks a hive for the first time: its imports and the start of its thread for NVML are included."""


class Detection(Subject):
    """The first answer of a hive process, as in add-hive."""

    name = "detection"
    lines = (ANSWER, CPU)

    def measure(self, release: Release, results: Results) -> None:
        """Start hives without a queen, which would ask first, and ask each once."""
        with Machine(release.queen()) as machine:
            machine.run("systemctl", "mask", "--now", "queen-rbee.service", "queen-rbee.socket")
            machine.run("rm", "-rf", "/usr/lib/systemd/system/rbee-hive.service.d")
            machine.run("systemctl", "daemon-reload")
            for _ in range(RUNS):
                machine.run("systemctl", "restart", "rbee-hive.service")
                clock, cpu = json.loads(machine.run("python3", "-c", ASK).stdout)
                results.add(ANSWER.name, release.column, clock)
                results.add(CPU.name, release.column, cpu)

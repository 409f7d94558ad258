"""Times, inside a machine, from a SIGKILL to what follows from it, by the journal's monotonic clock."""

from __future__ import annotations

import json
import statistics
import sys

from testbed.machine import Machine

from tests.bench.booted import booted

KILL = """
import json, os, signal, subprocess, sys, time

unit, event = sys.argv[1], sys.argv[2]

def told(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

def show(name):
    return told("systemctl", "show", "-P", name, unit)

def first_entry():
    subprocess.run(["journalctl", "--sync"], check=True)
    lines = told("journalctl", "--output=json", "--quiet", "--boot", event).splitlines()
    times = [int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) / 1e6 for line in lines]
    return next((moment for moment in times if moment > killed), None)

def restarted():
    if show("ActiveState") == "active" and show("MainPID") not in ("0", str(pid)):
        return int(show("ActiveEnterTimestampMonotonic")) / 1e6

pid = int(show("MainPID"))
killed = time.monotonic()
os.kill(pid, signal.SIGKILL)
while not (ended := first_entry() if event else restarted()):
    pass
print(1000 * (ended - killed))
"""

WORK = (  # name, the unit that is killed, the journal's entry that ends the time
    ("systemd restarts a service of its own, the floor", "floor.service", ""),
    ("the queen knows that her hive was killed", "rbee-hive.service", "RBEE_EVENT=hive-offline"),
    ("a killed hive is online again", "rbee-hive.service", "RBEE_EVENT=hive-online"),
    ("a killed queen's hive is online again", "queen-rbee.service", "RBEE_EVENT=hive-online"),
)

FLOOR = """[Unit]
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=sleep infinity
Restart=on-failure
"""


def measure(machine: Machine, suite: str, runs: int) -> None:
    machine.run("install", "-D", "/dev/stdin", "/run/systemd/system/floor.service", input=FLOOR)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "floor.service")
    machine.run("rbeectl", "add-hive", "localhost", user="ada")
    floor = 0.0
    print(f"{suite}, {runs} runs each: median ms (fastest to slowest), ratio to the floor")
    for name, unit, last in WORK:
        times = []
        for _ in range(runs):
            times.append(float(json.loads(machine.run("python3", "-c", KILL, unit, last).stdout)))
            machine.run("rbeectl", "add-hive", "localhost", user="ada")
        median = statistics.median(times)
        floor = floor or median
        print(
            f"{median:6.0f} ({min(times):.0f} to {max(times):.0f}) x{median / floor:.2f}  {name}", flush=True
        )


def main(suite: str, runs: int) -> None:
    with booted(suite) as machine:
        measure(machine, suite, runs)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

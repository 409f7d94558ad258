"""Times whole commands inside a machine, from fork to exit, as a person waits for them."""

from __future__ import annotations

import json
import statistics
import sys

from testbed.machine import Machine

from tests.bench.booted import booted

TIMER = """
import json, subprocess, sys, time
times = []
for _ in range(int(sys.argv[1])):
    if sys.argv[2]:
        subprocess.run(sys.argv[2], shell=True, check=True, capture_output=True)
    began = time.perf_counter()
    subprocess.run(sys.argv[3], shell=True, check=True, capture_output=True)
    times.append(1000 * (time.perf_counter() - began))
print(json.dumps(times))
"""

ADD = "exec rbeectl add-hive localhost"

WORK = (  # name, what is done before it unmeasured, the command
    ("an empty Python, the floor", "", "exec python3 -I -c pass"),
    ("add-hive, cold: queen and hive asleep", "rbeectl add-hive localhost; systemctl stop queen-rbee", ADD),
    ("add-hive, warm: both awake", "", ADD),
    ("list-hives", "", "exec rbeectl list-hives"),
    ("list-devices", "", "exec rbeectl list-devices"),
    ("shutdown", "rbeectl add-hive localhost", "exec rbeectl shutdown"),
)


def measure(machine: Machine, suite: str, runs: int) -> None:
    floor = 0.0
    print(f"{suite}, {runs} runs each: median ms (fastest to slowest), ratio to the floor")
    for name, before, command in WORK:
        times = json.loads(
            machine.run("python3", "-c", TIMER, str(runs), before, command, timeout=600).stdout
        )
        median = statistics.median(times)
        floor = floor or median
        print(
            f"{median:6.0f} ({min(times):.0f} to {max(times):.0f}) x{median / floor:.1f}  {name}", flush=True
        )


def main(suite: str, runs: int) -> None:
    with booted(suite) as machine:
        measure(machine, suite, runs)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

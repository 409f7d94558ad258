"""Opens and drops streams of the queen by the hundred thousand; fails if something of them is left."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from testbed.machine import Machine

from tests.bench.booted import booted
from tests.system.commands import HIVE, QUEEN, configure, curl, main_pid, override

SCRIPT = "/usr/local/lib/bad_clients.py"


def state(machine: Machine, pid: int) -> tuple[int, int]:
    """How many descriptors a process has, and how much is resident, in KiB."""
    descriptors = machine.run("sh", "-c", f"ls /proc/{pid}/fd | wc -l").stdout
    told = machine.run("cat", f"/proc/{pid}/smaps_rollup").stdout
    return int(descriptors), next(int(line.split()[1]) for line in told.splitlines() if line[:4] == "Rss:")


def soak(machine: Machine, streams: int, rounds: int) -> list[tuple[int, int]]:
    """The queen's state before and after each round."""
    # A job that lasts: the hive's unit takes for ever to start.
    configure(machine, "[Queen]\nHiveStartTimeoutSec=10min\n")
    override(machine, HIVE, "[Service]\nTimeoutStartSec=infinity\nExecStartPre=sleep infinity\n")
    machine.copy_in(Path("tests/system/bad_clients.py"), SCRIPT)
    _, job = curl(machine, "/add-hive", "-d", '{"host": "localhost"}')
    queen = main_pid(machine, QUEEN)
    states = [state(machine, queen)]
    print(f"before: {states[0][0]} descriptors, {states[0][1]} KiB", flush=True)
    for number in range(rounds):
        began = time.monotonic()
        told = machine.run(
            "python3", SCRIPT, "drop", str(streams), "/run/rbee/queen.sock", job["events"],
            user="ada", timeout=500,
        )  # fmt: skip
        took = time.monotonic() - began
        ended = json.loads(told.stdout.splitlines()[-1])
        states.append(state(machine, queen))
        descriptors, resident = states[-1]
        print(
            f"round {number + 1}: {streams} streams in {took:.0f} s ({streams / took:.0f}/s) {ended}; "
            f"{descriptors} descriptors, {resident} KiB",
            flush=True,
        )
    assert main_pid(machine, QUEEN) == queen
    return states


def main(suite: str, streams: int, rounds: int) -> int:
    with booted(suite) as machine:
        before, *after = soak(machine, streams, rounds)
    left = after[-1][0] - before[0]
    growth = after[-1][1] / after[0][1] - 1
    print(f"{suite}: {left} descriptors left, memory {growth:+.1%} from the first round to the last")
    return int(left > 0 or growth >= 0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

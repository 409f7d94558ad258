"""Times of a fleet, from a death to what follows from it. All machines here have one monotonic clock."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from testbed.bridge import Bridge
from testbed.machine import Machine
from testbed.trees import Trees

from tests.bench.recover import FLOOR

HERE = Path(__file__).resolve().parent
HIVES = ("gpu1", "gpu2")
DEADLINE = 120.0
LONGEST_WAIT = 2.0
"""That of rbee/hive/dial.py, which this Python has not what it takes to import."""


def journalled(machine: Machine, *matches: str) -> list[tuple[float, str]]:
    """When, in monotonic seconds, and which hive; oldest first."""
    machine.run("journalctl", "--sync")
    lines = machine.run("journalctl", "--output=json", "--quiet", "--boot", *matches).stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return [(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, entry.get("RBEE_HIVE", "")) for entry in entries]


def pid_of(machine: Machine, unit: str) -> str:
    return machine.run("systemctl", "show", "-P", "MainPID", unit).stdout.strip()


def awaited(machine: Machine, event: str, after: float, hives: set[str]) -> float:
    """When the last of these hives had this event, after that moment."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = {
            hive: moment for moment, hive in journalled(machine, f"RBEE_EVENT={event}") if moment > after
        }
        if hives <= set(found):
            return max(found.values())
        if time.monotonic() > deadline:
            raise SystemExit(f"{event} of {hives - set(found)} was not told within {DEADLINE:g} s")


def floor(queen: Machine) -> float:
    pid = pid_of(queen, "floor.service")
    killed = time.monotonic()
    queen.run("kill", "-KILL", pid)
    while pid_of(queen, "floor.service") in ("0", pid):
        pass
    shown = queen.run("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", "floor.service").stdout
    return int(shown) / 1e6 - killed


def known(queen: Machine, hive: Machine) -> float:
    pid = pid_of(hive, "rbee-hive.service")
    killed = time.monotonic()
    hive.run("kill", "-KILL", pid)
    offline = awaited(queen, "hive-offline", killed, {"gpu1"})
    awaited(queen, "hive-online", offline, {"gpu1"})
    return offline - killed


def back(queen: Machine, *command: str) -> float:
    """From her being awake again to the last hive's being online."""
    time.sleep(LONGEST_WAIT + 0.5)  # a stream that broke sooner is not dialled again at once
    ordered = time.monotonic()
    queen.run(*command)
    awake = awaited(queen, "queen-started", ordered, {""})
    return awaited(queen, "hive-online", ordered, set(HIVES)) - awake


def measure(queen: Machine, hives: dict[str, Machine], runs: int) -> None:
    queen.run("install", "-D", "/dev/stdin", "/run/systemd/system/floor.service", input=FLOOR)
    queen.run("systemctl", "daemon-reload")
    queen.run("systemctl", "start", "floor.service")
    work: tuple[tuple[str, Callable[[], float]], ...] = (
        ("systemd restarts a service of its own, the floor", lambda: floor(queen)),
        ("the queen knows that a remote hive was killed", lambda: known(queen, hives["gpu1"])),
        ("a killed queen's remote hives are online, after she is awake again",
         lambda: back(queen, "systemctl", "kill", "--signal=KILL", "queen-rbee.service")),
        ("a restarted queen's remote hives are online, after she is awake again",
         lambda: back(queen, "systemctl", "restart", "queen-rbee.service")),
    )  # fmt: skip
    least = 0.0
    for name, step in work:
        times = [1000 * step() for _ in range(runs)]
        median = statistics.median(times)
        least = least or median
        span = f"({min(times):.0f} to {max(times):.0f})"
        print(f"{median:6.0f} {span} x{median / least:.2f}  {name}", flush=True)


def many_hives(queen: Machine, machine: Machine, count: int) -> None:
    """So many hives from one machine: joined, back after a kill of the queen, and what their beats cost."""
    token = queen.run("rbeectl", "token", "create", "--uses", str(count), user="ada").stdout.strip()
    machine.copy_in(HERE / "many_hives.py", "/root/many_hives.py")
    playing = machine.popen(
        "python3", "-I", "/root/many_hives.py", "queen", token, str(count), reads_input=True
    )
    assert playing.stdout is not None
    assert playing.stdin is not None

    def told() -> dict[str, float]:
        line = playing.stdout.readline() if playing.stdout else ""
        if not line:
            raise SystemExit(f"many_hives.py has ended: {playing.stderr.read() if playing.stderr else ''}")
        found: dict[str, float] = json.loads(line)
        return found

    def ask(word: str) -> dict[str, float]:
        assert playing.stdin is not None
        playing.stdin.write(f"{word}\n")
        playing.stdin.flush()
        return told()

    try:
        joined = told()
        each = 1000 * joined["seconds"] / count
        print(f"{count} hives joined in {joined['seconds']:.1f} s, {each:.1f} ms each")
        print(f"all of them held their streams {ask('held')['seconds']:.1f} s after they dialled")
        pid = pid_of(queen, "queen-rbee.service")
        before = cpu_seconds(queen, pid)
        time.sleep(30)  # what is measured is a stretch of time
        used = cpu_seconds(queen, pid) - before
        beats = ask("beats")["beats"]
        print(f"beats: {100 * used / 30:.1f}% of a core, {beats / 30:.0f} a second of {count} hives")
        memory = queen.run("sh", "-c", f"awk '/^Pss:/ {{print $2}}' /proc/{pid}/smaps_rollup").stdout
        print(f"memory: {int(memory) / 1024:.0f} MiB PSS")
        for done, command in (
            ("killed", ("kill", "-KILL", pid)),
            ("restarted", ("systemctl", "restart", "queen-rbee.service")),
        ):
            queen.run(*command)
            seconds = ask("again")["seconds"]
            used = cpu_seconds(queen, pid_of(queen, "queen-rbee.service"))
            print(f"{done}: all held their streams again in {seconds:.1f} s, {used:.1f} s of processor hers")
    finally:
        playing.kill()
        playing.wait()


def cpu_seconds(machine: Machine, pid: str) -> float:
    user, system = machine.run("sh", "-c", f"cut -d' ' -f14,15 /proc/{pid}/stat").stdout.split()
    return (int(user) + int(system)) / 100


def main(suite: str, runs: int, count: int) -> None:
    debs = sorted(Path("dist").glob("*.deb"))
    print(f"{suite}, {runs} runs each: median ms (fastest to slowest), ratio to the floor")
    with (
        Trees(Trees.default_cache(), say=lambda line: print(line, file=sys.stderr)) as trees,
        ExitStack() as at_the_end,
        Bridge() as bridge,
    ):
        tree = trees.installed(suite, debs)
        queen = at_the_end.enter_context(Machine(tree, bridge=bridge, hostname="queen"))
        queen.run("rbeectl", "tcp", "enable", user="ada")
        hives = {}
        for name in (*HIVES, "many"):
            machine = Machine(trees.hive(suite, debs), bridge=bridge, hostname=name)
            hives[name] = at_the_end.enter_context(machine)
        if runs:
            for name in HIVES:
                token = queen.run("rbeectl", "token", "create", user="ada").stdout.strip()
                hives[name].run("rbeectl", "join", "queen", "--token", token)
            awaited(queen, "has-devices", 0, set(HIVES))
            measure(queen, hives, runs)
        if count:
            many_hives(queen, hives["many"], count)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except subprocess.SubprocessError as error:
        raise SystemExit(str(error)) from error

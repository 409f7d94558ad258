"""Times of a fleet, from a death to what follows from it. All machines here have one monotonic clock."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from testbed.bridge import Bridge
from testbed.machine import Machine
from testbed.trees import Trees

from tests.bench.playing import Playing
from tests.bench.recover import FLOOR
from tests.bench.subject import HERE, built
from tests.bench.usage import HIVE, QUEEN, cpu_us, pid_of, pss_mib

HIVES = ("gpu1", "gpu2")
DEADLINE = 120.0
LONGEST_WAIT = 2.0
"""Seconds, as in rbee/hive/dial.py, which this Python cannot import: it lacks the dependencies."""


def journalled(machine: Machine, *matches: str) -> list[tuple[float, str]]:
    """When, in monotonic seconds, and which hive; oldest first."""
    machine.run("journalctl", "--sync")
    lines = machine.run("journalctl", "--output=json", "--quiet", "--boot", *matches).stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return [(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, entry.get("RBEE_HIVE", "")) for entry in entries]


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
    pid = pid_of(hive, HIVE)
    killed = time.monotonic()
    hive.run("kill", "-KILL", pid)
    offline = awaited(queen, "hive-offline", killed, {"gpu1"})
    awaited(queen, "hive-online", offline, {"gpu1"})
    return offline - killed


def back(queen: Machine, *command: str) -> float:
    """Return the seconds from when the queen is awake again until the last hive is online."""
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
         lambda: back(queen, "systemctl", "kill", "--signal=KILL", QUEEN)),
        ("a restarted queen's remote hives are online, after she is awake again",
         lambda: back(queen, "systemctl", "restart", QUEEN)),
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
    with Playing(machine, (HERE / "many_hives.py").read_text(), token, count) as playing:
        each = 1000 * playing.joined_in / count
        print(f"{count} hives joined in {playing.joined_in:.1f} s, {each:.1f} ms each")
        print(f"all of them held their streams {playing.ask('held'):.1f} s after they dialled")
        pid = pid_of(queen, QUEEN)
        before = cpu_us(queen, QUEEN)
        time.sleep(30)  # the span that is measured
        used = cpu_us(queen, QUEEN) - before
        beats = playing.ask("beats")
        print(f"beats: {used / 30 / 1e4:.1f}% of a core, {beats / 30:.0f} a second of {count} hives")
        print(f"memory: {pss_mib(queen, QUEEN):.0f} MiB PSS")
        for done, command in (
            ("killed", ("kill", "-KILL", pid)),
            ("restarted", ("systemctl", "restart", QUEEN)),
        ):
            queen.run(*command)
            seconds = playing.ask("again")
            used = cpu_us(queen, QUEEN)
            print(f"{done}: all held their streams again in {seconds:.1f} s, {used / 1e6:.1f} s of CPU hers")


def main(suite: str, runs: int, count: int) -> None:
    debs = built()
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

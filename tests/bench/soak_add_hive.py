"""SIGKILL at random moments of add-hive in a booted machine, many times over, by a seed."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from typing import Any

from testbed.machine import Machine

from tests.bench.booted import booted

QUEEN, HIVE = "queen-rbee.service", "rbee-hive.service"

ROUND = """
import json, os, signal, subprocess, sys, threading, time

victim, delay, is_cold = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "cold"
ADD = ["setpriv", "--reuid=ada", "--regid=ada", "--init-groups", "rbeectl", "add-hive", "localhost", "--json"]

def kill():
    killed = []
    try:
        for pid in open(f"/sys/fs/cgroup/rbee.slice/{victim}/cgroup.procs").read().split():
            os.kill(int(pid), signal.SIGKILL)
            killed.append(pid)
    except OSError:
        pass  # not started yet, or just gone: then this round kills nobody
    return killed

if is_cold:
    subprocess.run(["systemctl", "stop", "queen-rbee.service"], check=True)
first = subprocess.Popen(ADD, stdout=subprocess.PIPE, text=True)
killed = []
timer = threading.Timer(delay, lambda: killed.extend(kill()))
began = time.monotonic()
timer.start()
told = [json.loads(line) for line in first.stdout]
code = first.wait(60)
took = time.monotonic() - began
timer.join()
again = subprocess.run(ADD, capture_output=True, text=True, timeout=60)

def show(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

print(json.dumps({
    "killed": killed, "code": code, "took": took, "told": told,
    "again": again.returncode, "again_told": again.stdout + again.stderr,
    "active": show("systemctl", "show", "-P", "ActiveState", "queen-rbee.service", "rbee-hive.service",
                   "queen-rbee.socket", "rbee-hive.socket").split(),
    "rows": json.loads(show("sqlite3", "-json", "file:/var/lib/queen-rbee/catalog.db?mode=ro",
                            "SELECT id, status, wanted, devices IS NOT NULL AS known FROM hives")),
    "integrity": show("sqlite3", "file:/var/lib/queen-rbee/catalog.db?mode=ro", "PRAGMA integrity_check"),
}))
"""

WHOLE = [{"id": "localhost", "status": "online", "wanted": 1, "known": 1}]
DEADLINE = 20.0
"""Seconds in which rbeectl must have ended, whatever became of the queen."""


def play_round(machine: Machine, victim: str, delay: float, start: str) -> dict[str, Any]:
    told = machine.run("python3", "-c", ROUND, victim, str(delay), start, timeout=150).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def complaints(found: dict[str, Any]) -> list[str]:
    """What is not as it should be after a round."""
    last = found["told"][-1]["event"] if found["told"] else "nothing"
    wrong = []
    if last != ("done" if found["code"] == 0 else "error"):
        wrong.append(f"exit code {found['code']}, and the last word was {last}")
    if found["took"] > DEADLINE:
        wrong.append(f"it took {found['took']:.1f} s")
    if found["again"] != 0:
        wrong.append(f"the same command again failed: {found['again_told']}")
    if found["active"] != ["active"] * 4:
        wrong.append(f"the units are {found['active']}")
    if found["rows"] != WHOLE or found["integrity"] != "ok\n":
        wrong.append(f"the catalog has {found['rows']}, {found['integrity']}")
    return wrong


def soak(machine: Machine, seed: int, kills: int, seconds: float) -> int:
    """Rounds until so many kills or seconds; the number of rounds after which something was wrong."""
    dice = random.Random(seed)
    began = time.monotonic()
    flow = {start: play_round(machine, "none.service", 0, start)["took"] for start in ("cold", "warm")}
    print(f"seed {seed}; a flow takes {flow['cold']:.2f} s cold, {flow['warm']:.2f} s warm", flush=True)
    rounds, killed, bad = 0, 0, 0
    outcomes: Counter[str] = Counter()
    while killed < kills and time.monotonic() - began < seconds:
        start = dice.choice(("cold", "cold", "warm"))
        victim = dice.choice((QUEEN, QUEEN, QUEEN, HIVE))
        delay = dice.uniform(0, 1.2 * flow[start])
        found = play_round(machine, victim, delay, start)
        rounds += 1
        killed += bool(found["killed"])
        kinds = [line.get("kind") for line in found["told"]]
        outcome = "done" if found["code"] == 0 else "error"
        asked_again = ", asked again" if "queen-lost" in kinds else ""
        hit = victim.removesuffix(".service") if found["killed"] else "nobody"
        outcomes[f"with {hit} killed{asked_again}: {outcome}"] += 1
        wrong = complaints(found)
        if hit != HIVE.removesuffix(".service") and outcome == "error":
            wrong.append("the keeper did not finish what it was asked for")
        if wrong:
            bad += 1
            print(f"round {rounds}: {victim} killed after {delay:.3f} s, {start}: {'; '.join(wrong)}")
            print(json.dumps(found["told"]), flush=True)
    for what, count in sorted(outcomes.items()):
        print(f"{count:5} {what}")
    print(f"{killed} kills in {rounds} rounds, {time.monotonic() - began:.0f} s; {bad} bad", flush=True)
    return bad


def main(suite: str = "bookworm", seed: str = "1", kills: str = "200", seconds: str = "600") -> int:
    with booted(suite) as machine:
        return 1 if soak(machine, int(seed), int(kills), float(seconds)) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Looks at a hive every 2 s, as `top` does, and reads from the daemons' cgroups what that took."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

from testbed.machine import Machine

from tests.bench.booted import booted
from tests.nvml import Load, StubCard, compile_stub, random_cards
from tests.system.cards import install_library, show

INTERVAL = 2.0
"""Seconds between two looks."""

CARDS = 8

LOOK = """
import http.client, json, socket, subprocess, sys, time

span, interval, looks = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "looks"

def cpu_seconds(unit):
    group = subprocess.run(
        ["systemctl", "show", "-P", "ControlGroup", unit], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = open(f"/sys/fs/cgroup{group}/cpu.stat").read().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6

def look():
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/rbee/queen.sock")
    connection.request("GET", "/v1/hives/localhost/sample")
    sample = json.loads(connection.getresponse().read())
    connection.close()
    assert [gpu["problem"] for gpu in sample["gpus"]] == [None] * int(sys.argv[4]), sample

if looks:
    look()  # which opens NVML
    time.sleep(interval)
units = ("rbee-hive", "queen-rbee")
before, began, count = [cpu_seconds(unit) for unit in units], time.monotonic(), 0
while (left := began + span - time.monotonic()) > 0:
    if looks:
        look()
        count += 1
    time.sleep(min(interval, left))
took = time.monotonic() - began
spent = [cpu_seconds(unit) - start for unit, start in zip(units, before)]
print(json.dumps({"spent": spent, "took": took, "looks": count}))
"""


def busy(card: StubCard, random_: random.Random) -> StubCard:
    load = Load(random_.randint(1, 100), card.vram_bytes // 2, random_.randint(30, 80), 200_000)
    return StubCard(card.pci_address, card.vram_bytes, card.uuid, card.name, load)


def measure(machine: Machine, suite: str, seconds: float) -> None:
    random_ = random.Random(8)
    cards = random_cards(random_, most=CARDS)
    while len(cards) < CARDS:
        cards = random_cards(random_, most=CARDS)
    with tempfile.TemporaryDirectory() as name:
        install_library(machine, compile_stub(Path(name)))
        show(machine, Path(name), [busy(card, random_) for card in cards])
    machine.run("rbeectl", "add-hive", "localhost", user="ada")
    told = {}
    for how in ("rests", "looks"):
        arguments = (str(seconds), str(INTERVAL), how, str(CARDS))
        done = machine.run("python3", "-c", LOOK, *arguments, timeout=seconds + 60)
        told[how] = json.loads(done.stdout)
    rests, looks = told["rests"], told["looks"]
    print(f"{suite}: {CARDS} cards, {looks['looks']} looks in {looks['took']:.0f} s, % of a core")
    for number, name in enumerate(("hive", "queen")):
        idle = rests["spent"][number] / rests["took"]
        more = looks["spent"][number] / looks["took"] - idle
        each = 1000 * more * looks["took"] / looks["looks"]
        print(f"{100 * more:6.2f}  {name}: {each:.1f} ms a look, above {100 * idle:.2f} when nobody looks")


def main(suite: str, seconds: float) -> None:
    with booted(suite) as machine:
        measure(machine, suite, seconds)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

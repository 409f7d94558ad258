"""A fleet for the tests: a queen and hives, each a machine of its own on one bridge."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.bridge import Bridge
from testbed.debian import ARCHIVE_INSIDE
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import HIVE, Answer, await_state, configure, rbeectl

PORT = 8500
MEMBERSHIP = "/var/lib/rbee-hive/membership"
REDIAL = "rbee-hive-redial.service"
JOIN = "rbee-hive-join.service"
SUITES = os.environ.get("RBEE_SUITES", "bookworm trixie").split()

INTERVAL, GRACE = 1.0, 0.5
"""Seconds of a quick fleet: a cut link is known after their sum."""

QUICK = f"[Queen]\nHeartbeatIntervalSec={INTERVAL}s\nHeartbeatGraceSec={GRACE}s\n"


@dataclass
class Fleet:
    """A queen who is open to other machines, and those that are there."""

    bridge: Bridge
    queen: Machine
    trees: Trees
    debs: list[Path]
    hives: dict[str, Machine] = field(default_factory=dict)
    at_the_end: ExitStack = field(default_factory=ExitStack)

    def boot(self, name: str, suite: str | None = None) -> Machine:
        """A machine with rbee-hive that has not joined; Debian 12 and 13 by turns."""
        chosen = suite or SUITES[len(self.hives) % len(SUITES)]
        archive = f"{self.trees.archive(chosen)}:{ARCHIVE_INSIDE}"
        machine = Machine(
            self.trees.hive(chosen, self.debs), bridge=self.bridge, hostname=name, bind_ro=[archive]
        )
        self.hives[name] = self.at_the_end.enter_context(machine)
        return machine

    def token(self, *options: str) -> str:
        made = rbeectl(self.queen, "token", "create", *options)
        assert made.code == 0, made
        return made.out.strip()

    def join(self, name: str, *, at: str = f"queen:{PORT}") -> Machine:
        """Boot a machine and see it online."""
        machine = self.boot(name)
        joined = rbeectl(machine, "join", at, "--token", self.token(), user=None)
        assert joined.code == 0, joined
        self.await_state(name, "online")
        return machine

    @contextmanager
    def visit(self, name: str) -> Iterator[Machine]:
        """A machine with rbee-hive that has not joined, and goes at the end, whatever comes of the test."""
        machine = self.boot(name)
        try:
            yield machine
        finally:
            self.retire(name)

    def retire(self, name: str) -> None:
        """Off, and forgotten by who asks for the fleet's hives."""
        machine = self.hives.pop(name)
        machine.poweroff()
        self.bridge.leave(machine)

    def await_state(self, name: str, state: str, seconds: float = 15) -> dict[str, Any]:
        return await_state(self.queen, state, seconds, hive=name)

    def views(self) -> dict[str, dict[str, Any]]:
        listed = rbeectl(self.queen, "list-hives", "--json")
        assert listed.code == 0, listed
        return {hive["id"]: hive for hive in listed.json["hives"]}

    def states(self) -> dict[str, str]:
        return {name: view["state"] for name, view in self.views().items()}

    def told(self, event: str, **fields: str) -> list[dict[str, Any]]:
        """What the queen has narrated of a kind, oldest first."""
        matches = (f"RBEE_{name.upper()}={value}" for name, value in fields.items())
        return self.queen.journal(f"RBEE_EVENT={event}", *matches)

    def await_told(self, event: str, *, count: int = 1, seconds: float = 15, **fields: str) -> dict[str, Any]:
        """The entry of that number, once it is there."""
        deadline = time.monotonic() + seconds
        while len(found := self.told(event, **fields)) < count:
            assert time.monotonic() < deadline, f"{event} was not told within {seconds} s: {found}"
            time.sleep(0.05)  # the journal of another machine: nothing here tells of it
        return found[count - 1]


def at(entry: dict[str, Any]) -> float:
    """When an entry was written, by the one clock that all machines here have."""
    return int(entry["_SOURCE_REALTIME_TIMESTAMP"]) / 1e6


@contextmanager
def fleet_of(
    trees: Trees, debs: list[Path], *, queen: str, hives: int = 0, config: str = QUICK
) -> Iterator[Fleet]:
    """A queen on that suite, open, with so many hives, gpu1 and on, that are online."""
    with Bridge() as bridge, ExitStack() as at_the_end:
        tree = trees.installed(queen, debs)
        archive = f"{trees.archive(queen)}:{ARCHIVE_INSIDE}"
        machine = at_the_end.enter_context(Machine(tree, bridge=bridge, hostname="queen", bind_ro=[archive]))
        configure(machine, config)
        opened = rbeectl(machine, "tcp", "enable")
        assert opened.code == 0, opened
        fleet = Fleet(bridge, machine, trees, debs, at_the_end=at_the_end)
        for number in range(1, hives + 1):
            fleet.join(f"gpu{number}")
        yield fleet


def membership(machine: Machine) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(machine.run("head", "-n1", MEMBERSHIP).stdout.removeprefix("# "))
    return told


def curl_as_hive(machine: Machine, path: str, *options: str, timeout: float = 30) -> tuple[str, Any]:
    """Status and answer of a request to the queen with the hive's own certificate."""
    return _curl(machine, path, "--cert", MEMBERSHIP, "--key", MEMBERSHIP, *options, timeout=timeout)


def curl_as_stranger(machine: Machine, path: str, *options: str) -> tuple[str, Any]:
    return _curl(machine, path, *options)


def _curl(machine: Machine, path: str, *options: str, timeout: float = 30) -> tuple[str, Any]:
    done = machine.run(
        "curl", "--silent", "--insecure", "--max-time", f"{timeout:g}", "--write-out", "\n%{http_code}",
        *options, f"https://queen:{PORT}{path}", check=False, timeout=timeout + 10,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body


def hive_pid(machine: Machine) -> str:
    return machine.run("systemctl", "show", "-P", "MainPID", HIVE).stdout.strip()


def refused(answer: Answer, code: int, words: str) -> None:
    """The person is told so, and with that exit code."""
    assert answer.code == code, answer
    assert words in answer.err, answer

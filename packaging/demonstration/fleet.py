"""The demonstration of a fleet: machines join, one's hive is killed, one is cut off, all are shut down."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from testbed.bridge import Bridge
from testbed.machine import Machine
from testbed.trees import SUITES, Trees

from demonstration.steps import StepFailed, done, expect_states, say, show

QUICK = "[Queen]\nHeartbeatIntervalSec=2s\nHeartbeatGraceSec=1s\n"
"""A short heartbeat interval, so that the demonstration does not take long."""


def demonstrate_fleet(trees: Trees, debs: Sequence[Path], suite: str, count: int) -> None:
    """A queen on that Debian, and so many hives, Debian 12 and 13 by turns."""
    with ExitStack() as at_the_end:
        began = time.monotonic()
        bridge = at_the_end.enter_context(Bridge())
        queen = at_the_end.enter_context(
            Machine(trees.installed(suite, debs), bridge=bridge, hostname="queen")
        )
        others = [one for one in SUITES if one != suite]
        by_turns = [(suite, *others)[number % len(SUITES)] for number in range(count)]
        hives = {
            f"gpu{number}": at_the_end.enter_context(
                Machine(trees.hive(one, debs), bridge=bridge, hostname=f"gpu{number}")
            )
            for number, one in enumerate(by_turns, start=1)
        }
        done(
            f"booted a queen on {suite}, and hives on {', '.join(by_turns)}, on a network of their own", began
        )
        queen.run(
            "install", "-D", "-m", "0644", "/dev/stdin", "/etc/rbee/rbee.conf.d/50-quick.conf", input=QUICK
        )
        say("\n🔑 opening the queen to other machines...")
        show(queen, "rbeectl", "tcp", "enable", user="ada")
        join_by_ssh(queen, *next(iter(hives.items())))
        for name in list(hives)[1:]:
            join_by_token(queen, name, hives[name])
        expect(queen, dict.fromkeys(hives, "online"), "all have joined")
        kill(queen, *next(iter(hives.items())))
        if count > 1:
            cut_off(queen, *list(hives.items())[-1])
        shut_down(queen, hives)


def join_by_ssh(queen: Machine, name: str, machine: Machine) -> None:
    """A machine joins by rbeectl add-hive on the queen's machine."""
    began = time.monotonic()
    say(f"\n🐝 {name} joins, by the operator's own ssh...")
    machine.run("ssh-keygen", "-A")
    machine.run("systemctl", "start", "ssh.service")
    queen.run("sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519", user="ada")
    queen.run("sh", "-c", "echo StrictHostKeyChecking accept-new >~/.ssh/config", user="ada")
    key = queen.run("sh", "-c", "cat ~/.ssh/id_ed25519.pub", user="ada").stdout
    machine.run("install", "-D", "-m", "0600", "/dev/stdin", "/root/.ssh/authorized_keys", input=key)
    show(queen, "rbeectl", "add-hive", name, "--user", "root", user="ada")
    done(f"{name} is online", began)


def join_by_token(queen: Machine, name: str, machine: Machine) -> None:
    """A machine joins by rbeectl join, with a token."""
    began = time.monotonic()
    say(f"\n🐝 {name} joins, by a token...")
    token = show(queen, "rbeectl", "token", "create", user="ada").strip()
    show(machine, "rbeectl", "join", "queen", "--token", token)
    expect(queen, {name: "online"}, f"{name} is online", began)


def kill(queen: Machine, name: str, machine: Machine) -> None:
    """Kills a hive's process; the queen notices at once."""
    began = time.monotonic()
    say(f"\n💀 {name}'s hive is killed...")
    show(machine, "systemctl", "kill", "--signal=KILL", "rbee-hive.service")
    expect(queen, {name: "online"}, f"{name} is back: systemd started another, which dialled", began)
    output = show(
        queen, "journalctl", "--no-pager", "--output=short-precise", "-n2", "RBEE_EVENT=hive-offline",
        f"RBEE_HIVE={name}",
    )  # fmt: skip
    if "its connection closed" not in output:
        raise StepFailed(f"The queen has not logged that {name}'s connection closed.")


def cut_off(queen: Machine, name: str, machine: Machine) -> None:
    """Cuts a machine's link; the queen notices after a while."""
    began = time.monotonic()
    say(f"\n✂️  {name} is cut off from the network...")
    machine.cut()
    expect(queen, {name: "offline"}, f"{name} is offline, as its beats do not come", began)
    show(queen, "rbeectl", "list-hives", user="ada")


def shut_down(queen: Machine, hives: dict[str, Machine]) -> None:
    """Shuts down the queen and all hives that it reaches."""
    began = time.monotonic()
    say("\n🌙 shutting down: the queen, and with it the hives that it can reach...")
    show(queen, "rbeectl", "shutdown", user="ada")
    expect_states(queen, "inactive", ("queen-rbee.service", "queen-rbee.socket", "queen-rbee-tcp.socket"))
    reached = list(hives)[: len(hives) - (len(hives) > 1)]
    stopped = "until [ $(systemctl is-active rbee-hive.service) = inactive ]; do sleep 0.05; done"
    for name in reached:
        hives[name].run("sh", "-c", stopped, timeout=10)
    done(f"the queen and {', '.join(reached)} are off; they come back by themselves when it wakes", began)


def expect(queen: Machine, states: dict[str, str], what: str, began: float | None = None) -> None:
    """Waits until these hives have these states, at most 20 s."""
    deadline = time.monotonic() + 20
    while True:
        listed = queen.run("rbeectl", "list-hives", "--json", user="ada").stdout
        found = {hive["id"]: hive["state"] for hive in json.loads(listed)["hives"]}
        if states.items() <= found.items():
            done(what, began)
            return
        if time.monotonic() > deadline:
            raise StepFailed(f"The hives should be {states}, and are {found}.")
        time.sleep(0.1)  # there is no signal for it outside the queen's machine

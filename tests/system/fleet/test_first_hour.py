"""The first hour with three machines, as a person types it on a terminal of 80 by 24, mistakes included.

RBEE_TRANSCRIPT=FILE keeps what was shown, to be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testbed.bridge import Bridge
from testbed.debian import add_person, install
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import Answer, await_state
from tests.system.fleet.fleet import SUITES, Fleet
from tests.system.fleet.ssh import on_terminal

NEEDED = ("python3-rbee_", "rbee-hive_", "rbeectl_")


class Hour:
    """Three machines with nothing of rbee, and all that is typed at them."""

    def __init__(self, fleet: Fleet, transcript: Path | None) -> None:
        self.fleet = fleet
        self._transcript = transcript

    def types(
        self, machine: Machine, line: str, *answers: str, user: str | None = "ada", code: int = 0
    ) -> Answer:
        """A command line, its answers to questions, and how it must end."""
        shown = on_terminal(machine, "sh", "-c", line, answers=answers, user=user, timeout=180)
        if self._transcript is not None:
            with self._transcript.open("a") as file:
                file.write(f"{machine.hostname}{'#' if user is None else '$'} {line}\n{shown.out}\n")
        assert shown.code == code, f"{line}\n{shown.out}"
        return shown

    def are_online(self, *names: str) -> None:
        for name in names:
            await_state(self.fleet.queen, "online", 40, hive=name)


@pytest.fixture(params=SUITES)
def hour(request: pytest.FixtureRequest, trees: Trees, debs: list[Path]) -> Iterator[Hour]:
    with Bridge() as bridge, ExitStack() as at_the_end:

        def boot(name: str) -> Machine:
            return at_the_end.enter_context(Machine(trees.base(request.param), bridge=bridge, hostname=name))

        fleet = Fleet(bridge, boot("queen"), trees, debs, {name: boot(name) for name in ("gpu1", "gpu2")})
        add_person(fleet.queen, "ada")
        for deb in debs:
            fleet.queen.copy_in(deb, f"/home/ada/debs/{deb.name}")
        kept = os.environ.get("RBEE_TRANSCRIPT")
        yield Hour(fleet, Path(kept) if kept else None)


def test_the_first_hour(hour: Hour, debs: list[Path]) -> None:
    queen, gpu1, gpu2 = hour.fleet.queen, hour.fleet.hives["gpu1"], hour.fleet.hives["gpu2"]

    # This machine.
    install(queen, debs)
    queen.run("adduser", "ada", "rbee")
    assert "Hive localhost is Online" in hour.types(queen, "rbeectl add-hive localhost").out
    hour.types(queen, "rbeectl status; rbeectl list-devices")

    # A second one, by a token; the queen's name is mistyped first.
    hour.types(queen, "rbeectl tcp enable")
    made = hour.types(queen, "rbeectl token create")
    (line,) = re.findall(r"rbeectl join \S+ --token \S+", made.out)
    install(gpu1, [deb for deb in debs if deb.name.startswith(NEEDED)])
    mistyped = line.replace(queen.address, "queem")
    assert "the name in queem:8500 is not known" in hour.types(gpu1, mistyped, user=None, code=1).out
    hour.types(gpu1, line, user=None)
    hour.are_online("localhost", "gpu1")
    assert hour.types(gpu1, "rbeectl status", user=None).out.count("connected")

    # A third one by ssh, which asks for the host key, and whose sudo asks for a password.
    with_ssh(queen, gpu2)
    brought = hour.types(queen, "rbeectl add-hive grace@gpu2 --install ~/debs", "yes", "secret")
    assert "Hive gpu2 is Online" in brought.out
    hour.types(queen, "rbeectl list-hives; rbeectl version")

    # A mistyped join on a hive that works leaves it as it is.
    spent = hour.types(gpu1, line, user=None, code=1)
    assert "still a hive of the queen" in spent.out
    hour.are_online("gpu1")

    # The queen's address changes: who is told of it by hand, and who by ssh.
    hour.types(queen, "rbeectl tcp enable --listen 0.0.0.0:8600", user=None)
    hour.types(gpu1, f"rbeectl join {queen.address}:8600", user=None)
    hour.types(queen, "rbeectl add-hive grace@gpu2", "secret")
    hour.are_online("localhost", "gpu1", "gpu2")

    # A backup, a reboot of everything, a removal that is regretted, a restore.
    hour.types(queen, "rbeectl catalog backup ~/catalog.db")
    for machine in (gpu1, queen):
        machine.reboot()
    hour.are_online("localhost", "gpu1", "gpu2")
    hour.types(queen, "rbeectl remove-hive gpu1; rbeectl shutdown")
    hour.types(queen, "rbeectl catalog restore /home/ada/catalog.db", user=None)
    hour.types(queen, "rbeectl wake")
    again = hour.types(queen, "rbeectl token create --hive gpu1")
    (line,) = re.findall(r"rbeectl join \S+ --token \S+(?: --name \S+)?", again.out)
    hour.types(gpu1, line, user=None)
    hour.are_online("localhost", "gpu1", "gpu2")
    hour.types(queen, "rbeectl list-hives; rbeectl audit -n 8")
    assert "All is well" in hour.types(queen, "rbeectl doctor", user=None).out


def with_ssh(origin: Machine, machine: Machine) -> None:
    """ada's key is let in there as grace, who is in group sudo; ada has never been there."""
    add_person(machine, "grace")
    machine.run("chpasswd", input="grace:secret\n")
    machine.run("adduser", "grace", "sudo")
    machine.run("ssh-keygen", "-A")
    machine.run("systemctl", "start", "ssh.service")
    origin.run(
        "sh", "-c", "mkdir -p -m 700 ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519", user="ada"
    )
    key = origin.run("sh", "-c", "cat ~/.ssh/id_ed25519.pub", user="ada").stdout
    path = "/home/grace/.ssh/authorized_keys"
    machine.run("install", "-D", "-o", "grace", "-m", "0600", "/dev/stdin", path, input=key)
    machine.run("chown", "-R", "grace:", "/home/grace/.ssh")

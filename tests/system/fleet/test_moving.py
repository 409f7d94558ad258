"""A hive that is to be another queen's, or hers anew: what fails takes no hive down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.relay import Relay
from testbed.trees import Trees

from tests.system.commands import HIVE, Answer, active, put, rbeectl, tries, type_in, unit
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import (
    JOIN,
    MEMBERSHIP,
    PORT,
    REDIAL,
    SUITES,
    Fleet,
    fleet_of,
    hive_pid,
    membership,
    refused,
)
from tests.system.fleet.ssh import give_ssh

STATE = "/var/lib/rbee-hive"
STILL = f"the machine is still a hive of the queen at queen:{PORT}"


@pytest.fixture(scope="module", params=SUITES)
def fleet(request: pytest.FixtureRequest, trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen and a hive of hers, which each test leaves online; all on either Debian."""
    with fleet_of(trees, debs, queen=request.param) as fleet:
        fleet.boot("gpu1", request.param)
        joined = rbeectl(fleet.hives["gpu1"], "join", "queen", "--token", fleet.token(), user=None)
        assert joined.code == 0, joined
        fleet.await_state("gpu1", "online")
        yield fleet


@contextmanager
def other_queen(fleet: Fleet, make_fleet: MakeFleet) -> Iterator[Fleet]:
    """Another, whom the machines of this fleet know as 'other'."""
    other = make_fleet(queen=SUITES[0])
    with Relay((fleet.bridge.host("other"), PORT), (other.queen.address, PORT)):
        yield other


def join(machine: Machine, *words: str) -> Answer:
    return rbeectl(machine, "join", *words, user=None, timeout=60)


class Undisturbed:
    """That the hive's process is the same in the end, online, and nothing is left of what was tried."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._gpu1 = fleet.hives["gpu1"]
        self._before = hive_pid(self._gpu1), self._gpu1.run("cat", MEMBERSHIP).stdout

    def check(self) -> None:
        gpu1 = self._gpu1
        assert (hive_pid(gpu1), gpu1.run("cat", MEMBERSHIP).stdout) == self._before
        assert gpu1.run("ls", "-A", STATE).stdout == "membership\n"
        assert self._fleet.states()["gpu1"] == "online"
        assert active(gpu1, HIVE, JOIN) == ["active", "inactive"]
        assert gpu1.run("systemctl", "--failed", "--quiet", "--plain").stdout == ""


def test_a_mistyped_join_leaves_the_hive_that_there_is_alone(fleet: Fleet) -> None:
    gpu1, undisturbed = fleet.hives["gpu1"], Undisturbed(fleet)
    spent = fleet.token()
    token_id, secret, _ = fleet.token().split(".")
    assert rbeectl(fleet.queen, "token", "revoke", spent).code == 0

    def fails(words: str, *arguments: str) -> None:
        told = join(gpu1, *arguments)
        refused(told, 1, words)
        assert STILL in told.err, told
        assert "  try: " in told.err
        undisturbed.check()

    fails("the name in nowhere:8500 is not known", "nowhere")
    fails("nobody listens on queen:8501", "queen:8501")
    fails("the name in nowhere:8500 is not known", "nowhere", "--token", fleet.token())
    fails("has been revoked", "queen", "--token", spent)
    fails("is not the queen that the token is from", "queen", "--token", f"{token_id}.{secret}.{'0' * 64}")
    fails("this machine is the hive gpu1 already", "queen", "--token", fleet.token(), "--name", "gpu9")
    # Somebody who accepts, and says nothing.
    with Relay((fleet.bridge.host("mute"), PORT), (fleet.queen.address, PORT)) as relay:
        relay.blackhole()
        fails("mute:8500 did not answer within 8 s", "mute")
    why = gpu1.journal("RBEE_EVENT=join-failed")[0]["MESSAGE"]
    assert "has been revoked" in why
    assert fleet.told("hive-cloned") == []


def test_who_gives_up_waiting_leaves_it_alone_too(fleet: Fleet) -> None:
    gpu1, undisturbed = fleet.hives["gpu1"], Undisturbed(fleet)
    with Relay((fleet.bridge.host("silent"), PORT), (fleet.queen.address, PORT)) as relay:
        relay.blackhole()
        refused(join(gpu1, "silent", "--timeout", "1s"), 1, "was not done after")
        gpu1.run("sh", "-c", f"while systemctl is-failed -q {JOIN}; do systemctl reset-failed {JOIN}; done")
    undisturbed.check()


@pytest.mark.parametrize("seconds", [0.6, 0.8, 1.0, 1.2, 1.5, 2.0])
def test_an_interrupted_join_anew_is_not_begun_or_is_finished_and_never_half_done(
    fleet: Fleet, seconds: float
) -> None:
    gpu1 = fleet.hives["gpu1"]
    command = ["timeout", "--signal=INT", f"{seconds}s", "rbeectl", "join", "queen", "--token", fleet.token()]
    gpu1.run(*command, check=False, timeout=60)

    fleet.await_state("gpu1", "online", 20)
    # Whatever the moment, the next beats are taken, too, and nothing is left that failed.
    gpu1.run("sh", "-c", f"until ! test -e {STATE}/membership.new; do sleep 0.1; done", timeout=20)
    fleet.await_state("gpu1", "online", 20)
    assert gpu1.run("ls", "-A", STATE).stdout == "membership\n"
    assert active(gpu1, HIVE, JOIN) == ["active", "inactive"]
    assert gpu1.run("systemctl", "--failed", "--quiet", "--plain").stdout == ""


def test_a_second_join_does_not_take_the_answer_of_the_first(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    with Relay((fleet.bridge.host("quiet"), PORT), (fleet.queen.address, PORT)) as relay:
        relay.blackhole()
        # As a rbeectl leaves it that is killed once it has handed over an invitation.
        asked = {"host": "quiet", "port": PORT, "name": None, "token": fleet.token()}
        put(gpu1, f"{STATE}/invitation", json.dumps(asked))
        gpu1.run("chown", "rbee-hive:", f"{STATE}/invitation")
        gpu1.run("systemctl", "start", "--no-block", JOIN)
        second = join(gpu1, "queen", "--token", fleet.token())
        refused(second, 1, "another join is running")
        (command,) = tries(second)
        assert type_in(gpu1, command).code == 0
    assert join(gpu1, "queen", "--token", fleet.token()).code == 0
    fleet.await_state("gpu1", "online")
    Undisturbed(fleet).check()


def test_another_name_for_a_machine_that_has_joined_is_refused(fleet: Fleet) -> None:
    gpu1, queen = fleet.hives["gpu1"], fleet.queen
    give_ssh(fleet, gpu1)
    queen.run("sh", "-c", "printf 'Host blade7\\nHostName gpu1\\n' >>~/.ssh/config", user="ada")
    undisturbed = Undisturbed(fleet)

    told = rbeectl(queen, "add-hive", "blade7", "--user", "root", timeout=60)
    refused(told, 1, "on blade7: joining failed: this machine is the hive gpu1 already")
    assert STILL in told.err
    undisturbed.check()
    nowhere = ("--queen", f"{queen.address}:8501")
    refused(rbeectl(queen, "add-hive", "blade7", "--user", "root", *nowhere, timeout=60), 1, "does not reach")
    undisturbed.check()
    assert set(fleet.states()) == {"gpu1"}


def test_a_hive_that_is_online_joins_its_queen_anew(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    before, pid = gpu1.run("cat", MEMBERSHIP).stdout, hive_pid(gpu1)

    joined = join(gpu1, "queen", "--token", fleet.token())
    assert joined.code == 0, joined
    assert hive_pid(gpu1) != pid
    fleet.await_state("gpu1", "online")
    assert gpu1.run("cat", MEMBERSHIP).stdout != before
    # Nobody took it for a copy of itself, which would be told as an error.
    assert fleet.told("hive-cloned") == []
    Undisturbed(fleet).check()


def test_a_hive_that_waits_for_a_queen_goes_on_waiting(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    assert rbeectl(fleet.queen, "shutdown").code == 0
    waiting = f'until [ "$(systemctl is-active {REDIAL})" = active ]; do sleep 0.02; done'
    gpu1.run("sh", "-c", waiting, timeout=15)

    refused(join(gpu1, "nowhere"), 1, "is not known")
    assert active(gpu1, HIVE, REDIAL) == ["inactive", "active"]
    assert rbeectl(fleet.queen, "wake").code == 0
    fleet.await_state("gpu1", "online", 30)


def test_a_hive_that_does_not_start_as_another_queen_s_is_the_old_one_s_again(
    fleet: Fleet, make_fleet: MakeFleet
) -> None:
    gpu1 = fleet.hives["gpu1"]
    before = gpu1.run("cat", MEMBERSHIP).stdout
    source = "/usr/lib/python3/dist-packages/rbee/hive/hive.py"
    taken = "        membership = self._take_up_membership()"
    dies = 'assert membership is None or membership.host != "other"'
    with other_queen(fleet, make_fleet) as other:
        gpu1.run("sed", "-i", f"s/^{taken}$/&; {dies}/", source)
        assert dies in gpu1.run("cat", source).stdout
        told = join(gpu1, "other", "--token", other.token())
        gpu1.run("sed", "-i", f"s/; {dies}//", source)

        refused(told, 1, f"{HIVE} did not start")
        assert STILL in told.err
        fleet.await_state("gpu1", "online")
        assert gpu1.run("cat", MEMBERSHIP).stdout == before
        assert gpu1.run("ls", "-A", STATE).stdout == "membership\n"
        restored = gpu1.journal("RBEE_EVENT=membership-restored")[-1]["MESSAGE"]
        assert f"it is again the hive gpu1 of the queen at queen:{PORT}" in restored

        # Nothing kills it now: it moves.
        moved = join(gpu1, "other", "--token", other.token())
        assert moved.code == 0, moved
        other.await_state("gpu1", "online")
        fleet.await_state("gpu1", "offline")
        assert gpu1.run("ls", "-A", STATE).stdout == "membership\n"
        assert membership(gpu1)["host"] == "other"
        # And back, at a machine that loses its power after it has joined and before the hive is started.
        invite(gpu1, fleet.token())
        gpu1.run("systemctl", "start", JOIN)
        assert membership(gpu1)["host"] == "other"
        gpu1.cut_power()
        fleet.await_state("gpu1", "online", 30)
        assert gpu1.run("ls", "-A", STATE).stdout == "membership\n"


def invite(machine: Machine, token: str | None, host: str = "queen") -> None:
    """What rbeectl does before it starts rbee-hive-join.service."""
    content = json.dumps({"host": host, "port": PORT, "name": None, "token": token})
    machine.run(
        "install", "-o", "rbee-hive", "-m", "0600", "/dev/stdin", f"{STATE}/invitation", input=content
    )


def test_an_invitation_that_was_left_is_taken_up_when_the_hive_starts(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    credential = gpu1.run("cat", MEMBERSHIP).stdout
    invite(gpu1, fleet.token())
    gpu1.reboot()
    fleet.await_state("gpu1", "online", 30)
    assert gpu1.run("cat", MEMBERSHIP).stdout != credential

    # One that leads nowhere does not keep it from starting.
    invite(gpu1, None, host="nowhere")
    gpu1.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu1", "online")
    assert active(gpu1, HIVE, JOIN) == ["active", "failed"]
    assert "joining failed: the name in nowhere:8500" in unit(gpu1, JOIN)["StatusText"]
    doctor = rbeectl(gpu1, "doctor", "--fix", user=None)
    assert f"{JOIN} has failed: joining failed: the name in nowhere:8500" in doctor.out
    assert doctor.code == 0, doctor
    Undisturbed(fleet).check()


def test_a_name_may_end_with_the_root_s_dot(fleet: Fleet) -> None:
    gpu1, undisturbed = fleet.hives["gpu1"], Undisturbed(fleet)
    refused(join(gpu1, "queen.lan.:8500"), 1, "the name in queen.lan.:8500 is not known")
    undisturbed.check()
    gpu1.run("sh", "-c", f"echo '{fleet.queen.address} queen.lan.' >>/etc/hosts")
    moved = join(gpu1, "queen.lan.:8500")
    assert moved.code == 0, moved
    assert "of the queen at queen.lan.:8500" in moved.out
    fleet.await_state("gpu1", "online")
    for mistyped in ("queen..lan", "-queen", f"{'x' * 64}.lan"):
        refused(join(gpu1, "--", mistyped), 2, "QUEEN must be HOST:PORT")
    put(gpu1, "/etc/hosts", f"127.0.0.1 localhost\n{fleet.queen.address} queen\n")
    assert join(gpu1, "queen").code == 0
    fleet.await_state("gpu1", "online")
    assert membership(gpu1)["host"] == "queen"

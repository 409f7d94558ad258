"""Another machine is brought by ssh, or it is said what keeps it from that."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.fleet.bring
import rbee.keeper.fleet.find_queen
from rbee.errors import TcpClosed, UnitFailed, UnknownHive
from rbee.keeper.fleet.bring import PUT, STATE, TOKEN_LIFE
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from rbee.wire.codec import encode
from rbee.wire.fleet import CreateToken
from tests.unit.keeper.doubles import JOB, Rbeectl, WithQueen
from tests.unit.keeper.fleet.remote_machine import (
    GPU1,
    MEMBER,
    NOT_FOUND,
    OPEN,
    RESTARTED,
    TEXT,
    Queen,
    RemoteMachine,
    failing,
)
from tests.unit.played_systemd import INACTIVE, PlayedBus


def test_a_machine_is_looked_at_handed_an_invitation_started_and_seen_online(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    queen = Queen()
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--user", "root"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:7] == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) looking at gpu1 by ssh",
        "(bee keeper) handing gpu1 the queen's address, 10.0.0.1:8500, and a token for one use",
        f"(bee keeper) starting {HIVE_UNIT} on gpu1",
        "(bee keeper) Requesting queen to add gpu1 to hive catalog",
        "(queen bee)  gpu1 joins.",
        "Hive gpu1 is Online",
    ]
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert queen.added == [{"host": "gpu1", "port": None}]
    owned = ["-o", "rbee-hive", "-g", "rbee-hive"]
    folder, invitation = remote.ran
    assert folder.argv == ["install", "-d", *owned, "-m", "0700", STATE]
    # In the folder of user rbee-hive root does nothing with its own rights.
    as_hive = ["setpriv", "--reuid=rbee-hive", "--regid=rbee-hive", "--clear-groups", "--", "sh", "-c"]
    assert invitation.argv[:-2] == as_hive
    assert invitation.argv[-1] == f"{STATE}/invitation"
    told = {"host": "10.0.0.1", "port": 8500, "name": "gpu1", "token": TEXT}
    assert json.loads(invitation.content) == told
    assert remote.targets == {"root@gpu1"}
    assert not any(command.is_by_sudo for command in remote.ran)
    assert remote.bus.asked == RESTARTED
    assert awake.asked == []


@pytest.mark.parametrize("options", [(), ("--user", "ada")], ids=["", "--user"])
def test_who_to_be_there_may_stand_before_the_host_as_for_ssh(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, options: tuple[str, ...]
) -> None:
    queen = Queen()
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "ada@gpu1", *options)).code == 0

    assert remote.targets == {"ada@gpu1"}
    assert queen.added == [{"host": "gpu1", "port": None}]


def test_the_token_is_in_no_command_line_and_in_no_story(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--json"))

    assert ran.code == 0
    assert "A" * 32 not in ran.out
    assert not any("A" * 32 in word for command in remote.ran for word in command.argv)


def test_a_program_reads_each_step_and_the_hive(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--json"))

    assert [told.get("kind", told["event"]) for told in ran.json] == [
        "queen-awake", "looking-at-host", "handing-over", "starting-hive", "requesting", "job", "adding",
        "done",
    ]  # fmt: skip
    assert ran.json[-1] == {"event": "done", "hive": encode(GPU1)}


def test_without_waiting_the_machine_is_brought_and_the_job_goes_on(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--no-wait"))

    assert ran.code == 0
    assert ran.out.splitlines()[-1] == f"Job {JOB} continues; follow it: rbeectl logs -f --job {JOB}"
    assert ("start", HIVE_UNIT) in remote.bus.asked


def test_who_is_not_root_there_goes_by_sudo(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.uid = 1000
    remote.play()
    assert with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0

    assert [(command.argv[0], command.is_by_sudo) for command in remote.ran] == [
        ("install", True), ("setpriv", True),
    ]  # fmt: skip
    assert remote.targets == {"gpu1"}


def test_the_queen_s_address_may_be_given_where_ssh_comes_from_another(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    arguments = ("add-hive", "gpu1", "--queen", "[fd00::1]:9000")
    assert with_queen(Queen().handlers, lambda: rbeectl(*arguments)).code == 0

    told = json.loads(remote.ran[-1].content)
    assert (told["host"], told["port"]) == ("fd00::1", 9000)


def test_a_hive_of_this_queen_that_is_silent_is_only_started(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.is_a(**MEMBER)
    queen = Queen(GPU1._replace(state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0
    assert queen.tokens == []
    assert remote.programs == ["setpriv"]  # which reads its membership
    assert remote.bus.asked == RESTARTED


def test_a_hive_that_dials_elsewhere_is_given_the_new_address_and_keeps_its_credential(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote.is_a(**{**MEMBER, "host": "10.0.0.9"})

    def reach(_ssh: Any, host: str, *_asked: Any) -> str:
        return "No route to host" if host == "10.0.0.9" else ""

    monkeypatch.setattr(rbee.keeper.fleet.find_queen, "try_from_there", reach)
    monkeypatch.setattr(rbee.keeper.fleet.bring, "try_from_there", reach)
    queen = Queen(GPU1._replace(state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0, ran
    assert "(bee keeper) handing gpu1 the queen's new address, 10.0.0.1:8500" in ran.out
    assert json.loads(remote.ran[-1].content) == {
        "host": "10.0.0.1", "port": 8500, "name": None, "token": None,
    }  # fmt: skip
    assert queen.tokens == []
    assert remote.bus.asked == [RESTARTED[0], *RESTARTED]


@pytest.mark.parametrize("state", ["offline", "online"])
def test_an_address_that_is_typed_is_handed_to_a_hive_that_has_joined_too(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, state: Any
) -> None:
    remote.is_a(**MEMBER)
    queen = Queen(GPU1._replace(state=state, last_beat_ms=1))
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "queen2")).code == 0

    told = json.loads(remote.ran[-1].content)
    assert (told["host"], told["port"], told["token"]) == ("queen2", 8500, None)


def test_a_hive_that_is_online_is_not_restarted_for_the_address_that_it_has(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.is_a(**MEMBER)
    queen = Queen(GPU1._replace(state="online", last_beat_ms=1))
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "10.0.0.1")).code == 0

    assert remote.bus.asked == []


def test_a_hive_that_cannot_follow_with_its_credential_is_given_a_token(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.is_a(**MEMBER)
    remote.bus.passing["start", JOIN_UNIT] = UnitFailed("joining failed: it was removed")
    queen = Queen(GPU1._replace(state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "queen2"))

    assert ran.code == 0, ran
    assert "could not connect to the queen's new address: joining failed: it was removed" in ran.out
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert json.loads(remote.ran[-1].content)["token"] == TEXT


def test_a_hive_whose_credential_is_refused_joins_anew(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.is_a(**MEMBER)
    queen = Queen(GPU1._replace(state="offline"), refuses=UnknownHive("it comes with another credential"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0, ran
    assert len(queen.added) == 2
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert remote.bus.asked == [*RESTARTED, *RESTARTED]


@pytest.mark.parametrize(
    ("is_known", "told"),
    [
        (True, {}),
        (True, {**MEMBER, "hive_id": "gpu2"}),
        (True, {**MEMBER, "ca": ssl.DER_cert_to_PEM_cert(b"another queen's")}),
        (True, {**MEMBER, "ca": "no certificate"}),
        (True, {"hive_id": "gpu1"}),
        (False, MEMBER),
    ],
    ids=["nobody's", "of another name", "another queen's", "no CA", "half", "not in the catalog"],
)
def test_a_membership_that_is_of_no_use_to_this_queen_gives_way_to_another(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    is_known: bool,
    told: dict[str, Any],
) -> None:
    remote.is_a(**told)
    queen = Queen(*[GPU1._replace(state="offline")] * is_known)

    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0
    assert len(queen.tokens) == 1


def test_a_queen_who_is_closed_is_to_be_opened_before_anybody_is_called(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    queen = Queen(tcp=OPEN._replace(is_open=False, listens=()))
    ran = failing(rbeectl, with_queen, queen, remote)

    assert ran.code == TcpClosed.exit_code
    assert ran.err == "rbeectl: the queen is not open to other machines\n  try: rbeectl tcp enable\n"
    assert list((remote.folder / "noted").iterdir()) == []


def test_a_machine_that_ssh_does_not_reach_is_told_in_ssh_s_words(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.play(fails="login", says="gpu1: Name or service not known", status=255)
    ran = failing(rbeectl, with_queen, Queen(), remote, "--user", "ada")

    assert ran.code == 1
    assert "ssh to ada@gpu1 failed: gpu1: Name or service not known" in ran.err
    assert "  try: ssh ada@gpu1\n" in ran.err


def test_a_machine_without_the_package_is_told_both_ways_to_install_it(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.bus.states[HIVE_UNIT] = NOT_FOUND
    ran = failing(rbeectl, with_queen, Queen(), remote)

    assert ran.code == 1
    assert ran.err == (
        "rbeectl: rbee-hive is not installed on gpu1\n"
        "  try: With the packages in a folder here: rbeectl add-hive gpu1 --install FOLDER\n"
        "  try: Or on gpu1, with rbee's packages in this folder: "
        "sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb\n"
    )


def test_a_machine_with_a_queen_of_its_own_is_left_alone(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.bus.states[QUEEN_UNIT] = INACTIVE
    ran = failing(rbeectl, with_queen, Queen(), remote)

    assert ran.code == 1
    assert "gpu1 has a queen of its own" in ran.err
    assert "try: To see that queen's hives: ssh -t gpu1 rbeectl list-hives\n" in ran.err
    assert "try: If it is not needed any more: ssh -t gpu1 sudo apt remove rbee-queen" in ran.err
    assert remote.programs == ["sh"]  # which reads whose machine it is


def test_an_address_of_hers_that_is_none_is_refused_by_its_option_and_makes_no_token(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    ran = failing(rbeectl, with_queen, Queen(), remote, "--queen", "queen:0", "--json")

    assert (ran.code, ran.json[-1]["event"], ran.json[-1]["field"]) == (2, "error", "--queen")


def test_a_hive_that_does_not_start_there_is_told_with_the_machine_s_name(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.bus.refusals["start", HIVE_UNIT] = UnitFailed(
        "it said: joining failed: the name is taken", hint="rbeectl list-hives"
    )
    queen = Queen()
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert (ran.code, queen.added) == (1, [])
    assert "rbeectl: on gpu1: it said: joining failed: the name is taken\n" in ran.err
    assert "  try: rbeectl list-hives\n" in ran.err


def test_a_hive_that_had_failed_there_may_start_again(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine
) -> None:
    remote.bus.after_stop[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="exit-code")
    assert with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0

    assert [verb for verb, _ in remote.bus.asked] == ["start", "stop", "reset-failed", "start"]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("find_queen", "nothing was changed on gpu1"),
        ("install", "an apt that was begun on gpu1 may go on there"),
        ("Visit._hand_over", "gpu1 has rbee-hive, and has not joined"),
        ("restart_hive", "the hive of gpu1 is unchanged, or restarts with its new membership"),
    ],
)
def test_who_interrupts_it_is_told_what_goes_on_over_there(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    packages: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    told: str,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"rbee.keeper.fleet.bring.{place}", interrupt)
    arguments = ("add-hive", "root@gpu1", "--install", str(packages))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert ran.code == 130
    again = f"rbeectl add-hive root@gpu1 --install {packages}"
    assert ran.err == f"rbeectl: interrupted; {told}\n  try: To go on: {again}\n"


def test_an_invitation_takes_the_place_of_another_and_removes_what_killed_writers_have_left(
    tmp_path: Path,
) -> None:
    for name in ("invitation", ".invitation.abcdef", ".invitation.ghijkl", ".other.abcdef"):
        (tmp_path / name).write_text("old")
    for name in (".invitation.abcdef", ".other.abcdef"):
        os.utime(tmp_path / name, (0, 0))

    subprocess.run(["sh", "-c", PUT, tmp_path / "invitation"], input=b"new", check=True)

    assert (tmp_path / "invitation").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == [".invitation.ghijkl", ".other.abcdef", "invitation"]

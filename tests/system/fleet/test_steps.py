"""The next step can be pasted, and who goes the wrong way is told where it leads."""

from __future__ import annotations

import re
import time

import pytest

from tests.system.commands import QUEEN, override, put, rbeectl, rows
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.faults import dropped
from tests.system.fleet.fleet import MEMBERSHIP, PORT, SUITES, Fleet, refused
from tests.system.fleet.ssh import give_ssh, on_terminal


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen on either Debian, and gpu1, which has not joined."""
    fleet = make_fleet(queen=request.param)
    fleet.boot("gpu1", request.param)
    return fleet


def test_this_machine_by_its_other_names_is_not_gone_to_by_ssh(fleet: Fleet) -> None:
    queen = fleet.queen
    for name in ("queen", "QUEEN", "queen.", "ada@queen", "127.0.0.1", "::1", "[::1]", queen.address):
        told = rbeectl(queen, "add-hive", name, "--port", "8601")
        refused(told, 2, "is this machine")
        assert "try: rbeectl add-hive localhost --port 8601\n" in told.err, told
        assert "remove" not in told.err
    # By a name that only ssh knows it is known there.
    give_ssh(fleet, queen)
    queen.run(
        "sh", "-c", f"printf 'Host workstation\\nHostName {queen.address}\\n' >>~/.ssh/config", user="ada"
    )
    told = rbeectl(queen, "add-hive", "workstation", "--user", "root", timeout=60)
    refused(told, 2, "workstation is this machine")
    assert "remove" not in told.err
    assert rows(queen) == []


def test_the_line_that_is_printed_has_the_other_machine_join(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    opened = rbeectl(queen, "tcp", "enable")
    (told,) = [one for one in opened.lines if "--token TOKEN" in one]
    assert f"sudo rbeectl join {queen.address}:{PORT} --token TOKEN" in told
    made = on_terminal(queen, "rbeectl", "token", "create", "--hive", "blade")
    (line,) = re.findall(r"sudo rbeectl (join .*?)\r?\n", made.out)

    joined = rbeectl(gpu1, *line.split(), user=None)

    assert joined.code == 0, joined
    assert joined.lines == [
        f"(bee keeper) reaching the queen at {queen.address}:{PORT}",
        "(bee keeper) comparing the queen's keys with the token's fingerprint",
        f"(bee keeper) joining the queen at {queen.address} with the token",
        "(bee keeper) starting rbee-hive.service",
        f"This machine is the hive blade of the queen at {queen.address}:{PORT}",
    ]
    assert "--token" not in rbeectl(queen, "token", "create").out, "a pipe gets the token alone"


def test_a_firewall_and_a_closed_port_are_told_apart_within_seconds(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    token = fleet.token()
    closed = rbeectl(gpu1, "join", "queen:8501", "--token", token, user=None)
    refused(closed, 1, "the machine refused the connection: nobody listens on queen:8501")
    with dropped(queen, "in", port=PORT):
        began = time.monotonic()
        silent = rbeectl(gpu1, "join", "queen", "--token", token, user=None)
        assert time.monotonic() - began < 8
    refused(
        silent, 1, "nothing answered at queen:8500 within 5 s: a firewall drops what is sent to port 8500"
    )
    assert "sudo ufw allow 8500/tcp" in silent.err
    assert gpu1.run("test", "-e", MEMBERSHIP, check=False).returncode == 1
    assert rbeectl(gpu1, "join", "queen", "--token", token, user=None).code == 0, "the token is good still"


def test_the_step_is_told_before_ssh_asks_and_nothing_is_drawn_meanwhile(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    give_ssh(fleet, gpu1)
    queen.run("sh", "-c", "rm ~/.ssh/config; rm -f ~/.ssh/known_hosts", user="ada")

    added = on_terminal(queen, "rbeectl", "add-hive", "root@gpu1", answers=("yes",))

    assert added.code == 0, added
    before, question, after = added.out.partition("Are you sure you want to continue connecting")
    assert question
    assert "looking at gpu1 by ssh" in before
    assert "looking at gpu1" not in after.partition("yes")[0]


BASHRC = r"printf '\033]0;owned\007\033[2J\033[31mclosed for maintenance\n' >&2; exit 3"


def test_what_the_other_machine_s_login_prints_does_not_steer_the_terminal(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    give_ssh(fleet, gpu1)
    put(gpu1, "/root/.bashrc", f"{BASHRC}\n")

    added = on_terminal(fleet.queen, "rbeectl", "add-hive", "root@gpu1", with_escapes=True)

    assert added.code not in (0, 130), added
    assert "closed for maintenance" in added.out
    assert "owned" in added.out
    for escape in ("\x1b]", "\x07", "\x1b[2J", "\x1b[31mclosed"):
        assert escape not in added.out, added


def test_ctrl_c_ends_a_join_at_every_step_and_says_what_has_become_of_it(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    joining = ("rbeectl", "join", "queen", "--token", fleet.token())
    with dropped(queen, "in", port=PORT):
        reaching = on_terminal(gpu1, *joining, interrupt_at="reaching the queen", user=None)
    queen.run("systemctl", "kill", "--signal=STOP", QUEEN)
    comparing = on_terminal(gpu1, *joining, interrupt_at="comparing the queen's keys", user=None)
    queen.run("systemctl", "kill", "--signal=CONT", QUEEN)
    override(gpu1, "rbee-hive-join.service", "[Service]\nExecStartPre=/bin/sleep 20\n")
    handed_over = on_terminal(gpu1, *joining, interrupt_at="joining the queen", user=None)
    for told in (reaching, comparing, handed_over):
        assert told.code == 130, told
        assert "interrupted; this machine has not joined" in told.out, told
    assert gpu1.run("test", "-e", MEMBERSHIP, check=False).returncode == 1
    assert gpu1.run("systemctl", "--failed", "--no-legend").stdout == ""
    # The token was not spent: the same line goes on.
    override(gpu1, "rbee-hive-join.service", "")
    assert rbeectl(gpu1, *joining[1:], user=None).code == 0


def test_an_invitation_for_which_there_is_no_room_leaves_the_hive_and_the_token_as_they_were(
    fleet: Fleet,
) -> None:
    gpu1, state = fleet.hives["gpu1"], "/var/lib/rbee-hive"
    give_ssh(fleet, gpu1)
    gpu1.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", state)
    gpu1.run("mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "tmpfs", state)
    gpu1.run("chown", "rbee-hive:", state)
    gpu1.run("sh", "-c", f"head -c 4096 /dev/zero >{state}/full")
    token = fleet.token()

    joined = rbeectl(gpu1, "join", "queen", "--token", token, user=None)
    added = rbeectl(fleet.queen, "add-hive", "root@gpu1", timeout=60)

    for told in (joined, added):
        assert told.code not in (0, 130), told
        assert "No space left on device" in told.err, told
        assert f"{state}/" in told.err, told
    assert f"try: df -h {state}\n" in joined.err, joined
    assert f"try: ssh -t root@gpu1 df -h {state}\n" in added.err, added
    assert gpu1.run("ls", "-A", state).stdout == "full\n"
    gpu1.run("rm", f"{state}/full")
    assert rbeectl(gpu1, "join", "queen", "--token", token, user=None).code == 0

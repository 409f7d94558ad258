"""Becoming root on another machine: by the sudo that Debian has, as Debian configures it."""

from __future__ import annotations

import time

import pytest
from testbed.debian import add_person, install_from_archive
from testbed.machine import Machine

from tests.system.commands import HIVE, put, rbeectl, rows
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import SUITES, Fleet, refused
from tests.system.fleet.ssh import add_sudoer, give_ssh, on_terminal

ADDING = ("rbeectl", "add-hive", "grace@gpu1")
QUESTION = "Password of grace on gpu1, for sudo:"


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen on either Debian, gpu1 on the same, and grace there, whose sudo wants her password."""
    fleet = make_fleet(queen=request.param)
    add_sudoer(fleet, fleet.boot("gpu1", request.param))
    return fleet


def untouched(fleet: Fleet) -> None:
    """Nobody was added, nothing was handed over, and no token was made."""
    assert rows(fleet.queen) == []
    assert fleet.hives["gpu1"].run("ls", "-A", "/var/lib/rbee-hive", check=False).stdout == ""
    assert rbeectl(fleet.queen, "token", "list", "--json").json["tokens"] == []


def commands(machine: Machine) -> str:
    """All that sudo and the shells there were started with, and what the journal has of them."""
    return machine.run("journalctl", "--no-pager", "--output=cat").stdout


def test_a_password_for_sudo_is_asked_for_once_on_the_terminal_and_kept_nowhere(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    added = on_terminal(fleet.queen, *ADDING, answers=("secret",))
    assert added.code == 0, added
    assert added.out.count(QUESTION) == 1
    assert "secret" not in added.out
    # Nothing is drawn from the question until it is answered.
    asked = added.out.index(QUESTION)
    assert added.out[asked + len(QUESTION) :].lstrip(" ").startswith("\n")
    assert added.out[:asked].endswith("\n")
    assert "Hive gpu1 is Online" in added.out
    assert "secret" not in commands(gpu1)
    assert fleet.views()["gpu1"]["state"] == "online"

    # A mistyped one is asked for again, as by sudo, which counts.
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    again = on_terminal(fleet.queen, *ADDING, answers=("mistyped", "secret"))
    assert again.code == 0, again
    assert again.out.count(QUESTION) == 2
    assert "Sorry, try again." in again.out


def test_a_password_that_is_not_taken_changes_nothing(fleet: Fleet) -> None:
    told = on_terminal(fleet.queen, *ADDING, answers=("a", "b", "c"))
    assert told.code == 77, told
    assert "sudo on gpu1 did not take the password of grace: sudo: 3 incorrect password attempts" in told.out
    assert "try: ssh -t grace@gpu1 sudo true" in told.out
    untouched(fleet)


def test_without_a_terminal_the_line_of_sudoers_is_told_and_it_helps(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    told = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "grace", timeout=60)
    refused(told, 77, "sudo on gpu1 wants the password of grace, and there is no terminal here to ask for it")
    assert "try: On a terminal: rbeectl add-hive grace@gpu1" in told.err
    assert "try: rbeectl add-hive root@gpu1" in told.err
    assert "doctor" not in told.err
    untouched(fleet)
    (line,) = [line for line in told.err.splitlines() if "visudo -f " in line]
    _, _, cure = line.partition("visudo -f ")
    path, _, rule = cure.partition(", with the line: ")
    put(gpu1, path, f"{rule}\n")
    gpu1.run("visudo", "--check", "--file", path)
    assert rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "grace", timeout=60).code == 0


def test_who_is_in_no_sudoers_is_told_so_by_name_and_machine(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    add_person(gpu1, "mallory")
    gpu1.run("chpasswd", input="mallory:secret\n")
    give_ssh(fleet, gpu1, "mallory")
    told = on_terminal(fleet.queen, "rbeectl", "add-hive", "mallory@gpu1", answers=("secret",))
    assert told.code == 77, told
    assert "mallory may not use sudo on gpu1: mallory is not in the sudoers file" in told.out
    assert "try: rbeectl add-hive root@gpu1" in told.out
    assert "try: Or on gpu1, as root: adduser mallory sudo" in told.out
    untouched(fleet)


def test_a_machine_without_sudo_is_told_apart_from_one_that_refuses(fleet: Fleet) -> None:
    fleet.hives["gpu1"].run("dpkg", "--purge", "--force-depends", "sudo", env={"SUDO_FORCE_REMOVE": "yes"})
    told = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "grace", timeout=60)
    refused(told, 77, "grace is not root on gpu1, and sudo is not installed there")
    assert "try: rbeectl add-hive root@gpu1" in told.err
    assert "try: Or on gpu1, as root: apt install sudo; adduser grace sudo" in told.err
    untouched(fleet)


def test_in_german_all_is_as_in_english(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    install_from_archive(gpu1, "locales")
    gpu1.run("localedef", "-i", "de_DE", "-f", "UTF-8", "de_DE.UTF-8", timeout=60)
    gpu1.run("update-locale", "LANG=de_DE.UTF-8")
    german = fleet.queen.run("ssh", "grace@gpu1", "sudo -n true", user="ada", check=False).stderr
    assert "Passwort" in german, german

    refused(rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "grace", timeout=60), 77, "no terminal here")
    wrong = on_terminal(fleet.queen, *ADDING, answers=("a", "b", "c"))
    assert "did not take the password of grace: sudo: 3 incorrect password attempts" in wrong.out
    added = on_terminal(fleet.queen, *ADDING, answers=("secret",))
    assert added.code == 0, added
    assert added.out.count(QUESTION) == 1


def test_a_sudo_that_takes_its_time_is_awaited(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    # What a name server that is gone, or a directory, does to it: PAM waits.
    slow = gpu1.run("cat", "/etc/pam.d/sudo").stdout + "session required pam_exec.so /usr/bin/sleep 20\n"
    put(gpu1, "/etc/pam.d/sudo", slow)
    began = time.monotonic()
    added = on_terminal(fleet.queen, *ADDING, answers=("secret",))
    assert added.code == 0, added
    assert 20 < time.monotonic() - began < 60

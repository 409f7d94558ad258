"""Why a machine could not be added: the end of what ssh, the login, apt and systemd say, and what helps."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from testbed.machine import Machine

from tests.system.commands import put, rbeectl, rows
from tests.system.fleet.fleet import Fleet, refused
from tests.system.fleet.ssh import add_sudoer, on_terminal

BANNER = "This computer is the property of nobody in particular. " * 40
ADDING = ("add-hive", "root@gpu1")
LOCK = """
import fcntl, sys
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fleet(reached_fleet: Fleet) -> Fleet:
    return reached_fleet


def restart_sshd(machine: Machine, configuration: str) -> None:
    put(machine, "/etc/ssh/sshd_config.d/50-test.conf", configuration)
    machine.run("systemctl", "restart", "ssh.service")


def test_behind_a_banner_the_reason_is_shown(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    put(gpu1, "/etc/issue.net", BANNER)
    restart_sshd(gpu1, "Banner /etc/issue.net\nPermitRootLogin no\n")
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, "ssh to root@gpu1 failed: ")
    assert "Permission denied (publickey" in told.err
    assert "try: ssh root@gpu1" in told.err


def test_a_changed_host_key_is_told_with_the_line_that_helps(fleet: Fleet) -> None:
    gpu1, queen = fleet.hives["gpu1"], fleet.queen
    queen.run("ssh", "root@gpu1", "true", user="ada")
    gpu1.run("sh", "-c", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh")
    told = rbeectl(queen, *ADDING, timeout=60)
    refused(told, 77, "the host key of gpu1 is not the one that ssh knows")
    assert "Offending " in told.err
    assert "/home/ada/.ssh/known_hosts:" in told.err
    (cure,) = [line for line in told.err.splitlines() if "ssh-keygen" in line]
    queen.run(*shlex.split(cure.partition(": If it was installed anew: ")[2]), user="ada")
    assert rbeectl(queen, *ADDING, timeout=60).code == 0


def test_a_login_that_prints_is_none_the_worse_and_one_that_runs_nothing_is_told(fleet: Fleet) -> None:
    gpu1, queen = fleet.hives["gpu1"], fleet.queen
    add_sudoer(fleet, gpu1)
    noise = "echo Welcome; printf 'no line end'; echo 'tput: no terminal' >&2; trap 'echo bye' EXIT\n"
    gpu1.run("sh", "-c", "cat - ~grace/.bashrc >/tmp/rc; cat /tmp/rc >~grace/.bashrc", input=noise)
    assert "Welcome" in queen.run("ssh", "grace@gpu1", "true", user="ada").stdout
    added = on_terminal(queen, "rbeectl", "add-hive", "grace@gpu1", answers=("secret",))
    assert added.code == 0, added
    assert "Welcome" not in added.out

    gpu1.run("systemctl", "stop", "rbee-hive")
    fleet.await_state("gpu1", "offline")
    restart_sshd(gpu1, "Match User grace\nForceCommand echo This account is for tunnels.\n")
    told = rbeectl(queen, "add-hive", "grace@gpu1", timeout=60)
    refused(told, 1, "ssh to grace@gpu1 runs no commands there, but prints: ")
    assert "This account is for tunnels." in told.err
    assert "try: ssh grace@gpu1 id; then again" in told.err


def test_a_password_for_ssh_is_asked_for_with_nothing_drawn_over_it(fleet: Fleet) -> None:
    gpu1, queen = fleet.hives["gpu1"], fleet.queen
    gpu1.run("sh", "-c", "rm /root/.ssh/authorized_keys; echo root:toor | chpasswd")
    restart_sshd(gpu1, "PermitRootLogin yes\nPasswordAuthentication yes\n")
    queen.run("sh", "-c", "rm ~/.ssh/config", user="ada")
    added = on_terminal(queen, "rbeectl", *ADDING, answers=("yes", "toor"))
    assert added.code == 0, added
    after = added.out.partition("Are you sure you want to continue connecting")[2]
    assert after.partition("root@gpu1's password:")[0].count("looking at gpu1") == 0
    assert added.out.count("root@gpu1's password:") == 1


@pytest.fixture
def packages(fleet: Fleet, debs: list[Path]) -> list[str]:
    """gpu1 has no rbee-hive; ada has its packages. The options of add-hive for them."""
    gpu1 = fleet.hives["gpu1"]
    gpu1.run("dpkg", "--purge", "rbee-hive", "rbeectl", "python3-rbee", timeout=60)
    fleet.queen.run("mkdir", "/home/ada/debs")
    for deb in debs:
        fleet.queen.copy_in(deb, f"/home/ada/debs/{deb.name}")
    return ["--install", "/home/ada/debs"]


def hold_lock(machine: Machine) -> subprocess.Popen[str]:
    """As another apt does; until its input ends."""
    holder = machine.popen("python3", "-c", LOCK, reads_input=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_an_apt_that_is_busy_is_named_and_awaited(fleet: Fleet, packages: list[str]) -> None:
    gpu1 = fleet.hives["gpu1"]
    holder = hold_lock(gpu1)
    adding = fleet.queen.popen("rbeectl", *ADDING, *packages, user="ada")
    assert adding.stdout is not None
    told = next(line for line in adding.stdout if "locked" in line)
    assert told.startswith("(bee keeper) apt on gpu1 is locked by process ")
    assert told.endswith("(python3); waiting up to 60 s for it\n")
    assert adding.poll() is None
    holder.communicate(timeout=10)
    out, err = adding.communicate(timeout=90)
    assert adding.returncode == 0, (out, err)
    fleet.await_state("gpu1", "online")


def test_why_apt_failed_is_shown_from_both_of_its_streams(fleet: Fleet, packages: list[str]) -> None:
    gpu1 = fleet.hives["gpu1"]
    # Warnings that would fill any bound, and then a package that nothing can provide.
    warnings = "".join(
        f"deb [trusted=yes] http://127.0.0.1:9/nothing{number} x main\n" for number in range(20)
    )
    put(gpu1, "/etc/apt/sources.list", warnings * 2)
    gpu1.run("apt-get", "purge", "--yes", "python3-sdnotify", env={"DEBIAN_FRONTEND": "noninteractive"})
    told = rbeectl(fleet.queen, *ADDING, *packages, timeout=90)
    refused(told, 1, "apt on gpu1 failed (100): ")
    assert "Depends: python3-sdnotify but it is not installable" in told.err
    assert "E: Unable to correct problems, you have held broken packages." in told.err
    assert rows(fleet.queen) == []
    assert gpu1.run("sh", "-c", "ls -d /tmp/tmp.*", check=False).stdout == ""


def test_a_hive_that_does_not_start_there_is_to_be_looked_at_there(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    put(
        gpu1,
        "/run/systemd/system/rbee-hive.service.d/50-test.conf",
        "[Service]\nExecStart=\nExecStart=/nowhere\n",
    )
    gpu1.run("systemctl", "daemon-reload")
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, "on gpu1: ")
    assert "ssh -t root@gpu1 sudo systemctl status rbee-hive" in told.err
    assert "doctor" not in told.err


def test_a_temporary_folder_with_a_long_name_is_no_hindrance(fleet: Fleet) -> None:
    queen = fleet.queen
    long = f"/home/ada/{'t' * 100}"
    queen.run("mkdir", long, user="ada")
    assert rbeectl(queen, *ADDING, env={"TMPDIR": long}, timeout=60).code == 0

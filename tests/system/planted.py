"""What a daemon's user plants in its own folder, so that root does there what it may not do itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.machine import Machine

TARGET = "/etc/of-root"
"""A file of root's, which nobody may write to."""

RACE = """
import os, sys
folder, target, *names = sys.argv[1:]
def file(aside):
    os.close(os.open(aside, os.O_CREAT, 0o400))
def link(aside):
    os.symlink(target, aside)
while True:
    for name in names:
        for make in (file, link):
            try:
                make(f"{folder}/{name}.aside")
                os.rename(f"{folder}/{name}.aside", f"{folder}/{name}")
            except OSError:
                pass
"""
"""Puts now a file and now a link to the target in the place of each name, as fast as it can."""


@contextmanager
def racing(machine: Machine, user: str, folder: str, *names: str) -> Iterator[None]:
    """While this user does so in its folder; the target is afterwards what it was before."""
    machine.run("install", "-m", "0444", "/dev/stdin", TARGET, input="root's\n")
    before = looks(machine)
    machine.run(
        "systemd-run", "--quiet", "--unit=race", "--property=Type=exec", f"--uid={user}", f"--gid={user}",
        "python3", "-c", RACE, folder, TARGET, *names,
    )  # fmt: skip
    try:
        yield
        assert machine.run("systemctl", "is-active", "race").stdout == "active\n"
    finally:
        machine.run("systemctl", "stop", "race", check=False)
        for name in names:
            machine.run("rm", "-f", f"{folder}/{name}", f"{folder}/{name}.aside")
    assert looks(machine) == before


def looks(machine: Machine) -> str:
    """Owner, mode, names, size, and when it was written."""
    return machine.run("stat", "-c", "%U:%G %a %h %s %Y", TARGET).stdout

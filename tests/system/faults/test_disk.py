"""A disk that is full or read-only, a catalog that is locked: said, nothing half-written, soon mended."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    active,
    add_hive,
    configure,
    curl,
    main_pid,
    rbeectl,
    rows,
    tries,
    type_in,
    unit,
)

DIR = "/var/lib/queen-rbee"


def mount_small(machine: Machine) -> None:
    """A disk of one MiB under the queen, who has not started yet."""
    machine.run(
        "sh", "-c",
        f"mkdir -p {DIR} && mount -t tmpfs -o size=1M,mode=0700 rbee-test {DIR} && chown queen-rbee: {DIR}",
    )  # fmt: skip


def fill(machine: Machine) -> None:
    machine.run("sh", "-c", f"head -c 4M /dev/zero > {DIR}/filler || true")
    left = machine.run("df", "--output=avail", DIR).stdout.split()[1]
    assert left == "0"


def sound(machine: Machine) -> bool:
    told = machine.run("sqlite3", f"file:{CATALOG}?mode=ro", "PRAGMA integrity_check").stdout
    return told.strip() == "ok"


def test_a_full_disk_fails_the_story_and_nothing_else_and_room_mends_it(machine: Machine) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=1s\nHeartbeatGraceSec=1s\n")
    mount_small(machine)
    machine.run("systemctl", "start", QUEEN)
    assert rows(machine) == []
    fill(machine)
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert f"the disk is full, and {CATALOG} cannot be written: make room, then ask again" in answer.err
    assert tries(answer) == [f"df -h {DIR}"]
    assert type_in(machine, tries(answer)[0]).out.splitlines()[1].split()[3] == "0"
    assert rows(machine) == []
    assert active(machine, QUEEN, HIVE) == ["active", "inactive"]
    assert curl(machine, "/v1/hives")[0] == 200
    assert sound(machine)
    machine.run("rm", f"{DIR}/filler")
    add_hive(machine)
    (row,) = rows(machine)
    # Heartbeats and reads go on while there is no room again, and nothing of the row is touched.
    fill(machine)
    beat = hive_beat(machine)
    await_beat(machine, beat)
    assert rbeectl(machine, "list-hives").code == 0
    pid = main_pid(machine, HIVE)
    removed = rbeectl(machine, "remove-hive", "localhost")
    assert removed.code == 1, removed
    assert "the disk is full" in removed.err
    # What stays in the catalog was not stopped for it.
    assert main_pid(machine, HIVE) == pid
    assert rows(machine) == [row]
    assert sound(machine)
    machine.run("rm", f"{DIR}/filler")
    again = rbeectl(machine, "remove-hive", "localhost")
    assert again.code == 0, again
    assert rows(machine) == []


def hive_beat(machine: Machine) -> int:
    found: int = rbeectl(machine, "list-hives", "--json").json["hives"][0]["last_beat_ms"]
    return found


def await_beat(machine: Machine, after: int) -> None:
    deadline = time.monotonic() + 10
    while hive_beat(machine) <= after:
        assert time.monotonic() < deadline, "no heartbeat"


def test_a_disk_that_is_full_before_her_first_start_is_named_and_leaves_nothing(machine: Machine) -> None:
    mount_small(machine)
    fill(machine)
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78, answer
    assert "the disk is full" in answer.err
    assert tries(answer) == [f"df -h {DIR}"]
    assert machine.run("ls", "-A", DIR).stdout.split() == ["filler"]
    machine.run("rm", f"{DIR}/filler")
    add_hive(machine)


def test_a_state_directory_that_is_read_only_when_she_starts_is_named_with_its_cure(machine: Machine) -> None:
    mount_small(machine)
    add_hive(machine)
    rbeectl(machine, "shutdown")
    machine.run("mount", "-o", "remount,ro", DIR)
    assert machine.run("touch", f"{DIR}/x", check=False).returncode != 0
    before = machine.run("sha256sum", CATALOG).stdout
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78, answer
    assert f"{CATALOG} cannot be written: {DIR} is read-only" in answer.err
    assert machine.run("sha256sum", CATALOG).stdout == before
    for command in tries(answer):
        assert type_in(machine, command).code == 0
    (row,) = rows(machine)
    add_hive(machine)
    assert rows(machine)[0]["created_at_ms"] == row["created_at_ms"]


def test_a_disk_that_turns_read_only_under_her_fails_the_story_and_reads_go_on(
    machine: Machine, tmp_path: Path
) -> None:
    mkfs = shutil.which("mkfs.ext4")
    assert mkfs, "tests/run installs e2fsprogs"
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run([mkfs, "-q", "-F", "-E", "root_owner=0:0", str(image)], check=True)
    machine.copy_in(image, "/run/disk")
    # A machine's own /dev has no loop devices.
    machine.run(
        "sh", "-c",
        "[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237;"
        " for n in 0 1 2 3 4 5 6 7; do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done;"
        f" mkdir -p {DIR} && mount -o loop /run/disk {DIR} && chown queen-rbee: {DIR} && chmod 0700 {DIR}",
    )  # fmt: skip
    machine.run("systemctl", "start", QUEEN)
    pid = main_pid(machine, QUEEN)
    # As ext4 does on its own when the disk fails: files that are open stay open, and no write gets through.
    machine.run("mount", "-o", "remount,abort", DIR)
    assert machine.run("touch", f"{DIR}/x", check=False).returncode != 0
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert f"{CATALOG} cannot be written: {DIR} is read-only" in answer.err
    assert tries(answer) == [f"sudo mount -o remount,rw $(findmnt -n -o TARGET -T {DIR})"]
    assert rbeectl(machine, "list-hives").code == 0
    assert main_pid(machine, QUEEN) == pid
    assert curl(machine, "/health")[0] == 200
    # A disk that ext4 gave up has to be mounted anew, which the machine's owner knows how to.
    rbeectl(machine, "shutdown")
    machine.run("sh", "-c", f"umount {DIR} && mount -o loop /run/disk {DIR}")
    add_hive(machine)
    assert len(rows(machine)) == 1
    assert sound(machine)


def test_a_catalog_that_another_process_keeps_locked_is_said_to_be(machine: Machine) -> None:
    machine.run("systemctl", "start", QUEEN)
    holder = machine.popen("sqlite3", CATALOG, reads_input=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("BEGIN IMMEDIATE;\n.print held\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "held\n"
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert f"{CATALOG} is kept locked by another process" in answer.err
    assert tries(answer) == ["sudo rbeectl doctor"]
    assert rbeectl(machine, "list-hives").code == 0
    holder.stdin.close()
    holder.wait(10)
    add_hive(machine)
    assert re.match(r"hives: 1 online", unit(machine, QUEEN)["StatusText"])

"""What the operating system refuses is named with its file, its reason and a cure, and is not the output."""

from __future__ import annotations

import json

import pytest
from testbed.debian import install_from_archive
from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    QUEEN,
    Answer,
    active,
    add_hive,
    await_stopped,
    configure,
    override,
    put,
    rbeectl,
    tries,
    type_in,
)
from tests.system.faults.test_disk import fill, mount_small

DIR = "/var/lib/queen-rbee"
DROPIN = "/etc/systemd/system/queen-rbee-tcp.socket.d/50-listen.conf"
OUTPUT = "the output could not be written"


def error_event(answer: Answer) -> dict[str, str]:
    """The last line that a program reads, which says what a person would read on stderr."""
    told: dict[str, str] = json.loads(answer.lines[-1])
    assert (told["event"], answer.err) == ("error", "")
    return told


def test_a_read_only_etc_is_named_with_the_drop_in_that_cannot_be_written(machine: Machine) -> None:
    # A disk of its own, as the overlay that is a machine's disk cannot be made writable again.
    machine.run(
        "sh", "-c",
        "mkdir /run/etc && mount -t tmpfs -o mode=0755 etc /run/etc && cp -a /etc/. /run/etc"
        " && mount --bind /run/etc /etc && mount -o remount,ro /etc",
    )  # fmt: skip
    listen = ("tcp", "enable", "--listen", "127.0.0.1:8501")

    answer = rbeectl(machine, *listen, user=None)

    assert answer.code == 1, answer
    assert answer.err.splitlines()[0] == f"rbeectl: {DROPIN} cannot be written: Read-only file system"
    told = error_event(rbeectl(machine, *listen, "--json", user=None))
    assert told["detail"] == f"{DROPIN} cannot be written: Read-only file system"
    assert tries(answer) == told["hint"].splitlines()
    for command in tries(answer):
        assert type_in(machine, command).code == 0
    done = rbeectl(machine, *listen, user=None)
    assert done.code == 0, done
    assert machine.run("ls", "-A", DROPIN.rpartition("/")[0]).stdout.split() == ["50-listen.conf"]


def test_a_full_disk_is_named_by_whatever_writes_to_it_and_nothing_is_left_half(machine: Machine) -> None:
    add_hive(machine)
    folder = DROPIN.rpartition("/")[0]
    for full in (folder, "/srv/small"):
        machine.run("sh", "-c", f"mkdir -p {full} && mount -t tmpfs -o size=64k,mode=0777 small {full}")
        machine.run("sh", "-c", f"head -c 1M /dev/zero >{full}/filler || true")
    for argv, file, user in (
        (("tcp", "enable", "--listen", "127.0.0.1:8501"), DROPIN, None),
        (("catalog", "backup", "/srv/small/copy.db"), "/srv/small/copy.db", "ada"),
        (("metrics", "--textfile", "/srv/small/rbee.prom"), "/srv/small/rbee.prom", "ada"),
    ):
        answer = rbeectl(machine, *argv, user=user)
        assert answer.code == 1, answer
        assert f"{file} cannot be written: No space left on device\n" in answer.err
        assert tries(answer) == [f"df -h {file.rpartition('/')[0]}"]
        told = error_event(rbeectl(machine, *argv, "--json", user=user))
        assert f"{file} cannot be written: No space left on device" in told["detail"]
    for full in (folder, "/srv/small"):
        assert machine.run("ls", "-A", full).stdout.split() == ["filler"]


def test_a_machine_without_room_for_temporary_files_says_so_and_blames_nothing_else(machine: Machine) -> None:
    add_hive(machine)
    rbeectl(machine, "catalog", "backup", "/home/ada/copy.db")
    assert rbeectl(machine, "tcp", "enable").code == 0
    read_only = "for at in /tmp /var/tmp; do mount -t tmpfs -o ro none $at; done"
    machine.run("sh", "-c", read_only)
    said = "there is no room for temporary files: /tmp cannot be used: Read-only file system"

    asked = in_proc(machine, "rbeectl", "add-hive", "gpu9", user="ada")

    assert asked.code == 1, asked
    assert f"rbeectl: {said}\n" in asked.err
    assert OUTPUT not in asked.err
    told = error_event(in_proc(machine, "rbeectl", "add-hive", "gpu9", "--json", user="ada"))
    assert told["detail"] == said
    for command in tries(asked):
        assert type_in(machine, command).code == 0
    # No ssh leads there; but that is now what is said.
    assert said not in in_proc(machine, "rbeectl", "add-hive", "gpu9", user="ada").err
    rbeectl(machine, "shutdown")
    machine.run("sh", "-c", read_only)
    restored = in_proc(machine, "rbeectl", "catalog", "restore", "/home/ada/copy.db")
    assert (restored.code, restored.err.splitlines()[0]) == (1, f"rbeectl: {said}")
    assert "catalog.db." not in machine.run("ls", "-A", DIR).stdout


def in_proc(machine: Machine, *argv: str, user: str | None = None) -> Answer:
    """Where nobody may write: Python would otherwise take the folder that one is in for temporary files."""
    done = machine.run("sh", "-c", 'cd /proc && exec "$@"', "sh", *argv, user=user, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_only_what_cannot_be_printed_is_called_the_output(machine: Machine) -> None:
    add_hive(machine)
    for options in ("", " --json"):
        done = machine.run("sh", "-c", f"rbeectl list-hives{options} >/dev/full", user="ada", check=False)
        assert (done.returncode, done.stderr) == (1, f"rbeectl: {OUTPUT}: No space left on device\n")
        unwritable = f"rbeectl: {OUTPUT}: Bad file descriptor\n"
        for closed, code, errors in (
            (">&-", 1, unwritable),
            (">/dev/full 2>/dev/full", 1, ""),
            ("2>&-", 0, ""),
        ):
            done = machine.run("sh", "-c", f"rbeectl list-hives{options} {closed}", user="ada", check=False)
            assert (done.returncode, done.stderr) == (code, errors), (options, closed)
        # Whom nobody hears keeps the exit code of what went wrong.
        done = machine.run("sh", "-c", "rbeectl show nobody 2>/dev/full", user="ada", check=False)
        assert done.returncode == 4
    copied = machine.run("sh", "-c", "rbeectl catalog backup - >/dev/full", user="ada", check=False)
    assert (copied.returncode, copied.stderr) == (1, f"rbeectl: {OUTPUT}: No space left on device\n")


def test_keys_that_the_disk_has_no_room_for_are_named_and_no_hive_is_told_to_join_again(
    machine: Machine,
) -> None:
    mount_small(machine)
    add_hive(machine)
    fill(machine)

    answer = rbeectl(machine, "tcp", "enable")

    assert answer.code == 78, answer
    assert "No space left on device" in answer.err
    assert f"the keys in {DIR}/tls" in answer.err
    assert tries(answer) == [f"df -h {DIR}"]
    machine.run("rm", f"{DIR}/filler")
    opened = rbeectl(machine, "tcp", "enable")
    assert opened.code == 0, opened


def test_a_drop_in_that_an_editor_of_windows_saved_counts_and_utf_16_is_named_with_its_cure(
    machine: Machine,
) -> None:
    path = "/etc/rbee/rbee.conf.d/50-test.conf"
    configure(machine, "\ufeff[Queen]\r\nHeartbeatIntervalSec=2s\r\nHeartbeatGraceSec=1s\r\n")
    add_hive(machine)
    assert rbeectl(machine, "list-hives", "--json").json["hives"][0]["interval_ms"] == 2000
    assert "BOM" not in rbeectl(machine, "doctor", user=None).out
    rbeectl(machine, "shutdown")
    machine.run("sh", "-c", f"iconv -f UTF-8 -t UTF-16 -o /run/x {path} && cp /run/x {path}")

    answer = rbeectl(machine, "add-hive", "localhost")

    assert answer.code == 78, answer
    assert f"{path}: it is text in UTF-16, and must be UTF-8" in answer.err
    (command,) = tries(answer)
    assert type_in(machine, command).code == 0
    add_hive(machine)


def test_a_backup_is_whole_where_the_file_system_syncs_no_folders(machine: Machine) -> None:
    add_hive(machine)
    # As CIFS answers; the first fsync(2) is of the file itself, which every file system has.
    refuse = ("strace", "-f", "-o", "/run/traced", "-e", "trace=fsync", "-e")
    whole = (*refuse, "inject=fsync:error=EINVAL:when=2+", "rbeectl", "catalog", "backup", "/root/copy.db")

    done = machine.run(*whole, check=False)

    assert done.returncode == 0, done
    assert "EINVAL" in machine.run("cat", "/run/traced").stdout
    assert rbeectl(machine, "catalog", "check", "/root/copy.db", user=None).code == 0
    failing = (*refuse, "inject=fsync:error=EIO:when=2+", "rbeectl", "catalog", "backup", "/root/other.db")
    done = machine.run(*failing, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1, "rbeectl: /root/other.db cannot be written: Input/output error"
    )  # fmt: skip


def test_a_catalog_on_a_file_system_without_shared_memory_is_told_which_and_where_to_go(
    machine: Machine,
) -> None:
    install_from_archive(machine, "sshfs")
    machine.run("sh", "-c", "[ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229")
    put(machine, "/run/sftp", "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n")
    machine.run("chmod", "755", "/run/sftp")
    machine.run("install", "-d", "-o", "queen-rbee", "-g", "queen-rbee", "-m", "0700", DIR, "/srv/far")
    machine.run("sshfs", "-o", "ssh_command=/run/sftp,direct_io,allow_other", "far:/srv/far", DIR)

    answer = rbeectl(machine, "add-hive", "localhost")

    assert answer.code == 78, answer
    assert (
        f"{CATALOG} cannot be used: its file system (fuse.sshfs) has no shared memory; set Database= in "
        "rbee.conf to a file on a local disk"
    ) in answer.err
    assert "another process" not in answer.err
    assert tries(answer) == [f"findmnt --target {DIR}", "man rbee.conf"]
    assert "fuse.sshfs" in type_in(machine, tries(answer)[0]).out
    # As the manual has it.
    machine.run("install", "-d", "-o", "queen-rbee", "-g", "queen-rbee", "-m", "0700", "/srv/near")
    configure(machine, "[Queen]\nDatabase=/srv/near/catalog.db\n")
    override(machine, QUEEN, "[Service]\nReadWritePaths=/srv/near\n")
    add_hive(machine)


LOCKED = (DIR, *(f"{DIR}/{name}" for name in ("catalog.db", "catalog.db-shm", ".probe")))
"""What a queen locks; all else that she does with fcntl(2) goes well."""


@pytest.mark.parametrize("call", ["flock", "fcntl"])
def test_a_file_system_without_locks_is_not_called_a_lock_of_another_process(
    machine: Machine, call: str
) -> None:
    # As NFS answers without its lock daemon.
    paths = " ".join(f"-P {path}" for path in LOCKED)
    override(
        machine,
        QUEEN,
        f"""
[Service]
ExecStart=
ExecStart=/usr/bin/strace -D -f -o /dev/null {paths} -e trace={call} -e inject={call}:error=ENOLCK \
/usr/libexec/rbee/queen-rbee
SystemCallFilter=
SystemCallFilter=@system-service ptrace process_vm_readv
""",
    )

    answer = rbeectl(machine, "add-hive", "localhost")

    assert answer.code == 78, answer
    assert "has no file locks; set Database= in rbee.conf to a file on a local disk" in answer.err
    assert "another process" not in answer.err
    await_stopped(machine, QUEEN)
    assert active(machine, QUEEN) == ["failed"]

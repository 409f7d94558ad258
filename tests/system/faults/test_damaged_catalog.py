"""A catalog that is damaged, foreign or newer: refused in one line, never touched, and the way out works."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    Answer,
    active,
    add_hive,
    await_stopped,
    main_pid,
    override,
    rbeectl,
    rows,
    tries,
    type_in,
    unit,
)

DIR = "/var/lib/queen-rbee"
BACKUP = "/home/ada/backup.db"


def with_backup(machine: Machine) -> dict[str, Any]:
    """Ada's backup of a catalog with one hive, and everything off; the row in it."""
    add_hive(machine)
    answer = rbeectl(machine, "catalog", "backup", BACKUP)
    assert answer.code == 0, answer
    (row,) = rows(machine)
    assert rbeectl(machine, "shutdown").code == 0
    return row


def files(machine: Machine) -> dict[str, str]:
    """What is in the state directory, by its digests; SQLite's shared memory is no part of it."""
    told = machine.run(
        "sh", "-c", f"cd {DIR} && find . -type f ! -name '*-shm' -exec sha256sum {{}} +"
    ).stdout
    return {name: digest for digest, name in (line.split() for line in told.splitlines())}


def python(machine: Machine, program: str) -> str:
    return machine.run("python3", "-c", program).stdout


def the_way_out(machine: Machine, answer: Answer) -> Answer:
    """Type the first thing that rbeectl said, with ada's backup for FILE."""
    (restore, *_rest) = [command for command in tries(answer) if "restore FILE" in command]
    assert restore == "sudo rbeectl catalog restore FILE"
    done = type_in(machine, restore.replace("FILE", BACKUP))
    assert done.code == 0, done
    return done


SPOILT = {
    "foreign-trigger": (
        "CREATE TRIGGER loud BEFORE UPDATE ON hives BEGIN SELECT RAISE(ABORT, 'no'); END",
        "has the trigger 'loud', which no queen has made",
    ),
    "invalid-name": (
        "UPDATE hives SET id = 'a b'",
        "has a row of hives that cannot be shown: its id, 'a b',",
    ),
}
"""What SQLite finds nothing wrong with, and what a check says of it."""


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_check_finds_what_makes_a_list_fail_and_what_it_says_mends_it(
    machine: Machine, spoilt: str
) -> None:
    statement, told = SPOILT[spoilt]
    add_hive(machine)
    machine.run("sqlite3", CATALOG, statement)

    awake = rbeectl(machine, "catalog", "check")
    assert awake.code == 78, awake
    assert told in awake.err
    assert rbeectl(machine, "shutdown").code == 0
    asleep = rbeectl(machine, "catalog", "check", user=None)
    assert asleep.code == 78, asleep
    assert told in asleep.err

    mend = tries(awake)[0]
    assert mend.startswith("rbeectl shutdown; sudo sqlite3 ")
    done = machine.run("sh", "-c", mend.replace("sudo ", ""), check=False)
    assert done.returncode == 0, done
    checked = rbeectl(machine, "catalog", "check", user=None)
    assert checked.code == 0, checked
    add_hive(machine)
    assert rbeectl(machine, "list-hives").code == 0


def write(content: str) -> str:
    """A program that damages the catalog: `data` is the file's content, as a bytearray."""
    return f"""
path = {CATALOG!r}
data = bytearray(open(path, "rb").read())
{content}
open(path, "wb").write(data)
"""


FILE_DAMAGE = {
    "empty": "del data[:]",
    "cut-short": "del data[5000:]",
    "cut-to-its-header": "del data[100:]",
    "garbage-in-the-table": "data[4096:8192] = b'\\xa5' * 4096",
    # The last page, of the former credentials, is mostly empty: and half of the page before.
    "garbage-at-its-end": "data[-6144:] = b'\\xa5' * 6144",
    "garbage-all-over": "data[:] = b'\\xa5' * len(data)",
    "no-database": "data[:] = b'this is no catalog, and long enough to look at\\n' * 40",
    "another-program": """
import sqlite3, os
os.unlink(path)
other = sqlite3.connect(path)
other.execute("CREATE TABLE bookmarks (url TEXT)")
other.commit()
other.close()
data = bytearray(open(path, "rb").read())
""",
    "newer": """
import sqlite3
newer = sqlite3.connect(path)
newer.execute("PRAGMA user_version = 99")
newer.commit()
newer.close()
data = bytearray(open(path, "rb").read())
""",
}
SAID = {"another-program": "SQLite file of another program", "newer": "has version 99"}


def test_each_kind_of_damage_is_refused_in_one_line_and_the_way_out_that_it_names_works(
    machine: Machine,
) -> None:
    row = with_backup(machine)
    for number, (damage, content) in enumerate(FILE_DAMAGE.items(), start=1):
        whole = files(machine)
        python(machine, write(content))
        broken = files(machine)
        assert broken["./catalog.db"] != whole["./catalog.db"], damage
        answer = rbeectl(machine, "add-hive", "localhost")
        assert answer.code == 78, (damage, answer)
        said = SAID.get(damage, "damaged")
        assert said in answer.err, damage
        # The journal is root's to read; ada has the status line.
        told = machine.journal("RBEE_EVENT=queen-failed")
        assert len(told) == number, damage
        assert said in told[-1]["MESSAGE"], damage
        assert "sudo rbeectl catalog restore FILE" in told[-1]["MESSAGE"]
        assert "\n" not in told[-1]["MESSAGE"]
        assert said in unit(machine, QUEEN)["StatusText"]
        assert files(machine) == broken, f"she wrote to a catalog that she must not touch: {damage}"
        done = the_way_out(machine, answer)
        kept = re.search(r"The previous catalog is (\S+)", done.out)
        assert kept
        assert machine.run("sha256sum", kept[1]).stdout.split()[0] == broken["./catalog.db"], damage
        assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]], damage
        assert machine.run("stat", "-c", "%U %a", CATALOG).stdout.split() == ["queen-rbee", "600"]
    add_hive(machine)
    assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]]


def test_a_folder_in_the_catalogs_place_is_refused_and_the_way_out_works(machine: Machine) -> None:
    with_backup(machine)
    machine.run("sh", "-c", f"rm {CATALOG} && mkdir {CATALOG} && chown queen-rbee: {CATALOG}")
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78
    assert f"{CATALOG} is not a regular file" in answer.err
    the_way_out(machine, answer)
    add_hive(machine)
    assert len(rows(machine)) == 1


def test_a_catalog_that_is_not_hers_to_read_is_said_to_be_and_the_cure_works(machine: Machine) -> None:
    row = with_backup(machine)
    machine.run("sh", "-c", f"chown root: {CATALOG} && chmod 0600 {CATALOG}")
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78
    assert "is not open to the queen" in answer.err
    for command in tries(answer):
        assert type_in(machine, command).code == 0, command
    add_hive(machine)
    assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]]


def test_a_killed_queens_log_is_never_lost_and_meets_no_other_catalog(machine: Machine) -> None:
    row = with_backup(machine)
    assert rbeectl(machine, "add-hive", "localhost", "--port", "8601").code == 0
    # Dead for good, with her last writes in the log.
    override(machine, QUEEN, "[Service]\nRestart=no\n")
    machine.run("kill", "-KILL", str(main_pid(machine, QUEEN)))
    await_stopped(machine, QUEEN, HIVE)
    assert unit(machine, QUEEN)["Result"] == "signal"
    assert machine.run("test", "-s", f"{CATALOG}-wal", check=False).returncode == 0
    log = machine.run("sha256sum", f"{CATALOG}-wal").stdout.split()[0]
    # All of the file: a page that the log has too is read from there, and its damage does no harm.
    python(machine, write("data[:] = b'\\xa5' * len(data)"))
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78, answer
    assert machine.run("sha256sum", f"{CATALOG}-wal").stdout.split()[0] == log
    the_way_out(machine, answer)
    (kept,) = machine.run("sh", "-c", f"sha256sum {DIR}/*.old-wal").stdout.splitlines()
    assert kept.split()[0] == log
    add_hive(machine)
    assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]]


def test_damage_that_shows_while_she_runs_is_told_and_the_way_out_works(machine: Machine) -> None:
    row = with_backup(machine)
    add_hive(machine)
    damage = f"""
import sqlite3
path = {CATALOG!r}
other = sqlite3.connect(path, isolation_level=None)
other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
with open(path, "r+b") as file:
    file.seek(4096)
    file.write(b"\\xa5" * 4096)
other.execute("PRAGMA user_version = 1")
other.close()
"""
    python(machine, damage)
    pid = main_pid(machine, QUEEN)
    assert rbeectl(machine, "list-hives").code == 0  # which she has in RAM
    answer = rbeectl(machine, "label", "localhost", "rack=3")
    assert answer.code == 1, answer
    assert "is damaged" in answer.err
    assert tries(answer)[:2] == ["rbeectl shutdown", "sudo rbeectl catalog restore FILE"]
    checked = rbeectl(machine, "catalog", "check", "--json")
    assert checked.code == 78
    assert json.loads(checked.out)["type"] == "urn:rbee:problem:catalog-unusable"
    assert "is damaged" in json.loads(checked.out)["detail"]
    backup = rbeectl(machine, "catalog", "backup", "/home/ada/late.db")
    assert backup.code == 78
    assert machine.run("ls", "/home/ada").stdout.split() == ["backup.db"]
    assert main_pid(machine, QUEEN) == pid
    said = machine.journal(f"_PID={pid}", "PRIORITY=3")
    assert not [entry for entry in said if "Traceback" in str(entry["MESSAGE"])]
    assert type_in(machine, tries(answer)[0]).code == 0
    the_way_out(machine, answer)
    add_hive(machine)
    assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]]


def test_an_awake_queens_catalog_cannot_be_restored_and_the_refusal_names_her(machine: Machine) -> None:
    row = with_backup(machine)
    add_hive(machine)
    refused = rbeectl(machine, "catalog", "restore", BACKUP, user=None)
    assert refused.code == 1, refused
    assert f"{CATALOG} is in use: queen-rbee (process " in refused.err
    assert tries(refused) == ["rbeectl shutdown"]
    assert active(machine, QUEEN, HIVE) == ["active", "active"]
    # By somebody who is not root, awake or not.
    by_ada = rbeectl(machine, "catalog", "restore", BACKUP)
    assert by_ada.code == 77
    assert tries(by_ada) == [f"sudo rbeectl catalog restore {BACKUP}"]
    assert type_in(machine, tries(refused)[0]).code == 0
    # Ada's own backup; the one before is kept, and is a catalog like any other.
    done = type_in(machine, tries(by_ada)[0])
    assert done.code == 0, done
    kept = re.search(r"The previous catalog is (\S+)", done.out)
    assert kept
    (told,) = machine.journal("RBEE_EVENT=catalog-changed", "SYSLOG_IDENTIFIER=rbeectl")
    assert (
        told["MESSAGE"]
        == f"the hive catalog {CATALOG} is restored from {BACKUP}; the one before is {kept[1]}"
    )
    assert (told["RBEE_ACTOR_UID"], told["_UID"]) == ("0", "0")
    assert rbeectl(machine, "catalog", "check", kept[1], user=None).code == 0
    again = re.search(r"Next: (.*)", done.out)
    assert again
    assert type_in(machine, again[1], user="ada").code == 0
    assert [one["created_at_ms"] for one in rows(machine)] == [row["created_at_ms"]]


def test_backup_and_check_do_not_wake_her_and_say_what_would(machine: Machine) -> None:
    with_backup(machine)
    refused = rbeectl(machine, "catalog", "backup", "/home/ada/second.db")
    assert refused.code == 3, refused
    assert active(machine, QUEEN) == ["inactive"]
    *_, again = [type_in(machine, command, user="ada") for command in tries(refused)]
    assert again.code == 0, again
    check = rbeectl(machine, "catalog", "check", "/home/ada/second.db", "--json")
    assert check.code == 0
    assert check.json["hives"] == 1
    rbeectl(machine, "shutdown")
    by_ada = rbeectl(machine, "catalog", "check")
    assert by_ada.code == 77
    by_root = type_in(machine, tries(by_ada)[0])
    assert by_root.code == 0, by_root
    assert "1 hive, " in by_root.out
    assert active(machine, QUEEN) == ["inactive"]
    machine.run("systemctl", "start", QUEEN)
    machine.run("sh", "-c", "rbeectl catalog backup - > /run/piped.db")
    assert rbeectl(machine, "catalog", "check", "/run/piped.db", "--json", user=None).json["hives"] == 1
    refused = rbeectl(machine, "catalog", "backup", BACKUP)
    assert refused.code == 2
    assert tries(refused) == [f"rbeectl catalog backup --force {BACKUP}"]
    assert type_in(machine, tries(refused)[0], user="ada").code == 0

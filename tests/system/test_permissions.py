"""Who may do what: systemd's units by polkit, sockets and files by the kernel, routes by the peer's uid."""

from __future__ import annotations

from typing import Any

from machines import Machine

from tests.system.house import (
    HIVE,
    QUEEN,
    SOCKETS,
    main_pid,
)

UNITS = (QUEEN, HIVE, *SOCKETS, "rbee.target")
OTHERS = ("systemd-journald.service", "rbee.slice", "multi-user.target")

# -- the audit ---------------------------------------------------------------------------------------------


def changes(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    return machine.journal("--unit=queen-rbee.service", "RBEE_EVENT=catalog-changed", *matches)


def fields(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["MESSAGE"], entry["RBEE_ACTOR_UID"], entry["RBEE_ACTOR_PID"]


def with_pid(machine: Machine, *argv: str, user: str | None) -> str:
    """Run rbeectl to its end; the pid that it had."""
    done = machine.run("sh", "-c", 'echo "pid $$"; exec rbeectl "$@"', "sh", *argv, user=user)
    return done.stdout.splitlines()[0].removeprefix("pid ")


def await_change(machine: Machine, text: str, count: int) -> None:
    """Until the journal has so many changes with that text."""
    told = f"journalctl -q --no-pager -u {QUEEN} RBEE_EVENT=catalog-changed | grep -c {text!r}"
    machine.run("sh", "-c", f"until [ $({told}) -ge {count} ]; do sleep 0.05; done", timeout=20)


def test_each_change_of_the_catalog_is_one_line_with_who_made_it(machine: Machine) -> None:
    wanted = "hive localhost (host localhost) is wanted in the hive catalog"
    online = "hive localhost is online in the hive catalog, with its devices"
    removed = "hive localhost is removed from the hive catalog"
    uids = {name: machine.run("id", "-u", name).stdout.strip() for name in ("ada", "queen-rbee", "rbee-hive")}

    ada = with_pid(machine, "add-hive", "localhost", user="ada")
    root = with_pid(machine, "remove-hive", "localhost", user=None)
    with_pid(machine, "remove-hive", "localhost", user=None)  # there is nothing to change
    again = with_pid(machine, "add-hive", "localhost", user="ada")
    queen = str(main_pid(machine, QUEEN))
    told = changes(machine)
    assert [fields(entry) for entry in told] == [
        (wanted, uids["ada"], ada),
        (online, uids["ada"], ada),
        (removed, "0", root),
        (wanted, uids["ada"], again),
        (online, uids["ada"], again),
    ]
    jobs = [entry["RBEE_JOB_ID"] for entry in told]
    assert [jobs.count(job) for job in jobs] == [2, 2, 1, 2, 2]
    assert {entry["RBEE_HIVE"] for entry in told} == {"localhost"}
    assert {entry["_PID"] for entry in told} == {queen}

    # By systemd's word the queen decides herself; who comes back by a beat is the hive.
    machine.run("systemctl", "stop", HIVE)
    await_change(machine, "is offline and not wanted", 1)
    machine.run("systemctl", "start", HIVE)
    await_change(machine, "is online", 3)
    first = str(main_pid(machine, HIVE))
    machine.run("kill", "-KILL", first)
    await_change(machine, "is online", 4)
    second = str(main_pid(machine, HIVE))
    told = changes(machine)[5:]
    assert [fields(entry) for entry in told] == [
        ("hive localhost is offline and not wanted in the hive catalog", uids["queen-rbee"], queen),
        (online, uids["rbee-hive"], first),
        ("hive localhost is offline in the hive catalog", uids["queen-rbee"], queen),
        (online, uids["rbee-hive"], second),
    ]
    assert not any("RBEE_JOB_ID" in entry for entry in told)

    # What the manual page says to type: by whom, and whatever anybody else writes is not the queen's.
    forged = (
        f"MESSAGE=forged\nRBEE_EVENT=catalog-changed\nRBEE_HIVE=localhost\nRBEE_ACTOR_UID={uids['ada']}\n"
    )
    machine.run("logger", "--journald", user="mallory", input=forged)
    assert [e["MESSAGE"] for e in machine.journal("RBEE_EVENT=catalog-changed")][-1] == "forged"
    by_ada = changes(machine, f"RBEE_ACTOR_UID={uids['ada']}")
    assert [entry["MESSAGE"] for entry in by_ada] == [wanted, online] * 2
    explained = machine.run(
        "journalctl", "-x", "--no-pager", "-u", QUEEN, "RBEE_EVENT=catalog-changed"
    ).stdout
    assert f"RBEE_EVENT=catalog-changed RBEE_ACTOR_UID={uids['ada']}" in explained

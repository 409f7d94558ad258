"""Who may do what, and what they are told: in the group, out of it, and in it since this morning."""

from __future__ import annotations

import json
import re
import signal

import pytest
from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    active,
    add_hive,
    curl,
    main_pid,
    override,
    rbeectl,
    rows,
)


def test_adding_twice_is_one_row_and_no_error(machine: Machine) -> None:
    add_hive(machine)
    (before,) = rows(machine)
    pids = main_pid(machine, QUEEN), main_pid(machine, HIVE)
    again = add_hive(machine)
    assert "(queen bee)  the bee hive at localhost is awake already" in again.lines
    (after,) = rows(machine)
    assert (after["id"], after["created_at_ms"]) == (before["id"], before["created_at_ms"])
    assert (main_pid(machine, QUEEN), main_pid(machine, HIVE)) == pids


def test_json_is_a_line_a_step_and_the_hive_at_the_end(machine: Machine) -> None:
    answer = rbeectl(machine, "add-hive", "localhost", "--json")
    assert answer.code == 0
    *told, last = [json.loads(line) for line in answer.lines]
    assert [line["event"] for line in told] == ["line"] * 3 + ["job"] + ["line"] * (len(told) - 4)
    assert [line["speaker"] for line in (*told[:3], told[4])] == ["bee keeper"] * 3 + ["queen bee"]
    assert (last["event"], last["hive"]["id"], last["hive"]["state"]) == ("done", "localhost", "online")


def test_on_a_terminal_the_story_is_in_colour_unless_told_otherwise(machine: Machine) -> None:
    def on_a_terminal(command: str, **env: str) -> str:
        return machine.run(
            "script", "--quiet", "--return", "--command", command, "/dev/null",
            user="ada", env={"TERM": "xterm", **env},
        ).stdout  # fmt: skip

    assert "\033[35m(queen bee)" in on_a_terminal("rbeectl add-hive localhost")
    colour = re.compile("\033\\[[0-9;]*m")
    assert not colour.search(on_a_terminal("rbeectl add-hive localhost", NO_COLOR="1"))
    assert not colour.search(on_a_terminal("rbeectl --no-color add-hive localhost"))
    assert "\033" not in on_a_terminal("rbeectl add-hive localhost", TERM="dumb")


def test_somebody_outside_the_group_is_refused_and_told_the_cure(machine: Machine) -> None:
    refused = rbeectl(machine, "add-hive", "localhost", user="mallory")
    assert refused.code == 77
    assert "only group rbee and root" in refused.err
    assert "sudo adduser mallory rbee" in refused.err
    assert active(machine, QUEEN) == ["inactive"]
    add_hive(machine)
    for verb in (["add-hive", "localhost"], ["list-hives"], ["remove-hive", "localhost"], ["shutdown"]):
        refused = rbeectl(machine, *verb, user="mallory")
        assert refused.code == 77, verb
        assert "sudo adduser mallory rbee" in refused.err
    assert active(machine, QUEEN, HIVE) == ["active", "active"]
    assert len(rows(machine)) == 1


@pytest.mark.parametrize("queen_awake", [False, True], ids=["D-Bus-or-socket-refuses", "socket-refuses"])
def test_a_login_older_than_the_membership_is_told_newgrp(machine: Machine, queen_awake: bool) -> None:
    if queen_awake:
        add_hive(machine)
    refused = rbeectl(machine, "add-hive", "localhost", groups=())
    assert refused.code == 77
    assert "newgrp rbee" in refused.err
    assert "this login does not know it yet" in refused.err


def test_root_may_do_everything(machine: Machine) -> None:
    assert rbeectl(machine, "add-hive", "localhost", user=None).code == 0
    assert rbeectl(machine, "list-hives", user=None).code == 0
    assert rbeectl(machine, "shutdown", user=None).code == 0


def test_the_hives_user_is_no_operator(machine: Machine) -> None:
    add_hive(machine)
    gid = machine.run("id", "-g", "rbee-hive").stdout.strip()
    rbee = machine.run("getent", "group", "rbee").stdout.split(":")[2]

    def as_hive(*argv: str) -> tuple[int, str]:
        # As the hive's process is: with group rbee on top.
        done = machine.run(*argv, user="rbee-hive", groups=(gid, rbee), check=False)
        return done.returncode, done.stdout + done.stderr

    url = ("curl", "--silent", "--unix-socket", "/run/rbee/queen.sock")
    code, said = as_hive(*url, "http://localhost/v1/hives")
    assert json.loads(said)["type"] == "urn:rbee:problem:not-permitted"
    code, said = as_hive(*url, "-X", "DELETE", "http://localhost/v1/hives/localhost")
    assert json.loads(said)["status"] == 403
    for verb, unit in (
        ("stop", QUEEN),
        ("start", HIVE),
        ("stop", "rbee.target"),
        ("restart", "queen-rbee.socket"),
    ):
        code, said = as_hive("systemctl", "--no-ask-password", verb, unit)
        assert code != 0, (verb, unit, said)
    assert active(machine, QUEEN, HIVE) == ["active", "active"]
    # A heartbeat is the hive's alone, and ada's is refused.
    beat = {"hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32}
    status, problem = curl(machine, "/heartbeat", "-d", json.dumps(beat))
    assert (status, problem["type"]) == (403, "urn:rbee:problem:not-permitted")


def test_the_queens_user_may_do_nothing_to_units(machine: Machine) -> None:
    add_hive(machine)
    for argv in (
        ("systemctl", "--no-ask-password", "stop", "systemd-journald.service"),
        ("systemctl", "--no-ask-password", "restart", QUEEN),
        ("systemctl", "--no-ask-password", "stop", HIVE),
        ("systemctl", "--no-ask-password", "start", HIVE),
        ("systemctl", "--no-ask-password", "stop", "rbee.target"),
        ("systemctl", "--no-ask-password", "enable", HIVE),
        ("systemctl", "--no-ask-password", "set-property", "--runtime", HIVE, "CPUWeight=1"),
        ("systemctl", "--no-ask-password", "kill", HIVE),
        ("systemd-run", "--no-ask-password", "true"),
    ):
        assert machine.run(*argv, user="queen-rbee", check=False).returncode != 0, argv
    assert active(machine, QUEEN, HIVE) == ["active", "active"]


def test_ctrl_c_leaves_the_job_running_and_names_it(machine: Machine) -> None:
    override(machine, HIVE, "[Service]\nExecStartPre=sleep 2\n")
    adding = machine.popen("rbeectl", "add-hive", "localhost", user="ada")
    assert adding.stdout is not None
    while "waking up the bee hive" not in adding.stdout.readline():
        assert adding.poll() is None
    machine.signal(adding, signal.SIGINT)
    _, said = adding.communicate(timeout=10)
    assert adding.returncode == 130
    job = machine.journal("RBEE_EVENT=adding")[-1]["RBEE_JOB_ID"]
    assert job in said
    # The story resumes, and ends as if nobody had left.
    events = machine.run(
        "curl", "--silent", "--no-buffer", "--unix-socket", "/run/rbee/queen.sock", "-H", "Last-Event-ID: 2",
        f"http://localhost/v1/jobs/{job}/events", user="ada",
    ).stdout  # fmt: skip
    assert events.startswith("id: 3\nevent: line\n")
    assert "\nevent: done\n" in events
    assert rows(machine)[0]["status"] == "online"


def test_an_operator_with_a_high_uid_is_in_the_audit_and_hides_nobody(machine: Machine) -> None:
    """As Google OS Login and other directories hand them out."""
    uid = 3420080244
    machine.run("useradd", "-u", str(uid), "-G", "rbee", "osl")
    add_hive(machine)

    labelled = machine.run("runuser", "-u", "osl", "--", "rbeectl", "label", "localhost", "a=b")
    told = rbeectl(machine, "audit")

    assert labelled.returncode == 0
    assert told.code == 0, told
    assert any(f"uid {uid} (osl)" in line and "a=b" in line for line in told.lines), told
    assert any("(ada)" in line for line in told.lines)
    entries = rbeectl(machine, "audit", "--json").json["entries"]
    assert uid in {entry["actor_uid"] for entry in entries}
    assert {entry["problem"] for entry in entries} == {None}
    fields = machine.journal("RBEE_ACTOR_UID=" + str(uid))
    assert fields


def test_bad_rows_of_the_catalog_are_shown_with_what_is_wrong_and_hide_no_other(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "token", "create", "--hive", "gpu1").code in (0, 1)
    machine.run(
        "sqlite3", CATALOG,
        "PRAGMA ignore_check_constraints = ON;"
        "UPDATE hives SET labels = '{\"no key!\": \"b\"}', port = 0;"
        "INSERT INTO hives SELECT 'no name!', host, port, status, devices, 1, 1, 0, 'm', 'c', 'x',"
        " '[1]', NULL FROM hives;"
        "INSERT INTO audit (at_ms, text, actor_uid) VALUES (1, CAST(x'ff41' AS TEXT), -1 << 40);"
        "INSERT INTO tokens VALUES ('short', 'hash', NULL, -1, 1, 1, 0);"
        "UPDATE audit SET actor_uid = -874887052 WHERE id = 1;",
    )  # fmt: skip
    machine.run("systemctl", "restart", "queen-rbee")  # who has the rows of her hives in RAM

    hives = rbeectl(machine, "list-hives")
    tokens = rbeectl(machine, "token", "list")
    audit = rbeectl(machine, "audit")

    assert (hives.code, tokens.code, audit.code) == (0, 0, 0), (hives, tokens, audit)
    assert any(
        line.startswith("localhost") and "[port must be from 1 to 65535, and is 0" in line
        for line in hives.lines
    )
    assert any(line.startswith("unreadable") and 'and is "no name!"' in line for line in hives.lines)
    assert any("id must have 8 characters" in line for line in tokens.lines), tokens
    assert any("actor_uid must be from 0 to" in line for line in audit.lines), audit
    assert any("uid 3420080244" in line for line in audit.lines), audit
    for verb in (
        ["status"],
        ["status", "localhost"],
        ["list-devices"],
        ["metrics"],
        ["shutdown"],
    ):
        answer = rbeectl(machine, *verb)
        assert answer.code == 0, (verb, answer)
    # And the queen wakes on such a catalog, too.
    assert rbeectl(machine, "wake").code == 0
    assert rbeectl(machine, "list-hives").code == 0

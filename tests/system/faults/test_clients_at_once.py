"""Many clients at once: no interleaving breaks a row, and each story stays its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from testbed.machine import Machine

from tests.system.commands import CATALOG, HIVE, QUEEN, active, add_hive, await_state, curl, rbeectl, rows

SCRIPT = "/usr/local/lib/clients_at_once.py"
ADD = ("POST", "/add-hive", '{"host": "localhost"}')
REMOVE = ("DELETE", "/v1/hives/localhost", "")
LOOK = ("GET", "/v1/hives", "")

FIRST_LINE = {
    "add-hive": "Adding local pc to hive catalog.",
    "remove-hive": "Removing localhost from hive catalog",
}

Story = list[Any]
"""Events, each [id, event, data]; of an answer that is no story its status and content."""


def ask_at_once(machine: Machine, *requests: tuple[str, str, str]) -> list[Story]:
    """What each of these clients hears, all of them ada."""
    if machine.run("test", "-e", SCRIPT, check=False).returncode:
        machine.copy_in(Path(__file__).parents[1] / "clients_at_once.py", SCRIPT)
    words = [word for request in requests for word in request]
    told = machine.run("python3", SCRIPT, *words, user="ada", timeout=100).stdout
    stories: list[Story] = json.loads(told)
    return stories


def check_stories(machine: Machine, stories: list[Story], kinds: list[str]) -> None:
    """Each begins with its job, counts its events, ends once and well, and has its own lines only."""
    jobs = {job["id"]: job for job in curl(machine, "/v1/jobs")[1]["jobs"]}
    assert len({story[0][2]["job_id"] for story in stories}) == len(stories), "a job was shared"
    for story, kind in zip(stories, kinds, strict=True):
        assert [number for number, _, _ in story] == list(range(len(story)))
        assert [event for _, event, _ in story] == ["job", *["line"] * (len(story) - 2), "done"]
        job = jobs[story[0][2]["job_id"]]
        assert (job["kind"], job["state"], job["lines"]) == (kind, "done", len(story) - 2)
        written = [entry["MESSAGE"] for entry in machine.journal(f"RBEE_JOB_ID={job['id']}")]
        lines = [line["text"] for _, _, line in story[1:-1]]
        assert [line for line in lines if line not in written] == []
        first = (
            "Adding local pc to hive catalog."
            if kind == "add-hive"
            else "Removing localhost from hive catalog"
        )
        assert lines[0] == first
        assert lines.count(first) == 1
    again = ask_at_once(machine, *(("GET", story[0][2]["events"], "") for story in stories))
    assert again == [story[1:] for story in stories], "a story that is read again is the same"


def check_end(machine: Machine) -> None:
    """The catalog is whole, and hive, row and unit are what the job that ended last made of them."""
    check = f"""
import sqlite3
catalog = sqlite3.connect("file:{CATALOG}?mode=ro", uri=True)
print(*catalog.execute("PRAGMA integrity_check").fetchone())
"""
    assert machine.run("python3", "-c", check).stdout == "ok\n"
    jobs = curl(machine, "/v1/jobs")[1]["jobs"]
    ended = max(job["ended_at_ms"] for job in jobs)
    last = {job["kind"] for job in jobs if job["ended_at_ms"] == ended}
    if active(machine, HIVE) == ["active"]:
        assert "add-hive" in last
        (row,) = rows(machine)
        assert (row["id"], row["status"], row["wanted"]) == ("localhost", "online", 1)
        assert json.loads(row["devices"])["cpu"]["threads"]
        assert await_state(machine, "online")["reason"] == "heartbeats received"
    else:
        assert "remove-hive" in last
        assert active(machine, QUEEN, HIVE) == ["active", "inactive"]
        assert rows(machine) == []
        assert rbeectl(machine, "list-hives", "--json").json["hives"] == []


def test_two_add_hives_and_a_remove_at_once_leave_one_row_or_none(machine: Machine) -> None:
    machine.run("systemctl", "start", QUEEN)
    for requests in ([ADD, ADD, REMOVE], [REMOVE, ADD, ADD], [ADD, REMOVE, ADD], [ADD, ADD, REMOVE]):
        stories = ask_at_once(machine, *requests)
        check_stories(machine, stories, ["remove-hive" if one is REMOVE else "add-hive" for one in requests])
        check_end(machine)
    add_hive(machine)


def test_fifty_clients_at_once_each_hear_their_own_story(machine: Machine) -> None:
    add_hive(machine)
    requests = [ADD] * 22 + [REMOVE] * 8 + [LOOK] * 20
    random.Random(11).shuffle(requests)
    heard = ask_at_once(machine, *requests)
    for request, answer in zip(requests, heard, strict=True):
        if request is LOOK:
            status, hives = answer
            assert status == "200"
            assert len(hives["hives"]) <= 1
    told = [(story, request) for story, request in zip(heard, requests, strict=True) if request is not LOOK]
    check_stories(
        machine,
        [story for story, _ in told],
        ["remove-hive" if request is REMOVE else "add-hive" for _, request in told],
    )
    check_end(machine)
    add_hive(machine)

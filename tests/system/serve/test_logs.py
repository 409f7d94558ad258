"""A member of group rbee reads what rbee logs, and nothing else, without being root."""

from __future__ import annotations

import json

from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import add_hive, rbeectl
from tests.system.serve.served import chat, serve_model, succeed, worker_units
from tests.system.test_completions import bash_offers

DOOR = "queen-rbee-logs@*.service"

AWAIT_NO_DOOR = f"until [ -z \"$(systemctl list-units --quiet --no-legend '{DOOR}')\" ]; do sleep 0.02; done"


def serve_bee(machine: Machine) -> str:
    """Have a worker of the model bee, and return its id."""
    add_hive(machine)
    serve_model(machine, "bee", says("I am bee one."))
    assert chat(machine, "bee").status == 200
    [unit] = worker_units(machine)
    return unit.removeprefix("rbee-worker@").removesuffix(".service")


def test_a_member_of_the_group_reads_the_engine_s_lines_and_those_of_a_job(serving: Machine) -> None:
    assert "systemd-journal" not in serving.run("id", "-nG", "ada").stdout
    worker = serve_bee(serving)
    # Any user may write these fields; the unit is the journal's own.
    serving.run(
        "sh", "-c", "printf 'MESSAGE=forged\\nRBEE_HIVE=localhost\\n' | logger --journald", user="ada"
    )
    assert bash_offers(serving, "rbeectl logs bee-") == {"rbeectl logs bee-": [worker]}
    for name in ("bee", worker):
        shown = succeed(serving, "logs", name, "--no-pager", "--", "-o", "cat")
        assert "model loaded" in shown.out, shown
    found = succeed(serving, "logs", "--json", "--", "RBEE_EVENT=worker-ready").out
    entry = json.loads(found.splitlines()[-1])
    story = succeed(serving, "logs", "--job", entry["RBEE_JOB_ID"], "--json").out
    units = {json.loads(line)["_SYSTEMD_UNIT"] for line in story.splitlines()}
    assert units == {
        "rbee-gateway.service",
        "queen-rbee.service",
        "rbee-hive.service",
        f"rbee-worker@{worker}.service",
    }
    assert "forged" not in succeed(serving, "logs", "localhost").out
    assert "model loaded" in succeed(serving, "status", "bee", "-n", "50").out
    succeed(serving, "shutdown")
    assert "queen-rbee is going to sleep" in succeed(serving, "logs", "-n", "10").out


def test_the_door_shows_nothing_else_and_nobody_else(serving: Machine) -> None:
    serve_bee(serving)
    for options in (
        ["_UID=0"],
        ["--unit=systemd-journald"],
        ["--file=/etc/shadow"],
        ["-D", "/var/log/journal"],
    ):
        refused = rbeectl(serving, "logs", "--", *options)
        assert (refused.code, refused.out) == (2, ""), refused
        assert "only for those who may read the whole journal" in refused.err
    stranger = rbeectl(serving, "logs", user="mallory")
    assert (stranger.code, stranger.out) == (77, ""), stranger
    assert "adduser mallory rbee" in stranger.err
    wrong = rbeectl(serving, "logs", "--", "--since=nonsense")
    assert (wrong.code, wrong.out) == (1, "")
    assert "Failed to parse timestamp" in wrong.err


def test_to_follow_ends_with_who_follows(serving: Machine) -> None:
    serve_bee(serving)
    following = serving.popen("rbeectl", "logs", "-f", "-n", "1", "--", "-o", "cat", user="ada")
    assert following.stdout is not None
    assert following.stdout.readline()  # it follows from there on
    succeed(serving, "unserve", "bee")
    while "no longer serving bee" not in following.stdout.readline():
        pass
    serving.run("pkill", "--signal", "INT", "--full", "bin/rbeectl logs")
    following.wait(10)
    serving.run("sh", "-c", AWAIT_NO_DOOR, timeout=10)
    assert serving.run("pgrep", "-fa", "^journalctl .*-f", check=False).stdout == ""


def test_in_a_terminal_there_are_colours_and_a_pager(serving: Machine) -> None:
    serve_bee(serving)
    typed = "SYSTEMD_PAGER='sed s/^/paged:/' TERM=xterm rbeectl logs -n 40"
    shown = serving.run("script", "--quiet", "--return", "--command", typed, "/dev/null", user="ada").stdout
    assert "\x1b[" in shown
    assert shown.startswith("paged:"), shown[:500]

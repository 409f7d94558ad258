"""Starts that fail, hives that refuse, input that is wrong: said clearly, and nothing half-done."""

from __future__ import annotations

import json
import time

import pytest
from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    active,
    add_hive,
    await_state,
    configure,
    curl,
    put,
    rbeectl,
    rows,
    unit,
)


def test_a_queen_who_cannot_start_tells_ada_why_though_the_journal_is_not_hers(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/var/lib/queen-rbee")
    machine.run("sh", "-c", f"echo 'this is no catalog, and long enough to look at' > {CATALOG}")
    machine.run("chown", "-R", "queen-rbee:", "/var/lib/queen-rbee")
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78, answer
    assert "queen-rbee.service did not start" in answer.err
    assert "is damaged or not a hive catalog" in answer.err
    assert "  try: sudo rbeectl catalog restore FILE\n" in answer.err
    assert machine.run("cat", CATALOG).stdout == "this is no catalog, and long enough to look at\n"
    assert unit(machine, QUEEN)["Result"] == "exit-code"
    # The journal is not ada's to read; root sees its lines.
    assert "journal:" not in answer.err
    by_root = rbeectl(machine, "add-hive", "localhost", user=None)
    assert by_root.code == 78
    assert "journal: " in by_root.err
    assert "queen-rbee cannot run" in by_root.err
    # Once mended, the same command works: no reset-failed is needed.
    machine.run("rm", CATALOG)
    add_hive(machine)


def test_a_wrong_setting_is_named_with_its_file(machine: Machine) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=soon\n")
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 78
    assert "/etc/rbee/rbee.conf.d/50-test.conf: [Queen] HeartbeatIntervalSec=" in answer.err


READS = 6.0
"""Seconds for which systemd reads its unit files here: twice what one call of a daemon may take."""


def read_unit_files(machine: Machine) -> None:
    """Have systemd reload, and so answer nobody for READS seconds, as on a machine with much to do."""
    generator = "/etc/systemd/system-generators/slow"
    put(machine, generator, "#!/bin/sh\nread line < /etc/slow\ntrue\n")
    machine.run("sh", "-c", f"chmod 755 {generator}; test -p /etc/slow || mkfifo /etc/slow")
    # Opening it returns when the generator reads; it reads to the end, which is when the writer has gone.
    held = f"systemctl daemon-reload & exec 3>/etc/slow; sleep {READS:g} & exec 3>&-"
    machine.run("sh", "-c", f"( {held} ) >/dev/null 2>&1")
    machine.run("rm", generator)


def test_systemd_that_is_busy_for_seconds_is_waited_for_by_who_types_and_by_the_queen(
    machine: Machine,
) -> None:
    # As root: to become ada, another process asks systemd for her groups, and the waiting would be its own.
    read_unit_files(machine)
    answer = rbeectl(machine, "add-hive", "localhost", user=None)
    assert answer.code == 0, answer
    assert rbeectl(machine, "remove-hive", "localhost").code == 0
    read_unit_files(machine)
    # The queen is awake: it is she who has systemd start the hive.
    status, _ = curl(machine, "/add-hive", "--json", '{"host": "localhost"}', user=None)
    assert status == 202
    await_state(machine, "online", seconds=30)


def share_processors(machine: Machine) -> None:
    """Let polkit run as it does on a person's machine. The trees have it run first in, first out, on one
    processor, which a rule that computes would keep from everybody, in the machines beside this one too;
    and there its library now and then misses the end of a program that a rule runs."""
    machine.run("rm", "--force", "/etc/systemd/system/polkit.service.d/one-cpu.conf")
    machine.run("systemctl", "daemon-reload")


SLOW_RULE = """
polkit.addRule(function (action, subject) {
    if (action.id === "org.freedesktop.systemd1.manage-units")
        polkit.spawn(["/bin/sleep", "4"]);
});
"""


def test_a_polkit_that_takes_its_time_is_waited_for_by_who_types_and_by_the_queen(machine: Machine) -> None:
    share_processors(machine)
    put(machine, "/etc/polkit-1/rules.d/10-slow.rules", SLOW_RULE)
    # The keeper has the queen started, of which polkit is asked; she has her hive started by root.
    answer = rbeectl(machine, "add-hive", "localhost", timeout=60)
    assert answer.code == 0, answer
    await_state(machine, "online")


ENDLESS_RULE = "polkit.addRule(function () { while (true); });\n"
"""polkit stops it after 15 s. Only one of polkit's threads hangs meanwhile: another answers pings."""


def test_a_polkit_whose_rules_hang_is_found_by_the_doctor(machine: Machine) -> None:
    share_processors(machine)
    put(machine, "/etc/polkit-1/rules.d/10-endless.rules", ENDLESS_RULE)
    asking = machine.popen("systemctl", "--no-ask-password", "start", QUEEN, user="mallory")
    deadline = time.monotonic() + 10
    found = rbeectl(machine, "doctor", user=None)
    while "problem  polkit: polkit does not answer" not in found.out:
        assert time.monotonic() < deadline, found
        found = rbeectl(machine, "doctor", user=None)
    assert "systemctl restart polkit.service" in found.out
    machine.run("rm", "/etc/polkit-1/rules.d/10-endless.rules")
    fixed = rbeectl(machine, "doctor", "--fix", user=None)
    assert fixed.code == 0, fixed
    assert asking.wait(5) != 0
    assert rbeectl(machine, "wake").code == 0


def test_a_hive_that_cannot_start_ends_the_story_in_an_error(machine: Machine) -> None:
    machine.run("systemctl", "mask", "--runtime", HIVE)
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert "masked" in answer.err
    (row,) = rows(machine)
    assert (row["status"], row["devices"], row["wanted"]) == ("offline", None, 1)
    machine.run("systemctl", "unmask", "--runtime", HIVE)
    add_hive(machine)
    assert rows(machine)[0]["status"] == "online"


def test_a_hive_that_refuses_its_devices_ends_the_story_there(machine: Machine) -> None:
    # The queen may no longer speak to the hive.
    machine.run("chown", "root:root", "/run/rbee/hive.sock")
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert "did not report its devices" in answer.err
    (row,) = rows(machine)
    assert (row["status"], row["devices"]) == ("pending", None)
    machine.run("chgrp", "queen-rbee", "/run/rbee/hive.sock")
    add_hive(machine)
    (row,) = rows(machine)
    assert row["status"] == "online"


BAD = [
    ("/add-hive", ["-d", '{"host": "gpu1"}'], 422, "unknown-host", "host"),
    ("/add-hive", ["-d", '{"host": "localhost", "port": 70000}'], 400, "bad-input", "port"),
    ("/add-hive", ["-d", '{"host": "localhost", "port": "8600"}'], 400, "bad-input", "port"),
    ("/add-hive", ["-d", '{"port": 8600}'], 400, "bad-input", "host"),
    ("/add-hive", ["-d", "host=localhost"], 400, "bad-input", None),
    ("/add-hive", ["-d", "@/run/ten-megabytes"], 413, "too-large", None),
    ("/add-hive", ["-H", "Transfer-Encoding: chunked", "-d", "@/run/ten-megabytes"], 413, "too-large", None),
    ("/v1/jobs/0123456789abcdef0123456789abcdef", [], 404, "unknown-job", None),
    ("/v1/jobs/0123456789abcdef0123456789abcdef/events", [], 404, "unknown-job", None),
    ("/v1/hives/gpu1", [], 404, "unknown-hive", "hive_id"),
    ("/v1/nothing", [], 404, "no-such-route", None),
    ("/add-hive", ["-X", "PUT"], 405, "no-such-method", None),
]


def test_bad_input_is_a_problem_document_and_nothing_is_written(machine: Machine) -> None:
    machine.run(
        "sh",
        "-c",
        "head -c 10000000 /dev/zero | tr '\\0' ' ' > /run/ten-megabytes; chmod 644 /run/ten-megabytes",
    )
    machine.run("systemctl", "start", QUEEN)
    for path, options, status, slug, field in BAD:
        found, problem = curl(machine, path, *options)
        assert (found, problem["status"]) == (status, status), (path, options, problem)
        assert problem["type"] == f"urn:rbee:problem:{slug}"
        assert problem.get("field") == field
        assert problem["title"]
        assert problem["detail"]
    beat = {"hive_id": "gpu1", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32}
    found, problem = curl(machine, "/heartbeat", "-d", json.dumps(beat), user=None)
    assert (found, problem["type"], problem["field"]) == (404, "urn:rbee:problem:unknown-hive", "hive_id")
    assert rows(machine) == []
    assert active(machine, QUEEN, HIVE) == ["active", "inactive"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["add-hive", "a b"], "HOST must be made of"),
        (["add-hive", "localhost", "--port", "0"], "port must be from 1 to 65535"),
        (["add-hive"], "Missing argument '[USER@]HOST'"),
        (["ad-hive", "localhost"], "No such command"),
    ],
)
def test_wrong_input_at_the_keyboard_is_usage(machine: Machine, argv: list[str], said: str) -> None:
    answer = rbeectl(machine, *argv)
    assert answer.code == 2, answer
    assert said in answer.err


def test_another_machine_is_not_added_by_a_queen_who_is_not_open(machine: Machine) -> None:
    answer = rbeectl(machine, "add-hive", "gpu1")
    assert answer.code == 1, answer
    assert answer.err == "rbeectl: the queen is not open to other machines\n  try: rbeectl tcp enable\n"
    assert rows(machine) == []

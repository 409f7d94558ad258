"""Upgrades and removals of the packages while models are served."""

from __future__ import annotations

from pathlib import Path

from testbed.debian import install
from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import GATEWAY, HIVE, QUEEN, add_hive, await_state, main_pid, unit
from tests.system.serve.served import (
    assert_no_worker_runs,
    begin_chat,
    chat,
    serve_model,
    serve_rude,
    succeed,
    worker_units,
)

PACKAGES = ("rbee", "rbeectl", "rbee-queen", "rbee-hive", "rbee-gateway", "python3-rbee")


def apt(machine: Machine, verb: str, *packages: str) -> None:
    machine.run("apt-get", verb, "--yes", *packages, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)


def test_an_upgrade_keeps_workers_as_they_are(serving: Machine, debs: list[Path]) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").text == "I am bee one."
    [name] = worker_units(serving)
    before = unit(serving, name, "MainPID", "InvocationID")
    daemons = {daemon: main_pid(serving, daemon) for daemon in (QUEEN, HIVE, GATEWAY)}

    install(serving, debs, "--reinstall")

    await_state(serving, "online")
    assert chat(serving, "bee").text == "I am bee one."
    assert all(main_pid(serving, daemon) != pid for daemon, pid in daemons.items())
    assert unit(serving, name, "MainPID", "InvocationID") == before
    # They are known, and nothing ends them for want of a hive.
    listed = succeed(serving, "list-workers", "--json").json["workers"]
    assert [(one["model"], one["state"], one["pid"]) for one in listed] == [
        ("bee", "ready", int(before["MainPID"]))
    ]
    assert unit(serving, "rbee-orphans.timer", "ActiveState")["ActiveState"] == "inactive"


def test_a_removal_ends_workers_and_a_purge_leaves_nothing_of_what_was_served(serving: Machine) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {"deltas": 1000, "pause_s": 0.1})
    stream = begin_chat(serving, "rude", stream=True)
    assert stream.stdout is not None
    while "word3 " not in stream.stdout.readline():
        pass

    apt(serving, "remove", *PACKAGES)

    stream.communicate(timeout=10)
    assert_no_worker_runs(serving)
    assert serving.run("systemctl", "--failed", "--no-legend").stdout == ""

    # Of the others nothing is left to purge, and apt does not know them any more.
    apt(serving, "purge", *(name for name in PACKAGES if name not in ("rbee", "rbeectl")))
    left = serving.run(
        "sh", "-c", "ls -d /var/lib/*rbee* /run/*rbee* /etc/rbee /etc/systemd/system/*rbee*", check=False
    )
    assert left.stdout == ""
    assert serving.run("systemctl", "list-units", "--all", "--no-legend", "*rbee*").stdout == ""

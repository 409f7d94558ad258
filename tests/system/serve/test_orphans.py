"""A worker whose hive ends for good while systemd is about to restart the worker."""

from __future__ import annotations

import pytest
from testbed.machine import Machine

from tests.system.commands import HIVE, active, await_stopped, override
from tests.system.serve.workers import awaited, hive, install_engine, model, start

BEE = "rbee-worker@bee-1.service"

ORPHANS = "rbee-orphans.timer"

RESTART = 3
"""Seconds until systemd restarts an engine that has ended: time for the end of the hive."""


def await_property(machine: Machine, name: str, value: str) -> None:
    """Wait until the worker's unit has this value."""
    is_there = f"systemctl show -P {name} {BEE} | grep -qx {value}"
    machine.run("sh", "-c", f"until {is_there}; do sleep 0.05; done", timeout=20)


@pytest.mark.parametrize("is_back", [True, False], ids=["restarted before", "waiting for its restart"])
def test_a_worker_between_two_starts_is_ended_when_no_hive_comes_back(
    machine: Machine, is_back: bool
) -> None:
    install_engine(machine)
    after = RESTART + 3 if is_back else 1
    override(machine, ORPHANS, f"[Timer]\nOnActiveSec=\nOnActiveSec={after}s\nAccuracySec=100ms\n")
    override(machine, "rbee-worker@.service", f"[Service]\nRestartSec={RESTART}s\n")
    machine.run("systemctl", "start", HIVE)
    start(machine, "bee-1", model(machine, "bee"))
    awaited(machine, "bee-1", "ready")

    machine.run("systemctl", "kill", "--signal=KILL", BEE)
    await_property(machine, "SubState", "auto-restart")
    assert machine.run("ls", "/run/rbee-worker").stdout == ""
    machine.run("systemctl", "stop", HIVE)

    assert active(machine, BEE, ORPHANS) == ["activating", "active"]
    if is_back:
        await_property(machine, "ActiveState", "active")
        assert active(machine, ORPHANS) == ["active"]
    await_stopped(machine, BEE)
    assert machine.run("pgrep", "-f", "test-engine", check=False).stdout == ""
    assert machine.run("ls", "/run/rbee-worker").stdout == ""

    # The next hive has no worker, and without one there is nothing to wait for.
    machine.run("systemctl", "start", HIVE)
    assert hive(machine, "GET", "/v1/workers") == (200, {"workers": []})
    assert machine.run("ls", "/var/lib/rbee-hive/workers").stdout == ""
    machine.run("systemctl", "stop", HIVE)
    assert active(machine, ORPHANS) == ["inactive"]

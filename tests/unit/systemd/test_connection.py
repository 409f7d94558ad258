"""The connection to the bus, as far as it needs none."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from pystemd.dbuslib import path_encode

from rbee.errors import TimedOut
from rbee.scope import SYSTEM, Scope, user_scope
from rbee.systemd.connection import Connection, unit_path
from tests.unit.unix_http import listen


@pytest.mark.parametrize(
    "unit",
    [
        "queen-rbee.service",
        "queen-rbee.socket",
        "rbee-hive.service",
        "rbee-hive.socket",
        "rbee.target",
        "getty@tty1.service",
        "dev-disk-by\\x2duuid.device",
        "a_b:c.mount",
        "-.mount",
        "9front.service",
        "größe.service",
    ],
)
def test_the_object_path_of_a_unit_is_the_one_that_sd_bus_makes(unit: str) -> None:
    assert unit_path(unit) == path_encode(b"/org/freedesktop/systemd1/unit", unit.encode())


@pytest.mark.parametrize(
    ("scope", "variable"), [(SYSTEM, "DBUS_SYSTEM_BUS_ADDRESS"), (user_scope(), "DBUS_SESSION_BUS_ADDRESS")]
)
def test_a_bus_that_hangs_is_given_up_and_its_descriptor_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: Scope, variable: str
) -> None:
    monkeypatch.setattr("rbee.systemd.connection.BUS_TIMEOUT", 0.1)
    monkeypatch.setenv(variable, f"unix:path={tmp_path}/bus")
    gc.collect()  # what an earlier test left open would be closed in between
    before = os.listdir("/proc/self/fd")

    # It takes the connection, as the kernel does for a daemon that is stopped, and says nothing.
    with (
        listen(tmp_path / "bus"),
        pytest.raises(TimedOut, match=f"the {scope.kind} bus did not greet us within 0.1 s"),
        Connection(scope),
    ):
        raise AssertionError("there is no bus")

    assert os.listdir("/proc/self/fd") == before

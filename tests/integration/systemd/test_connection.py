"""The connection to a bus that does not answer."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from rbee.errors import TimedOut
from rbee.scope import SYSTEM, Scope, user_scope
from rbee.systemd.connection import Connection
from tests.integration.listening import listen


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


@pytest.mark.parametrize("own", [None, "7s"])
def test_a_bus_that_hangs_is_given_up_after_the_time_of_a_call_of_which_no_child_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    monkeypatch.delenv("SYSTEMD_BUS_TIMEOUT", raising=False)
    if own is not None:
        monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", own)

    with (
        listen(tmp_path / "bus"),
        pytest.raises(TimedOut, match="the system bus did not greet us within 0.1 s"),
        Connection(timeout=0.1),
    ):
        raise AssertionError("there is no bus")

    assert os.environ.get("SYSTEMD_BUS_TIMEOUT") == own

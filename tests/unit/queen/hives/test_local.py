"""Whose the hive on the queen's machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

import rbee.queen.hives.local
from rbee.errors import BadConfig
from rbee.queen.hives.local import fault_of
from rbee.scope import SYSTEM, Scope
from rbee.wire.heartbeats import HiveHealth


@pytest.mark.parametrize(
    "health",
    [
        HiveHealth("ok", "0.4.0"),
        HiveHealth("ok", "0.5.0", "localhost", "/run/rbee/queen.sock"),
        HiveHealth("ok", "0.5.0", "localhost", "/run/elsewhere.sock"),
    ],
    ids=["before 0.5.0", "hers", "by another socket, which may be hers"],
)
def test_a_hive_that_may_beat_as_localhost_has_no_fault(health: HiveHealth) -> None:
    assert fault_of(health, SYSTEM) is None


def test_a_hive_of_another_queen_is_named_with_both_ways_out() -> None:
    fault = fault_of(HiveHealth("ok", "0.5.0", "gpu1", "10.0.0.1:8500", is_remote_queen=True), SYSTEM)

    assert fault is not None
    assert fault.message == "the hive on this machine is the hive gpu1 of the queen at 10.0.0.1:8500"
    assert (fault.hint or "").splitlines() == [
        "To make it this queen's hive: sudo rbeectl doctor --fix; rbeectl add-hive localhost",
        "To leave it with the other queen: sudo apt remove rbee-queen",
    ]


def test_a_name_of_its_own_is_named_with_the_file_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def where_set(_section: str, _key: str, *, scope: Scope) -> Path:
        return Path("/etc/rbee/rbee.conf")

    monkeypatch.setattr(rbee.queen.hives.local.config, "where_set", where_set)
    fault = fault_of(HiveHealth("ok", "0.5.0", "foo", "/run/rbee/queen.sock"), SYSTEM)

    assert fault is not None
    assert "calls itself foo, by [Hive] Id= in /etc/rbee/rbee.conf" in fault.message
    assert "Delete the line Id=foo in /etc/rbee/rbee.conf" in (fault.hint or "")


def test_a_file_that_cannot_be_read_any_more_hides_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def where_set(_section: str, _key: str, *, scope: Scope) -> Path:
        raise BadConfig("it is broken")

    monkeypatch.setattr(rbee.queen.hives.local.config, "where_set", where_set)
    fault = fault_of(HiveHealth("ok", "0.5.0", "foo", "/run/rbee/queen.sock"), SYSTEM)

    assert fault is not None
    assert "Id= in rbee.conf" in fault.message

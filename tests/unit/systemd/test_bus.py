"""systemd itself, and its units by name."""

from __future__ import annotations

import time

import pytest

from rbee.errors import TimedOut
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.wire.heartbeats import MachineEnd
from tests.unit.systemd.played import PlayedConnection


def test_what_is_done_to_a_unit_by_its_name_is_done_to_that_unit() -> None:
    bus = PlayedConnection()

    bus.start(QUEEN_UNIT, timeout=5)
    bus.restart(QUEEN_UNIT, timeout=5)
    bus.stop(HIVE_UNIT, timeout=5)
    bus.reset_failed(HIVE_UNIT)
    bus.unit(HIVE_UNIT).ask_start(undo_stop=False)

    assert bus.called == [
        ("StartUnit", QUEEN_UNIT, "replace"),
        ("RestartUnit", QUEEN_UNIT, "replace"),
        ("StopUnit", HIVE_UNIT, "replace"),
        ("ResetFailedUnit", HIVE_UNIT),
        ("StartUnit", HIVE_UNIT, "fail"),
    ]


def test_a_unit_can_be_asked_by_its_name() -> None:
    bus = PlayedConnection(jobs={HIVE_UNIT})

    assert bus.state(TCP_SOCKET_UNIT) == bus.unit(TCP_SOCKET_UNIT).state()
    assert bus.file_state(HIVE_UNIT) == ("unitfilestate", True)
    assert bus.socket_access(TCP_SOCKET_UNIT) == ("socketuser", "socketgroup", 2)
    assert bus.listen_addresses(TCP_SOCKET_UNIT) == [("Stream", "[::]:8500")]
    assert (bus.has_job(HIVE_UNIT), bus.has_job(QUEEN_UNIT)) == (True, False)


@pytest.mark.parametrize(
    ("state", "jobs", "end"),
    [
        ("running", {"reboot.target"}, None),
        ("stopping", set(), "shutting-down"),
        ("stopping", {"soft-reboot.target"}, "rebooting"),
    ],
)
def test_a_machine_that_ends_is_told_from_one_that_comes_back(
    state: str, jobs: set[str], end: MachineEnd | None
) -> None:
    assert PlayedConnection(system_state=state, jobs=jobs).machine_end() == end


def test_how_the_machine_ends_is_not_asked_for_longer_than_there_is_time() -> None:
    stopping = PlayedConnection(system_state="stopping")

    assert stopping.machine_end(last_call=time.monotonic() + 60) == "shutting-down"
    with pytest.raises(TimedOut, match="did not report in time whether the machine is shutting down"):
        stopping.machine_end(last_call=time.monotonic() - 1)


def test_unit_files_are_read_again() -> None:
    bus = PlayedConnection()

    bus.reload()

    assert bus.called == [("Reload",)]


def test_jobs_that_do_not_end_are_not_awaited_for_ever() -> None:
    PlayedConnection().await_idle([HIVE_UNIT], timeout=0)
    with pytest.raises(TimedOut, match="systemd was not done") as caught:
        PlayedConnection(jobs={HIVE_UNIT}).await_idle([QUEEN_UNIT, HIVE_UNIT], timeout=0)

    assert caught.value.hint == "systemctl list-jobs"

"""A job that waits for a hive's first heartbeat: how the wait ends."""

from __future__ import annotations

import pytest

from rbee.errors import UnitFailed, VersionSkew
from rbee.queen.hives.arrival import Arrival
from rbee.queen.jobs import Job


def arrival() -> Arrival:
    return Arrival(Job("add-hive", "localhost"), "systemctl status rbee-hive.service")


async def test_a_heartbeat_ends_it_and_what_comes_after_changes_nothing() -> None:
    coming = arrival()
    assert coming.is_waiting
    coming.beats()
    assert not coming.is_waiting
    coming.beats()
    coming.dies("killed")
    coming.refuse(VersionSkew("too old"))

    assert await coming.outcome is None


async def test_the_end_of_the_unit_fails_it_with_the_reason_and_where_to_look() -> None:
    coming = arrival()
    coming.dies("its process ended (killed by signal 9)")
    coming.beats()

    with pytest.raises(UnitFailed) as caught:
        await coming.outcome
    assert caught.value.message == (
        "rbee-hive.service started and sent no heartbeat: its process ended (killed by signal 9)"
    )
    assert caught.value.hint == "systemctl status rbee-hive.service"


async def test_the_first_refusal_is_the_one_that_counts() -> None:
    coming, first = arrival(), VersionSkew("too old")
    coming.refuse(first)
    coming.refuse(VersionSkew("too new"))

    with pytest.raises(VersionSkew) as caught:
        await coming.outcome
    assert caught.value is first


async def test_a_job_that_does_something_else_meanwhile_is_not_failed_by_an_end() -> None:
    coming = arrival()
    coming.awaits_beat = False
    assert not coming.is_waiting
    coming.awaits_beat = True
    assert coming.is_waiting
    coming.beats()

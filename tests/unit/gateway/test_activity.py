"""What the gateway counts as being idle."""

from __future__ import annotations

import asyncio

import pytest

from rbee.errors import TooMany
from rbee.gateway import activity as module
from rbee.gateway.activity import Activity


async def test_it_is_idle_after_its_time_without_a_request_and_not_before() -> None:
    idle = asyncio.Event()
    activity = Activity(show=lambda line: None, idle=idle.set, idle_after=0.05)
    activity.begin()
    with activity.request():
        await asyncio.sleep(0.1)
        assert not idle.is_set()
    await asyncio.wait_for(idle.wait(), 5)
    activity.close()


async def test_the_status_line_is_shown_at_most_once_in_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_INTERVAL", 0.05)
    shown: list[str] = []

    activity = Activity(show=shown.append, idle=lambda: None, idle_after=60)
    with activity.request(), activity.request(), activity.wait():
        assert activity.line() == "requests: 2 in flight, 1 of them waiting for a worker"
        await asyncio.sleep(0.1)
    activity.close()
    assert shown == ["requests: 2 in flight, 1 of them waiting for a worker"]


async def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 1)

    activity = Activity(show=lambda line: None, idle=lambda: None, idle_after=60)
    with activity.request(), pytest.raises(TooMany), activity.request():
        pass
    assert activity.in_flight == 0
    activity.close()

"""Whether there is a queen to follow, by systemd; tests/integration/test_monitor.py follows real ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import pytest

import rbee.keeper.monitor
from rbee.client.queen import QueenClient
from rbee.errors import TimedOut
from rbee.keeper.monitor import Monitor, Presence, QueenIs
from rbee.keeper.output.streams import OutputFailed
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd import bus as systemd
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import UNUSABLE
from tests.unit.played_systemd import ACTIVE, INACTIVE, NOT_FOUND, PlayedBus


class SignallingBus(PlayedBus):
    """systemd, whose signals arrive on a pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: set[str] = set()
        self.is_reloading = False
        self.reading, self.writing = os.pipe()
        self._changed: dict[str, Callable[[], None]] = {}

    def active_state(self, unit: str) -> str:
        if self.is_reloading:
            raise TimedOut("systemd did not answer")
        return super().active_state(unit)

    def has_job(self, unit: str) -> bool:
        return unit in self.jobs

    def on_unit_changed(self, unit: str, changed: Callable[[], None]) -> None:
        self._changed[unit] = changed

    def becomes(self, unit: str, state: UnitState) -> None:
        self.states[unit] = state
        os.write(self.writing, b".")
        self._changed[unit]()

    def pump(self) -> None:
        pass

    def fileno(self) -> int:
        return self.reading


@pytest.fixture
def bus() -> Iterator[SignallingBus]:
    bus = SignallingBus()
    yield bus
    os.close(bus.reading)
    os.close(bus.writing)


def presence(bus: SignallingBus) -> Presence:
    return Presence(cast(systemd.Bus, bus))


@pytest.mark.parametrize(
    ("queen", "socket", "state"),
    [
        (ACTIVE, ACTIVE, "awake"),
        (INACTIVE, ACTIVE, "asleep"),
        (INACTIVE, INACTIVE, "off"),
        (NOT_FOUND, INACTIVE, "absent"),
        (UNUSABLE, ACTIVE, "failed"),
        (ACTIVE._replace(active="activating"), ACTIVE, None),
        (ACTIVE._replace(active="deactivating"), ACTIVE, None),
    ],
)
def test_a_queen_who_is_about_to_be_something_else_is_nothing_yet(
    bus: SignallingBus, queen: UnitState, socket: UnitState, state: str | None
) -> None:
    bus.states |= {QUEEN_UNIT: queen, QUEEN_SOCKET_UNIT: socket}

    assert presence(bus).look() == state


def test_a_job_says_that_it_will_not_last(bus: SignallingBus) -> None:
    bus.jobs = {QUEEN_SOCKET_UNIT}
    assert presence(bus).look() is None
    bus.states[QUEEN_UNIT] = ACTIVE
    assert presence(bus).look() == "awake", "its socket does not matter while it is awake"
    bus.jobs = {QUEEN_UNIT}
    assert presence(bus).look() is None


def test_a_systemd_that_does_not_answer_in_time_is_asked_again(bus: SignallingBus) -> None:
    bus.is_reloading = True

    assert presence(bus).look() is None


def test_a_change_is_news_until_the_next_look(bus: SignallingBus) -> None:
    watched = presence(bus)
    watched.look()
    assert not watched.has_news()
    bus.becomes(QUEEN_UNIT, ACTIVE)
    assert watched.has_news()
    watched.look()
    assert not watched.has_news()


def test_why_it_failed_is_its_own_word_before_systemd_s(bus: SignallingBus) -> None:
    killed = UnitState("loaded", "failed", "failed", result="signal", exit_status=9)
    reasons = []
    for state in (UNUSABLE, killed, killed._replace(result="start-limit-hit", exit_status=0)):
        bus.states[QUEEN_UNIT] = state
        reasons.append(presence(bus).why_failed())

    assert reasons == [UNUSABLE.status_text, "signal 9", "start-limit-hit"]


def test_each_state_is_reported_once_and_no_sleeping_queen_is_asked(
    bus: SignallingBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.monitor, "LOOK_AGAIN", 0.01)
    changes = iter([(QUEEN_SOCKET_UNIT, INACTIVE), (QUEEN_UNIT, UNUSABLE)])
    waits = 0

    def left(most: float) -> float:
        nonlocal waits
        waits += 1
        if waits % 4 == 0 and (change := next(changes, None)):
            bus.becomes(*change)
        return most

    monitor = Monitor(cast(systemd.Bus, bus), cast(QueenClient, cast(Any, None)), left=left)

    assert list(islice(monitor.events(), 3)) == [
        QueenIs("asleep", "queen is asleep, waiting until she wakes."),
        QueenIs("off", "queen is off, waiting until she is turned on."),
        QueenIs("failed", f"queen has failed ({UNUSABLE.status_text}), waiting until she is started again."),
    ]


def test_a_reader_who_has_gone_ends_it(bus: SignallingBus) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        monitor = Monitor(
            cast(systemd.Bus, bus), cast(QueenClient, cast(Any, None)), left=lambda most: most, output=writing
        )
        events = monitor.events()
        assert next(events) == QueenIs("asleep", "queen is asleep, waiting until she wakes.")
        with pytest.raises(OutputFailed):
            next(events)
    finally:
        os.close(writing)

"""What one machine may have the queen do and record, with a clock that is played."""

from __future__ import annotations

import pytest

import rbee.queen.restraint
from rbee.narration import JOIN_REFUSED, Event, Narrator
from rbee.queen.restraint import AT_ONCE, KEYS_MAX, OTHERS, SOURCES_MAX, Allowance, Bound, Folded, network_of
from tests.unit.wait import until


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((text, fields))

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.told]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_taken_and_then_one_at_a_time() -> None:
    clock = Clock()
    allowance = Allowance(Bound(3, 10.0), clock)

    assert [allowance.take("gpu1") for _ in range(5)] == [True, True, True, False, False]
    clock.now += 9.9
    assert not allowance.has("gpu1")
    clock.now += 0.1
    assert [allowance.take("gpu1") for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [allowance.take("gpu1") for _ in range(4)] == [True, True, True, False]


def test_one_machine_s_use_is_no_other_s() -> None:
    allowance = Allowance(Bound(1, 10.0), Clock())
    assert allowance.take("gpu1")
    assert not allowance.take("gpu1")
    assert allowance.take("gpu2")


def test_no_more_machines_are_remembered_than_there_is_room_for() -> None:
    allowance = Allowance(Bound(1, 10.0), Clock())
    for number in range(KEYS_MAX + 10):
        assert allowance.take(f"{number}")
    assert len(allowance._full_at) == KEYS_MAX
    assert not allowance.has(f"{KEYS_MAX + 9}")


def test_an_address_of_ipv6_is_its_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") == "192.0.2.1"


async def test_what_repeats_is_told_as_it_comes_and_then_with_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbee.queen.restraint, "WINDOW", 0.05)
    tape = Tape()

    folded = Folded(tape)
    for number in range(AT_ONCE + 400):
        folded.report(JOIN_REFUSED, f"no {number}", source="192.0.2.1", actor_address="192.0.2.1")
    assert tape.texts == [f"no {number}" for number in range(AT_ONCE)]
    await until(lambda: len(tape.told) > AT_ONCE)
    told = f"no {AT_ONCE + 399} (the same 400 times more within 0.05 s)"
    assert tape.told[AT_ONCE:] == [(told, {"actor_address": "192.0.2.1"})]
    # As long as it goes on, nothing is told but the number; after a quiet window all is as before.
    folded.report(JOIN_REFUSED, "again", source="192.0.2.1")
    assert len(tape.told) == AT_ONCE + 1
    await until(lambda: not folded._windows)
    assert tape.texts[-1] == "again (the same 1 time more within 0.05 s)"
    folded.report(JOIN_REFUSED, "later", source="192.0.2.1")
    assert tape.texts[-1] == "later"
    folded.close()


async def test_addresses_without_number_are_folded_together_and_the_end_tells_what_is_left() -> None:
    tape = Tape()

    folded = Folded(tape)
    for number in range(SOURCES_MAX + 100):
        folded.report(JOIN_REFUSED, "no", source=f"{number}")
    assert len(folded._windows) == SOURCES_MAX + 1
    assert (JOIN_REFUSED.name, OTHERS) in folded._windows
    assert len(tape.told) == SOURCES_MAX + AT_ONCE
    folded.close()
    assert tape.texts[-1] == f"no (the same {100 - AT_ONCE} times more within 60 s)"


def test_one_whose_allowance_is_renewed_has_all_of_it_again() -> None:
    allowance = Allowance(Bound(2, 10.0), Clock())
    assert [allowance.take("gpu1") for _ in range(3)] == [True, True, False]

    allowance.renew("gpu1")

    assert [allowance.take("gpu1") for _ in range(3)] == [True, True, False]

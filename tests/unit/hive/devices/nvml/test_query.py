"""The calls of a query: in which order, and what one that fails leaves."""

from __future__ import annotations

import logging
import threading

import pytest

from rbee.hive.devices.nvml.inventory import InventoryQuery
from rbee.hive.devices.nvml.library import NOT_SUPPORTED
from rbee.hive.devices.nvml.query import CARDS_AT_ONCE, Shutdown
from rbee.hive.devices.nvml.results import MOST_CARDS, Failure
from tests.unit.hive.devices.nvml.played_nvml import Card, PlayedNvml, library_of

A = Card("0000:01:00.0", "GPU-a")
B = Card("0000:02:00.0", "GPU-b")


def asked(nvml: PlayedNvml) -> InventoryQuery:
    query = InventoryQuery()
    query.run(library_of(nvml))
    return query


def test_an_nvml_that_does_not_open_is_asked_nothing_else() -> None:
    nvml = PlayedNvml(A, refusals={"nvmlInit": 9})
    query = asked(nvml)

    assert query.failure == Failure("driver-not-loaded", "nvmlInit: Error 9 (NVML error 9)")
    assert nvml.calls == ["nvmlInit"]
    assert query.inventory().cards == ()


def test_a_driver_that_does_not_tell_its_version_is_a_problem_of_each_card() -> None:
    inventory = asked(PlayedNvml(A, B, refusals={"nvmlSystemGetDriverVersion": 999})).inventory()

    problem = "driver version: Error 999 (NVML error 999)"
    assert [card.problems for card in inventory.cards] == [(problem,), (problem,)]
    assert inventory.driver_version is None


def test_a_version_that_is_not_supported_is_no_problem() -> None:
    inventory = asked(PlayedNvml(A, refusals={"nvmlSystemGetDriverVersion": NOT_SUPPORTED})).inventory()

    assert [card.problems for card in inventory.cards] == [()]


def test_a_card_without_a_handle_is_asked_nothing_else() -> None:
    nvml = PlayedNvml(Card("0000:01:00.0", "GPU-a", refusals={"GetHandleByIndex": NOT_SUPPORTED}), B)
    broken, whole = asked(nvml).inventory().cards

    assert broken.is_nameless
    assert broken.problems == ("card: Error 3 (NVML error 3)",)
    assert (whole.uuid, whole.problems) == ("GPU-b", ())
    assert nvml.calls.count("GetUUID") == 1


def test_more_cards_than_are_looked_at_are_a_failure_and_the_first_are_known() -> None:
    query = asked(PlayedNvml(*[A] * (MOST_CARDS + 1)))

    assert query.failure is not None
    assert query.failure.detail == f"NVML counts {MOST_CARDS + 1} cards; {MOST_CARDS} are looked at"
    assert len(query.inventory().cards) == MOST_CARDS


def test_before_it_is_asked_it_says_why_nobody_waits_any_longer() -> None:
    late = Failure("timeout", "x")

    assert InventoryQuery().inventory(late).failure == late


def test_a_shutdown_closes_what_is_open_and_a_refusal_of_it_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = library_of(PlayedNvml(A, refusals={"nvmlShutdown": 999}))
    library.is_open = True

    with caplog.at_level(logging.WARNING):
        Shutdown().run(library)

    assert not library.is_open
    assert "nvmlShutdown: Error 999 (NVML error 999)" in caplog.text


class Meeting(PlayedNvml):
    """Returns the name of a card only once all cards have been asked."""

    def __init__(self, *cards: Card) -> None:
        super().__init__(*cards)
        self._asked = threading.Barrier(len(cards), timeout=10)

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        self._asked.wait()
        return super().nvmlDeviceGetName(card)


def test_cards_are_asked_side_by_side_and_keep_their_order() -> None:
    cards = [Card(f"0000:{number:02x}:00.0", f"GPU-{number}") for number in range(CARDS_AT_ONCE)]

    inventory = asked(Meeting(*cards)).inventory()

    assert [(card.uuid, card.problems) for card in inventory.cards] == [(card.uuid, ()) for card in cards]


def test_more_cards_than_are_asked_at_once_are_all_asked_by_no_more_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)

    inventory = asked(PlayedNvml(*[A] * 200)).inventory()

    assert [card.uuid for card in inventory.cards] == ["GPU-a"] * 200
    assert started == ["nvml-card"] * (CARDS_AT_ONCE - 1)


def test_one_card_needs_no_helper_and_without_helpers_all_cards_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert [card.uuid for card in asked(PlayedNvml(A)).inventory().cards] == ["GPU-a"]
    assert [card.uuid for card in asked(PlayedNvml(A, B)).inventory().cards] == ["GPU-a", "GPU-b"]


def test_an_internal_error_at_one_card_is_raised_once_the_others_were_asked() -> None:
    class Broken(PlayedNvml):
        def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
            if card is A:
                raise ZeroDivisionError
            return super().nvmlDeviceGetName(card)

    query = InventoryQuery()
    with pytest.raises(ZeroDivisionError):
        query.run(library_of(Broken(A, B)))

    assert [card.name for card in query.inventory().cards] == [None, B.name]

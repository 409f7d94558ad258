"""The calls of a query: in which order, and what one that fails leaves."""

from __future__ import annotations

import logging

import pytest

from rbee.hive.devices.nvml.inventory import InventoryQuery
from rbee.hive.devices.nvml.library import NOT_SUPPORTED
from rbee.hive.devices.nvml.query import Shutdown
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

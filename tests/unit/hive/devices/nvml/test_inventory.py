"""Which cards there are, and whose memory they have."""

from __future__ import annotations

from rbee.hive.devices.nvml.inventory import InventoryQuery
from rbee.hive.devices.nvml.library import NOT_SUPPORTED
from rbee.hive.devices.nvml.results import NvmlCard
from tests.unit.hive.devices.nvml.played_nvml import Card, PlayedNvml, library_of


def asked(nvml: PlayedNvml) -> InventoryQuery:
    query = InventoryQuery()
    query.run(library_of(nvml))
    return query


def test_each_card_is_named_and_measured() -> None:
    query = asked(PlayedNvml(Card("0000:01:00.0", "GPU-a", "Tesla T4", total=15 * 2**30)))

    assert query.failure is None
    assert query.inventory().driver_version == "550.54"
    assert query.inventory().cards == (
        NvmlCard("0000:01:00.0", "GPU-a", "Tesla T4", 15 * 2**30, (), "dedicated"),
    )


def test_a_card_without_memory_of_its_own_computes_in_the_machine_s() -> None:
    nothing = Card("0000:01:00.0", "GPU-a", total=0)
    unsupported = Card("0000:02:00.0", "GPU-b", refusals={"GetMemoryInfo": NOT_SUPPORTED})

    cards = asked(PlayedNvml(nothing, unsupported)).inventory().cards

    assert [(card.memory_kind, card.vram_bytes, card.problems) for card in cards] == [
        ("shared", None, ())
    ] * 2


def test_a_memory_that_could_not_be_asked_for_is_neither() -> None:
    (card,) = (
        asked(PlayedNvml(Card("0000:01:00.0", "GPU-a", refusals={"GetMemoryInfo": 15}))).inventory().cards
    )

    assert (card.memory_kind, card.vram_bytes) == (None, None)
    assert card.problems == ("VRAM: Error 15 (NVML error 15)",)


def test_nvml_is_opened_anew_and_closed_again_whatever_was_open() -> None:
    nvml = PlayedNvml(Card("0000:01:00.0", "GPU-a"))
    library = library_of(nvml)
    library.is_open = True

    query = InventoryQuery()
    query.run(library)

    assert nvml.calls[:2] == ["nvmlShutdown", "nvmlInit"]
    assert nvml.calls[-1] == "nvmlShutdown"
    assert not library.is_open
    assert query.shown == query.inventory().shown


def test_a_count_that_fails_closes_nvml_and_is_a_failure_of_the_whole() -> None:
    nvml = PlayedNvml(Card("0000:01:00.0", "GPU-a"), refusals={"nvmlDeviceGetCount": 999})
    query = asked(nvml)

    assert query.failure is not None
    assert query.failure.detail == "nvmlDeviceGetCount: Error 999 (NVML error 999)"
    assert nvml.calls[-1] == "nvmlShutdown"
    assert query.shown is not None
    assert query.shown.cause == "unknown"

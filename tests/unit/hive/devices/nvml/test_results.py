"""What counts as the same cards, and as a card of which nothing is known."""

from __future__ import annotations

import pytest

from rbee.hive.devices.nvml.results import Failure, Inventory, NvmlCard

CARD = NvmlCard("0000:01:00.0", "GPU-a", "Tesla T4", 15 * 2**30)
BEFORE = Inventory((CARD,), "550.54", None)


def test_a_card_that_has_one_word_of_its_own_is_not_nameless() -> None:
    assert NvmlCard(vram_bytes=1, problems=("card: x",)).is_nameless
    for card in (NvmlCard("0000:01:00.0"), NvmlCard(uuid="GPU-a"), NvmlCard(name="Tesla T4")):
        assert not card.is_nameless


def test_the_same_cards_are_shown_whatever_else_is_known_of_them() -> None:
    later = BEFORE._replace(cards=(CARD._replace(name=None, vram_bytes=None, problems=("name: x",)),))

    assert later.shown == BEFORE.shown


@pytest.mark.parametrize(
    "later",
    [
        BEFORE._replace(cards=()),
        BEFORE._replace(cards=(CARD, CARD)),
        BEFORE._replace(cards=(CARD._replace(uuid="GPU-b"),)),
        BEFORE._replace(cards=(CARD._replace(pci_address="0000:02:00.0"),)),
        BEFORE._replace(driver_version="560.10"),
        BEFORE._replace(failure=Failure("timeout", "x")),
    ],
    ids=["gone", "one more", "another", "moved", "another driver", "a failure"],
)
def test_other_cards_another_driver_or_a_failure_are_shown_as_a_change(later: Inventory) -> None:
    assert later.shown != BEFORE.shown


def test_the_words_of_a_failure_are_no_change() -> None:
    first, second = (BEFORE._replace(failure=Failure("timeout", words)) for words in ("a", "b"))

    assert first.shown == second.shown

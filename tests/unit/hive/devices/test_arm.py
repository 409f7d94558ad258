"""The names of ARM's processors; tests/system/test_devices.py compares all of them with lscpu's."""

from __future__ import annotations

import pytest

from rbee.hive.devices import arm


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        ("0x41", "0xd0c", "Neoverse-N1"),
        ("0x41", "0xd4f", "Neoverse-V2"),
        ("0x61", "0x022", "Icestorm-M1"),
        ("0xc0", "0xac3", "Ampere-1"),
    ],
)
def test_a_core_is_named_by_its_two_numbers(implementer: str, part: str, name: str) -> None:
    assert arm.name(implementer, part) == name


@pytest.mark.parametrize(
    ("implementer", "part"),
    [
        ("0x41", "0x123"),
        ("0x99", "0xd0c"),
        (None, "0xd0c"),
        ("0x41", None),
        ("65", "0xd0c"),
        ("0x41", "0xD0C and more"),
    ],
    ids=["part", "implementer", "no implementer", "no part", "decimal", "words"],
)
def test_what_is_in_no_table_or_is_no_number_has_no_name(implementer: str | None, part: str | None) -> None:
    assert arm.name(implementer, part) is None

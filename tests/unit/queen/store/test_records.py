"""How a row of the table hives is read, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rbee.queen.store.records import COLUMNS, Row, as_stored, read_hive
from rbee.wire.codec import encode
from tests.unit.queen.store.engines import DEVICES

GOOD = {
    "id": "a", "host": "a", "port": 8600, "status": "online", "devices": json.dumps(encode(DEVICES)),
    "created_at_ms": 1, "updated_at_ms": 2, "wanted": 1, "machine": "m", "credential": "c",
    "address": "10.0.0.1", "labels": '{"rack": "3"}', "cordoned": "loud",
    "former_credential": "f",
    "report": "i f",
}  # fmt: skip


def read(**other: Any) -> Row:
    columns = GOOD | other
    return read_hive(tuple(columns[name] for name in COLUMNS.split(", ")))


def test_a_row_has_what_its_columns_have() -> None:
    assert read() == Row(
        "a", "a", 8600, "online", DEVICES, 1, 2, True, "m", "c", "10.0.0.1", {"rack": "3"}, "loud", "f",
        "i f",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("id", "no name!", "id must be made of"),
        ("host", "", "host must have 1 to 253 characters"),
        ("port", 0, "port must be from 1 to 65535"),
        ("status", "asleep", "status must be one of"),
        ("devices", "{}", "devices.cpu is missing"),
        ("devices", "{", "devices must be JSON"),
        ("created_at_ms", -1, "created_at_ms must be from 0"),
        ("updated_at_ms", 1 << 62, "updated_at_ms must be from 0"),
        ("address", "x" * 3000, "address must have 0 to 2000 characters"),
        ("labels", '{"no key!": "b"}', "labels[0].key must be made of"),
        ("labels", "[1]", "labels[0] must be a JSON object"),
        ("labels", "{", "labels must be a JSON array"),
        ("cordoned", "x" * 3000, "cordoned must have 0 to 2000 characters"),
    ],
)
def test_a_bad_row_is_read_with_what_is_wrong_and_the_rest_of_it(
    column: str, value: Any, complaint: str
) -> None:
    row = read(**{column: value})

    assert row.problem is not None
    assert complaint in row.problem
    assert row.machine == "m"


@pytest.mark.parametrize(
    "name", ["devices", "labels", "wanted", "cordoned", "port", "machine", "former_credential"]
)
def test_a_field_is_stored_as_it_is_read(name: str) -> None:
    stored = as_stored(getattr(read(), name))

    assert getattr(read(**{name: stored}), name) == getattr(read(), name)


def test_devices_are_stored_as_people_read_them() -> None:
    stored = as_stored(DEVICES)

    assert isinstance(stored, str)
    assert "größe cpu" in stored

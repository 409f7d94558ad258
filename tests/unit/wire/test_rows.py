"""A list is shown whatever is in one of its rows, and that row says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rbee.client.answers import read_answer
from rbee.errors import Unreachable
from rbee.wire.catalog import AuditEntry
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu
from rbee.wire.events import FeedEvent
from rbee.wire.fleet import TokenView
from rbee.wire.hives import HiveView
from rbee.wire.routes import HiveRoutes, QueenRoutes, Route
from rbee.wire.rows import read_row
from rbee.wire.samples import GpuSample
from rbee.wire.types import Name
from tests.unit.wire_values import HIVE_VIEW

TOKEN = TokenView("0123abcd", "gpu1", 1, 1_000, 2_000, is_revoked=False)
ENTRY = AuditEntry(7, 1_000, "the labels of hive gpu1 are a=b", "gpu1", 1000, None, "7" * 32)
EVENT = FeedEvent(
    f"{'a' * 16}-1",
    "2026-01-31T12:00:00Z",
    "hive-online",
    "queen bee",
    5,
    "it is online",
    "gpu1",
    "7" * 32,
    0,
)
LISTS = (
    (QueenRoutes.HIVES, "hives", HIVE_VIEW, {}),
    (QueenRoutes.TOKENS, "tokens", TOKEN, {}),
    (QueenRoutes.AUDIT, "entries", ENTRY, {}),
    (QueenRoutes.LAST_EVENTS, "events", EVENT, {"id": EVENT.id}),
)
WRONG: tuple[Any, ...] = (
    None, True, 7.5, -1, 2**63, 10**400, "x" * 3000, "no name!", "\ud800", [], [None], {}, {"a": 1},
)  # fmt: skip
MISSING = object()


def spoiled(row: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The row with each of its fields missing, or wrong in one way; what is allowed there is among it."""
    for name in row._fields[:-1]:  # the last is the problem itself
        for wrong in (*WRONG, MISSING):
            told = {other: value for other, value in encode(row).items() if other != name}
            yield name, told if wrong is MISSING else {**told, name: wrong}


def is_right(row: Any, told: Any) -> bool:
    try:
        decode(type(row), told)
    except Exception:
        return False
    return True


@pytest.mark.parametrize(("route", "name", "row", "rest"), LISTS, ids=lambda part: getattr(part, "name", ""))
def test_a_bad_row_hides_no_other_and_says_what_is_wrong_with_it(
    route: Route, name: str, row: Any, rest: dict[str, Any]
) -> None:
    bad = 0
    for field, told in spoiled(row):
        content = json.dumps({name: [encode(row), told, encode(row)], **rest}).encode()

        before, found, after = getattr(read_answer(route, content, 200), name)

        assert (before, after) == (row, row)
        if is_right(row, told):
            continue
        bad += 1
        assert field in found.problem
        decode(type(row), json.loads(json.dumps(encode(found))))  # as agreed all the same
    assert bad > 3 * len(row._fields)


def test_a_row_that_is_no_object_is_a_row_all_the_same() -> None:
    content = json.dumps({"entries": [3, encode(ENTRY)]}).encode()

    bad, good = read_answer(QueenRoutes.AUDIT, content, 200).entries

    assert bad.problem == "it must be a JSON object, and is 3"
    assert good == ENTRY


@pytest.mark.parametrize("answer", [{}, {"entries": 3}, [], {"entries": [encode(ENTRY)] * 1001}])
def test_what_is_no_list_at_all_is_refused_as_before(answer: Any) -> None:
    with pytest.raises(Unreachable, match="the answer is not valid: "):
        read_answer(QueenRoutes.AUDIT, json.dumps(answer).encode(), 200)


def test_one_thing_that_was_asked_for_is_right_or_refused() -> None:
    with pytest.raises(Unreachable, match="the answer is not valid: port must be from 1 to 65535"):
        read_answer(QueenRoutes.HIVE, json.dumps({**encode(HIVE_VIEW), "port": 0}).encode(), 200)


def test_a_bad_card_takes_its_machine_s_others_with_it_no_more() -> None:
    good = GpuSample(1, None, None, 50.0, 1, 2, 40.0, 100.0)
    sample = {
        "hive_id": "gpu1", "at": "2026-01-31T12:00:00Z", "load_1": 1.0, "load_5": 1.0, "load_15": 1.0,
        "cpu_percent": 1.0, "cpu_span_seconds": 1.0, "memory_used_bytes": 1, "memory_total_bytes": 2,
        "gpus": [{**encode(good), "index": 0, "power_watts": -1.0}, encode(good)],
    }  # fmt: skip

    found = read_answer(HiveRoutes.SAMPLE, json.dumps(sample).encode(), 200)

    assert found.gpus[0].power_watts is None
    assert found.gpus[0].problem == "power_watts must be from 0 to 1000000, and is -1.0"
    assert found.gpus[1] == good


def test_a_fault_in_a_part_without_a_problem_field_is_the_problem_of_its_row() -> None:
    told = encode(HIVE_VIEW)
    told["devices"]["cpu"] = {**told["devices"]["cpu"], "cores": "many"}

    found = read_row(HiveView, told)

    assert found.problem == 'devices.cpu.cores must be a whole number, and is "many"'
    assert HIVE_VIEW.devices is not None
    assert found.devices == HIVE_VIEW.devices._replace(cpu=Cpu("AMD EPYC 7763", 2, None, 256, 512 * 2**30))


def test_a_text_that_is_too_long_is_cut_and_a_long_value_is_not_repeated_whole() -> None:
    found = read_row(AuditEntry, {**encode(ENTRY), "text": "x" * 5000})

    assert found.text == "x" * 2000
    assert found.problem is not None
    assert len(found.problem) < 200


def test_a_name_that_is_none_is_not_made_up() -> None:
    found = read_row(HiveView, {**encode(HIVE_VIEW), "id": "no name!"})

    assert decode(Name, found.id) == "unreadable"
    assert found.problem is not None
    assert found.problem.endswith('and is "no name!"')

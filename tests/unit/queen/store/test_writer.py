"""What one write is, on every engine: all or nothing, audited in it, and told afterwards."""

from __future__ import annotations

import os

import pytest

from rbee.errors import TooMany
from rbee.queen.store import audit
from rbee.queen.store.store import Store
from rbee.queen.store.writer import Transaction
from tests.unit.queen.store.engines import BY, DEVICES, Journal


async def test_each_change_is_told_once_with_who_asked_for_it(store: Store, journal: Journal) -> None:
    await store.hives.add("a", "a", None, by=BY)
    await store.hives.set_online("a", DEVICES, by=BY)
    await store.hives.set_devices("a", DEVICES._replace(gpus=()), by=BY)
    await store.hives.set_status("a", "offline", wanted=False, by=BY)
    await store.hives.add("a", "a", 1, by=BY)
    await store.hives.remove("a", by=BY)

    assert journal.texts == [
        "hive a (host a) should be online",
        "hive a is online in the hive catalog, with its devices",
        "hive a has other devices in the hive catalog",
        "hive a is offline, and should stay offline",
        "hive a (host a, port 1) should be online",
        "hive a is removed from the hive catalog",
    ]
    assert all(fields == {"hive": "a", **BY} for _, fields in journal.told)
    assert [entry.text for entry in await store.audit.last(10, None)] == journal.texts


async def test_what_nobody_asked_for_is_told_as_the_queens_own(store: Store, journal: Journal) -> None:
    await store.hives.add("a", "a", None)

    ((_, fields),) = journal.told
    assert fields == {"hive": "a", "actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


async def test_a_write_that_changes_nothing_is_neither_told_nor_audited(
    store: Store, journal: Journal
) -> None:
    await store.hives.add("a", "a", 1, by=BY)
    journal.told.clear()
    await store.hives.add("a", "a", 1, by=BY)
    await store.hives.set_status("a", "pending", by=BY)
    await store.hives.set_status("b", "offline", by=BY)
    await store.hives.set_online("b", DEVICES, by=BY)
    await store.hives.remove("b", by=BY)

    assert journal.told == []
    assert len(await store.audit.last(10, None)) == 1


async def test_a_change_whose_audit_fails_is_not_made_and_not_told(
    store: Store, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise TooMany("no more entries")

    with monkeypatch.context() as now:
        now.setattr(audit, "enter", fail)
        with pytest.raises(TooMany):
            await store.hives.add("a", "a", 1, by=BY)

    assert await store.hives.all() == []
    assert journal.told == []
    assert (await store.hives.add("a", "a", 1, by=BY)).id == "a"


async def test_a_write_that_fails_in_its_middle_leaves_nothing_of_itself(
    store: Store, journal: Journal, wanted: list[bool]
) -> None:
    def write(transaction: Transaction) -> None:
        transaction.session.execute(
            "INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted)"
            " VALUES ('a', 'a', 1, 'pending', 1, 1, 1)"
        )
        transaction.note("a", "hive a is half made", BY)
        raise TooMany("no more")

    with pytest.raises(TooMany):
        await store.writer.write(write)

    assert await store.hives.all() == []
    assert await store.audit.last(10, None) == []
    assert journal.told == []
    assert wanted == [False]


async def test_whether_any_hive_is_wanted_is_told_at_the_beginning_and_after_each_write(
    store: Store, wanted: list[bool]
) -> None:
    assert wanted == [False]
    await store.hives.add("a", "a", None)
    await store.hives.add("b", "b", None)
    await store.hives.set_status("a", "offline", wanted=False)
    await store.hives.remove("b")

    assert wanted == [False, True, True, True, False]


async def test_a_mark_that_cannot_be_left_fails_no_write(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_is_wanted: bool) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(store.writer, "_wanted", full)

    assert (await store.hives.add("a", "a", None)).id == "a"
    assert "the marker for the next boot could not be changed: No space left on device" in caplog.text

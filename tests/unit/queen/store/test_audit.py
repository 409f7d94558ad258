"""Who changed what, on every engine."""

from __future__ import annotations

import os

import pytest

from rbee.queen.store import audit
from rbee.queen.store.engine import Session
from rbee.queen.store.records import Actor, Change
from rbee.queen.store.store import Store
from rbee.wire.hives import SetCordon
from tests.unit.queen.joined import OTHER, Queen
from tests.unit.queen.store.engines import BY, DEVICES, Clock, change

DAEMON = 900

OPERATOR: Actor = {"actor_uid": "1000", "actor_pid": "1"}
OF_DAEMON: Actor = {"actor_uid": str(DAEMON), "actor_pid": "1"}
OF_DAEMON_ASKED: Actor = {**OF_DAEMON, "job_id": "7" * 32}
OF_MACHINE: Actor = {"actor_credential": "c" * 16}


async def enter(store: Store, *changes: tuple[str | None, str, Actor]) -> None:
    def write(session: Session) -> None:
        for hive_id, text, by in changes:
            audit.enter(session, Change(hive_id, text, by), at_ms=1, daemons={DAEMON})

    await store.engine.write(write, lambda _: None)


async def texts(store: Store) -> list[str]:
    return [entry.text for entry in await store.audit.last(100, None)]


async def test_an_entry_has_what_when_by_whom_and_for_which_job(store: Store, clock: Clock) -> None:
    await store.hives.add("a", "a", None, by=BY)

    (entry,) = await store.audit.last(10, None)

    assert (entry.text, entry.at_ms, entry.hive) == (
        "hive a (host a) should be online", clock.now, "a",
    )  # fmt: skip
    assert (entry.actor_uid, entry.actor_credential, entry.job_id) == (1000, None, "7" * 32)


async def test_what_nobody_asked_for_is_the_queens_own(store: Store) -> None:
    await store.hives.add("a", "a", None)

    (entry,) = await store.audit.last(10, None)
    assert (entry.actor_uid, entry.job_id) == (os.geteuid(), None)


async def test_the_last_entries_come_in_order_of_one_hive_or_of_all(store: Store) -> None:
    await enter(store, *((hive_id, f"{hive_id}{n}", OPERATOR) for n in range(3) for hive_id in ("a", "b")))

    assert await texts(store) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert [entry.text for entry in await store.audit.last(2, None)] == ["a2", "b2"]
    assert [entry.text for entry in await store.audit.last(2, "A")] == ["a1", "a2"]
    assert await store.audit.last(2, "c") == []


async def test_who_comes_and_goes_is_no_deed(store: Store) -> None:
    await store.hives.add("a", "a", None, by=BY)
    await store.hives.set_status("a", "offline")
    await store.hives.set_status("a", "online")
    await store.hives.set_online("a", DEVICES)
    await store.hives.set_status("a", "offline", wanted=False, by=BY)

    assert await texts(store) == [
        "hive a (host a) should be online",
        "hive a is online in the hive catalog, with its devices",
        "hive a is offline, and should stay offline",
    ]


async def test_the_oldest_of_an_operator_s_give_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT", 3)

    await enter(store, ("a", "machine", OF_MACHINE), *(("a", f"o{n}", OPERATOR) for n in range(5)))

    assert await texts(store) == ["machine", "o2", "o3", "o4"]


async def test_machines_push_out_nothing_of_an_operator_s_and_one_hive_nothing_of_another_s(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT_MACHINES", 6)
    monkeypatch.setattr(audit, "AUDIT_KEPT_A_HIVE", 4)

    await enter(
        store,
        ("a", "operator", OPERATOR),
        ("a", "asked", OF_DAEMON_ASKED),
        ("b", "other", OF_MACHINE),
        *(("a", f"d{n}", OF_DAEMON) for n in range(3)),
        *(("a", f"m{n}", OF_MACHINE) for n in range(3)),
    )
    assert await texts(store) == ["operator", "asked", "other", "d2", "m0", "m1", "m2"]

    await enter(store, *((None, f"q{n}", OF_DAEMON) for n in range(4)))
    assert await texts(store) == ["operator", "asked", "m1", "m2", "q0", "q1", "q2", "q3"]


async def test_a_high_uid_is_read_as_a_queen_before_this_one_stored_it(store: Store) -> None:
    for uid in ("3420080244", "-874887052"):
        await enter(store, ("a", "x", {"actor_uid": uid, "actor_pid": "1"}))

    entries = await store.audit.last(10, None)

    assert [(entry.actor_uid, entry.problem) for entry in entries] == [(3420080244, None)] * 2


async def test_a_bad_entry_says_what_is_wrong_and_hides_no_other(store: Store) -> None:
    await enter(store, ("a", "bad", BY), ("b", "good", BY))
    await change(store, f"UPDATE audit SET actor_uid = {-1 << 40}, job_id = 'x' WHERE hive = 'a'")

    bad, good = await store.audit.last(10, None)

    assert (bad.text, bad.actor_uid, bad.job_id) == ("bad", None, None)
    assert bad.problem is not None
    assert "actor_uid must be from 0 to" in bad.problem
    assert "job_id must have 32 characters, and has 1" in bad.problem
    assert good.problem is None


@pytest.mark.deadline(10)
async def test_the_audit_is_bounded_and_the_oldest_go(queen: Queen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT", 3)

    await queen.member()
    for number in range(5):
        await queen.hives.hive("gpu1").standing.set_cordon(SetCordon(f"reason {number}"), OPERATOR)
    joined, *told = [entry.text for entry in await queen.catalog.audit.last(100, None)]
    assert joined.startswith("hive gpu1 joined from 10.0.0.1")
    assert told == [f"hive gpu1 is cordoned: reason {number}" for number in (2, 3, 4)]


@pytest.mark.deadline(10)
async def test_what_machines_do_pushes_nothing_of_an_operator_s_out_of_the_audit(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT_MACHINES", 6)
    monkeypatch.setattr(audit, "AUDIT_KEPT_A_HIVE", 4)

    liar = await queen.member()
    other = await queen.member("gpu2", machine=OTHER)
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("broken"), OPERATOR)
    for number in range(20):
        await queen.catalog.hives.set_address("gpu1", f"10.0.1.{number}", liar.credential, by=liar.fields)
    await queen.catalog.hives.set_address("gpu2", "10.0.2.1", other.credential, by=other.fields)
    told = [entry.text for entry in await queen.catalog.audit.last(100, None)]
    operators = [text for text in told if ("token" in text and "was made" in text) or "cordoned" in text]
    assert len(operators) == 3
    # One hive has as many as it may, and another's are there beside it.
    assert [text for text in told if "10.0.1." in text] == [
        f"hive gpu1 is at 10.0.1.{number}" for number in (16, 17, 18, 19)
    ]
    assert any(text.startswith("hive gpu2 joined") for text in told)
    assert told[-1] == "hive gpu2 is at 10.0.2.1"

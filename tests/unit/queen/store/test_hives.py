"""The hives of the catalog, on every engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rbee.errors import BadInput, BadToken, NameTaken, UnknownHive
from rbee.queen.store.records import Joining, Row
from rbee.queen.store.store import Store
from rbee.wire.fleet import TokenView
from rbee.wire.hives import LABELS_MAX
from tests.unit.queen.store.engines import BY, DEVICES, Clock, Journal, change, rows

NOW = Clock().now

JOINING = Joining("gpu1", "m" * 32, "c" * 16, "10.0.0.1", "0123abcd", "hash")


async def test_a_hive_is_added_as_pending_and_wanted(store: Store) -> None:
    row = await store.hives.add("localhost", "localhost", 8601)

    assert row == Row("localhost", "localhost", 8601, "pending", None, NOW, NOW, True)
    assert await store.hives.find("localhost") == row
    assert await store.hives.all() == [row]


async def test_a_hive_is_added_with_the_port_that_there_is_unless_another_is_asked_for(store: Store) -> None:
    assert (await store.hives.add("a", "a", None)).port == 8600
    assert (await store.hives.add("a", "a", 8601)).port == 8601
    assert (await store.hives.add("a", "a", None)).port == 8601


async def test_adding_twice_keeps_one_row_its_devices_and_when_it_was_made(
    store: Store, clock: Clock
) -> None:
    clock.now = 1
    await store.hives.add("localhost", "localhost", 8600)
    clock.now = 2
    await store.hives.set_online("localhost", DEVICES)
    clock.now = 3

    row = await store.hives.add("localhost", "localhost", 8600)

    assert row == Row("localhost", "localhost", 8600, "online", DEVICES, 1, 2, True)
    assert await store.hives.all() == [row]


async def test_adding_again_takes_the_new_port_and_wants_the_hive(store: Store, clock: Clock) -> None:
    clock.now = 1
    await store.hives.add("localhost", "localhost", 8600)
    await store.hives.set_status("localhost", "offline", wanted=False)
    clock.now = 2

    row = await store.hives.add("localhost", "localhost", 8601)

    assert row == Row("localhost", "localhost", 8601, "offline", None, 1, 2, True)


async def test_going_online_stores_status_and_devices_together(store: Store) -> None:
    await store.hives.add("localhost", "localhost", 8600)
    await store.hives.set_status("localhost", "offline", wanted=False)

    await store.hives.set_online("localhost", DEVICES)

    row = await store.hives.find("localhost")
    assert row is not None
    assert (row.status, row.devices, row.wanted) == ("online", DEVICES, True)


async def test_a_change_of_status_is_written_once(store: Store, clock: Clock) -> None:
    await store.hives.add("localhost", "localhost", 8600)
    await store.hives.set_online("localhost", DEVICES)
    for clock.now in (5, 6):
        await store.hives.set_status("localhost", "offline")

    row = await store.hives.find("localhost")

    assert row is not None
    assert (row.status, row.wanted, row.devices, row.updated_at_ms) == ("offline", True, DEVICES, 5)


async def test_other_devices_are_stored_and_nothing_else_is_touched(store: Store, clock: Clock) -> None:
    await store.hives.add("localhost", "localhost", 8600)
    await store.hives.set_online("localhost", DEVICES)
    await store.hives.set_status("localhost", "offline", wanted=False)
    fewer = DEVICES._replace(gpus=())
    for clock.now in (5, 6):
        await store.hives.set_devices("localhost", fewer)

    row = await store.hives.find("localhost")

    assert row is not None
    assert (row.devices, row.status, row.wanted, row.updated_at_ms) == (fewer, "offline", False, 5)


async def test_a_hive_that_is_looked_at_is_written_and_nobody_is_told(
    store: Store, clock: Clock, journal: Journal
) -> None:
    await store.hives.add("localhost", "localhost", 8600)
    journal.told.clear()
    clock.now = 5

    await store.hives.touch("localhost")

    assert await rows(store, "SELECT updated_at_ms FROM hives") == [(5,)]
    assert journal.told == []


async def test_what_is_not_there_is_not_there(store: Store) -> None:
    assert await store.hives.find("nobody") is None
    assert await store.hives.remove("nobody") is False
    await store.hives.touch("nobody")
    await store.hives.set_status("nobody", "offline")
    await store.hives.set_online("nobody", DEVICES)
    await store.hives.set_devices("nobody", DEVICES)
    assert await store.hives.all() == []


async def test_a_hive_is_removed_once(store: Store) -> None:
    await store.hives.add("localhost", "localhost", 8600)

    assert [await store.hives.remove("localhost") for _ in range(2)] == [True, False]
    assert await store.hives.all() == []


async def test_hives_come_in_the_order_of_their_ids(store: Store) -> None:
    for name in ("c", "a", "B", "b"):
        await store.hives.add(name, name, 1)

    assert [row.id for row in await store.hives.all()] == ["B", "a", "b", "c"]


async def test_writes_at_once_all_arrive(store: Store) -> None:
    await asyncio.gather(*(store.hives.add(f"hive{n % 40}", f"hive{n % 40}", 1 + n) for n in range(200)))
    await asyncio.gather(
        *(store.hives.set_online(f"hive{n}", DEVICES) for n in range(40)),
        *(store.hives.set_status(f"hive{n}", "offline") for n in range(40)),
    )

    found = await store.hives.all()
    assert {(row.status, row.devices) for row in found} == {("offline", DEVICES)}
    assert {row.port for row in found} == set(range(161, 201))


@pytest.mark.parametrize("text", ["{", "null", "[]", '{"cpu": {"colour": "red"}}'])
async def test_devices_that_another_version_wrote_are_unknown_until_they_are_written_anew(
    store: Store, text: str
) -> None:
    await store.hives.add("localhost", "localhost", 8600)
    await change(store, f"UPDATE hives SET devices = '{text}'")

    row = await store.hives.find("localhost")

    assert row is not None
    assert row.devices is None
    await store.hives.set_devices("localhost", DEVICES)
    row = await store.hives.find("localhost")
    assert row is not None
    assert row.devices == DEVICES


async def test_devices_are_kept_with_the_process_and_fingerprint_that_reported_them(store: Store) -> None:
    async def report() -> str | None:
        row = await store.hives.find("gpu1")
        assert row is not None
        return row.report

    await store.hives.add("gpu1", "gpu1", None)
    assert await report() is None
    await store.hives.set_online("gpu1", DEVICES, "process1 f1")
    assert await report() == "process1 f1"
    await store.hives.set_devices("gpu1", DEVICES, "process1 f2")
    assert await report() == "process1 f2"
    await store.hives.set_devices("gpu1", DEVICES)
    assert await report() is None


async def test_the_report_of_a_hive_that_was_removed_is_forgotten(store: Store) -> None:
    await store.hives.add("gpu1", "gpu1", None)
    await store.hives.set_online("gpu1", DEVICES, "process1 f1")

    await store.hives.remove("gpu1")
    await store.hives.set_devices("gpu1", DEVICES, "process1 f1")  # that was in progress
    row = await store.hives.add("gpu1", "gpu1", None)

    assert row.report is None


# Marks


async def test_labels_are_set_and_taken_away_in_one(store: Store) -> None:
    await store.hives.add("gpu1", "gpu1", None)

    await store.hives.set_labels("gpu1", {"rack": "3", "spare": ""}, (), by=BY)
    row = await store.hives.set_labels("gpu1", {"rack": "4"}, ("spare", "x"), by=BY)

    assert row.labels == {"rack": "4"}
    assert await store.hives.find("gpu1") == row


async def test_labels_are_no_more_than_there_may_be_and_of_a_hive_that_is_there(store: Store) -> None:
    await store.hives.add("gpu1", "gpu1", None)
    await store.hives.set_labels("gpu1", {f"k{n}": "" for n in range(LABELS_MAX)}, (), by=BY)

    with pytest.raises(BadInput, match=f"at most {LABELS_MAX} labels"):
        await store.hives.set_labels("gpu1", {"one": "more"}, (), by=BY)
    with pytest.raises(UnknownHive):
        await store.hives.set_labels("gpu9", {}, (), by=BY)

    row = await store.hives.find("gpu1")
    assert row is not None
    assert "one" not in row.labels


async def test_a_cordon_is_a_reason_until_it_is_taken_away(store: Store, journal: Journal) -> None:
    await store.hives.add("gpu1", "gpu1", None)
    reasons = []
    for reason in ("a fan is loud", "a fan is loud", None):
        await store.hives.set_cordon("gpu1", reason, by=BY)
        row = await store.hives.find("gpu1")
        assert row is not None
        reasons.append(row.cordoned)

    assert reasons == ["a fan is loud", "a fan is loud", None]
    assert journal.texts[1:] == [
        "hive gpu1 is cordoned: a fan is loud",
        "hive gpu1 is not cordoned any more",
    ]


# Machines that join


async def with_token(store: Store, **other: Any) -> None:
    token = TokenView("0123abcd", None, 3, NOW, NOW + 1000, is_revoked=False)
    await store.tokens.add(token._replace(**other), "hash", by=BY)


async def uses_left(store: Store) -> int:
    return (await store.tokens.all())[0].uses_left


async def test_a_machine_that_joins_becomes_a_hive_and_takes_a_use(store: Store) -> None:
    await with_token(store)

    row = await store.hives.join(JOINING, by=BY)

    assert row == Row(
        "gpu1", "gpu1", 8600, "pending", None, NOW, NOW, True, "m" * 32, "c" * 16, "10.0.0.1"
    )  # fmt: skip
    assert row.is_remote
    assert await store.hives.find("gpu1") == row
    assert await uses_left(store) == 2


async def test_a_machine_that_joins_again_keeps_its_row_and_gets_another_credential(
    store: Store, clock: Clock
) -> None:
    await with_token(store)
    await store.hives.join(JOINING, by=BY)
    await store.hives.set_online("gpu1", DEVICES)
    await store.hives.set_status("gpu1", "offline", wanted=False)
    clock.now = NOW + 1

    row = await store.hives.join(JOINING._replace(credential="d" * 16, address="10.0.0.2"), by=BY)

    assert (row.created_at_ms, row.devices, row.wanted) == (NOW, DEVICES, True)
    assert (row.credential, row.address) == ("d" * 16, "10.0.0.2")


async def test_the_credential_that_a_hive_has_used_is_kept_until_it_uses_that_of_its_last_join(
    store: Store,
) -> None:
    await with_token(store, uses_left=3)
    first, second, third = (letter * 16 for letter in "cde")
    for credential in (first, second, third):
        row = await store.hives.join(JOINING._replace(credential=credential), by=BY)

    assert row.credentials == (third, first)
    for used, kept in ((first, (third, first)), (third, (third,))):
        await store.hives.set_address("gpu1", "10.0.0.1", used, by=BY)
        (row,) = await store.hives.all()
        assert row.credentials == kept


@pytest.mark.parametrize("name", ["gpu1", "GPU1"])
async def test_the_name_of_another_machine_is_taken_in_whatever_case_and_costs_no_use(
    store: Store, name: str
) -> None:
    await with_token(store)
    await store.hives.join(JOINING, by=BY)
    another = JOINING._replace(hive_id=name, machine="n" * 32, credential="d" * 16)

    for join in (store.hives.check_join(another), store.hives.join(another, by=BY)):
        with pytest.raises(NameTaken, match=r"the name gpu1 is taken by the hive at 10\.0\.0\.1"):
            await join

    assert await uses_left(store) == 2
    assert len(await store.hives.all()) == 1


async def test_a_machine_that_is_a_hive_already_is_none_under_another_name(store: Store) -> None:
    await with_token(store)
    await store.hives.join(JOINING, by=BY)

    with pytest.raises(NameTaken, match=r"is the hive gpu1 already, which last connected from 10\.0\.0\.1"):
        await store.hives.join(JOINING._replace(hive_id="gpu2", credential="d" * 16), by=BY)

    assert await uses_left(store) == 2


async def test_of_two_names_that_differ_by_case_alone_each_machine_has_its_own(store: Store) -> None:
    await with_token(store)
    await store.hives.join(JOINING, by=BY)
    # As a catalog of 0.4.0 may have them.
    await change(
        store,
        "INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted, machine)"
        " VALUES ('GPU1', 'GPU1', 8600, 'pending', 1, 1, 1, 'other')",
    )

    for joining in (JOINING, JOINING._replace(hive_id="GPU1", machine="other")):
        await store.hives.check_join(joining)


@pytest.mark.parametrize(
    ("token", "asked", "fault"),
    [
        ({}, {"token_id": "9" * 8}, "this queen did not issue the token"),
        ({}, {"token_hash": "größe"}, "this queen did not issue the token"),
        ({"uses_left": 0}, {}, "is spent"),
        ({"expires_at_ms": NOW}, {}, "has expired"),
        ({"hive": "gpu7"}, {}, "is for the hive gpu7"),
    ],
)
async def test_nobody_joins_with_a_token_that_is_not_good(
    store: Store, token: dict[str, Any], asked: dict[str, Any], fault: str
) -> None:
    await with_token(store, **token)
    joining = JOINING._replace(**asked)

    for join in (store.hives.check_join(joining), store.hives.join(joining, by=BY)):
        with pytest.raises(BadToken, match=fault):
            await join

    assert await store.hives.all() == []


async def test_a_token_is_good_for_its_hive_in_whatever_case_until_it_is_revoked(store: Store) -> None:
    await with_token(store, hive="GPU1")
    await store.hives.check_join(JOINING)

    await store.tokens.revoke("0123abcd", by=BY)

    with pytest.raises(BadToken, match="has been revoked"):
        await store.hives.check_join(JOINING)


async def test_another_address_is_told_and_the_same_is_not(store: Store, journal: Journal) -> None:
    await with_token(store)
    await store.hives.join(JOINING, by=BY)
    journal.told.clear()

    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2"):
        await store.hives.set_address("gpu1", address, "c" * 16, by=BY)

    assert journal.texts == ["hive gpu1 is at 10.0.0.2"]

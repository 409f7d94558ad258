"""Clients' keys in the catalog, on every engine."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.errors import NameTaken, TooMany, UnknownKey
from rbee.queen.store import keys
from rbee.queen.store.keys import KeyRow, Use
from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import BY, Clock, Journal, change


def key(name: str, number: int = 1, **other: Any) -> KeyRow:
    fields: dict[str, Any] = {"models": (), "expires_at_ms": None} | other
    return KeyRow(
        name=name, hash=f"{number:064}", created_at_ms=number, is_revoked=False, uses=0, last_used_ms=None,
        **fields,
    )  # fmt: skip


async def test_keys_are_kept_by_name(store: Store, journal: Journal) -> None:
    made = [key("bob", 1, models=("bee", "wasp")), key("ada", 2, expires_at_ms=10**15)]
    for one in made:
        await store.keys.add(one, by=BY)

    assert await store.keys.all() == [made[1], made[0]]
    assert journal.told == [
        ("key bob was made, for the models bee, wasp", BY),
        ("key ada was made, for all models", BY),
    ]


async def test_a_key_is_revoked_once_and_stays_so(store: Store, journal: Journal) -> None:
    await store.keys.add(key("ada"), by=BY)

    revoked = [await store.keys.revoke("ada", by=BY) for _ in range(2)]

    assert [one.is_revoked for one in revoked] == [True, True]
    assert journal.texts[1:] == ["key ada is revoked"]
    with pytest.raises(UnknownKey, match="there is no key bob"):
        await store.keys.revoke("bob", by=BY)


async def test_a_name_is_free_again_when_its_key_is_of_no_use(store: Store, clock: Clock) -> None:
    await store.keys.add(key("ada", 1), by=BY)
    with pytest.raises(NameTaken) as caught:
        await store.keys.add(key("ada", 2), by=BY)
    assert caught.value.hint == "rbeectl key revoke ada"

    await store.keys.revoke("ada", by=BY)
    await store.keys.add(key("ada", 3, expires_at_ms=clock.now + 5), by=BY)
    clock.now += 5
    await store.keys.add(key("ada", 4), by=BY)

    assert await store.keys.all() == [key("ada", 4)]


async def test_keys_are_bounded_and_the_oldest_of_no_use_makes_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    await store.keys.add(key("ada", 1), by=BY)
    await store.keys.add(key("bob", 2), by=BY)
    with pytest.raises(TooMany, match="there are 2 keys"):
        await store.keys.add(key("eve", 3), by=BY)

    await store.keys.revoke("bob", by=BY)
    assert await store.keys.add(key("eve", 3), by=BY) == ["bob"]
    assert [one.name for one in await store.keys.all()] == ["ada", "eve"]


async def test_uses_are_stored_and_what_the_audit_is_to_have(store: Store, journal: Journal) -> None:
    await store.keys.add(key("ada", 1), by=BY)
    await store.keys.add(key("bob", 2), by=BY)

    await store.keys.note_uses(
        {"ada": Use(7, 99, "key ada was used"), "bob": Use(1, 98), "eve": Use(1, 1, "no")}
    )

    assert [(one.uses, one.last_used_ms) for one in await store.keys.all()] == [(7, 99), (1, 98)]
    assert journal.texts[2:] == ["key ada was used"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("models", "'x'"), ("models", "'[\"!\"]'"), ("hash", "'x'"), ("expires_at_ms", "-5")],
)
async def test_a_key_that_cannot_be_read_is_of_no_use_and_hides_no_other(
    store: Store, column: str, value: str
) -> None:
    await store.keys.add(key("ada", 1), by=BY)
    await store.keys.add(key("bob", 2), by=BY)
    await change(store, f"UPDATE keys SET {column} = {value} WHERE name = 'ada'")

    bad, good = await store.keys.all()

    assert good == key("bob", 2)
    assert "cannot be read" in (bad.why_useless(0) or "")


def test_a_key_is_for_some_models_or_for_all() -> None:
    assert key("ada").is_for("bee")
    assert key("ada", models=("bee",)).is_for("bee")
    assert not key("ada", models=("bee",)).is_for("wasp")

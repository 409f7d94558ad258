"""Keys of clients: what a request is refused for, and what is kept of how they are used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.errors import BadKey, CatalogFailed, KeyNotForModel, UnknownKey
from rbee.queen import keys as keys_module
from rbee.queen.keys import AUDIT_INTERVAL_MS, ClientKeys, hash_of
from rbee.queen.store import keys as keys_store
from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from rbee.wire.keys import CreatedKey, CreateKey
from tests.unit.queen.store.engines import BY, change
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


class Wall:
    """The wall clock, in ms, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(keys_module, "now_ms", wall)
    return wall


@pytest.fixture
def store(tmp_path: Path, wall: Wall):
    store = Store.open(tmp_path / "catalog.db", now_ms=wall)
    yield store
    store.close()


@pytest.fixture
def keys(store: Store) -> ClientKeys:
    return ClientKeys(store, SYSTEM)


async def loaded(store: Store) -> ClientKeys:
    """As the next queen has them."""
    keys = ClientKeys(store, SYSTEM)
    await keys.load()
    return keys


async def audit(store: Store) -> list[str]:
    return [entry.text for entry in await store.audit.last(99, None)]


def check(keys: ClientKeys, key: CreatedKey, model: str = "bee", address: str | None = None) -> str:
    return keys.check(hash_of(key.text), model, address=address).name


async def test_a_key_has_256_random_bits_and_its_text_is_in_no_file(
    keys: ClientKeys, store: Store, tmp_path: Path
) -> None:
    made = [await keys.create(CreateKey(name), BY) for name in ("ada", "bob")]
    (await store.copy()).close()

    assert made[0].text != made[1].text
    for one in made:
        assert one.text.startswith("rbee-sk-")
        assert len(one.text) == len("rbee-sk-") + 43
        for file in tmp_path.rglob("*"):
            assert file.is_dir() or one.text.removeprefix("rbee-sk-").encode() not in file.read_bytes()


async def test_a_key_is_good_for_its_models_and_after_a_restart(keys: ClientKeys, store: Store) -> None:
    some = await keys.create(CreateKey("ada", ("bee", "wasp")), BY)
    every = await keys.create(CreateKey("bob"), BY)

    for known in (keys, await loaded(store)):
        assert check(known, some) == check(known, some, "wasp") == "ada"
        assert check(known, every, "hornet") == "bob"
        assert known.check(hash_of(some.text), None).models == ("bee", "wasp")
        with pytest.raises(KeyNotForModel, match="the key ada is not for the model hornet") as caught:
            check(known, some, "hornet")
        assert caught.value.status == 403
        assert caught.value.hint == "It is for: bee, wasp"


async def test_without_a_key_of_this_queen_s_nothing_is_answered(keys: ClientKeys) -> None:
    await keys.create(CreateKey("ada"), BY)

    for shown, complaint in (
        (None, "the request has no key"),
        (hash_of("rbee-sk-other"), "this queen did not issue the key"),
    ):
        with pytest.raises(BadKey, match=complaint) as caught:
            keys.check(shown, "bee")
        assert caught.value.status == 401


async def test_a_key_is_of_no_use_once_it_has_expired(keys: ClientKeys, wall: Wall) -> None:
    key = await keys.create(CreateKey("ada", ttl_s=60), BY)
    assert key.expires_at_ms == wall.now + 60_000
    wall.now += 59_999
    check(keys, key)
    wall.now += 1

    with pytest.raises(BadKey, match="the key ada has expired"):
        check(keys, key)


async def test_a_revoked_key_is_refused_at_the_next_request_whatever_the_disk_does(
    keys: ClientKeys, store: Store
) -> None:
    key = await keys.create(CreateKey("ada"), BY)
    await change(store, "ALTER TABLE keys RENAME TO other")

    with pytest.raises(CatalogFailed):
        await keys.revoke("ada", BY)
    with pytest.raises(BadKey, match="the key ada is revoked"):
        check(keys, key)
    await change(store, "ALTER TABLE other RENAME TO keys")
    assert (await keys.revoke("ada", BY)).is_revoked
    with pytest.raises(BadKey):
        check(await loaded(store), key)
    with pytest.raises(UnknownKey):
        await keys.revoke("bob", BY)


async def test_a_name_that_is_used_again_has_only_its_new_key(keys: ClientKeys) -> None:
    former = await keys.create(CreateKey("ada"), BY)
    check(keys, former)
    await keys.revoke("ada", BY)
    new = await keys.create(CreateKey("ada"), BY)

    check(keys, new)
    with pytest.raises(BadKey, match="this queen did not issue the key"):
        check(keys, former)
    assert [(one.name, one.uses) for one in keys.all().keys] == [("ada", 1)]


async def test_uses_are_exact_in_ram_and_written_together(
    keys: ClientKeys, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "WRITE_INTERVAL", 0.05)
    key = await keys.create(CreateKey("ada"), BY)
    writing = asyncio.ensure_future(keys.run())
    for _ in range(1000):
        check(keys, key)
    assert keys.all().keys[0].uses == 1000
    assert (await store.keys.all())[0].uses == 0

    await until(lambda: _uses(store, 1000))
    check(keys, key)
    await until(lambda: _uses(store, 1001))
    writing.cancel()
    assert await audit(store) == ["key ada was made, for all models", "key ada was used 1000 times, for bee"]


async def _uses(store: Store, number: int) -> bool:
    return (await store.keys.all())[0].uses == number


async def test_the_audit_has_a_summary_at_first_then_each_hour_and_at_the_end(
    keys: ClientKeys, store: Store, wall: Wall
) -> None:
    key = await keys.create(CreateKey("ada"), BY)
    check(keys, key, address="10.0.0.1")
    await keys.write()
    for _ in range(2):
        check(keys, key, "wasp", address="10.0.0.2")
        await keys.write()
    wall.now += AUDIT_INTERVAL_MS
    check(keys, key, address="10.0.0.2")
    await keys.write()
    for number in range(7):
        check(keys, key, f"m{number}")
    await keys.write()
    await keys.write(is_last=True)
    await keys.write(is_last=True)

    assert (await audit(store))[1:] == [
        "key ada was used once, for bee, from 10.0.0.1",
        "key ada was used 3 times, for wasp, bee, from 10.0.0.2",
        "key ada was used 7 times, for m0, m1, m2, m3, m4 and 2 more",
    ]


async def test_a_use_that_cannot_be_written_is_written_later(keys: ClientKeys, store: Store) -> None:
    key = await keys.create(CreateKey("ada"), BY)
    check(keys, key)
    await change(store, "ALTER TABLE keys RENAME TO other")
    await keys.write()
    await change(store, "ALTER TABLE other RENAME TO keys")
    await keys.write()

    assert (await audit(store))[1:] == ["key ada was used once, for bee"]
    assert (await store.keys.all())[0].uses == 1


async def test_what_is_no_request_is_no_use(keys: ClientKeys) -> None:
    key = await keys.create(CreateKey("ada", ("bee",)), BY)
    keys.check(hash_of(key.text), None)
    keys.check(hash_of(key.text), "bee", counts=False)
    with pytest.raises(KeyNotForModel):
        check(keys, key, "wasp")

    assert keys.all().keys[0].uses == 0


async def test_keys_whose_names_cannot_be_read_are_not_mixed_up_with_each_other_or_another(
    keys: ClientKeys, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await keys.create(CreateKey(name), BY) for name in ("ada", "bob", "unreadable")]
    for name in ("ada", "bob"):
        await change(store, f"UPDATE keys SET name = 'no {name}!' WHERE name = '{name}'")
    again = await loaded(store)

    assert list(again.uses()) == ["unreadable", "unreadable-2", "unreadable-3"]
    assert check(again, made[2]) == "unreadable"
    monkeypatch.setattr(keys_store, "KEYS_MAX", 3)
    await again.create(CreateKey("carl"), BY)  # one that is of no use makes room

    assert check(again, made[2]) == "unreadable"
    assert sorted(row.name for row in await store.keys.all()) == ["carl", "unreadable", "unreadable"]
    assert [row.name for row in await store.keys.all() if row.problem is None] == ["carl", "unreadable"]

"""Models in the catalog, on every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import TooMany, UnknownModel
from rbee.queen.store import models
from rbee.queen.store.models import Learned
from rbee.queen.store.store import Store
from tests.unit.queen.models.rows import FETCHED, HEAD, ROW
from tests.unit.queen.store.engines import BY, Clock, Journal, change


async def test_models_are_kept_with_all_that_is_known_of_them(store: Store) -> None:
    for row in (FETCHED, ROW):
        assert await store.models.put(row, by=BY) == row

    assert await store.models.all() == [ROW, FETCHED]
    assert await store.models.find("wasp") == FETCHED
    assert await store.models.find("hornet") is None


async def test_each_change_is_in_the_audit_with_who_made_it(store: Store, journal: Journal) -> None:
    await store.models.put(ROW, by=BY)
    for _ in range(2):
        await store.models.set("bee", "model bee is served", by=BY, is_served=True, idle_s=60)
    await store.models.put(ROW._replace(context=512), by=BY)
    for _ in range(2):
        await store.models.remove("bee", by=BY)

    texts = [
        "model bee (/m/bee.gguf) is in the model catalog, on hive localhost",
        "model bee is served",
        "model bee is added again from /m/bee.gguf, on hive localhost",
        "model bee is removed from the model catalog",
    ]
    assert journal.told == [(text, {"hive": "localhost", **BY}) for text in texts]
    assert [entry.text for entry in await store.audit.last(9, "localhost")] == texts


async def test_a_state_has_its_time_and_is_in_the_journal_alone(
    store: Store, clock: Clock, journal: Journal
) -> None:
    await store.models.put(FETCHED._replace(state="fetching", path=None, head=None), by=BY)
    clock.now += 5
    row = await store.models.set_state("wasp", "ready", "", path="/store/wasp", head=HEAD)

    assert row == FETCHED._replace(since_ms=clock.now)
    assert journal.texts[-1] == "model wasp is ready in the model catalog"
    assert len(await store.audit.last(9, None)) == 1
    clock.now += 5
    row = await store.models.set_state("wasp", "ready", "")
    assert row is not None
    assert row.since_ms == clock.now - 5
    assert await store.models.set_state("hornet", "failed", "why") is None


async def test_only_what_is_there_can_be_served(store: Store) -> None:
    with pytest.raises(UnknownModel) as caught:
        await store.models.set("bee", "model bee is served", by=BY, is_served=True)
    assert (caught.value.field, caught.value.hint) == (
        "model", "rbeectl model list shows those that are",
    )  # fmt: skip


async def test_models_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MODELS_MAX", 1)
    await store.models.put(ROW, by=BY)
    await store.models.put(ROW._replace(context=5), by=BY)

    with pytest.raises(TooMany, match="the model catalog has 1 models"):
        await store.models.put(FETCHED, by=BY)
    assert [row.name for row in await store.models.all()] == ["bee"]


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("head", "'{'", "head must be JSON"),
        ("head", '\'{"format": "exe"}\'', "head.format must be"),
        ("sha256", "'xyz'", "sha256 must"),
        ("context", "-1", "context must"),
        ("path", "''", "path must"),
        ("engine", "'no engine!'", "engine must"),
        ("hive_id", "'!'", "hive_id must"),
    ],
)
async def test_a_bad_row_never_hides_the_others(
    store: Store, column: str, value: str, complaint: str
) -> None:
    for row in (ROW, FETCHED):
        await store.models.put(row, by=BY)
    await change(store, f"UPDATE models SET {column} = {value} WHERE name = 'bee'")

    bad, good = await store.models.all()

    assert good == FETCHED
    assert bad.name == "bee"
    assert complaint in (bad.problem or "")


async def test_the_most_that_a_model_has_used_is_learned(store: Store) -> None:
    await store.models.put(ROW, by=BY)
    for peak in (5, 9, 7):
        await store.models.learn(Learned("bee", 2048, "ram", "vllm", peak), ROW)
    await store.models.learn(Learned("bee", 4096, "nvidia", "vllm", 1), ROW)
    await store.models.learn(Learned("hornet", 1, "ram", "vllm", 1), ROW)

    await store.models.learn(Learned("bee", 2048, "ram", "llama-server", 2), ROW)

    assert sorted(await store.models.learned()) == [
        ("bee", 2048, "ram", "llama-server", 2),
        ("bee", 2048, "ram", "vllm", 9),
        ("bee", 4096, "nvidia", "vllm", 1),
    ]
    await store.models.remove("bee", by=BY)
    assert await store.models.learned() == []


async def test_what_is_learned_of_a_model_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "LEARNED_MAX", 2)
    await store.models.put(ROW, by=BY)
    for context in (1, 3, 2):
        await store.models.learn(Learned("bee", context, "ram", "vllm", 10 * context), ROW)

    assert sorted(one.context for one in await store.models.learned()) == [2, 3]


@pytest.mark.deadline(10)
async def test_models_survive_a_restart_and_are_in_a_copy(path: Path) -> None:
    first = Store.open(path)
    await first.models.put(FETCHED, by=BY)
    copy = await first.copy()
    path.with_name("copy.db").write_bytes(copy.read())
    copy.close()
    await first.check()
    first.close()

    again = Store.open(path)
    assert await again.models.all() == [FETCHED]
    again.close()
    (path.parent / "other").mkdir()
    restored = Store.open(path.with_name("copy.db").rename(path.parent / "other/catalog.db"))
    assert await restored.models.all() == [FETCHED]
    restored.close()

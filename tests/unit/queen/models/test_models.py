"""The models of a queen, in RAM as in the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rbee.errors import UnknownModel
from rbee.queen.models.models import Models
from rbee.queen.store.models import Learned
from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from rbee.wire.models import Serve
from tests.unit.queen.models.rows import FETCHED, HEAD, ROW
from tests.unit.queen.store.engines import BY, change

pytestmark = pytest.mark.deadline(10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "catalog.db")
    yield store
    store.close()


@pytest.fixture
def models(store: Store) -> Models:
    return Models(store, SYSTEM)


async def loaded(store: Store) -> Models:
    """As the next queen has them."""
    models = Models(store, SYSTEM)
    await models.load()
    return models


async def test_the_next_queen_has_the_same(models: Models, store: Store) -> None:
    for row in (FETCHED, ROW):
        await models.put(row, BY)
    await models.serve("bee", Serve(context=512, idle_s=7, is_pinned=True, engine="vllm"), BY)
    await models.learn(Learned("bee", 512, "ram", "vllm", 99))

    again = await loaded(store)

    assert [model.row for model in again.all()] == [model.row for model in models.all()]
    assert [model.name for model in again.all()] == ["bee", "wasp"]
    assert again.learned("bee", 512, "ram") == 99
    assert again.view(again.model("bee")) == models.view(models.model("bee"))


async def test_serving_leaves_what_is_not_given(models: Models, store: Store) -> None:
    await models.put(ROW, BY)
    await models.serve("bee", Serve(context=512, idle_s=7, is_pinned=True), BY)
    await models.serve("bee", Serve(), BY)
    view = await models.serve("bee", Serve(is_pinned=False), BY)

    assert (view.is_served, view.context, view.idle_s, view.is_pinned) == (True, 512, 7, False)
    assert [entry.text for entry in await store.audit.last(9, None)][1:] == [
        "model bee is served, with a context of 512 tokens, stopped after 7 s without a request, pinned",
        "model bee is served, not pinned",
    ]


async def test_a_choice_of_context_or_engine_is_taken_back(models: Models, store: Store) -> None:
    await models.put(ROW, BY)
    await models.serve("bee", Serve(context=512, engine="vllm"), BY)
    view = await models.serve("bee", Serve(context=0, engine=""), BY)

    assert (view.is_served, view.context, view.engine) == (True, None, None)
    assert [entry.text for entry in await store.audit.last(1, None)] == [
        "model bee is served, with the default context, by any engine",
    ]


async def test_a_model_that_is_not_there_is_not_served(models: Models) -> None:
    with pytest.raises(UnknownModel, match="model 'bee' is not in the model catalog"):
        await models.serve("bee", Serve(), BY)
    assert await models.unserve("bee", BY) is None


async def test_a_model_is_unserved_and_keeps_how_it_was_served(models: Models) -> None:
    await models.put(FETCHED, BY)
    await models.unserve("wasp", BY)

    assert models.model("wasp").row == FETCHED._replace(is_served=False)


async def test_a_model_is_put_in_the_place_of_itself(models: Models) -> None:
    first = await models.put(ROW, BY)
    second = await models.put(ROW._replace(context=5), BY)

    assert first is second
    assert first.row.context == 5


async def test_what_was_learned_is_shown_for_the_context_that_it_is_served_with(models: Models) -> None:
    await models.put(ROW, BY)
    for context, peak in ((512, 5), (4096, 9), (4096, 7)):
        await models.learn(Learned("bee", context, "ram", "vllm", peak))
    await models.learn(Learned("hornet", 1, "ram", "vllm", 1))

    assert models.view(models.model("bee")).learned_bytes == 9
    assert (await models.serve("bee", Serve(context=512), BY)).learned_bytes == 5
    assert models.learned("bee", 4096, "nvidia") is None
    assert models.learned("hornet", 1, "ram") is None


async def test_what_was_learned_is_that_of_one_engine(models: Models) -> None:
    await models.put(ROW, BY)
    for engine, peak in (("vllm", 9), ("llama-server", 5)):
        await models.learn(Learned("bee", 512, "ram", engine, peak))

    assert models.peaks("bee", 512, "ram") == {"vllm": 9, "llama-server": 5}
    assert [models.learned("bee", 512, "ram", one) for one in ("llama-server", "vllm", "x", None)] == [
        5, 9, None, 9,
    ]  # fmt: skip
    view = await models.serve("bee", Serve(engine="llama-server"), BY)
    assert view.learned_bytes == 5


@pytest.mark.parametrize(
    "change",
    [{"path": "/m/other.gguf"}, {"bytes": 6}, {"sha256": "6" * 64}, {"head": HEAD._replace(context=7)}],
    ids=["path", "bytes", "sha256", "head"],
)
@pytest.mark.parametrize("way", ["added again", "fetched again"])
async def test_what_was_learned_is_forgotten_with_the_file(
    models: Models, store: Store, change: dict[str, Any], way: str
) -> None:
    replaced: list[str] = []
    models.when_replaced = replaced.append
    model = await models.put(FETCHED, BY)
    learned = Learned("wasp", 1, "ram", "vllm", 5)
    await models.learn(learned)
    await models.set_state(model, "missing", "it is gone")
    await models.put(model.row._replace(memory_bytes=7, context=9), BY)
    assert (models.learned("wasp", 1, "ram"), replaced) == (5, [])

    former = model.row
    if way == "added again":
        await models.put(model.row._replace(**change), BY)
    else:
        await models.set_state(model, "ready", fields=change)
    await store.models.learn(learned, former)  # a worker that has ended meanwhile

    assert (models.learned("wasp", 1, "ram"), replaced) == (None, ["wasp"])
    assert (await loaded(store)).learned("wasp", 1, "ram") is None


async def test_removed_with_what_was_learned(models: Models, store: Store) -> None:
    model = await models.put(ROW, BY)
    await models.learn(Learned("bee", 1, "ram", "vllm", 5))
    await models.remove(model, BY)

    assert model.is_removed
    assert models.find("bee") is None
    assert models.learned("bee", 1, "ram") is None
    assert (await loaded(store)).all() == []


async def test_rows_whose_names_cannot_be_read_hide_no_other(models: Models, store: Store) -> None:
    for row in (FETCHED, ROW, ROW._replace(name="ant")):
        await models.put(row, BY)
    await change(store, "UPDATE models SET name = name || '!' WHERE name != 'wasp'")

    assert len((await loaded(store)).all()) == 3


@pytest.mark.parametrize(
    ("other", "has_it"),
    [
        (FETCHED._replace(name="other"), True),
        (FETCHED._replace(name="other", fetch="another"), True),
        (FETCHED._replace(name="other", fetch="another", sha256="6" * 64, path="/o"), False),
        (FETCHED._replace(name="other", hive_id="gpu1"), False),
        (ROW._replace(name="other", path="/store/wasp"), True),
        (ROW, False),
    ],
)
async def test_a_file_of_the_store_may_be_several_models(models: Models, other, has_it: bool) -> None:  # type: ignore[no-untyped-def]
    model = await models.put(FETCHED, BY)
    await models.put(other, BY)

    assert [one.name for one in models.with_file(model)] == ([other.name] if has_it else [])


async def test_a_fetch_under_way_may_be_of_several_models_too(models: Models) -> None:
    model = await models.put(FETCHED._replace(state="fetching", path=None), BY)
    await models.put(FETCHED._replace(name="same", state="fetching", path=None), BY)
    await models.put(FETCHED._replace(name="sum", fetch="another"), BY)

    assert [one.name for one in models.with_file(model)] == ["same"]


async def test_a_sum_is_that_of_a_file_on_one_hive(models: Models) -> None:
    model = await models.put(FETCHED, BY)
    assert not models.have_file("5" * 64, model)
    await models.put(FETCHED._replace(name="there", hive_id="gpu1"), BY)
    assert not models.have_file("5" * 64, model)
    await models.put(FETCHED._replace(name="same", fetch="another"), BY)
    assert models.have_file("5" * 64, model)

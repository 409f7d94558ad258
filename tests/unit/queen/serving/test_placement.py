"""Where a model is placed: the order of preference, and what holds whatever the fleet is like."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.queen.serving.need import Kind, Need, kind_of, size
from rbee.queen.serving.placement import HiveNow, Snapshot, Wanted, WorkerNow, decide
from rbee.wire.engines import Engine
from rbee.wire.workers import Candidate, Placement, Pool

GIB = 2**30
LLAMA = Engine("llama-server", "/usr/bin/llama-server", ("gguf",), "llama-server.conf")
BY_UUID = LLAMA._replace(selects_by_uuid=True)
VLLM = Engine("vllm", "/usr/bin/vllm", ("safetensors",), "vllm.conf")


def needs(count: int) -> dict[Kind, Need]:
    return {"ram": Need(count, "estimate"), "gpu": Need(count, "estimate")}


def wanted(count: int = 4 * GIB, *hives: str) -> Wanted:
    return Wanted("bee", "gguf", frozenset(hives or ("a",)), needs(count), 4096)


def pool(name: str, free: int | None, total: int = 32 * GIB) -> Pool:
    return Pool(name, name.upper(), total, free)


def hive(name: str, *pools: Pool) -> HiveNow:
    return HiveNow(name, pools, (LLAMA,))


def worker(name: str, place: str = "a ram", **fields: object) -> WorkerNow:
    hive_id, pool_id = place.split()
    given = WorkerNow(name, name, hive_id, pool_id, "ready", 8 * GIB)
    return given._replace(**fields)  # type: ignore[arg-type]


def placed(wish: Wanted, *hives: HiveNow, workers: tuple[WorkerNow, ...] = ()) -> Placement:
    return decide(wish, Snapshot(hives, workers)).placement


def chosen(placement: Placement) -> Candidate:
    (candidate,) = [one for one in placement.candidates if one.is_chosen]
    return candidate


def where(placement: Placement) -> str:
    candidate = chosen(placement)
    return f"{placement.decision} {candidate.hive_id} {candidate.pool}"


# The order


def test_a_ready_worker_is_used() -> None:
    a = hive("a", pool("ram", 30 * GIB), pool("gpu0", 30 * GIB))

    assert where(placed(wanted(), a, workers=(worker("bee-1", model="bee"),))) == "ready a ram"


def test_a_worker_that_loads_is_waited_for() -> None:
    a = hive("a", pool("ram", 30 * GIB))
    placement = placed(wanted(), a, workers=(worker("bee-1", model="bee", state="loading"),))

    assert (placement.decision, placement.reason) == ("wait", "bee-1 is loading on a ram")


def test_a_card_is_preferred_to_ram_and_the_tightest_card_to_others() -> None:
    a = hive("a", pool("ram", 9 * GIB), pool("gpu0", 20 * GIB), pool("gpu1", 10 * GIB))

    assert where(placed(wanted(), a)) == "start a gpu1"
    assert placed(wanted(), a).reason == "a gpu1 has 10.0 GiB free"


def test_ram_is_used_where_no_card_has_room() -> None:
    assert where(placed(wanted(), hive("a", pool("ram", 9 * GIB), pool("gpu0", 4 * GIB)))) == "start a ram"


def test_the_least_recently_used_of_the_idle_gives_way_and_no_more_than_are_needed() -> None:
    a = hive("a", pool("ram", 2 * GIB))
    workers = (
        worker("old", last_used=1, bytes=GIB // 8),
        worker("older", last_used=0.5, bytes=8 * GIB),
        worker("new", last_used=9),
        worker("busy", last_used=0, in_flight=1),
        worker("pinned", last_used=0, is_pinned=True),
    )
    placement = placed(wanted(), a, workers=workers)

    assert where(placement) == "evict a ram"
    assert chosen(placement).evicts == ("older",)


def test_what_is_busy_is_waited_for() -> None:
    placement = placed(wanted(), hive("a", pool("ram", 2 * GIB)), workers=(worker("x", in_flight=3),))

    assert placement.decision == "wait"
    assert placement.reason == (
        "a ram has 2.0 GiB of 32.0 GiB free, 4.0 GiB and a margin of 1.0 GiB are needed, and x must end first"
    )


def test_one_model_is_loaded_on_a_card_at_a_time() -> None:
    loading = worker("x", "a gpu0", state="loading", bytes=GIB)
    one = hive("a", pool("ram", GIB), pool("gpu0", 20 * GIB))
    two = hive("a", pool("ram", GIB), pool("gpu0", 20 * GIB), pool("gpu1", 30 * GIB))
    ram = hive("a", pool("ram", 9 * GIB))

    assert (
        placed(wanted(), one, workers=(loading,)).reason
        == "a gpu0 is loading x, and loads one model at a time"
    )
    assert where(placed(wanted(), two, workers=(loading,))) == "start a gpu1"
    assert where(placed(wanted(), ram, workers=(loading._replace(pool="ram"),))) == "start a ram"


def test_what_could_never_fit_is_refused_with_the_sums_of_each_pool() -> None:
    hives = hive("a", pool("ram", 30 * GIB), pool("gpu0", None)), HiveNow("b", problem="it is cordoned")
    decision = decide(wanted(40 * GIB, "a", "b"), Snapshot(hives))
    placement = decision.placement

    assert (placement.decision, decision.is_blocked) == ("refuse", False)
    assert placement.reason == (
        "a ram has 30.0 GiB of 32.0 GiB free, 40.0 GiB and a margin of 1.0 GiB are needed; "
        "a gpu0: its driver does not report how much is free; b: it is cordoned"
    )
    assert [one.verdict for one in placement.candidates] == [
        "11.0 GiB are missing", "its driver does not report how much is free", "it is cordoned",
    ]  # fmt: skip


def test_a_hive_that_cannot_be_used_says_why() -> None:
    room = pool("ram", 30 * GIB)
    hives = (
        HiveNow("b", (room,), (LLAMA,)),
        HiveNow("a", (), (), problem="it is cordoned: new disk"),
        HiveNow("c", (room,), (VLLM,)),
        HiveNow("d", (room,), (LLAMA._replace(problem="/usr/bin/llama-server is missing"),)),
    )
    decision = decide(wanted(GIB, "a", "c", "d"), Snapshot(hives))
    placement = decision.placement

    assert (placement.decision, decision.is_blocked) == ("refuse", True)
    assert "a: it is cordoned: new disk; c: none of its engines loads gguf; d: " in placement.reason
    assert {one.hive_id: one.verdict for one in placement.candidates} == {
        "a": "it is cordoned: new disk",
        "b": "the model's file is not on this hive",
        "c": "none of its engines loads gguf",
        "d": "llama-server: /usr/bin/llama-server is missing",
    }


UNNAMED = "llama-server selects a card by its UUID, and that of this card is not known"


def test_a_card_that_its_engine_cannot_select_is_left_alone_and_ram_is_used() -> None:
    shared = pool("gpu0", 16 * GIB)._replace(shares_ram=True)
    a = HiveNow("a", (pool("ram", 16 * GIB), shared, pool("gpu1", 30 * GIB)), (BY_UUID,))
    placement = placed(wanted(), a)

    assert where(placement) == "start a ram"
    assert [one.verdict for one in placement.candidates] == ["it fits", UNNAMED, UNNAMED]


def test_a_card_that_its_engine_can_select_is_preferred_to_ram() -> None:
    known = pool("gpu0", 16 * GIB)._replace(has_uuid=True)
    a = HiveNow("a", (pool("ram", 16 * GIB), known), (BY_UUID,))

    assert where(placed(wanted(), a)) == "start a gpu0"


def test_nobody_gives_way_on_a_card_that_cannot_be_selected() -> None:
    a = HiveNow("a", (pool("ram", GIB), pool("gpu0", GIB)), (BY_UUID,))
    decision = decide(wanted(), Snapshot((a,), (worker("x", "a gpu0"),)))

    assert (decision.placement.decision, decision.is_blocked) == ("refuse", False)
    assert f"; a gpu0: {UNNAMED}" in decision.placement.reason


def test_another_engine_is_used_for_a_card_that_the_first_cannot_select() -> None:
    vulkan = LLAMA._replace(name="llama-vulkan")
    a = HiveNow("a", (pool("ram", 16 * GIB), pool("gpu0", 16 * GIB)), (BY_UUID, vulkan))
    target = decide(wanted(), Snapshot((a,))).target
    in_ram = decide(wanted(), Snapshot((a._replace(pools=a.pools[:1]),))).target

    assert target is not None
    assert (target.pool, target.engine) == ("gpu0", "llama-vulkan")
    assert in_ram is not None
    assert in_ram.engine == "llama-server"


def test_what_was_learned_of_one_engine_counts_for_that_one_alone() -> None:
    vulkan = LLAMA._replace(name="llama-vulkan")
    wish = wanted()._replace(by_engine={("gpu", "llama-vulkan"): Need(6 * GIB, "learned")})
    card = pool("gpu0", 16 * GIB)
    first = placed(wish, HiveNow("a", (card,), (LLAMA, vulkan)))
    second = placed(wish, HiveNow("a", (card,), (vulkan,)))
    unknown = placed(wish, HiveNow("a", (card,), (), problem="it is cordoned"))

    assert (first.need_bytes, first.source) == (4 * GIB, "estimate")
    assert (second.need_bytes, second.source) == (6 * GIB, "learned")
    assert (unknown.need_bytes, unknown.source) == (6 * GIB, "learned")


def test_the_engine_that_an_operator_chose_is_used_or_nothing() -> None:
    a = hive("a", pool("ram", 30 * GIB))

    assert decide(wanted()._replace(engine="llama-server"), Snapshot((a,))).target is not None
    assert "it has no engine other" in placed(wanted()._replace(engine="other"), a).reason
    b = HiveNow("a", a.pools, (VLLM,))
    assert "vllm does not load gguf" in placed(wanted()._replace(engine="vllm"), b).reason


def test_a_hive_that_may_come_back_is_waited_for() -> None:
    away = HiveNow("a", problem="the beehive is unknown: no heartbeat", may_recover=True)

    assert placed(wanted(), away).decision == "wait"
    assert placed(wanted(), away._replace(may_recover=False)).decision == "refuse"
    assert placed(wanted()).reason == "there is no hive in the catalog"


# Whatever the fleet is like

BYTES = st.integers(0, 40 * GIB)
POOLS = st.builds(
    lambda free, taken, name: Pool(name, name, None if free is None else free + taken, free),
    st.none() | BYTES,
    BYTES,
    st.just("ram"),
)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Wanted, Snapshot]:
    names = ["a", "b", "c"][: draw(st.integers(0, 3))]
    hives = []
    for name in names:
        cards = draw(st.integers(0, 2))
        pools = tuple(
            draw(POOLS)._replace(id=pool_id, has_uuid=pool_id != "ram" and draw(st.booleans()))
            for pool_id in ("ram", *(f"gpu{n}" for n in range(cards)))
        )
        problem = draw(st.none() | st.none() | st.just("it is cordoned"))
        engines = tuple(
            LLAMA._replace(
                name=engine,
                problem=draw(st.none() | st.none() | st.just("it is missing")),
                selects_by_uuid=draw(st.booleans()),
            )
            for engine in ["llama-server", "llama-vulkan"][: draw(st.integers(1, 2))]
        )
        hives.append(HiveNow(name, pools, engines, problem, may_recover=draw(st.booleans())))
    places = [(one.id, one_pool.id) for one in hives for one_pool in one.pools]
    workers = []
    for number in range(draw(st.integers(0, 6)) if places else 0):
        hive_id, pool_id = draw(st.sampled_from(places))
        workers.append(
            WorkerNow(
                f"w-{number}", draw(st.sampled_from(["bee", "wasp", "hornet"])), hive_id, pool_id,
                draw(st.sampled_from(["ready", "loading", "stopping", "failed", "unknown"])), draw(BYTES),
                draw(st.integers(0, 2)), draw(st.booleans()), draw(st.floats(0, 100)),
            )
        )  # fmt: skip
    files = frozenset(draw(st.sets(st.sampled_from(["a", "b", "c"]))))
    sizes: dict[Kind, Need] = {"ram": Need(draw(BYTES), "guess"), "gpu": Need(draw(BYTES), "learned")}
    kinds = st.sampled_from(["ram", "gpu"])
    known = st.tuples(kinds, st.sampled_from(["llama-server", "llama-vulkan"]))
    by_engine = draw(st.dictionaries(known, BYTES.map(lambda count: Need(count, "learned")), max_size=4))
    wish = Wanted("bee", "gguf", files, sizes, 4096, by_engine=by_engine)
    return wish, Snapshot(tuple(hives), tuple(workers))


def need_at(wish: Wanted, hive: HiveNow, place: Pool) -> Need:
    """What the model needs there by the engine that would serve it, if any can."""
    kind = kind_of(place.id)
    usable = [one for one in hive.engines if one.problem is None]
    if hive.id not in wish.files or hive.problem is not None or not usable:
        known = [need for (other, _), need in wish.by_engine.items() if other == kind]
        return max(known, key=lambda need: need.bytes, default=wish.needs[kind])
    engine = next((one for one in usable if suits(one, place)), usable[0])
    return wish.by_engine.get((kind, engine.name), wish.needs[kind])


def suits(engine: Engine, place: Pool) -> bool:
    return engine.problem is None and (place.id == "ram" or place.has_uuid or not engine.selects_by_uuid)


@given(fleets())
@settings(max_examples=400, deadline=None)
def test_a_placement_holds_what_it_promises(fleet: tuple[Wanted, Snapshot]) -> None:
    wish, snapshot = fleet
    decision = decide(wish, snapshot)
    placement, target = decision.placement, decision.target

    assert decide(wish, snapshot) == decision
    assert placement.decision == "refuse" or not decision.is_blocked
    assert (target is not None) == (placement.decision in ("start", "evict"))
    assert sum(one.is_chosen for one in placement.candidates) <= 1
    by_id = {one.id: one for one in snapshot.workers}
    hives = {one.id: one for one in snapshot.hives}
    pools = {(one.id, one_pool.id): one_pool for one in snapshot.hives for one_pool in one.pools}
    for candidate in placement.candidates:
        there = pools[candidate.hive_id, candidate.pool]
        need = need_at(wish, hives[candidate.hive_id], there)
        assert candidate.need_bytes == need.bytes
        free = candidate.free_bytes
        assert candidate.fits == (free is not None and free - candidate.margin_bytes >= need.bytes)
    if target is None:
        return
    there = pools[target.hive_id, target.pool]
    assert target.engine == next(one.name for one in hives[target.hive_id].engines if suits(one, there))
    assert target.need == need_at(wish, hives[target.hive_id], there)
    evicted = [by_id[name] for name in target.evicts]
    assert target.hive_id in wish.files
    assert all((one.hive_id, one.pool) == (target.hive_id, target.pool) for one in evicted)
    assert not any(one.in_flight or one.is_pinned or one.state != "ready" for one in evicted)
    assert there.free_bytes is not None
    room = there.free_bytes + sum(one.bytes for one in evicted)
    assert room - there.margin_bytes >= target.need.bytes
    assert (placement.decision == "evict") == bool(evicted)
    assert placement.need_bytes == target.need.bytes


@given(fleets())
@settings(max_examples=400, deadline=None)
def test_a_refusal_adds_up(fleet: tuple[Wanted, Snapshot]) -> None:
    wish, snapshot = fleet
    placement = decide(wish, snapshot).placement
    if placement.decision != "refuse":
        return
    for candidate in placement.candidates:
        if " are missing" in candidate.verdict:  # printed beside these numbers
            lacks = candidate.need_bytes + candidate.margin_bytes - (candidate.free_bytes or 0)
            assert lacks > 0
            assert candidate.verdict.startswith(f"{size(lacks)} are missing")
    usable = {one.id for one in snapshot.hives if one.id in wish.files and one.problem is None}
    for one in snapshot.hives:
        for one_pool in one.pools:
            if one.id not in usable or one_pool.free_bytes is None:
                continue
            if not any(suits(engine, one_pool) for engine in one.engines):
                continue
            ends = [
                worker.bytes
                for worker in snapshot.workers
                if (worker.hive_id, worker.pool) == (one.id, one_pool.id) and worker.will_end
            ]
            need = need_at(wish, one, one_pool).bytes
            assert one_pool.free_bytes + sum(ends) - one_pool.margin_bytes < need

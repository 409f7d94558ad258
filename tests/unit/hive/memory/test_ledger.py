"""Claims never exceed a pool, and its sums add up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import CardLoads, NoMemory
from rbee.hive.memory.ledger import Claim, Ledger, Reading
from rbee.wire.workers import MARGIN, Holder, Pool

GIB = 2**30
CARD = Reading("gpu0", "NVIDIA RTX A6000", 48 * GIB, 40 * GIB, {}, (Holder("process", 6 * GIB, "x.service"),))
MEMORY = Reading("ram", "RAM", 32 * GIB, 20 * GIB)


def claim(worker_id: str, pool: str, count: int, *, loads: bool = False) -> Claim:
    return Claim(worker_id, pool, count, loads)


def accepted(ledger: Ledger, wanted: Claim, *readings: Reading) -> bool:
    try:
        ledger.check(wanted, {reading.id: reading for reading in readings})
    except NoMemory:
        return False
    ledger.note(wanted)
    return True


def shown(ledger: Ledger, reading: Reading, *others: Reading) -> Pool:
    return ledger.pool(reading, {one.id: one for one in (reading, *others)})


def sum_of(pool: Pool) -> int:
    assert pool.free_bytes is not None
    return sum(holder.bytes or 0 for holder in pool.holders) + pool.claimed_bytes + pool.free_bytes


# Properties

SIZES = st.integers(0, 64 * GIB)
STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "grow", "release"]), st.integers(0, 5), SIZES), max_size=30
)


@given(total=st.integers(1, 128 * GIB), foreign=SIZES, steps=STEPS, pool=st.sampled_from(["ram", "gpu0"]))
def test_what_is_claimed_and_held_never_exceeds_a_pool_less_its_margin_and_the_sums_add_up(
    total: int, foreign: int, steps: list[tuple[str, int, int]], pool: str
) -> None:
    foreign = min(foreign, total)
    ledger = Ledger()
    held: dict[str, int | None] = {}

    def reading() -> Reading:
        used = foreign + sum(count or 0 for count in held.values())
        return Reading(pool, "a pool", total, total - used, dict(held))

    for step, number, count in steps:
        worker_id = f"w{number}"
        mine = ledger.of(worker_id)
        if step == "claim" and worker_id not in held:
            is_accepted = accepted(ledger, claim(worker_id, pool, count), reading())
            largest = sum(max(one.bytes, held.get(one.worker_id) or 0) for one in ledger.all())
            margin = min(MARGIN, total // 20)
            if is_accepted:
                assert foreign + largest + margin <= total
            else:
                before = sum(one.bytes for one in ledger.all() if one.worker_id != worker_id)
                assert foreign + before + count + margin > total
        elif step == "grow" and mine is not None:
            held[worker_id] = min(mine.bytes, count)
        elif step == "release":
            ledger.release(worker_id)
            held.pop(worker_id, None)
        assert sum_of(shown(ledger, reading())) == total


@given(st.lists(st.tuples(SIZES, st.booleans()), max_size=6), SIZES)
def test_a_card_that_shares_the_ram_has_never_more_free_than_the_ram(
    claims: list[tuple[int, bool]], count: int
) -> None:
    ledger = Ledger()
    card = Reading("gpu0", "an APU", 64 * GIB, 60 * GIB, shares_ram=True)
    memory = Reading("ram", "RAM", 64 * GIB, 50 * GIB)
    for number, (size, on_card) in enumerate(claims):
        accepted(ledger, claim(f"w{number}", "gpu0" if on_card else "ram", size), memory, card)
    accepted(ledger, claim("last", "gpu0", count), memory, card)

    there, here = shown(ledger, memory, card), shown(ledger, card, memory)
    assert here.free_bytes is not None
    assert there.free_bytes is not None
    assert here.free_bytes <= there.free_bytes
    assert sum(one.bytes for one in ledger.all()) + there.free_bytes == 50 * GIB


# One by one


def test_a_refusal_has_the_sums() -> None:
    ledger = Ledger()
    ledger.note(claim("ant-1", "gpu0", 30 * GIB))
    with pytest.raises(NoMemory) as refused:
        ledger.check(claim("bee-1", "gpu0", 10 * GIB), {"gpu0": CARD})
    assert str(refused.value) == (
        "bee-1 needs 10.0 GiB of gpu0, and a margin of 1.0 GiB stays free; of 48.0 GiB there are 10.0 GiB "
        "free, with 30.0 GiB claimed for others"
    )
    assert (refused.value.status, refused.value.field) == (409, "claim_bytes")


def test_what_a_worker_holds_counts_towards_its_claim_once() -> None:
    ledger = Ledger()
    ledger.note(claim("bee-1", "gpu0", 30 * GIB))
    reading = replace(CARD, free=12 * GIB, held={"bee-1": 28 * GIB})
    pool = shown(ledger, reading)
    assert (pool.claimed_bytes, pool.free_bytes) == (2 * GIB, 10 * GIB)
    ledger.check(claim("bee-1", "gpu0", 39 * GIB), {"gpu0": reading})
    with pytest.raises(NoMemory, match=re.escape("of which it holds 28.0 GiB")):
        ledger.check(claim("bee-1", "gpu0", 40 * GIB), {"gpu0": reading})


def test_a_worker_that_holds_more_than_it_claimed_has_nothing_reserved() -> None:
    ledger = Ledger()
    ledger.note(claim("bee-1", "gpu0", GIB))
    pool = shown(ledger, replace(CARD, held={"bee-1": 2 * GIB}))
    assert (pool.claimed_bytes, pool.free_bytes) == (0, 40 * GIB)


def test_one_model_is_loaded_on_a_card_at_a_time_and_any_number_in_ram() -> None:
    ledger = Ledger()
    readings = {"ram": MEMORY, "gpu0": CARD, "gpu1": replace(CARD, id="gpu1")}
    for pool in ("ram", "gpu0"):
        ledger.note(claim(f"first-{pool}", pool, GIB, loads=True))
    ledger.check(claim("bee-1", "ram", GIB, loads=True), readings)
    ledger.check(claim("bee-1", "gpu1", GIB, loads=True), readings)
    ledger.check(claim("first-gpu0", "gpu0", 2 * GIB, loads=True), readings)
    with pytest.raises(CardLoads, match="the worker first-gpu0 is loading on gpu0"):
        ledger.check(claim("bee-1", "gpu0", GIB, loads=True), readings)

    ledger.loaded("first-gpu0")
    ledger.check(claim("bee-1", "gpu0", GIB, loads=True), readings)


def test_a_pool_that_is_not_known_takes_no_claim() -> None:
    ledger = Ledger()
    unknown = replace(CARD, free=None, problem="the driver hangs")
    with pytest.raises(NoMemory, match="the free memory of gpu0 is not known: the driver hangs"):
        ledger.check(claim("bee-1", "gpu0", 0), {"gpu0": unknown})
    with pytest.raises(NoMemory, match="this machine has no gpu7; it has ram, gpu0"):
        ledger.check(claim("bee-1", "gpu7", 0), {"ram": MEMORY, "gpu0": CARD})


def test_where_a_driver_lists_no_processes_a_claim_counts_until_the_load_has_ended() -> None:
    ledger = Ledger()
    reading = replace(CARD, held={"bee-1": None})
    ledger.note(claim("bee-1", "gpu0", 10 * GIB, loads=True))
    assert shown(ledger, reading).free_bytes == 30 * GIB
    ledger.loaded("bee-1")
    assert shown(ledger, reading).free_bytes == 40 * GIB


def test_where_the_kernel_counts_no_memory_of_cgroups_a_claim_of_ram_counts_whole() -> None:
    ledger = Ledger()
    ledger.note(claim("bee-1", "ram", 10 * GIB))
    assert shown(ledger, replace(MEMORY, held={"bee-1": None})).free_bytes == 10 * GIB


def test_a_tiny_model_has_room_in_a_machine_with_2_gib() -> None:
    """Debian with rbee uses some 300 MiB; a GiB of margin would leave nothing worth the name."""
    ledger = Ledger()
    small = Reading("ram", "RAM", 2 * GIB, 1700 * 2**20)
    assert shown(ledger, small).margin_bytes == 2 * GIB // 20
    assert accepted(ledger, claim("bee-1", "ram", 1500 * 2**20), small)
    assert not accepted(ledger, claim("bee-2", "ram", 150 * 2**20), small)


def test_holders_are_workers_first_the_largest_first_and_last_what_is_not_listed() -> None:
    reading = Reading(
        "gpu0",
        "a card",
        10 * GIB,
        2 * GIB,
        {"ant-1": GIB, "bee-1": 3 * GIB},
        (Holder("process", None, None, None, 9), Holder("process", 3 * GIB, "x.service", None, 7)),
        "what the driver keeps",
    )
    assert shown(Ledger(), reading).holders == (
        Holder("worker", 3 * GIB, "bee-1"),
        Holder("worker", GIB, "ant-1"),
        Holder("process", 3 * GIB, "x.service", None, 7),
        Holder("process", None, None, None, 9),
        Holder("process", GIB, "what the driver keeps"),
    )


def test_released_claims_are_free_again() -> None:
    ledger = Ledger()
    ledger.note(claim("bee-1", "gpu0", 39 * GIB))
    assert not accepted(ledger, claim("bee-2", "gpu0", GIB), CARD)
    assert ledger.release("bee-1") == claim("bee-1", "gpu0", 39 * GIB)
    assert ledger.release("bee-1") is None
    ledger.loaded("bee-1")
    assert accepted(ledger, claim("bee-2", "gpu0", GIB), CARD)

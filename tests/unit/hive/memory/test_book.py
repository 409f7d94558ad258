"""The memory book of a machine that is a folder, whose cards are a test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.errors import CardLoads, NoMemory
from rbee.hive.devices import Detector
from rbee.hive.devices.held import HeldCard
from rbee.hive.devices.nvml.results import NvmlProcess
from rbee.hive.memory.book import Book
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.workers import Holder, Memory
from tests.unit.hive.devices.cards import gpu_of
from tests.unit.hive.devices.machine import A

MIB = 2**20
GIB = 2**30
CARD = HeldCard(0, A.name, 24 * GIB, 2 * GIB, processes=(NvmlProcess(9, 2 * GIB),))


class Cards(Detector):
    """A detector of which a test says who holds the cards."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._latest = Devices(Cpu(None, None, None, None, None), (gpu_of(0, A),))
        self.read: Callable[[], tuple[HeldCard, ...]] = lambda: (CARD,)

    def read_held(self) -> tuple[HeldCard, ...]:
        return self.read()


class House:
    """A machine with 32 GiB and one card."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/meminfo").write_text(f"MemTotal: {32 * MIB} kB\nMemAvailable: {30 * MIB} kB\n")
        (root / "proc/self/cgroup").write_text("0::/rbee.slice/rbee-hive.service\n")
        self.cards = Cards(root)
        self.book = Book(self.cards, root, cards_timeout=1, proof_timeout=0.3)

    def worker(self, worker_id: str, *pids: int, held: int = 0, populated: int = 1) -> Path:
        folder = self.root / f"sys/fs/cgroup/rbee.slice/rbee-worker@{worker_id}.service"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        (folder / "cgroup.events").write_text(f"populated {populated}\n")
        (folder / "memory.current").write_text(f"{held}\n")
        (folder / "memory.stat").write_text("")
        return folder

    def on_card(self, *processes: NvmlProcess) -> None:
        used = sum(process.memory_bytes or 0 for process in processes)
        self.cards.read = lambda: (CARD._replace(used=used, processes=processes),)


def end(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_all_pools_are_shown_by_holder(house: House) -> None:
    house.worker("bee-1", 7, 8, held=3 * GIB)
    house.on_card(NvmlProcess(7, 5 * GIB), NvmlProcess(9, GIB))
    house.book.adopt("bee-1", "gpu0", 6 * GIB)

    memory = await house.book.memory()
    assert decode(Memory, encode(memory)) == memory
    ram, card = memory.pools
    assert (ram.id, ram.total_bytes, ram.free_bytes, ram.claimed_bytes) == ("ram", 32 * GIB, 30 * GIB, 0)
    assert ram.holders == (Holder("worker", 3 * GIB, "bee-1"),)
    assert (card.id, card.total_bytes, card.free_bytes, card.claimed_bytes) == (
        "gpu0",
        24 * GIB,
        17 * GIB,
        GIB,
    )
    assert card.holders == (Holder("worker", 5 * GIB, "bee-1"), Holder("process", GIB, None, None, 9))


async def test_of_two_claims_at_once_for_the_last_of_a_pool_one_is_refused(house: House) -> None:
    claims = [house.book.claim(f"bee-{number}", "ram", 20 * GIB) for number in range(2)]
    ends = await asyncio.gather(*claims, return_exceptions=True)
    assert {type(end) for end in ends} == {type(None), NoMemory}


async def test_a_card_loads_for_one_worker_until_that_is_said_to_have_loaded(house: House) -> None:
    await house.book.claim("bee-1", "gpu0", GIB)
    with pytest.raises(CardLoads):
        await house.book.claim("bee-2", "gpu0", GIB)
    await house.book.loaded("bee-1")
    await house.book.claim("bee-2", "gpu0", GIB)
    house.book.release("bee-2")
    await house.book.claim("bee-3", "gpu0", GIB)


async def test_a_worker_uses_ram_as_it_is_now(house: House) -> None:
    assert house.book.used("bee-1") == (None, None)
    await house.book.claim("bee-1", "ram", GIB)
    assert house.book.used("bee-1") == (None, None)
    folder = house.worker("bee-1", 7, held=300 * MIB)
    assert house.book.used("bee-1") == (300 * MIB, 300 * MIB)
    (folder / "memory.peak").write_text(f"{500 * MIB}\n")
    house.worker("bee-1", 7, held=200 * MIB)
    assert house.book.used("bee-1") == (200 * MIB, 500 * MIB)
    end(folder)
    assert house.book.used("bee-1") == (None, 500 * MIB)
    house.book.release("bee-1")
    assert house.book.used("bee-1") == (None, None)


async def test_a_worker_uses_a_card_as_it_was_read_and_the_peak_is_the_highest_seen(house: House) -> None:
    await house.book.claim("bee-1", "gpu0", 8 * GIB)
    house.worker("bee-1", 7)
    house.on_card(NvmlProcess(7, 6 * GIB))
    await house.book.loaded("bee-1")
    assert house.book.used("bee-1") == (6 * GIB, 6 * GIB)
    house.on_card(NvmlProcess(7, 5 * GIB))
    await house.book.memory()
    assert house.book.used("bee-1") == (5 * GIB, 6 * GIB)


async def test_before_a_stop_the_peak_is_noted(house: House) -> None:
    await house.book.claim("bee-1", "gpu0", 8 * GIB)
    house.worker("bee-1", 7)
    house.on_card(NvmlProcess(7, 7 * GIB))
    await house.book.look("bee-1")
    await house.book.claim("wasp-1", "ram", GIB)
    folder = house.worker("wasp-1", 8, held=300 * MIB)
    await house.book.look("wasp-1")
    end(folder)
    await house.book.look("gone")

    assert house.book.used("bee-1")[1] == 7 * GIB
    assert house.book.used("wasp-1") == (None, 300 * MIB)


async def test_drivers_that_hang_make_their_cards_unknown_and_nobody_waits_longer(house: House) -> None:
    go = threading.Event()
    house.cards.read = lambda: (go.wait(30), (CARD,))[1]  # type: ignore[func-returns-value]
    try:
        async with asyncio.timeout(5):
            ram, card = (await house.book.memory()).pools
            assert (ram.free_bytes, card.free_bytes) == (30 * GIB, None)
            assert card.total_bytes == A.vram_bytes
            assert card.problem == "the drivers of the cards have not answered for 1 s"
            with pytest.raises(NoMemory, match="the free memory of gpu0 is not known: the drivers"):
                await house.book.claim("bee-1", "gpu0", GIB)
            await house.book.claim("bee-2", "ram", GIB)
            house.book.adopt("bee-3", "gpu0", GIB)
            holder = await house.book.proven_free("bee-3")
            assert holder is not None
            assert (holder.bytes, holder.name) == (
                None,
                "unknown, as gpu0 could not be read: the drivers of the cards have not answered for 1 s",
            )
    finally:
        go.set()
    async with asyncio.timeout(5):
        # The answer has to come back from its thread; nobody waits for that.
        while (free := (await house.book.memory()).pools[1].free_bytes) is None:  # noqa: ASYNC110  # each asks anew
            await asyncio.sleep(0.01)
    assert free == 22 * GIB - 1 * GIB
    await house.book.close()


async def test_a_detector_that_fails_is_a_problem_of_the_cards(house: House) -> None:
    def fail() -> tuple[HeldCard, ...]:
        raise RuntimeError("no thread left")

    house.cards.read = fail
    (_, card) = (await house.book.memory()).pools
    assert card.problem == "reading the memory of the cards failed: no thread left"


# After a stop


async def test_memory_is_back_when_the_cgroup_is_gone_and_no_card_has_its_processes(house: House) -> None:
    house.book.adopt("bee-1", "gpu0", GIB)
    folder = house.worker("bee-1", 7)
    house.on_card(NvmlProcess(7, GIB))
    await house.book.memory()
    proof = asyncio.create_task(house.book.proven_free("bee-1"))
    await asyncio.sleep(0)
    end(folder)
    house.on_card(NvmlProcess(9, GIB))
    assert await proof is None


async def test_who_still_runs_in_the_cgroup_is_named(house: House) -> None:
    house.book.adopt("bee-1", "ram", GIB)
    house.worker("bee-1", 7, 8, held=MIB)
    assert await house.book.proven_free("bee-1") == Holder("worker", MIB, "bee-1", None, 7)

    house.worker("bee-1", held=MIB)  # those that are dying are in no list
    assert await house.book.proven_free("bee-1") == Holder("worker", MIB, "bee-1")


async def test_a_process_that_the_driver_still_has_is_named_although_its_cgroup_is_gone(house: House) -> None:
    house.book.adopt("bee-1", "gpu0", GIB)
    folder = house.worker("bee-1", 7, 8)
    house.on_card(NvmlProcess(8, GIB), NvmlProcess(9, GIB))
    await house.book.memory()
    end(folder)
    assert await house.book.proven_free("bee-1") == Holder("worker", GIB, "bee-1", None, 8)


async def test_processes_that_the_caller_names_are_looked_for_too(house: House) -> None:
    house.book.adopt("bee-1", "gpu0", GIB)
    house.on_card(NvmlProcess(5, GIB))
    assert await house.book.proven_free("bee-1") is None
    assert await house.book.proven_free("bee-1", [5]) == Holder("worker", GIB, "bee-1", None, 5)


async def test_a_number_that_another_unit_s_process_has_by_now_is_not_the_worker_s(house: House) -> None:
    house.book.adopt("bee-1", "gpu0", GIB)
    house.worker("ant-1", 5)
    house.on_card(NvmlProcess(5, GIB))
    assert await house.book.proven_free("bee-1", [5]) is None

"""What a sample is made of, and who shares it; the cards are a test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.hive.devices import Detector, Sampler
from rbee.hive.devices.sampler import SHARED_FOR
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.samples import GpuSample, Sample
from tests.unit.hive.devices.cards import BUSY, gpu_of, sample_of
from tests.unit.hive.devices.machine import A


class Cards(Detector):
    """A detector of which a test says what the cards do."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._latest = Devices(Cpu(None, None, None, None, None), ())
        self.read: Callable[[], tuple[GpuSample, ...]] = lambda: ()
        self.reads = 0

    def read_cards(self) -> tuple[GpuSample, ...]:
        self.reads += 1
        return self.read()


CARD = sample_of(0, A, BUSY)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("0.50 0.25 0.10 1/1 1\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    (tmp_path / "proc/stat").write_text("cpu 0 0 0 0 0 0 0 0\n")
    return tmp_path


async def test_a_sample_is_all_of_it_at_one_moment(proc: Path) -> None:
    cards = Cards(proc)
    cards.read = lambda: (CARD,)
    now = 0.0

    sampler = Sampler("blade-7", cards, proc, clock=lambda: now)
    sampler.fingerprint()  # as a beat does
    now = 15.0
    (proc / "proc/stat").write_text("cpu 30 0 0 70 0 0 0 0\n")
    sample = await sampler.look()
    assert sample == Sample(
        "blade-7", sample.at, 0.5, 0.25, 0.1, 30.0, 15.0, 600 * 1024, 1000 * 1024, (CARD,)
    )
    assert decode(Sample, encode(sample)) == sample


async def test_many_who_look_at_once_share_one_sample(proc: Path) -> None:
    cards = Cards(proc)
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(5), (CARD,))[1]

    sampler = Sampler("blade-7", cards, proc)
    looks = [asyncio.ensure_future(sampler.look()) for _ in range(10)]
    await asyncio.sleep(0.05)
    looks.pop().cancel()  # who goes does not end it for the others
    goes_on.set()
    samples = await asyncio.gather(*looks)
    assert len(samples) == 9
    assert len(set(samples)) == 1
    assert cards.reads == 1


async def test_a_sample_is_shared_for_a_moment_and_no_longer(proc: Path) -> None:
    cards = Cards(proc)
    now = 0.0

    sampler = Sampler("blade-7", cards, proc, clock=lambda: now)
    first = await sampler.look()
    now += SHARED_FOR * 0.9
    assert await sampler.look() is first
    now += SHARED_FOR * 0.2
    assert await sampler.look() is not first
    assert cards.reads == 2


async def test_cards_that_hang_are_left_out_and_asked_once(proc: Path) -> None:
    cards = Cards(proc)
    cards._latest = Devices(Cpu(None, None, None, None, None), (gpu_of(0, A),))
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(10), (CARD,))[1]

    sampler = Sampler("blade-7", cards, proc, cards_timeout=0.2)
    samples = [await sampler.look()]
    for _ in range(2):
        sampler._begun_at = -1.0
        samples.append(await sampler.look())
    reads = cards.reads
    goes_on.set()
    assert sampler._reading is not None
    await sampler._reading
    sampler._begun_at = -1.0
    samples.append(await sampler.look())
    assert (reads, cards.reads) == (1, 2)
    *hung, back = samples
    for sample in hung:
        assert (sample.load_1, sample.memory_used_bytes) == (0.5, 600 * 1024)
        problem = "the drivers of the cards have not answered for 0 s"
        assert sample.gpus == (sample_of(0, A, None, problem),)
    assert back.gpus == (CARD,)


async def test_cards_that_cannot_be_read_leave_the_rest(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    cards = Cards(proc)
    cards._latest = Devices(Cpu(None, None, None, None, None), (gpu_of(0, A),))

    def read() -> tuple[GpuSample, ...]:
        raise ZeroDivisionError("by nought")

    cards.read = read
    sample = await Sampler("blade-7", cards, proc).look()

    assert sample.load_1 == 0.5
    assert sample.gpus == (sample_of(0, A, None, "reading what the cards do failed: by nought"),)
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_closing_ends_a_sample_that_is_under_way(proc: Path) -> None:
    cards = Cards(proc)
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(10), ())[1]

    sampler = Sampler("blade-7", cards, proc)
    looking = asyncio.ensure_future(sampler.look())
    await asyncio.sleep(0.05)
    await sampler.close()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert asyncio.all_tasks() == {asyncio.current_task()}
    goes_on.set()

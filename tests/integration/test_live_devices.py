"""What a hive's machine does, passed on by the queen; nobody is woken to tell it."""

from __future__ import annotations

import asyncio

import pytest

from rbee.contracts import QueenRoutes, Sample, decode
from rbee.errors import HiveFailed, HiveNotOnline, RbeeError, UnknownHive
from tests.integration.house import GPU_SAMPLES, House, until


async def look(house: House) -> Sample:
    sample: Sample = await house.ask(QueenRoutes.SAMPLE, hive_id="localhost")
    return sample


async def test_the_queen_passes_on_what_her_hive_tells(house: House) -> None:
    await house.added()

    sample = await look(house)

    assert sample.hive_id == "localhost"
    assert sample.load_1 is not None
    assert sample.memory_used_bytes is not None
    assert sample.memory_total_bytes is not None
    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes
    assert sample.gpus == GPU_SAMPLES


async def test_a_hive_that_nobody_knows_is_not_found(house: House) -> None:
    await house.wake_queen()

    with pytest.raises(UnknownHive, match="'localhost' is not in the hive catalog"):
        await look(house)


async def test_a_hive_that_is_not_online_is_refused_with_the_cure_and_not_woken(house: House) -> None:
    await house.added()
    await look(house)
    await house.systemd.administrator_stops()

    # Before the queen has heard of it, too.
    with pytest.raises(HiveNotOnline):
        await look(house)
    await house.is_in("offline")
    with pytest.raises(HiveNotOnline) as caught:
        await look(house)

    assert "is offline" in caught.value.message
    assert caught.value.hint == "rbeectl add-hive localhost"
    assert [one for one in house.systemd.asked if one[0] == "start"] == [("start", "rbee-hive.service")]
    with pytest.raises(BlockingIOError):  # nobody waits at the socket by which systemd would wake it
        house.hive_socket.accept()


async def test_many_who_look_at_once_share_one_question(house: House) -> None:
    await house.added()
    sampled = 0
    real = house.hive.sampler._sample

    async def sample() -> Sample:
        nonlocal sampled
        sampled += 1
        await asyncio.sleep(0.05)
        return await real()

    house.hive.sampler._sample = sample  # type: ignore[method-assign]
    samples = await asyncio.gather(*(look(house) for _ in range(20)))

    assert sampled == 1
    assert len(set(samples)) == 1


async def test_a_look_beside_a_detection_that_takes_long_does_not_wait_for_it(house: House) -> None:
    await house.added()
    gate = house.gate()
    house.detect_after(gate)
    story = house.add()
    await story.to("asking the beehive")
    await until(lambda: house.detections == 2)

    assert (await look(house)).hive_id == "localhost"

    gate.set()
    assert (await story.end()).kind == "done"


async def test_a_hive_that_refuses_is_a_failure_that_names_it(house: House) -> None:
    await house.added()

    async def sample() -> Sample:
        raise RbeeError("it is on fire")

    house.hive.sampler._sample = sample  # type: ignore[method-assign]
    with pytest.raises(HiveFailed, match="localhost did not tell what its machine does: it is on fire"):
        await look(house)


async def test_a_sample_keeps_to_its_shape_on_the_wire(house: House) -> None:
    await house.added()
    answer = await house.send("GET", "/v1/hives/localhost/sample")

    assert answer.status == 200
    assert decode(Sample, answer.json).gpus == GPU_SAMPLES

"""What a hive's machine does, passed on by the queen, and devices that change while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rbee.errors import CatalogFailed, HiveFailed, HiveNotOnline, RbeeError, UnknownHive
from rbee.wire.codec import decode
from rbee.wire.devices import Devices
from rbee.wire.heartbeats import Heartbeat
from rbee.wire.routes import QueenRoutes
from rbee.wire.samples import Sample
from tests.integration.house import DEVICES, GPU_SAMPLES, OTHER_DEVICES, House, answers, until


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


async def test_a_hive_that_was_restarted_is_looked_at_again(house: House) -> None:
    await house.added()
    await look(house)
    await house.systemd.administrator_stops()
    await house.is_in("offline")
    await house.systemd.administrator_starts()
    await house.is_in("online")

    assert (await look(house)).gpus == GPU_SAMPLES


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
    with pytest.raises(HiveFailed, match="localhost did not report a sample of its machine: it is on fire"):
        await look(house)


async def test_a_sample_keeps_to_its_shape_on_the_wire(house: House) -> None:
    await house.added()
    answer = await house.send("GET", "/v1/hives/localhost/sample")

    assert answer.status == 200
    assert decode(Sample, answer.json).gpus == GPU_SAMPLES


# Devices that change


BRISK = {"heartbeat_interval": 0.1}


async def test_a_card_that_goes_is_noticed_stored_and_told(house: House) -> None:
    await house.added(**BRISK)
    house.devices, house.fingerprint = lambda: OTHER_DEVICES, "f2"

    told = await house.journal.says(event="devices-changed")

    assert told["MESSAGE"] == (
        "the devices of the beehive localhost have changed: RAM 16.0 GiB -> 32.0 GiB; "
        "gpu1 (0000:02:00.0) is gone"
    )
    assert told["RBEE_HIVE"] == "localhost"
    assert (await house.view()).devices == OTHER_DEVICES
    assert house.stored_devices() == OTHER_DEVICES
    assert house.detections == 2


async def test_the_same_fingerprint_has_nobody_asked(house: House) -> None:
    await house.added(**BRISK)
    house.devices = lambda: OTHER_DEVICES

    await beats(house, 5)

    assert house.detections == 1


async def test_another_fingerprint_of_the_same_devices_is_asked_for_once_and_writes_nothing(
    house: House,
) -> None:
    await house.added(**BRISK)
    before = house.row()
    house.fingerprint = "f2"

    await until(lambda: house.detections == 2)
    await beats(house, 5)

    assert house.detections == 2
    assert house.row() == before
    assert house.journal.of(event="devices-changed") == []


async def test_a_card_that_flaps_is_asked_for_once_a_beat_at_the_most(house: House) -> None:
    queen = await house.added(**BRISK)
    flaps = 0
    heard = 0
    standing = queen.hives.hive("localhost").standing
    real = standing.take_beat

    def flap() -> Devices:
        return DEVICES if flaps % 2 else OTHER_DEVICES

    def take_beat(beat: Heartbeat, interval: float) -> bool:
        nonlocal heard, flaps
        heard += 1
        if not beat.lines:  # a beat of its own, not one that brings a detection's line
            flaps += 1
            house.fingerprint = f"{flaps:04x}"
        return real(beat, interval)

    standing.take_beat = take_beat
    house.devices = flap
    await until(lambda: heard >= 20)

    assert 2 < house.detections <= heard + 1


async def test_a_change_during_the_detection_is_not_missed(house: House) -> None:
    await house.added(**BRISK)
    gate = house.gate()
    house.detect_after(gate, DEVICES)
    house.fingerprint = "f2"
    await until(lambda: house.detections == 2)
    # The detection has looked, and has not answered yet.
    house.devices, house.fingerprint = lambda: OTHER_DEVICES, "f3"
    gate.set()

    await house.journal.says(event="devices-changed")
    assert (await house.view()).devices == OTHER_DEVICES


async def test_a_beat_does_not_wait_for_a_detection(house: House) -> None:
    queen = await house.added(**BRISK)
    gate = house.gate()
    house.detect_after(gate)
    house.fingerprint = "f2"
    await until(lambda: house.detections == 2)

    await beats(house, 5)

    assert house.detections == 2
    life = queen.hives.hive("localhost").standing.life
    assert life is not None
    assert life.state == "online"
    gate.set()


async def test_devices_that_are_not_told_are_asked_for_again_and_complained_of_once(house: House) -> None:
    await house.added(**BRISK)
    house.spoil = answers(502, b'{"type": "urn:rbee:problem:hive-failed", "detail": "on fire"}')
    house.fingerprint = "f2"

    told = await house.journal.says(event="devices-unknown")
    await beats(house, 5)

    assert told["MESSAGE"] == (
        "the devices of the beehive localhost may have changed, and are not known: on fire"
    )
    assert len(house.journal.of(event="devices-unknown")) == 1
    view = await house.view()
    assert (view.state, view.devices) == ("online", DEVICES)

    house.devices, house.spoil = lambda: OTHER_DEVICES, None
    await house.journal.says(event="devices-changed")
    assert (await house.view()).devices == OTHER_DEVICES


async def test_a_catalog_that_cannot_take_them_leaves_the_devices_to_the_next_beat(house: House) -> None:
    queen = await house.added(**BRISK)
    real = queen.catalog.hives.set_devices
    tries = 0

    async def refuse(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise CatalogFailed("the disk is full")

    queen.catalog.hives.set_devices = refuse  # type: ignore[method-assign]
    house.devices, house.fingerprint = lambda: OTHER_DEVICES, "f2"
    told = await house.journal.says(event="devices-unknown")
    assert told["MESSAGE"].endswith("may have changed, and are not known: the disk is full")
    assert (await house.view()).devices == DEVICES

    queen.catalog.hives.set_devices = real  # type: ignore[method-assign]
    await house.journal.says(event="devices-changed")
    assert tries >= 1
    assert house.stored_devices() == OTHER_DEVICES


async def test_a_hive_of_before_0_3_0_is_asked_at_its_start_alone(house: House) -> None:
    house.fingerprint = None
    await house.added(**BRISK)
    house.devices = lambda: OTHER_DEVICES
    await beats(house, 5)

    assert house.detections == 1


async def test_a_hive_that_went_while_it_was_asked_stays_as_it_went(house: House) -> None:
    await house.added(**BRISK)
    gate = house.gate()
    house.detect_after(gate, OTHER_DEVICES)
    house.fingerprint = "f2"
    await until(lambda: house.detections == 2)

    stopping = asyncio.create_task(house.systemd.administrator_stops())
    gate.set()
    await stopping
    await house.is_in("offline")

    row = house.row()
    assert row is not None
    assert (row["status"], row["wanted"]) == ("offline", 0)
    assert house.journal.of(event="devices-unknown") == []


async def test_a_card_that_went_while_the_hive_was_off_is_told_when_it_is_back(house: House) -> None:
    await house.added(**BRISK)
    await house.systemd.administrator_stops()
    await house.is_in("offline")
    house.devices = lambda: OTHER_DEVICES

    await house.systemd.administrator_starts()
    told = await house.journal.says(event="devices-changed")

    assert "gpu1 (0000:02:00.0) is gone" in told["MESSAGE"]
    assert house.detections == 2
    await beats(house, 3)
    assert house.detections == 2


async def beats(house: House, count: int) -> None:
    """Until the hive has beaten so often again."""
    beaten = 0
    compose = house.hive.heart._compose

    def composed(*arguments: Any) -> Heartbeat:
        nonlocal beaten
        beaten += 1
        return compose(*arguments)

    house.hive.heart._compose = composed  # type: ignore[method-assign]
    await until(lambda: beaten > count)

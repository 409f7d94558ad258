"""What of the machine an engine gets, by its pool."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.errors import BadInput
from rbee.hive.workers import place
from rbee.hive.workers.place import Place, place_of
from rbee.wire.devices import Cpu, Devices, Gpu

DEVICES = Devices(
    Cpu("a cpu", 1, 4, 8, 16 * 2**30),
    (
        Gpu(0, "nvidia", "a card", "GPU-a", 8 * 2**30, "550", None),
        Gpu(1, "amd", "another", None, None, "amdgpu", None),
    ),
)


class Machine:
    def __init__(self, latest: Devices | None = None) -> None:
        self.latest = latest

    def detect(self) -> Devices:
        return DEVICES


@pytest.fixture(autouse=True)
def six(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.os, "sched_getaffinity", lambda _pid: set(range(6)))


@pytest.mark.parametrize("latest", [None, DEVICES])
async def test_a_pool_is_the_processors_or_a_card(latest: Any) -> None:
    machine = Machine(latest)

    assert await place_of("ram", machine) == Place(None, 16 * 2**30, 4)
    assert await place_of("gpu0", machine) == Place("GPU-a", 8 * 2**30, 4)
    assert await place_of("gpu1", machine) == Place("", None, 4)
    with pytest.raises(BadInput, match="no card gpu7") as caught:
        await place_of("gpu7", machine)
    assert caught.value.field == "pool"


async def test_what_is_allowed_of_the_machine_counts() -> None:
    few = Devices(Cpu(None, None, None, None, 16 * 2**30, 1.5, 2**30))

    assert await place_of("ram", Machine(few)) == Place(None, 2**30, 6)

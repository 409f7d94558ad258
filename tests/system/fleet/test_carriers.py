"""The connections that a hive dials for its queen's requests: several, or none, or one that never ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.trees import Trees

from tests.system.commands import HIVE, altered, rbeectl
from tests.system.fleet.fleet import PORT, SUITES, Fleet, fleet_of, refused

PACKAGES = "/usr/lib/python3/dist-packages"
OFFER, APP = f"{PACKAGES}/rbee/uplink/offer.py", f"{PACKAGES}/rbee/hive/app.py"

SAMPLING = "    async def sample(_request: Request) -> Sample:\n"

CARRIERS = f"ss -Htn state established dport = :{PORT} | wc -l"


@pytest.fixture(scope="module")
def fleet(trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen and two hives, on either Debian."""
    with fleet_of(trees, debs, queen=SUITES[0], hives=2) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def all_are_online_again(fleet: Fleet) -> Iterator[None]:
    yield
    fleet.hives["gpu1"].run("systemctl", "restart", HIVE)
    for name in fleet.hives:
        fleet.await_state(name, "online")


def test_a_hive_that_does_not_dial_is_named_and_holds_nobody_up(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    with altered(gpu1, OFFER, "            self._dial(frame.id)\n", "            pass\n"):
        gpu1.run("systemctl", "restart", HIVE)
        waiting = fleet.queen.popen("rbeectl", "add-hive", "gpu1", user="ada")
        assert rbeectl(fleet.queen, "show", "gpu2", "--json").json["sample"] is not None
        assert fleet.states()["gpu2"] == "online"
        _, told = waiting.communicate(timeout=60)
        assert waiting.returncode == 1
        assert "was asked for a connection, and did not dial one within 10 s" in told, told


def test_an_answer_that_never_ends_is_cut_off(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    endless = """        import starlette.responses
        async def endless():
            while True:
                yield b" "
                await asyncio.sleep(0.1)
        return starlette.responses.StreamingResponse(endless(), media_type="application/json")
        models, workers = """
    with altered(gpu1, APP, "        models, workers = ", endless):
        gpu1.run("systemctl", "restart", HIVE)
        added = rbeectl(fleet.queen, "add-hive", "gpu1", timeout=60)
        refused(added, 1, "the beehive gpu1 did not answer within")
        assert fleet.states()["gpu2"] == "online"


def test_a_request_that_takes_long_has_a_connection_of_its_own(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    with altered(gpu1, APP, SAMPLING, SAMPLING + "        await asyncio.sleep(2)\n"):
        gpu1.run("systemctl", "restart", HIVE)
        fleet.await_state("gpu1", "online")
        waiting = fleet.queen.popen("rbeectl", "show", "gpu1", "--json", user="ada")
        gpu1.run("sh", "-c", f"until [ $({CARRIERS}) -ge 2 ]; do sleep 0.02; done", timeout=10)
        engines = rbeectl(fleet.queen, "list-engines", "--json").json
        assert "gpu1" in str(engines), engines
        assert waiting.poll() is None  # the other answer is still awaited
        assert int(gpu1.run("sh", "-c", CARRIERS).stdout) >= 3
        waiting.communicate(timeout=60)
        assert waiting.returncode == 0

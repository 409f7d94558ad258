"""A shutdown that is tried again."""

from __future__ import annotations

import pytest

from rbee import __version__
from rbee.errors import UnitFailed
from tests.unit.queen.joined import INSTANCE, OPERATOR, Queen, answering
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_a_shutdown_that_failed_tells_the_hives_again_when_it_is_asked_again(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(unit: str) -> None:
        raise UnitFailed("systemd would not")

    peer = await queen.member()
    monkeypatch.setattr(queen.hives._bus, "ask_stop", fail)
    for number in (1, 2):
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        taking = answering(stream, status=202, content=b'{"status": "stopping"}')
        job = queen.work.shut_down(OPERATOR)
        await until(lambda job=job: job.view().state != "running")
        assert queen.tape.of("hive-told") == ["the beehive gpu1 is shutting down"] * number
        taking.go()

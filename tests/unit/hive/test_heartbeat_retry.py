"""A heart that is patient, or is not: what a beat that failed means for the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rbee.hive.heartbeat
from rbee.client.link import HeartbeatClient
from rbee.errors import (
    Disconnected,
    HiveNotOnline,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    UnknownHive,
    Unreachable,
)
from rbee.hive.heartbeat import Heart
from rbee.narration import Narrator
from rbee.wire.hives import Heartbeat, HeartbeatAck
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)


ACK = HeartbeatAck("ok", 60_000)
UNHEARD = [Disconnected("it broke"), NotRunning("nobody"), TimedOut("too long"), Unreachable("no route")]
REFUSALS = [UnknownHive("who are you?"), NotPermitted("not you"), HiveNotOnline("you hold no stream open")]


class Queen(HeartbeatClient):
    """Answers each beat with the next of her answers, the last of them for good."""

    def __init__(self, *answers: HeartbeatAck | RbeeError) -> None:
        self.answers = list(answers)
        self.beats: list[Heartbeat] = []

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        self.beats.append(heartbeat)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RbeeError):
            raise answer
        return answer


async def pauses_of(
    queen: Queen, *, count: int, is_patient: bool, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """The first pauses between its beats of a heart whose clock does not wait."""

    pauses: list[float] = []
    enough = asyncio.Event()

    class Quick:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        async def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) >= count:
                enough.set()
                await asyncio.Event().wait()

    monkeypatch.setattr(rbee.hive.heartbeat, "asyncio", Quick())
    monkeypatch.setattr(rbee.hive.heartbeat, "JITTER", 0)
    heart = Heart("gpu1", queen, Narrator(), status=lambda text: None, queen_name="queen:8500")
    running = asyncio.ensure_future(heart.run(is_patient=is_patient))
    reached = asyncio.ensure_future(enough.wait())
    await asyncio.wait((running, reached), return_when=asyncio.FIRST_COMPLETED)
    for task in (running, reached):
        task.cancel()
    ended, _ = await asyncio.gather(running, reached, return_exceptions=True)
    if isinstance(ended, RbeeError):
        raise ended
    return pauses


@pytest.mark.parametrize("failure", [*UNHEARD, *REFUSALS], ids=lambda failure: failure.slug)
async def test_a_beat_that_failed_ends_it_with_what_it_failed_by(
    monkeypatch: pytest.MonkeyPatch, failure: RbeeError
) -> None:
    queen = Queen(ACK, ACK, failure)

    with pytest.raises(type(failure)) as caught:
        await pauses_of(queen, count=9, is_patient=False, monkeypatch=monkeypatch)

    assert caught.value is failure
    assert len(queen.beats) == 3


async def test_the_announcement_that_is_refused_is_followed_by_the_beat_that_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queen = Queen(UnknownHive("who are you?"))

    with pytest.raises(UnknownHive):
        await pauses_of(queen, count=9, is_patient=False, monkeypatch=monkeypatch)

    assert [beat.state for beat in queen.beats] == ["starting", "ready"]


async def test_a_failure_that_is_over_does_not_count_against_the_next_beat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queen = Queen(UnknownHive("not yet"), ACK)

    assert await pauses_of(queen, count=3, is_patient=False, monkeypatch=monkeypatch) == [60] * 3


@pytest.mark.parametrize("failure", [*UNHEARD, *REFUSALS], ids=lambda failure: failure.slug)
async def test_a_patient_one_beats_on_when_the_next_beat_is_due(
    monkeypatch: pytest.MonkeyPatch, failure: RbeeError
) -> None:
    queen = Queen(ACK, ACK, failure)

    assert await pauses_of(queen, count=4, is_patient=True, monkeypatch=monkeypatch) == [60] * 4
    assert len(queen.beats) == 5


async def test_run_anew_it_beats_at_once_and_announces_itself_no_second_time() -> None:
    queen = Queen(ACK, ACK, UnknownHive("who are you?"))
    heart = Heart("gpu1", queen, Narrator(), status=lambda text: None, queen_name="queen:8500")
    first = asyncio.ensure_future(heart.run(is_patient=False))
    await until(lambda: len(queen.beats) == 2)
    first.cancel()
    await asyncio.wait((first,))
    with pytest.raises(UnknownHive):
        await heart.run(is_patient=False)
    assert [beat.state for beat in queen.beats] == ["starting", "ready", "ready"]

"""The hive's heart, against a queen who is played at the wire."""

from __future__ import annotations

import asyncio
import json

import pytest

import rbee.hive.heartbeat
from rbee import __version__
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
from rbee.hive.heartbeat import GOODBYE_TIMEOUT, LINES_MAX, Heart
from rbee.narration import DETECTED, GOODBYE, Event, Narrator
from rbee.server.connection import BODY_LIMIT
from rbee.wire.codec import decode, encode
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)


JOB, OTHER = "7" * 32, "8" * 32
ACK = HeartbeatAck("ok", 15_000)


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))


class Queen(HeartbeatClient):
    """Takes beats, and answers each with the next of her answers, the last of them for good."""

    def __init__(self, *answers: HeartbeatAck | RbeeError) -> None:
        self.answers = list(answers) or [ACK]
        self.beats: list[Heartbeat] = []
        self.timeouts: list[float | None] = []
        self.open = True
        self.holds = asyncio.Event()
        self.holds.set()
        self.heard = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.open

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        assert decode(Heartbeat, encode(heartbeat)) == heartbeat
        self.beats.append(heartbeat)
        self.timeouts.append(timeout)
        self.heard.set()
        await self.holds.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RbeeError):
            raise answer
        return answer

    def texts(self) -> list[list[str]]:
        return [[line.text for line in beat.lines] for beat in self.beats]


class Body:
    """A heart with its queen, its journal and its status line."""

    def __init__(self, *answers: HeartbeatAck | RbeeError) -> None:
        self.queen, self.journal = Queen(*answers), Tape()
        self.status: list[str] = []
        self.heart = Heart(
            "blade-7", self.queen, self.journal, status=self.status.append, queen_name="/run/queen.sock"
        )


async def beating(body: Body, beats: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the heart run for so many beats on a clock that does not wait; the pauses that it made."""
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(_heart: Heart, seconds: float) -> None:
        pauses.append(seconds)
        if len(body.queen.beats) >= beats:
            enough.set()
            await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Heart, "_pause", pause)
        running = asyncio.ensure_future(body.heart.run())
        await enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return pauses


# Beating


async def test_a_change_of_its_work_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.hive.heartbeat.LEAST_INTERVAL", 0.01)
    body = Body()
    marks = iter([None, None, "1a", "1b"])
    body.heart._work = lambda: next(marks)
    running = asyncio.ensure_future(body.heart.run())
    await until(lambda: len(body.queen.beats) == 2)
    body.heart.hurry()
    await until(lambda: len(body.queen.beats) == 3)
    body.heart.hurry()
    body.heart.hurry()
    await until(lambda: len(body.queen.beats) == 4)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert [beat.work for beat in body.queen.beats] == [None, None, "1a", "1b"]


async def test_each_beat_tells_the_fingerprint_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body()
    told = iter(["f1", "f2", None, "f4"])
    body.heart._fingerprint = lambda: next(told)
    await beating(body, 4, monkeypatch)
    assert [beat.fingerprint for beat in body.queen.beats] == ["f1", "f2", None, "f4"]


async def test_the_first_beat_goes_out_at_once_and_says_who_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body()
    assert len(await beating(body, 2, monkeypatch)) == 1

    announced, first = body.queen.beats
    assert [beat.state for beat in (announced, first)] == ["starting", "ready"]
    assert (first.hive_id, first.workers, first.version) == ("blade-7", (), __version__)
    assert announced.instance == first.instance
    assert body.queen.texts() == [[], ["Sending first heartbeat to queen"]]
    assert body.journal.told == [
        ("sending-heartbeat", "Sending first heartbeat to queen", {"hive": "blade-7"})
    ]


async def test_each_start_of_the_process_is_an_instance_of_its_own() -> None:
    bodies = [Body() for _ in range(5)]
    for body in bodies:
        await body.heart.beat()
    assert len({body.queen.beats[0].instance for body in bodies}) == 5


async def test_the_queen_s_interval_is_kept_with_jitter_and_never_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = await beating(Body(HeartbeatAck("ok", 2_000)), 40, monkeypatch)

    assert all(1.8 <= pause <= 2.0 for pause in pauses)
    assert len(set(pauses)) > 10


async def test_until_the_queen_says_otherwise_it_beats_every_15_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all(
        13.5 <= pause <= 15 for pause in await beating(Body(NotRunning("nobody listens")), 20, monkeypatch)
    )


async def test_a_new_interval_holds_from_the_next_pause_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = await beating(
        Body(ACK, HeartbeatAck("ok", 1_000), HeartbeatAck("ok", 60_000)), 4, monkeypatch
    )

    assert 0.9 <= first <= 1
    assert 54 <= second <= 60


async def test_an_interval_of_nothing_does_not_make_the_heart_race(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(pause >= 0.05 for pause in await beating(Body(HeartbeatAck("ok", 0)), 3, monkeypatch))


async def test_two_beats_are_never_under_way_at_once() -> None:
    body = Body()
    body.queen.holds.clear()
    both = [asyncio.ensure_future(body.heart.beat()) for _ in range(2)]
    await body.queen.heard.wait()
    await asyncio.sleep(0)
    under_way = len(body.queen.beats)
    body.queen.holds.set()
    await asyncio.gather(*both)
    assert [under_way, len(body.queen.beats)] == [1, 2]


# Which job


async def test_the_ack_names_the_job_and_the_first_line_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body(HeartbeatAck("ok", 15_000, JOB))
    await beating(body, 2, monkeypatch)

    assert [beat.job_id for beat in body.queen.beats] == [None, JOB]
    assert body.journal.told == [
        ("sending-heartbeat", "Sending first heartbeat to queen", {"hive": "blade-7", "job_id": JOB})
    ]


async def test_lines_go_up_with_the_next_beat_and_only_once() -> None:
    body = Body()
    body.heart.narrate(DETECTED, "one", job_id=JOB)
    body.heart.narrate(DETECTED, "two", job_id=JOB)
    await body.heart.beat()
    await body.heart.beat()

    assert body.queen.texts() == [["one", "two"], []]
    assert [beat.job_id for beat in body.queen.beats] == [JOB, None]
    line = body.queen.beats[0].lines[0]
    assert (line.speaker, line.event) == ("bee hive", "detected")
    assert [fields for _, _, fields in body.journal.told] == [{"hive": "blade-7", "job_id": JOB}] * 2


async def test_lines_of_different_jobs_go_with_different_beats_in_their_order() -> None:
    body = Body()
    for text, job_id in (("a", JOB), ("b", JOB), ("c", OTHER), ("d", None), ("e", JOB)):
        body.heart.narrate(DETECTED, text, **({"job_id": job_id} if job_id else {}))
    await body.heart.beat()

    assert body.queen.texts() == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [beat.job_id for beat in body.queen.beats] == [JOB, OTHER, None, JOB]


async def test_lines_that_did_not_arrive_go_up_again() -> None:
    body = Body(TimedOut("too long"), ACK)
    body.heart.narrate(DETECTED, "one", job_id=JOB)
    await body.heart.beat()
    body.heart.narrate(DETECTED, "two", job_id=JOB)
    await body.heart.beat()
    assert body.queen.texts() == [["one"], ["one", "two"]]


async def test_a_line_that_is_told_while_a_beat_is_under_way_goes_with_the_next() -> None:
    body = Body()
    body.heart.narrate(DETECTED, "one")
    body.queen.holds.clear()
    first = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    body.heart.narrate(DETECTED, "two")
    body.queen.holds.set()
    await first
    await body.heart.beat()
    assert body.queen.texts() == [["one"], ["two"], []]


async def test_lines_that_nobody_takes_are_bounded_and_the_oldest_give_way() -> None:
    body = Body()
    for number in range(LINES_MAX + 10):
        body.heart.narrate(DETECTED, f"line {number}")
    await body.heart.beat()
    await body.heart.beat()

    assert body.queen.texts() == [[f"line {number}" for number in range(10, LINES_MAX + 10)], []]
    assert len(body.journal.told) == LINES_MAX + 10, "the journal has them all"


async def test_long_lines_go_up_in_several_beats_that_the_queen_can_take() -> None:
    body = Body()
    for number in range(LINES_MAX):
        body.heart.narrate(DETECTED, f"{number} " + "🐝" * 3000)
    await body.heart.beat()
    assert [text.split()[0] for texts in body.queen.texts() for text in texts] == [
        str(number) for number in range(LINES_MAX)
    ]
    assert all(len(json.dumps(encode(beat))) < BODY_LIMIT for beat in body.queen.beats)


async def test_lines_that_come_while_a_full_beat_is_under_way_are_not_lost() -> None:
    body = Body()
    for number in range(LINES_MAX):
        body.heart.narrate(DETECTED, f"line {number}")
    body.queen.holds.clear()
    first = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    for number in range(5):
        body.heart.narrate(DETECTED, f"new {number}")
    body.queen.holds.set()
    await first
    await body.heart.beat()
    assert body.queen.texts()[1] == [f"new {number}" for number in range(5)]


# Trouble


async def test_a_queen_who_is_away_is_told_once_and_her_return_once() -> None:
    away = NotRunning("nobody listens on /run/queen.sock")
    body = Body(ACK, away, TimedOut("too long"), away, ACK, ACK, away, ACK)
    for _ in range(8):
        await body.heart.beat()

    assert [(name, fields) for name, _, fields in body.journal.told] == [
        ("queen-away", {"hive": "blade-7"}),
        ("queen-back", {"hive": "blade-7"}),
        ("queen-away", {"hive": "blade-7"}),
        ("queen-back", {"hive": "blade-7"}),
    ]
    assert "nobody listens on /run/queen.sock" in body.journal.told[0][1]


async def test_a_hive_that_nobody_added_says_once_how_to_add_it() -> None:
    body = Body(UnknownHive("hive 'blade-7' is not in the hive catalog"))
    for _ in range(5):
        await body.heart.beat()

    assert body.journal.told == [
        (
            "not-in-catalog",
            "hive 'blade-7' is not in the hive catalog; add it with: rbeectl add-hive blade-7",
            {"hive": "blade-7"},
        )
    ]


async def test_another_kind_of_trouble_is_told_as_such() -> None:
    body = Body(NotRunning("nobody listens"), UnknownHive("who?"), UnknownHive("who?"), ACK)
    for _ in range(4):
        await body.heart.beat()
    assert [name for name, _, _ in body.journal.told] == [
        "queen-away",
        "not-in-catalog",
        "queen-back",
    ]


async def test_trouble_is_not_part_of_a_story_that_goes_up() -> None:
    body = Body(NotPermitted("heartbeats are accepted from the user rbee-hive only"), ACK)
    await body.heart.beat()
    await body.heart.beat()
    assert body.queen.texts() == [[], []]


async def test_the_status_line_says_how_often_it_beats_and_what_is_wrong() -> None:
    body = Body(ACK, NotRunning("nobody listens"))
    await body.heart.beat()
    await body.heart.beat()
    well, trouble = body.status

    assert well == "queen at /run/queen.sock, heartbeat every 15 s"
    assert trouble == "queen at /run/queen.sock: nobody listens"


# Goodbye


async def test_goodbye_goes_over_an_open_connection_within_a_second() -> None:
    body = Body()
    body.heart.narrate(GOODBYE, "Received shutdown signal, goodbye")
    await body.heart.goodbye()
    queen = body.queen

    assert [(beat.state, len(beat.lines)) for beat in queen.beats] == [("stopping", 1)]
    assert queen.timeouts == [GOODBYE_TIMEOUT]
    assert GOODBYE_TIMEOUT <= 1


async def test_the_goodbye_alone_says_what_the_machine_does() -> None:
    body = Body()
    await body.heart.beat()
    await body.heart.goodbye(lambda: "rebooting")
    assert [beat.machine for beat in body.queen.beats] == [None, "rebooting"]


async def test_the_goodbye_is_the_last_beat() -> None:
    body = Body()
    running = asyncio.ensure_future(body.heart.run())
    await body.queen.heard.wait()
    await body.heart.goodbye(lambda: "shutting-down")
    said = len(body.queen.beats)
    body.heart.hurry()  # as a worker that ends meanwhile does
    await body.heart.beat()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (len(body.queen.beats), body.queen.beats[-1].state) == (said, "stopping")


async def test_goodbye_never_opens_a_connection() -> None:
    body = Body()
    body.queen.open = False
    await body.heart.goodbye()
    assert body.queen.beats == []


async def test_goodbye_comes_after_a_beat_that_is_under_way() -> None:
    body = Body()
    body.queen.holds.clear()
    under_way = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    goodbye = asyncio.ensure_future(body.heart.goodbye(lambda: "rebooting"))
    await asyncio.sleep(0)
    body.queen.holds.set()
    await asyncio.gather(under_way, goodbye)
    beats = [(beat.state, beat.machine) for beat in body.queen.beats]
    assert beats == [("ready", None), ("stopping", "rebooting")]


async def test_goodbye_does_not_wait_long_for_a_beat_that_is_under_way() -> None:
    body = Body()
    body.queen.holds.clear()
    stuck = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    await asyncio.wait_for(body.heart.goodbye(), 1)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    assert [beat.state for beat in body.queen.beats] == ["ready"]


async def test_goodbye_does_not_wait_at_all_for_a_beat_that_has_had_its_time() -> None:
    body = Body()
    body.queen.holds.clear()
    stuck = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    goodbye = asyncio.ensure_future(body.heart.goodbye(timeout=60))
    body.heart._sent_at -= 60
    await asyncio.wait_for(goodbye, 2)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    assert [beat.state for beat in body.queen.beats] == ["ready"]


async def test_a_heart_whose_beat_was_cut_off_can_still_say_goodbye() -> None:
    body = Body()
    body.queen.holds.clear()
    running = asyncio.ensure_future(body.heart.run())
    await body.queen.heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    body.queen.holds.set()
    await body.heart.goodbye()
    assert [beat.state for beat in body.queen.beats] == ["starting", "stopping"]


async def test_a_goodbye_that_fails_is_no_error() -> None:
    await Body(TimedOut("too long")).heart.goodbye()


# Patience after a beat that failed


LATER = HeartbeatAck("ok", 60_000)
UNHEARD = [Disconnected("it broke"), NotRunning("nobody"), TimedOut("too long"), Unreachable("no route")]
REFUSALS = [UnknownHive("who are you?"), NotPermitted("not you"), HiveNotOnline("you hold no stream open")]


async def pauses_of(
    queen: Queen, *, count: int, is_patient: bool, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """The first pauses between its beats of a heart whose clock does not wait."""

    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(_heart: Heart, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= count:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Heart, "_pause", pause)
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
    queen = Queen(LATER, LATER, failure)

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
    queen = Queen(UnknownHive("not yet"), LATER)

    assert await pauses_of(queen, count=3, is_patient=False, monkeypatch=monkeypatch) == [60] * 3


@pytest.mark.parametrize("failure", [*UNHEARD, *REFUSALS], ids=lambda failure: failure.slug)
async def test_a_patient_one_beats_on_when_the_next_beat_is_due(
    monkeypatch: pytest.MonkeyPatch, failure: RbeeError
) -> None:
    queen = Queen(LATER, LATER, failure)

    assert await pauses_of(queen, count=4, is_patient=True, monkeypatch=monkeypatch) == [60] * 4
    assert len(queen.beats) == 5


async def test_run_anew_it_beats_at_once_and_announces_itself_no_second_time() -> None:
    queen = Queen(LATER, LATER, UnknownHive("who are you?"))
    heart = Heart("gpu1", queen, Narrator(), status=lambda text: None, queen_name="queen:8500")
    first = asyncio.ensure_future(heart.run(is_patient=False))
    await until(lambda: len(queen.beats) == 2)
    first.cancel()
    await asyncio.wait((first,))
    with pytest.raises(UnknownHive):
        await heart.run(is_patient=False)
    assert [beat.state for beat in queen.beats] == ["starting", "ready", "ready"]


async def test_a_beat_that_no_queen_takes_does_not_keep_the_hive_from_stopping() -> None:
    body = Body()
    body.queen.holds.clear()
    beating = asyncio.ensure_future(body.heart.beat())
    await body.queen.heard.wait()
    body.heart.stop()
    await beating
    await body.heart.beat()
    assert len(body.queen.beats) == 1
    assert body.status == []

"""The hive's heart: one kept connection, a queen who may be away, and lines that reach their story."""

from __future__ import annotations

import json
from dataclasses import replace

from rbee.narration import DETECTED
from rbee.queen.api.admission import Admission
from rbee.queen.api.hives import plain_beats
from rbee.server.peer import Peer
from rbee.wire.codec import encode
from rbee.wire.hives import Heartbeat, HeartbeatAck
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, listen, until

HIVE_UID = 4711


async def test_all_beats_go_over_one_connection(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    beats = len(house.hive.notifier.statuses)

    await until(lambda: len(house.hive.notifier.statuses) >= beats + 10)

    # One of the hive's, and one of the keeper's, who asked her to add it.
    assert len(queen.listener.accepted) == 2


async def test_all_that_the_queen_asks_of_a_hive_goes_over_one_connection(house: House) -> None:
    await house.added()
    for _ in range(3):
        assert (await house.add().end()).kind == "done"

    assert len(house.hive.listener.accepted) == 1


async def test_the_beat_is_kept_that_the_queen_asks_for(house: House) -> None:
    await house.added(heartbeat_interval=0.2)

    assert house.hive.notifier.statuses[-1].endswith("the next within 0.2 s")


async def test_a_queen_who_is_away_is_told_of_once_and_so_is_her_return(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    await queen.kill()
    house.queen_socket.close()
    house.queen_path.unlink()

    away = await house.journal.says(event="queen-away")
    seen = len(house.hive.notifier.statuses)
    await until(lambda: len(house.hive.notifier.statuses) >= seen + 5)
    assert len(house.journal.of(event="queen-away")) == 1
    assert (away["SYSLOG_IDENTIFIER"], away["PRIORITY"]) == ("rbee-hive", "4")
    assert away["MESSAGE"].startswith("the queen does not take heartbeats: ")
    assert "nobody listens" in house.hive.notifier.statuses[-1]

    house.queen_socket = listen(house.queen_path)
    await house.wake_queen(heartbeat_interval=0.1)

    await house.journal.says(event="queen-back")
    await house.is_in("online")
    beats = len(house.hive.notifier.statuses)
    await until(lambda: len(house.hive.notifier.statuses) >= beats + 3)
    assert len(house.journal.of(event="queen-back")) == 1
    assert len(house.journal.of(event="queen-away")) == 1


async def test_a_queen_who_dies_between_two_beats_is_dialled_again(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    await queen.kill()

    second = await house.wake_queen(heartbeat_interval=0.1)

    await house.is_in("online")
    assert second.hives.find("localhost") is not None
    assert len(house.journal.of(event="queen-away")) <= 1


async def test_lines_of_a_hive_wait_for_a_queen_who_is_away_and_reach_their_story(house: House) -> None:
    await house.wake_queen()
    house.systemd.may_start.clear()
    story = house.add()
    await story.to("waking up")
    house.hive_dials = house.root / "elsewhere.sock"
    house.systemd.may_start.set()
    await house.journal.says(event="queen-away")

    # The way to the queen opens, and what was said meanwhile is told in its order.
    house.hive.heart.narrate(DETECTED, "said before the queen could be reached", job_id=story.job_id)
    house.hive_dials.symlink_to(house.queen_path)
    await house.hive.heart.beat()
    await house.hive.heart.beat()

    lines, end = await story.rest()
    assert end.kind == "done"
    assert "(bee hive) said before the queen could be reached" in lines


async def test_no_line_is_told_twice(house: House) -> None:
    await house.wake_queen(heartbeat_interval=0.1)
    lines, _end = await house.add().rest()
    await house.add().end()
    for _ in range(5):
        await house.hive.heart.beat()

    assert len(lines) == len(set(lines))
    assert len(house.journal.of(event="sending-heartbeat")) == 1


async def test_a_line_for_a_job_that_has_ended_is_dropped(house: House) -> None:
    await house.wake_queen()
    story = house.add()
    lines, _end = await story.rest()

    house.hive.heart.narrate(DETECTED, "too late", job_id=story.job_id)
    await house.hive.heart.beat()
    await house.hive.heart.beat()

    again, end = await house.story(QueenRoutes.EVENTS, job_id=story.job_id).rest()
    assert (again, end.kind) == (lines, "done")


async def test_a_hive_says_nothing_in_the_story_of_another(house: House) -> None:
    queen = await house.added()
    other, of_all = queen.jobs.open("remove-hive", "elsewhere"), queen.jobs.open("shutdown", None)

    for job in (other, of_all):
        house.hive.heart.narrate(DETECTED, "hello", job_id=job.id)
        await house.hive.heart.beat()

    assert (other.view().lines, of_all.view().lines) == (0, 1)


async def test_the_goodbye_goes_over_an_open_connection(house: House) -> None:
    await house.added()
    accepted = len(house.queens[0].listener.accepted)
    assert house.hive.queen.beats.is_open

    await house.systemd.administrator_stops()

    assert house.journal.of(event="goodbye")[0]["MESSAGE"] == "Received shutdown signal, goodbye"
    assert len(house.queens[0].listener.accepted) == accepted


async def test_without_an_open_connection_the_hive_goes_without_a_goodbye(house: House) -> None:
    queen = await house.added()
    await queen.kill()
    waking = house.queen_socket  # systemd listens on, and whoever dials wakes the queen
    assert not house.hive.queen.beats.is_open

    await house.systemd.administrator_stops()

    try:
        connection, _address = waking.accept()
    except BlockingIOError:
        return
    connection.close()
    raise AssertionError("the hive's goodbye would wake the queen")


async def test_a_beat_that_somebody_repeats_is_not_answered_quickly_either(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    hive = queen.hives.hive("localhost")
    taken: list[Heartbeat] = []
    real = hive.take_plain

    def take_plain(beat: Heartbeat) -> HeartbeatAck | None:
        taken.append(beat)
        return real(beat)

    hive.take_plain = take_plain
    await until(lambda: len(taken) > 0)
    await house.hive.kill()
    await house.is_in("offline")
    standing = hive.standing
    standing.set("online", "")
    answer = plain_beats(queen.hives, queen.fleet, Admission(HIVE_UID))

    def sent(beat: Heartbeat, uid: int) -> bool:
        taken.clear()
        is_answered = answer(Peer(1, uid, 0), json.dumps(encode(beat)).encode()) is not None
        assert is_answered or uid == HIVE_UID or not taken
        return is_answered

    beat = replace(taken[0], lines=())
    standing.life.instance = beat.instance
    assert sent(beat, HIVE_UID)
    assert not sent(beat, HIVE_UID + 1)
    assert not sent(replace(beat, instance="9" * 32), HIVE_UID)
    assert not sent(replace(beat, hive_id="gpu1"), HIVE_UID)
    assert not sent(replace(beat, state="stopping"), HIVE_UID)
    assert not sent(replace(beat, fingerprint="other"), HIVE_UID)
    standing.set("suspect", "late")
    assert not sent(beat, HIVE_UID)

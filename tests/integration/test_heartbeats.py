"""The hive's heart: one kept connection, a queen who may be away, and lines that reach their story."""

from __future__ import annotations

from rbee.narration import DETECTED
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, listen, until


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

    assert house.hive.notifier.statuses[-1].endswith("heartbeat every 0.2 s")


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

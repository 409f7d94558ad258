"""Whether a hive is alive: one set of rules, on clocks that the test turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from rbee.queen.hives.liveness import Clocks, Life, Pace
from rbee.wire.hives import State

INTERVAL, GRACE = 15.0, 5.0
FIRST, SECOND = "1" * 32, "2" * 32
PACE = Pace(INTERVAL, GRACE)


class Turned:
    """A monotonic clock and a wall clock that differ, as they do."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round(self.now * 1000)


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def tally() -> Counter[State]:
    return Counter()


Alive = Callable[..., Life]


@pytest.fixture
def alive(clock: Turned, tally: Counter[State]) -> Alive:
    def begin(state: State = "pending", reason: str = "just added") -> Life:
        return Life(state, reason, Clocks(lambda: clock.monotonic(), lambda: clock.wall_ms()), tally)

    return begin


def beat(life: Life, instance: str = FIRST, *, interval: float = INTERVAL) -> bool:
    return life.beat(instance, None, interval)


def online(alive: Alive) -> Life:
    life = alive()
    beat(life)
    life.set("online", "heartbeats received")
    return life


def judged(life: Life) -> bool:
    return life.judge(PACE.patience_with_local(life.interval))


def test_a_state_has_its_reason_and_since_when(alive: Alive, clock: Turned) -> None:
    life = alive()
    since = clock.wall_ms()
    clock.now += 1

    assert not life.set("pending", "just added")
    assert (life.state, life.reason, life.since_ms, life.last_beat_ms) == (
        "pending", "just added", since, None,
    )  # fmt: skip


def test_another_reason_for_the_same_state_does_not_make_it_younger(alive: Alive, clock: Turned) -> None:
    life = alive()
    since = clock.wall_ms()
    clock.now += 1

    assert life.set("pending", "waking up")
    assert (life.reason, life.since_ms) == ("waking up", since)


def test_another_state_begins_now(alive: Alive, clock: Turned) -> None:
    life = alive()
    clock.now += 1

    assert life.set("online", "heartbeats received")
    assert life.since_ms == clock.wall_ms()


def test_a_beat_is_noted_and_changes_no_state(alive: Alive, clock: Turned) -> None:
    life = alive()
    clock.now += 3

    assert beat(life)
    assert (life.state, life.heard, life.last_beat_ms, life.instance) == (
        "pending", clock.now, clock.wall_ms(), FIRST,
    )  # fmt: skip


def test_only_the_first_beat_of_a_process_is_its_first(alive: Alive) -> None:
    life = alive()

    beats = [beat(life, one) for one in (FIRST, FIRST, SECOND, SECOND, FIRST)]
    assert beats == [True, False, True, False, True]


def test_a_beat_is_late_by_what_its_process_was_told_and_a_first_one_is_not(
    alive: Alive, clock: Turned
) -> None:
    life = alive()
    assert life.lateness(FIRST, INTERVAL) is None
    beat(life, interval=40.0)
    clock.now += 41
    assert life.lateness(FIRST, INTERVAL) == pytest.approx(1)
    assert life.lateness(SECOND, INTERVAL) is None


@pytest.mark.parametrize(
    ("silence", "state", "reason"),
    [
        (0, "online", "heartbeats received"),
        (INTERVAL + GRACE, "online", "heartbeats received"),
        (INTERVAL + GRACE + 0.1, "suspect", "no heartbeat for more than 20 s"),
        (3 * INTERVAL + GRACE, "suspect", "no heartbeat for more than 20 s"),
        (3 * INTERVAL + GRACE + 0.1, "offline", "no heartbeat for 3 intervals of 15 s"),
        (10_000, "offline", "no heartbeat for 3 intervals of 15 s"),
    ],
)
def test_silence_makes_a_hive_suspect_and_then_offline(
    alive: Alive, clock: Turned, silence: float, state: str, reason: str
) -> None:
    life = online(alive)
    clock.now += silence

    assert judged(life) == (state != "online")
    assert (life.state, life.reason) == (state, reason)


def test_a_verdict_is_given_once(alive: Alive, clock: Turned) -> None:
    life = online(alive)
    clock.now += INTERVAL + GRACE + 1
    assert judged(life)
    clock.now += 1
    assert not judged(life)


def test_a_beat_ends_the_silence(alive: Alive, clock: Turned) -> None:
    life = online(alive)
    for _ in range(10):
        clock.now += INTERVAL
        beat(life)
        assert not judged(life)


@pytest.mark.parametrize("state", ["pending", "offline"])
def test_silence_says_nothing_of_a_hive_that_nobody_expects_to_beat(
    alive: Alive, clock: Turned, state: State
) -> None:
    life = alive(state, "so it is")
    clock.now += 10_000

    assert not judged(life)
    assert (life.state, life.reason) == (state, "so it is")


def test_after_a_restart_a_hive_is_unknown_and_offline_only_once_it_could_have_been_heard(
    alive: Alive, clock: Turned
) -> None:
    life = alive("unknown", "no heartbeat since the queen started (last known: online)")
    clock.now += INTERVAL + GRACE
    assert not judged(life)

    clock.now += 0.1
    assert judged(life)
    assert (life.state, life.reason) == ("offline", "no heartbeat since the queen started")


def test_the_time_of_day_decides_nothing(alive: Alive, clock: Turned) -> None:
    life = online(alive)
    clock.wall_ms = lambda: 5  # type: ignore[method-assign]

    assert not judged(life)
    assert life.state == "online"


def test_the_end_of_a_process_is_the_hive_s_end_at_once(alive: Alive, clock: Turned) -> None:
    life = online(alive)
    clock.now += 1

    assert life.end("its process ended (killed by signal 9)")
    assert (life.state, life.reason, life.since_ms, life.instance) == (
        "offline", "its process ended (killed by signal 9)", clock.wall_ms(), None,
    )  # fmt: skip


def test_an_end_is_one_and_its_first_reason_stays_unless_another_is_final(alive: Alive) -> None:
    life = online(alive)
    life.end("its process ended")

    assert not life.end("stopped")
    assert (life.state, life.reason) == ("offline", "its process ended")
    assert life.end("stopped by an administrator", is_final=True)
    assert life.reason == "stopped by an administrator"


def test_a_beat_after_the_end_is_a_first_one_even_of_the_same_instance(alive: Alive) -> None:
    life = online(alive)
    life.end("its process ended")

    assert beat(life)


def test_the_tally_is_kept_as_states_change_and_hives_go(alive: Alive, tally: Counter[State]) -> None:
    lives = [alive("unknown", "") for _ in range(3)]
    assert tally == {"unknown": 3}
    lives[0].set("online", "")
    lives[1].set("online", "")
    lives[1].end("gone")
    assert +tally == {"unknown": 1, "online": 1, "offline": 1}
    for life in lives:
        life.forget()
    assert +tally == {}


@pytest.mark.parametrize(
    ("state", "silence", "due"),
    [
        ("online", 12.0, 8.0),
        ("online", 30.0, -10.0),
        ("unknown", 12.0, 8.0),
        ("suspect", 45.0, 5.0),
        ("pending", 19.0, None),
        ("offline", 19.0, None),
    ],
)
def test_a_verdict_is_due_when_silence_can_next_change_the_state(
    alive: Alive, clock: Turned, state: State, silence: float, due: float | None
) -> None:
    life = alive(state, "")
    clock.now += silence

    assert life.due(PACE.patience_with_local(None)) == (None if due is None else pytest.approx(due))


def test_who_looks_when_each_verdict_is_due_is_never_late(alive: Alive, clock: Turned) -> None:
    life = online(alive)
    began, verdicts = clock.now, []
    while (due := life.due(PACE.patience_with_local(INTERVAL))) is not None:
        clock.now += due + 0.01
        assert judged(life)
        verdicts.append((life.state, round(clock.now - began)))

    assert verdicts == [("suspect", 20), ("offline", 50)]


# On other machines


def test_with_more_hives_each_beats_less_often() -> None:
    assert Pace(INTERVAL, GRACE, remote=750).of_remote == INTERVAL
    pace = Pace(INTERVAL, GRACE, remote=28_000)
    assert pace.of_remote == 28_000 / 700
    assert pace.interval == INTERVAL  # the local one's
    # Three beats' jitter, where that is more than the grace.
    assert pace.grace_of(40.0) == pytest.approx(12.0)
    assert pace.grace_of(INTERVAL) == GRACE


def test_a_hive_elsewhere_is_offline_an_interval_and_the_grace_after_its_last_beat(
    alive: Alive, clock: Turned
) -> None:
    life, patience = online(alive), PACE.patience_with_remote(INTERVAL)

    clock.now += INTERVAL + GRACE / 2 + 0.01
    assert life.judge(patience)
    assert (life.state, life.reason) == (
        "suspect", f"no heartbeat for more than {INTERVAL + GRACE / 2:g} s",
    )  # fmt: skip
    clock.now += GRACE / 2 - 0.02
    assert not life.judge(patience)
    clock.now += 0.02
    assert life.judge(patience)
    assert (life.state, life.reason) == ("offline", f"no heartbeat for {INTERVAL + GRACE:g} s")


def test_the_interval_that_a_hive_was_told_counts_and_not_the_one_of_now() -> None:
    interval = 1501 / 50
    patience = PACE.patience_with_remote(interval)
    assert patience.offline == pytest.approx(1.3 * interval)

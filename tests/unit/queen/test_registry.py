"""Who is alive: one set of rules, on clocks that the test turns."""

from __future__ import annotations

from collections import Counter

import pytest

from rbee.queen.registry import Registry

INTERVAL, GRACE = 15.0, 5.0
FIRST, SECOND = "1" * 32, "2" * 32


class Clocks:
    """A monotonic clock and a wall clock that differ, as they do."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round(self.now * 1000)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def registry(clocks: Clocks) -> Registry:
    return Registry(interval=INTERVAL, grace=GRACE, clock=clocks.monotonic, wall_ms=clocks.wall_ms)


def told(registry: Registry) -> tuple[str, str]:
    life = registry.life("a")
    assert life is not None
    return life.state, life.reason


def online(registry: Registry) -> None:
    registry.set("a", "pending", "just added")
    registry.beat("a", FIRST)
    registry.set("a", "online", "its heartbeats come")


def test_nobody_is_known_at_first(registry: Registry) -> None:
    assert registry.life("a") is None
    assert registry.counts() == Counter()
    assert registry.sweep() == []


def test_a_state_has_its_reason_and_since_when(registry: Registry, clocks: Clocks) -> None:
    assert registry.set("a", "pending", "just added")
    since = clocks.wall_ms()
    clocks.now += 1

    assert not registry.set("a", "pending", "just added")
    life = registry.life("a")

    assert life is not None
    assert (life.state, life.reason, life.since_ms, life.last_beat_ms) == (
        "pending",
        "just added",
        since,
        None,
    )


def test_another_reason_for_the_same_state_does_not_make_it_younger(
    registry: Registry, clocks: Clocks
) -> None:
    registry.set("a", "pending", "just added")
    since = clocks.wall_ms()
    clocks.now += 1

    assert registry.set("a", "pending", "waking up")
    life = registry.life("a")

    assert life is not None
    assert (life.reason, life.since_ms) == ("waking up", since)


def test_another_state_begins_now(registry: Registry, clocks: Clocks) -> None:
    registry.set("a", "pending", "just added")
    clocks.now += 1

    registry.set("a", "online", "its heartbeats come")
    life = registry.life("a")

    assert life is not None
    assert life.since_ms == clocks.wall_ms()


def test_a_beat_is_noted_and_changes_no_state(registry: Registry, clocks: Clocks) -> None:
    registry.set("a", "pending", "just added")
    clocks.now += 3

    assert registry.beat("a", FIRST)
    life = registry.life("a")

    assert life is not None
    assert (life.state, life.heard, life.last_beat_ms, life.instance) == (
        "pending",
        clocks.now,
        clocks.wall_ms(),
        FIRST,
    )


def test_only_the_first_beat_of_a_process_is_its_first(registry: Registry) -> None:
    registry.set("a", "pending", "just added")

    assert [registry.beat("a", one) for one in (FIRST, FIRST, SECOND, SECOND, FIRST)] == [
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("silence", "state", "reason"),
    [
        (0, "online", "its heartbeats come"),
        (INTERVAL + GRACE, "online", "its heartbeats come"),
        (INTERVAL + GRACE + 0.1, "suspect", "no heartbeat for more than 20 s"),
        (3 * INTERVAL + GRACE, "suspect", "no heartbeat for more than 20 s"),
        (3 * INTERVAL + GRACE + 0.1, "offline", "no heartbeat for 3 intervals of 15 s"),
        (10_000, "offline", "no heartbeat for 3 intervals of 15 s"),
    ],
)
def test_silence_makes_a_hive_suspect_and_then_offline(
    registry: Registry, clocks: Clocks, silence: float, state: str, reason: str
) -> None:
    online(registry)
    clocks.now += silence

    changed = registry.sweep()

    assert told(registry) == (state, reason)
    assert [(hive_id, life.state) for hive_id, life in changed] == (
        [] if state == "online" else [("a", state)]
    )


def test_a_verdict_is_told_once(registry: Registry, clocks: Clocks) -> None:
    online(registry)
    clocks.now += INTERVAL + GRACE + 1
    assert len(registry.sweep()) == 1
    clocks.now += 1
    assert registry.sweep() == []


def test_a_beat_ends_the_silence(registry: Registry, clocks: Clocks) -> None:
    online(registry)
    for _ in range(10):
        clocks.now += INTERVAL
        registry.beat("a", FIRST)
        assert registry.sweep() == []


@pytest.mark.parametrize("state", ["pending", "offline"])
def test_silence_says_nothing_of_a_hive_that_nobody_expects_to_beat(
    registry: Registry, clocks: Clocks, state: str
) -> None:
    registry.set("a", state, "so it is")  # type: ignore[arg-type]
    clocks.now += 10_000

    assert registry.sweep() == []
    assert told(registry) == (state, "so it is")


def test_after_a_restart_a_hive_is_unknown_and_offline_only_once_it_could_have_been_heard(
    registry: Registry, clocks: Clocks
) -> None:
    registry.set("a", "unknown", "not heard of yet since the queen woke; was online")
    clocks.now += INTERVAL + GRACE
    assert registry.sweep() == []

    clocks.now += 0.1
    registry.sweep()

    assert told(registry) == ("offline", "not heard of since the queen woke")


def test_the_time_of_day_decides_nothing(registry: Registry, clocks: Clocks) -> None:
    online(registry)
    clocks.wall_ms = lambda: 5  # type: ignore[method-assign]

    assert registry.sweep() == []
    assert told(registry)[0] == "online"


def test_the_end_of_a_process_is_the_hive_s_end_at_once(registry: Registry, clocks: Clocks) -> None:
    online(registry)
    clocks.now += 1

    assert registry.end("a", "its process ended (killed by signal 9)")
    life = registry.life("a")

    assert life is not None
    assert (life.state, life.reason, life.since_ms, life.instance) == (
        "offline",
        "its process ended (killed by signal 9)",
        clocks.wall_ms(),
        None,
    )


def test_an_end_is_told_once_and_its_first_reason_stays(registry: Registry) -> None:
    online(registry)
    registry.end("a", "stopped by an administrator")

    assert not registry.end("a", "its process ended")
    assert told(registry) == ("offline", "stopped by an administrator")


def test_the_end_of_a_hive_that_nobody_knows_is_no_news(registry: Registry) -> None:
    assert not registry.end("a", "its process ended")
    assert registry.life("a") is None


def test_a_beat_after_the_end_is_a_first_one_even_of_the_same_instance(registry: Registry) -> None:
    online(registry)
    registry.end("a", "its process ended")

    assert registry.beat("a", FIRST)


def test_a_hive_that_is_forgotten_is_not_judged(registry: Registry, clocks: Clocks) -> None:
    online(registry)
    registry.forget("a")
    registry.forget("a")
    clocks.now += 10_000

    assert registry.sweep() == []
    assert registry.life("a") is None


def test_each_hive_is_judged_by_its_own_silence(registry: Registry, clocks: Clocks) -> None:
    for hive_id, silence in (("a", 50.1), ("b", 20.1), ("c", 1.0)):
        registry.set(hive_id, "online", "")
        clocks.now = 1000.0 - silence
        registry.beat(hive_id, FIRST)
    clocks.now = 1000.0
    registry.set("d", "pending", "")

    registry.sweep()

    assert registry.counts() == {"offline": 1, "suspect": 1, "online": 1, "pending": 1}


@pytest.mark.parametrize(
    ("state", "silence", "seconds"),
    [
        ("online", 0.0, 15.0),  # one interval at the most, for who comes meanwhile
        ("online", 12.0, 8.0),
        ("online", 19.0, 1.0),
        ("online", 30.0, 0.0),
        ("unknown", 12.0, 8.0),
        ("suspect", 21.0, 15.0),
        ("suspect", 45.0, 5.0),
        ("pending", 19.0, 15.0),
        ("offline", 19.0, 15.0),
    ],
)
def test_the_next_verdict_is_when_silence_can_next_change_a_state(
    registry: Registry, clocks: Clocks, state: str, silence: float, seconds: float
) -> None:
    registry.set("a", state, "")  # type: ignore[arg-type]
    clocks.now += silence

    assert registry.next_verdict() == pytest.approx(seconds, abs=0.02)


def test_who_sweeps_at_each_next_verdict_is_never_late_and_never_spins(
    registry: Registry, clocks: Clocks
) -> None:
    online(registry)
    began, verdicts, sweeps = clocks.now, [], 0
    while clocks.now < began + 100:
        clocks.now += registry.next_verdict()
        sweeps += 1
        verdicts += [(life.state, clocks.now - began) for _, life in registry.sweep()]

    assert [state for state, _ in verdicts] == ["suspect", "offline"]
    assert [at for _, at in verdicts] == pytest.approx([20, 50], abs=0.1)
    assert sweeps < 15


def test_nobody_to_judge_means_to_look_again_after_an_interval(registry: Registry) -> None:
    assert registry.next_verdict() == pytest.approx(INTERVAL, abs=0.02)


# On other machines


def remote(registry: Registry, *names: str) -> None:
    for name in names:
        registry.set(name, "unknown", "not heard of yet")
        registry.track_remote(name)


def test_with_more_hives_each_beats_more_seldom_and_the_local_one_as_before(registry: Registry) -> None:
    registry.set("localhost", "online", "its heartbeats come")
    remote(registry, *(f"hive{n}" for n in range(750)))
    assert registry.pace("hive0") == INTERVAL

    remote(registry, *(f"hive{n}" for n in range(750, 2000)))
    assert registry.pace("hive0") == 2000 / 50
    assert registry.pace("localhost") == INTERVAL
    # Three beats' jitter, where that is more than the grace.
    assert registry.grace_of(40.0) == pytest.approx(12.0)
    assert registry.grace_of(INTERVAL) == GRACE
    registry.forget("hive0")
    assert registry.pace("hive1") == 1999 / 50


def test_a_hive_elsewhere_is_offline_an_interval_and_the_grace_after_its_last_beat(
    registry: Registry, clocks: Clocks
) -> None:
    remote(registry, "a")
    registry.beat("a", FIRST)
    registry.set("a", "online", "its heartbeats come")

    assert registry.next_verdict() == pytest.approx(INTERVAL, abs=0.02)  # at the most
    clocks.now += INTERVAL
    assert registry.next_verdict() == pytest.approx(GRACE / 2, abs=0.02)
    clocks.now += GRACE / 2 + 0.01
    assert [(name, life.state) for name, life in registry.sweep()] == [("a", "suspect")]
    assert told(registry) == ("suspect", f"no heartbeat for more than {INTERVAL + GRACE / 2:g} s")
    clocks.now += GRACE / 2 - 0.02
    assert registry.sweep() == []
    clocks.now += 0.02
    assert [(name, life.state) for name, life in registry.sweep()] == [("a", "offline")]
    assert told(registry) == ("offline", f"no heartbeat for {INTERVAL + GRACE:g} s")


def test_the_interval_that_a_hive_was_told_counts_and_not_the_one_of_now(
    registry: Registry, clocks: Clocks
) -> None:
    remote(registry, *(f"hive{n}" for n in range(1500)), "a")
    registry.beat("a", FIRST)
    registry.set("a", "online", "its heartbeats come")
    interval = 1501 / 50
    for n in range(1500):
        registry.forget(f"hive{n}")
    assert registry.pace("a") == INTERVAL

    clocks.now += interval + 0.3 * interval - 0.01
    assert [life.state for _, life in registry.sweep()] == ["suspect"]
    clocks.now += 0.02
    assert [life.state for _, life in registry.sweep()] == ["offline"]


def test_who_has_not_been_heard_of_is_unknown_for_an_interval_and_the_grace(
    registry: Registry, clocks: Clocks
) -> None:
    remote(registry, "a")
    clocks.now += INTERVAL + GRACE - 0.01
    assert registry.sweep() == []
    clocks.now += 0.02
    assert [life.state for _, life in registry.sweep()] == ["offline"]
    assert told(registry) == ("offline", "not heard of since the queen woke")


def test_the_skew_of_a_hive_s_clock_is_kept_and_changes_nothing(registry: Registry, clocks: Clocks) -> None:
    remote(registry, "a")
    registry.beat("a", FIRST, skew_ms=86_400_000)
    registry.set("a", "online", "its heartbeats come")
    clocks.now += INTERVAL
    assert registry.sweep() == []
    life = registry.life("a")
    assert life is not None
    assert life.skew_ms == 86_400_000

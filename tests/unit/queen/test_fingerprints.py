"""By their fingerprints the queen knows when devices may have changed."""

from __future__ import annotations

from rbee.queen.fingerprints import Fingerprints


def test_devices_are_other_ones_until_they_came_with_what_the_last_beat_brought() -> None:
    kept = Fingerprints()
    kept.heard("blade-7", "f1")
    assert kept.is_other("blade-7")
    kept.came_with("blade-7", kept.of("blade-7"))
    assert not kept.is_other("blade-7")
    kept.heard("blade-7", "f2")
    assert kept.is_other("blade-7")


def test_devices_that_changed_while_they_were_told_are_asked_for_again() -> None:
    kept = Fingerprints()
    kept.heard("blade-7", "f1")
    asked_at = kept.of("blade-7")
    kept.heard("blade-7", "f2")
    kept.came_with("blade-7", asked_at)

    assert kept.is_other("blade-7")


def test_a_hive_that_tells_no_fingerprint_is_never_asked_again() -> None:
    kept = Fingerprints()
    kept.heard("blade-7", None)
    assert not kept.is_other("blade-7")
    kept.heard("blade-7", "f1")
    kept.heard("blade-7", None)  # it was downgraded
    assert not kept.is_other("blade-7")


def test_a_failure_counts_once_a_fingerprint() -> None:
    kept = Fingerprints()
    kept.heard("blade-7", "f1")
    assert [kept.failed("blade-7"), kept.failed("blade-7")] == [True, False]
    kept.heard("blade-7", "f2")
    assert kept.failed("blade-7")
    kept.came_with("blade-7", "f2")
    assert kept.failed("blade-7")


def test_a_hive_that_is_forgotten_leaves_nothing() -> None:
    kept = Fingerprints()
    kept.heard("blade-7", "f1")
    kept.came_with("blade-7", "f1")
    kept.failed("blade-7")
    kept.forget("blade-7")

    assert vars(kept) == {name: {} for name in vars(kept)}

"""By their fingerprints the queen knows when devices may have changed."""

from __future__ import annotations

from rbee.queen.hives.inventory import Fingerprint


def test_devices_are_other_ones_until_they_came_with_what_the_last_beat_brought() -> None:
    kept = Fingerprint()
    kept.heard = "f1"
    assert kept.is_other
    kept.came_with(kept.heard)
    assert not kept.is_other
    kept.heard = "f2"
    assert kept.is_other


def test_devices_that_changed_while_they_were_told_are_asked_for_again() -> None:
    kept = Fingerprint()
    kept.heard = "f1"
    asked_at = kept.heard
    kept.heard = "f2"
    kept.came_with(asked_at)

    assert kept.is_other


def test_a_hive_that_tells_no_fingerprint_is_never_asked_again() -> None:
    kept = Fingerprint()
    kept.heard = None
    assert not kept.is_other
    kept.heard = "f1"
    kept.heard = None  # it was downgraded
    assert not kept.is_other


def test_a_failure_counts_once_a_fingerprint() -> None:
    kept = Fingerprint()
    kept.heard = "f1"
    assert [kept.failed(), kept.failed()] == [True, False]
    kept.heard = "f2"
    assert kept.failed()
    kept.came_with("f2")
    assert kept.failed()

"""Which devices the queen knows of each hive, by the fingerprint that they came with. In RAM only."""

from __future__ import annotations


class Fingerprints:
    """A hive's beats bring a fingerprint, another one when its devices may have changed."""

    def __init__(self) -> None:
        self._heard: dict[str, str] = {}
        self._known: dict[str, str | None] = {}
        self._failed: dict[str, str] = {}

    def heard(self, hive_id: str, fingerprint: str | None) -> None:
        """What its last beat brought; None from a hive of before 0.3.0, which tells nothing of a change."""
        if fingerprint is None:
            self._heard.pop(hive_id, None)
        else:
            self._heard[hive_id] = fingerprint

    def of(self, hive_id: str) -> str | None:
        return self._heard.get(hive_id)

    def came_with(self, hive_id: str, fingerprint: str | None) -> None:
        """The devices are known that the hive told after a beat had brought this.

        What has changed since is in the fingerprint of a later beat.
        """
        self._known[hive_id] = fingerprint
        self._failed.pop(hive_id, None)

    def is_other(self, hive_id: str) -> bool:
        """May the devices be others than those that are known?"""
        return hive_id in self._heard and self._heard[hive_id] != self._known.get(hive_id)

    def failed(self, hive_id: str) -> bool:
        """The hive was asked for its devices in vain; False where that was so for this fingerprint before."""
        fingerprint = self._heard.get(hive_id, "")
        is_new = self._failed.get(hive_id) != fingerprint
        self._failed[hive_id] = fingerprint
        return is_new

    def forget(self, hive_id: str) -> None:
        for kept in (self._heard, self._known, self._failed):
            kept.pop(hive_id, None)

"""The queen's part for models and keys, from its start to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.queen.keys import hash_of
from rbee.systemd.daemon import Notifier
from rbee.wire.keys import CreateKey
from tests.integration.queen.models.fetching_hive import ACTOR, a_queen

pytestmark = pytest.mark.deadline(10)


async def test_uses_of_keys_are_written_when_the_queen_ends(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_queen(tmp_path, silent_notifier) as queen:
        key = await queen.library.keys.create(CreateKey("ada"), ACTOR)
        for _ in range(3):
            queen.library.keys.check(hash_of(key.text), "bee", address="10.0.0.1")

    async with a_queen(tmp_path, silent_notifier) as again:
        assert [(one.name, one.uses) for one in again.library.keys.all().keys] == [("ada", 3)]
        texts = [entry.text for entry in await again.queen.catalog.audit.last(9, None)]
        assert texts[-1] == "key ada was used 3 times, for bee, from 10.0.0.1"

"""Whether the queen is open to other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import TcpClosed
from tests.unit.queen.joined import a_queen

pytestmark = pytest.mark.deadline(10)


async def test_a_queen_who_was_never_opened_has_no_keys_and_makes_no_tokens(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        with pytest.raises(TcpClosed) as caught:
            await queen.token()
        assert caught.value.hint == "rbeectl tcp enable"
        told = await queen.access.view()
        assert (told.is_open, told.listens, told.fingerprint, told.expires_ms) == (False, (), None, None)
        assert not (tmp_path / "state/tls").exists()
        assert not (tmp_path / "state/tcp").exists()


async def test_opening_makes_the_keys_and_the_mark_and_closing_keeps_the_keys(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        opened = await queen.access.set(True)
        assert opened.is_open
        assert opened.fingerprint == queen.access.authority.fingerprint
        assert opened.expires_ms is not None
        assert (tmp_path / "state/tcp").exists()
        closed = await queen.access.set(False)
        assert (closed.is_open, closed.fingerprint) == (False, opened.fingerprint)
        assert not (tmp_path / "state/tcp").exists()
    # Tokens of an open queen are good for her after a restart: her keys are those of before.
    async with a_queen(tmp_path / "state") as again:
        assert again.access.authority.fingerprint == opened.fingerprint

"""The verb audit."""

from __future__ import annotations

import pwd

from starlette.requests import Request

from rbee.wire.catalog import Audit, AuditEntry
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus


def test_the_audit_says_when_who_and_what(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    entries = (
        AuditEntry(1, 1_700_000_000_000, "token 0123abcd was made, for 1 use", None, 0, None, None),
        AuditEntry(2, 1_700_000_000_000, "hive gpu1 joined\x1b[31m", "gpu1", None, "c" * 16, None),
        AuditEntry(3, 1_700_000_000_000, "hive gpu1 is cordoned", "gpu1", 4_000_000, None, None),
    )
    queries: list[str] = []

    async def audit(request: Request) -> Audit:
        queries.append(request.url.query)
        return Audit(entries)

    ran = with_queen({QueenRoutes.AUDIT: audit}, lambda: rbeectl("audit", "gpu1", "-n", "5", "--no-legend"))
    assert [line[:4] for line in ran.out.splitlines()] == ["Tue "] * 3
    assert f"uid 0 ({pwd.getpwuid(0).pw_name})" in ran.out
    assert f"credential {'c' * 16}" in ran.out
    assert "uid 4000000 " in ran.out
    assert "\x1b" not in ran.out
    assert queries == ["limit=5&hive=gpu1"]

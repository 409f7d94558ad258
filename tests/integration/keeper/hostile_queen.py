"""A queen with terminal escapes in every text that others may choose, and rbeectl on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rbee import __version__
from rbee.errors import NotPermitted
from rbee.server.app import Handler, build_app
from rbee.systemd.daemon import Notifier
from rbee.wire.catalog import AuditEntry, CatalogReport
from rbee.wire.codec import encode
from rbee.wire.daemon import Health
from rbee.wire.events import FeedEvent
from rbee.wire.fleet import CreatedToken, Tcp, TokenView
from rbee.wire.lines import Line
from rbee.wire.routes import QueenRoutes, Route
from tests.integration.unix_http import served
from tests.unit.keeper.doubles import AT, BEGUN, REPOSITORY, story
from tests.unit.wire_values import HIVE_VIEW, WireField, wire_fields

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[8m\x1b[31m\x9b2J\x90q\u202e\r\n\tend"
"""A window's title, a screen that is cleared, hidden text, C1 controls, text that runs backwards."""

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import rbee.keeper.__main__, rbee.keeper.queen.wake, rbee.keeper.session
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, SYSTEM
from tests.integration.keeper.hostile_queen import EVIL
from tests.unit.played_systemd import ACTIVE, PlayedBus
bus = PlayedBus()
bus.states |= {unit: ACTIVE._replace(status_text=EVIL) for unit in (QUEEN_UNIT, HIVE_UNIT)}
rbee.keeper.session.Bus = bus
rbee.keeper.queen.wake.journal_tail = lambda *matches, **options: [EVIL]
rbee.keeper.__main__.SYSTEM = SYSTEM._replace(runtime=Path(sys.argv[1]).parent)
sys.argv = ["rbeectl", *sys.argv[2:]]
sys.exit(rbee.keeper.__main__.main())
"""


def evil(value: Any) -> Any:
    """The shape with the escapes in every text that anybody may choose."""
    document = encode(value)
    for at in wire_fields(type(value), document):
        if _is_free(at):
            at.put(EVIL)
    return document


def _is_free(at: WireField) -> bool:
    is_text = at.kind is str and (at.limit is None or at.limit.format is None)
    return is_text and (at.limit is None or at.limit.pattern is None)


def telling(answer: Any) -> Handler:
    """A handler that answers with this, whatever its shape would allow."""

    async def handler(_request: Request) -> Response:
        if isinstance(answer, bytes):
            return Response(answer, media_type="application/openmetrics-text")
        return JSONResponse(answer)

    return handler


DEVICES = HIVE_VIEW.devices._replace(gpus=(HIVE_VIEW.devices.gpus[0]._replace(problem="x"),))  # type: ignore[union-attr]  # it has some
TOKEN = TokenView("0123abcd", None, 1, 1_700_000_000_000, 4_000_000_000_000, False, problem="x")
HIVE = evil(
    HIVE_VIEW._replace(
        id="gpu1",
        host="gpu1",
        devices=DEVICES,
        cordoned="x",
        version="x",
        address="x",
        problem="x",
    )
)
FEED_ID = f"{'a' * 16}-1"
EVENT = FeedEvent(FEED_ID, AT, "hive-online", "queen bee", 6, "x", "gpu1", problem="x")
ENTRY = AuditEntry(1, 1_700_000_000_000, "x", "gpu1", None, "x", None, "x")
METRICS = f'rbee_gpu_info{{name="{EVIL}"}} 1.0\n# EOF\n'.encode()


def all_evil() -> dict[Route, Handler]:
    """A queen of whom whatever others chose has the escapes in it."""
    line = ("line", evil(Line("bee hive", "x", "adding", AT)))

    async def refuse(_request: Request) -> Any:
        raise NotPermitted(EVIL, hint=EVIL)

    return {
        QueenRoutes.HEALTH: telling(encode(Health("ok", f"{__version__} {EVIL}"))),
        QueenRoutes.HIVES: telling({"hives": [HIVE]}),
        QueenRoutes.HIVE: telling(HIVE),
        QueenRoutes.LAST_EVENTS: telling({"id": FEED_ID, "events": [evil(EVENT)]}),
        QueenRoutes.METRICS: telling(METRICS),
        QueenRoutes.AUDIT: telling({"entries": [evil(ENTRY)]}),
        QueenRoutes.TOKENS: telling({"tokens": [evil(TOKEN)]}),
        QueenRoutes.CREATE_TOKEN: telling(evil(CreatedToken("x", TOKEN))),
        QueenRoutes.REVOKE_TOKEN: refuse,
        QueenRoutes.TCP: telling(evil(Tcp(True, ("x",), "x", 4_000_000_000_000, "x"))),
        QueenRoutes.CHECK_CATALOG: telling(evil(CatalogReport("x", 2, 1, 4096))),
        QueenRoutes.ADD_HIVE: story(BEGUN, line, ("done", {"hive": HIVE, "was_there": True})),
        QueenRoutes.REMOVE_HIVE: story(
            BEGUN, line, ("error", {**NotPermitted(EVIL).to_problem(), "hint": EVIL})
        ),
    }


def shown_by(tmp_path: Path, notifier: Notifier, *arguments: str) -> str:
    async def scenario() -> str:
        async with served(build_app("a queen", "1", all_evil()), tmp_path / "queen.sock", notifier):
            return await asyncio.to_thread(on_terminal, str(tmp_path / "queen.sock"), *arguments)

    return asyncio.run(scenario())


def on_terminal(*arguments: str) -> str:
    """What rbeectl writes to a terminal of its own."""
    terminal, end = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "2000", "SYSTEMD_PAGER": "cat", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdin=end, stdout=end, stderr=end, start_new_session=True
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # EIO: all have closed the other end
                break
            shown += chunk
    os.close(terminal)
    assert process.returncode in (0, 1, 2, 77)
    return shown.decode()

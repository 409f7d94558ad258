"""The gateway: builds and ends everything; tests open it, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rbee.client.link import Link
from rbee.config import GatewayConfig
from rbee.gateway.activity import Activity
from rbee.gateway.app import App
from rbee.gateway.bodies import Bodies
from rbee.gateway.completion import Site
from rbee.gateway.connections import CLIENTS, ClientConnection, TlsClientConnection
from rbee.gateway.keys import Keys
from rbee.gateway.lease import QueenConnections
from rbee.gateway.listeners import Listeners
from rbee.gateway.metrics import Metrics
from rbee.narration import GATEWAY_STARTED, GATEWAY_STOPPING, Narrator
from rbee.scope import QUEEN_UNIT, Scope
from rbee.server.limits import Limits
from rbee.server.uvicorn import Remote, serve
from rbee.systemd.daemon import Notifier
from rbee.systemd.links import invocation_of

QUEEN_TIMEOUT = 30.0
"""Seconds for a request to the queen, which systemd may have to start."""


class Gateway:
    """The gateway of a scope."""

    def __init__(
        self,
        config: GatewayConfig,
        scope: Scope,
        listeners: Listeners,
        notifier: Notifier,
        narrator: Narrator,
        *,
        queen_run: Callable[[], str | None] | None = None,
    ) -> None:
        self._listeners = listeners
        self._notifier = notifier
        self._narrator = narrator
        self._stop = asyncio.Event()
        self._was_idle = False
        self._queen = Link(scope.queen_socket, timeout=QUEEN_TIMEOUT, scope=scope)
        self._activity = Activity(show=notifier.status, idle=self._become_idle, idle_after=config.idle_exit)
        self._site = Site(
            queen=QueenConnections(scope.queen_socket, scope=scope),
            scope=scope,
            hold=config.hold,
            bodies=Bodies(),
            keys=Keys(self._queen),
            activity=self._activity,
            metrics=Metrics(),
            narrator=narrator,
            queen_run=queen_run or (lambda: invocation_of(QUEEN_UNIT, scope=scope)),
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, *arguments: Any, **options: Any) -> AsyncIterator[Gateway]:
        """Yield a gateway, and close what it holds at the end."""
        gateway = cls(*arguments, **options)
        try:
            yield gateway
        finally:
            gateway._activity.close()
            gateway._site.queen.close()
            await gateway._queen.close()

    async def serve(self, stop_requested: asyncio.Event, *, started: Callable[[], object]) -> None:
        """Serve until `stop_requested` is set, or until idle; call `started` once it serves."""
        self._stop = stop_requested
        app = App(self._site)
        remote = None
        if self._listeners.context is not None and self._listeners.encrypted:
            remote = Remote(
                app, self._listeners.encrypted, self._listeners.context,
                connection=TlsClientConnection, bound=CLIENTS,
            )  # fmt: skip

        def on_started() -> None:
            self._narrator.narrate(GATEWAY_STARTED, "the gateway is awake")
            self._activity.begin()
            started()

        await serve(
            app,
            self._listeners.plain,
            self._notifier,
            stop_requested,
            status=self._activity.line,
            started=on_started,
            stopping=self._stopping,
            remote=remote,
            connection=partial(
                ClientConnection,
                limits=Limits("connections are held", CLIENTS),
                turned_away=set(),
                daemons=(),
            ),
        )

    def _become_idle(self) -> None:
        self._was_idle = True
        self._stop.set()

    async def _stopping(self) -> None:
        why = "goes to sleep, as it has no requests" if self._was_idle else "stops"
        self._narrator.narrate(GATEWAY_STOPPING, f"the gateway {why}")

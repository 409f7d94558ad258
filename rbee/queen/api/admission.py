"""Which users may use which of the queen's routes on the Unix socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rbee.errors import NotPermitted
from rbee.scope import SYSTEM
from rbee.server.peer import Peer
from rbee.wire.routes import LeaseRoutes, QueenRoutes, Route

FOR_GATEWAY = frozenset({*LeaseRoutes.ALL, QueenRoutes.HEALTH})
"""Routes that the gateway's user may use."""


class Admission:
    """Allows the hive's user heartbeats only, the gateway's user leases, and everybody else all other routes.

    Root may use all. `hive_uid` is None on a machine without that user; then only root may send heartbeats.
    `find_hive_uid` is called again while it is None, as `find_gateway_uid` is: the packages may create these
    users while the queen runs. `own_uid` is the queen's. In a user's own rbee it is also the hive's and the
    gateway's, and that user may use all routes.
    """

    def __init__(
        self,
        hive_uid: int | None,
        find_hive_uid: Callable[[], int | None] = lambda: None,
        *,
        find_gateway_uid: Callable[[], int | None] = lambda: None,
        own_uid: int | None = None,
        hive_user: str = SYSTEM.hive_user,
        gateway_user: str = SYSTEM.gateway_user,
    ) -> None:
        self._hive_user = hive_user
        self._gateway_user = gateway_user
        self._gateway_uid: int | None = None
        self._find_gateway_uid = find_gateway_uid
        self._own_uid = own_uid
        self._hive_uid = hive_uid
        self._find_hive_uid = find_hive_uid

    def __call__(self, peer: Peer, route: Route[Any]) -> None:
        """Raise NotPermitted if the peer may not use the route."""
        if self._hive_uid is None:
            self._hive_uid = self._find_hive_uid()
        is_hive = peer.uid == self._hive_uid
        if route is QueenRoutes.HEARTBEAT and not is_hive and peer.uid != 0:
            raise NotPermitted(f"heartbeats are accepted from the user {self._hive_user} only")
        if is_hive and peer.uid != self._own_uid and route is not QueenRoutes.HEARTBEAT:
            raise NotPermitted(f"the user {self._hive_user} may send heartbeats only")
        if route is not QueenRoutes.HEARTBEAT and peer.uid != 0:
            self._check_gateway(peer, route)

    def _check_gateway(self, peer: Peer, route: Route[Any]) -> None:
        if self._gateway_uid is None:
            self._gateway_uid = self._find_gateway_uid()
        is_gateway = peer.uid == self._gateway_uid
        if is_gateway and peer.uid != self._own_uid and route not in FOR_GATEWAY:
            raise NotPermitted(f"the user {self._gateway_user} may lease workers only")
        if not is_gateway and route in LeaseRoutes.ALL:
            hint = "Use the gateway's socket, which serves OpenAI's API."
            raise NotPermitted(f"workers are leased to the user {self._gateway_user} only", hint=hint)

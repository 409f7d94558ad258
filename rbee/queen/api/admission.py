"""Which users may use which of the queen's routes on the Unix socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rbee.errors import NotPermitted
from rbee.scope import SYSTEM
from rbee.server.peer import Peer
from rbee.wire.routes import QueenRoutes, Route


class Admission:
    """Allows the hive's user heartbeats only, and root and everybody else all other routes.

    `hive_uid` is None on a machine without that user; then only root may send heartbeats. `find_hive_uid`
    is called again while it is None: the package rbee-hive may create the user while the queen runs.
    `own_uid` is the queen's. In an rbee of a user the hive has the same, and that user may use all routes.
    """

    def __init__(
        self,
        hive_uid: int | None,
        find_hive_uid: Callable[[], int | None] = lambda: None,
        *,
        own_uid: int | None = None,
        hive_user: str = SYSTEM.hive_user,
    ) -> None:
        self._hive_user = hive_user
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

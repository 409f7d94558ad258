"""Adding hives to the queen's catalog and removing them; verbs that only read do not load this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import UnitFailed
from rbee.keeper import jobs
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import checked
from rbee.narration import REQUESTING
from rbee.wire.codec import decode
from rbee.wire.hives import AddHive, HiveView
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import Name

if TYPE_CHECKING:
    from rbee.wire.jobs import JobStarted


class Changes:
    """Adds and removes hives; each method wakes the queen first."""

    def __init__(self, queen: Queen) -> None:
        self._queen = queen
        self.scope = queen.work.scope

    def add(self, host: str, port: int | None) -> HiveView:
        """Add a hive and wait until it is online; UnitFailed if the job ends without that."""
        hive = jobs.do(self._queen, QueenRoutes.ADD_HIVE, self._about_to_add(host, port)).hive
        if hive is None or hive.state != "online":
            hint = self.scope.rbeectl("status")
            raise UnitFailed(f"the job has ended, and {host} is not online", hint=hint)
        return hive

    def begin_adding(self, host: str, port: int | None) -> JobStarted:
        """As add(), but return when the queen has taken the job."""
        return jobs.begin(self._queen, QueenRoutes.ADD_HIVE, self._about_to_add(host, port))

    def remove(self, hive_id: str, *, is_forced: bool) -> bool:
        """Stop a hive and remove it from the catalog; False if it was not there."""
        self._about_to_remove(hive_id)
        force = str(int(is_forced))
        return jobs.do(self._queen, QueenRoutes.REMOVE_HIVE, hive_id=hive_id, force=force).was_there

    def begin_removing(self, hive_id: str, *, is_forced: bool) -> JobStarted:
        """As remove(), but return when the queen has taken the job."""
        self._about_to_remove(hive_id)
        force = str(int(is_forced))
        return jobs.begin(self._queen, QueenRoutes.REMOVE_HIVE, hive_id=hive_id, force=force)

    def _about_to_add(self, host: str, port: int | None) -> AddHive:
        request = decode(AddHive, {"host": host, "port": port})
        self._queen.wake()
        self._queen.work.teller.narrate(REQUESTING, f"Requesting queen to add {host} to hive catalog")
        return request

    def _about_to_remove(self, hive_id: str) -> None:
        # An invalid name is refused before the queen is woken for it.
        checked(Name, "HIVE", hive_id)
        self._queen.wake()
        text = f"Requesting queen to remove {hive_id} from hive catalog"
        self._queen.work.teller.narrate(REQUESTING, text)

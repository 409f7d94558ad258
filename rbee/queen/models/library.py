"""The queen's models and keys: built, started and ended in one place."""

from __future__ import annotations

from typing import Any

from rbee.queen.api import keys as keys_api
from rbee.queen.api import models as models_api
from rbee.queen.gateway import GatewayAccess
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Jobs
from rbee.queen.keys import ClientKeys
from rbee.queen.models.models import Models
from rbee.queen.models.work import ModelWork
from rbee.server.app import Handler
from rbee.wire.routes import Route


class Library:
    """Models, the operations on them, and the keys of clients."""

    def __init__(
        self,
        shared: Shared,
        hives: Hives,
        hive_work: HiveWork,
        jobs: Jobs,
        gateway: GatewayAccess,
    ) -> None:
        self._shared = shared
        self._jobs = jobs
        self.models = Models(shared.catalog, shared.scope)
        self.keys = ClientKeys(shared.catalog, shared.scope)
        self.gateway = gateway
        self.work = ModelWork(shared, hives, hive_work, jobs, self.models)

    async def load(self) -> None:
        """Load models and keys from the catalog."""
        await self.models.load()
        await self.keys.load()

    def begin(self) -> None:
        """Resume the fetches that were under way, and begin to store how keys are used."""
        self.work.resume()
        self._shared.tasks.begin(self.keys.run())

    async def end(self) -> None:
        """Store how keys were used."""
        await self.keys.write(is_last=True)

    def routes(self) -> dict[Route[Any], Handler]:
        """Return the handlers of its routes."""
        return {
            **models_api.routes(self.models, self.work, self._jobs),
            **keys_api.routes(self.keys, self.gateway),
        }

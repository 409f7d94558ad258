"""Routes for the gateway: leases of workers, and the models that a client may use."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.errors import BadInput
from rbee.queen.keys import ClientKeys
from rbee.queen.models.models import Models
from rbee.queen.serving.lazy import LazyServing
from rbee.server.app import Handler
from rbee.server.upgrade import upgrade_to
from rbee.wire.codec import decode
from rbee.wire.models import OpenModel, OpenModels
from rbee.wire.routes import KEY_HEADER, LEASE_PROTOCOL, LeaseRoutes, Route
from rbee.wire.types import Sha256


def routes(lazy: LazyServing, models: Models, keys: ClientKeys) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def lease(request: Request) -> Response:
        if "rbee.upgrade" not in request.scope:
            hint = f"Send: Connection: Upgrade, and Upgrade: {LEASE_PROTOCOL}"
            raise BadInput(
                "a lease needs the header Upgrade, for a connection of its own", hint=hint, field="Upgrade"
            )
        return upgrade_to(lazy.serving.leases.connection())

    async def open_models(request: Request) -> OpenModels:
        text = request.headers.get(KEY_HEADER)
        served = [model.row for model in models.all() if model.row.is_served]
        if text is not None:
            key = keys.check(decode(Sha256, text, KEY_HEADER), None)
            served = [row for row in served if key.is_for(row.name)]
        return OpenModels(tuple(OpenModel(row.name, row.created_at_ms) for row in served))

    return {LeaseRoutes.LEASE: lease, LeaseRoutes.OPEN_MODELS: open_models}

"""Clients' keys over TCP. Only the queen knows which are valid; the gateway remembers which were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from rbee.client.link import Link
from rbee.errors import BadKey
from rbee.scope import Scope
from rbee.wire.keys import KEYS_MAX
from rbee.wire.models import OpenModels
from rbee.wire.routes import KEY_HEADER, LeaseRoutes

KEY_LIMIT = 512
"""Most bytes of a key."""

Headers = Iterable[tuple[bytes, bytes]]


def key_in(headers: Headers, scope: Scope) -> str:
    """Return the SHA-256, in hexadecimal digits, of the key in a request. Raises BadKey without one."""
    for name, value in headers:
        key = b""
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            key = value[7:].strip()
        elif name == b"x-api-key":
            key = value.strip()
        if key:
            if len(key) > KEY_LIMIT:
                raise BadKey(f"the key has more than {KEY_LIMIT} bytes")
            return hashlib.sha256(key).hexdigest()
    raise BadKey(
        "the request has no key",
        hint="Send one as 'Authorization: Bearer KEY'. An operator makes it: "
        + scope.rbeectl("key create NAME"),
    )


class Keys:
    """Asks the queen for a key that is new here, before the rest of its request is read.

    The queen checks the key of each request again, with its lease: a revoked one is refused at once.
    """

    def __init__(self, queen: Link) -> None:
        self._queen = queen
        self._seen: dict[str, None] = {}

    async def admit(self, key: str) -> None:
        """Ask the queen unless the key was valid at its last use. Raises BadKey, or as Link.ask()."""
        if key not in self._seen:
            await self.models(key)

    async def models(self, key: str | None) -> OpenModels:
        """Return the models that a key may use; without a key, all that are served. Raises as admit()."""
        headers = {} if key is None else {KEY_HEADER: key}
        try:
            models = await self._queen.ask(LeaseRoutes.OPEN_MODELS, headers=headers)
        except BadKey:
            self.forget(key)
            raise
        if key is not None:
            self._seen[key] = None
            if len(self._seen) > KEYS_MAX:
                del self._seen[next(iter(self._seen))]
        return models

    def forget(self, key: str | None) -> None:
        """Forget a key that the queen has refused."""
        if key is not None:
            self._seen.pop(key, None)

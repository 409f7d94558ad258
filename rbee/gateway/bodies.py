"""The bodies of requests: read with bounds for each and for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Receive, Scope

from rbee.errors import BadInput, TooLarge, TooMany

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of a request's body, such as images in base64; more is refused with 413."""

BODIES_LIMIT = 256 * 1024 * 1024
"""Bytes of all bodies that are held at once; more is refused with 503."""


class ClientGone(Exception):
    """The client has closed its connection: nobody waits for an answer."""


class Body:
    """A body that is held; its bytes count until they are dropped."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._counted = 0
        self.content = b""

    async def read(self, scope: Scope, receive: Receive) -> None:
        """Read the body. Raises TooLarge, TooMany or ClientGone."""
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > BODY_LIMIT:
            raise _too_large()
        received = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            self._count(len(part))
            received += part
            if len(received) > BODY_LIMIT:
                raise _too_large()
            if not message.get("more_body", False):
                break
        if not received:
            raise BadInput("the request has no body", hint="Send a JSON object.")
        self.content = bytes(received)

    def drop(self) -> None:
        """Forget the content: it was sent, or nobody needs it any more."""
        self.content = b""
        self._bodies.held -= self._counted
        self._counted = 0

    def _count(self, size: int) -> None:
        if self._bodies.held + size > BODIES_LIMIT:
            raise TooMany(
                f"the requests that are being handled have {self._bodies.held} bytes, "
                f"of at most {BODIES_LIMIT}",
                hint="Try again.",
            )
        self._bodies.held += size
        self._counted += size


class Bodies:
    """All bodies that are held, and their bytes."""

    def __init__(self) -> None:
        self.held = 0

    @contextmanager
    def one(self) -> Iterator[Body]:
        """A body, which is dropped at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            body.drop()


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {BODY_LIMIT} bytes", hint=f"Send at most {BODY_LIMIT} bytes.")

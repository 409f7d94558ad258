"""API keys, with which clients use the gateway over TCP."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import Count, Limit, ModelName, NewName, Text

KEYS_MAX = 1000
"""The most keys that are kept."""


class CreateKey(NamedTuple):
    """A key to create: for `models` only, or for all if that is empty. Without `ttl_s` it never expires."""

    name: NewName
    models: Annotated[tuple[ModelName, ...], Limit(0, 64)] = ()
    ttl_s: Annotated[int, Limit(1, 86400 * 3650)] | None = None


class CreatedKey(NamedTuple):
    """A key and its text, which is shown once: only its hash is stored."""

    name: NewName
    text: Text
    models: tuple[ModelName, ...]
    expires_at_ms: Count | None


class KeyView(NamedTuple):
    """A key without its text: for `models` only, or for all if that is empty.

    Times are in milliseconds since 1970: `expires_at_ms` is None if it never expires, `last_used_ms` if it
    was never used. `uses` is the number of requests with it. `problem` is what could not be read of it.
    """

    name: NewName
    models: tuple[ModelName, ...]
    created_at_ms: Count
    expires_at_ms: Count | None
    is_revoked: bool
    uses: Count
    last_used_ms: Count | None
    problem: Text | None = None


class Keys(NamedTuple):
    """The keys that are kept, by name."""

    keys: Annotated[tuple[KeyView, ...], Limit(0, KEYS_MAX)]


class Gateway(NamedTuple):
    """Whether the gateway is open over TCP. `listens` has each ADDRESS:PORT that systemd listens on."""

    is_open: bool
    listens: Annotated[tuple[Text, ...], Limit(0, 64)] = ()


class SetGateway(NamedTuple):
    """Whether rbee-gateway-tcp.socket may be opened."""

    is_open: bool

"""Hives on other machines: the queen's TCP socket, tokens, and how a machine joins."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import Count, Limit, MachineId, Name, NewName, Pem, Text, TokenId


class SetTcp(NamedTuple):
    """Whether TCP is enabled from the queen's next start on."""

    is_open: bool


class Tcp(NamedTuple):
    """Is TCP enabled, and on which addresses does the queen listen now (`listens`, HOST:PORT each)?

    `fingerprint` is the SHA-256 of the CA's certificate, None before there is one; `expires_ms` is when the
    queen's own certificate expires, which is renewed before; `problem` is why no machine can join now.
    """

    is_open: bool
    listens: Annotated[tuple[Text, ...], Limit(0, 64)]
    fingerprint: Text | None
    expires_ms: Count | None
    problem: Text | None = None


class CreateToken(NamedTuple):
    """A token to create; `ttl_s` in seconds; `hive` binds the token to one name."""

    ttl_s: Annotated[int, Limit(1, 30 * 86400)] = 3600
    uses: Annotated[int, Limit(1, 10_000)] = 1
    hive: NewName | None = None


class TokenView(NamedTuple):
    """A token without its secret; `problem` is what could not be read of its row."""

    id: TokenId
    hive: Name | None
    uses_left: Count
    created_at_ms: Count
    expires_at_ms: Count
    is_revoked: bool
    problem: Text | None = None


class CreatedToken(NamedTuple):
    """A new token; `text` is what a machine joins with. It is shown only here: only its hash is stored."""

    text: Text
    token: TokenView


class Tokens(NamedTuple):
    """The tokens that are kept, newest last."""

    tokens: Annotated[tuple[TokenView, ...], Limit(0, 1000)]


class Join(NamedTuple):
    """A machine that asks to join; `machine` is derived from its machine-id, `request` is PKCS #10 in PEM."""

    token: Annotated[str, Limit(1, 200)]
    name: NewName
    machine: MachineId
    request: Pem
    version: Text


class Joined(NamedTuple):
    """A hive's id and its certificate, after joining or renewing."""

    hive_id: Name
    certificate: Pem


class Renew(NamedTuple):
    """A PKCS #10 certificate request in PEM for another certificate."""

    request: Pem

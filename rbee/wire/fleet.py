"""Hives on other machines: the queen's TCP socket, tokens, and how a machine joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rbee.wire.types import Count, Limit, MachineId, Name, NewName, Pem, Text, TokenId


@dataclass(frozen=True)
class SetTcp:
    is_open: bool


@dataclass(frozen=True)
class Tcp:
    """Is the queen to be reached by hives on other machines, and is she (`listens`: HOST:PORT each)?

    `fingerprint` is the SHA-256 of her CA's certificate, None before there is one; `expires_ms` when
    her own certificate does, which is made anew before; `problem` why her keys let nobody join now.
    """

    is_open: bool
    listens: Annotated[tuple[Text, ...], Limit(0, 64)]
    fingerprint: Text | None
    expires_ms: Count | None
    problem: Text | None = None


@dataclass(frozen=True)
class CreateToken:
    """`ttl_s` in seconds; `hive` binds the token to one name."""

    ttl_s: Annotated[int, Limit(1, 30 * 86400)] = 3600
    uses: Annotated[int, Limit(1, 10_000)] = 1
    hive: NewName | None = None


@dataclass(frozen=True)
class TokenView:
    """`problem` says what of its row could not be read."""

    id: TokenId
    hive: Name | None
    uses_left: Count
    created_at_ms: Count
    expires_at_ms: Count
    is_revoked: bool
    problem: Text | None = None


@dataclass(frozen=True)
class CreatedToken:
    """`text` is what a hive joins with. It is told this once, and stored as a hash alone."""

    text: Text
    token: TokenView


@dataclass(frozen=True)
class Tokens:
    tokens: Annotated[tuple[TokenView, ...], Limit(0, 1000)]


@dataclass(frozen=True)
class Join:
    """`machine` is derived from the machine-id, `request` a PKCS #10 certificate request in PEM."""

    token: Annotated[str, Limit(1, 200)]
    name: NewName
    machine: MachineId
    request: Pem
    version: Text


@dataclass(frozen=True)
class Joined:
    hive_id: Name
    certificate: Pem


@dataclass(frozen=True)
class Renew:
    request: Pem

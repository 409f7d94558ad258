"""The tokens with which machines join, and the rules for accepting one."""

from __future__ import annotations

import hmac
from typing import Any, NamedTuple

from rbee.errors import BadToken, TooMany, UnknownToken
from rbee.queen.store.engine import Engine, Session
from rbee.queen.store.records import Actor, Joining
from rbee.queen.store.writer import Transaction, Writer
from rbee.scope import Scope
from rbee.wire.fleet import TokenView
from rbee.wire.rows import read_row
from rbee.wire.types import is_same_name

TOKENS_MAX = 1000
"""Tokens that are kept; the oldest of those that cannot be used any more make room."""

_COLUMNS = "id, hive, uses_left, created_at_ms, expires_at_ms, is_revoked"

_ALL = f"SELECT {_COLUMNS} FROM tokens ORDER BY created_at_ms"  # noqa: S608  # texts of our own
_ONE = f"SELECT {_COLUMNS} FROM tokens WHERE id = :id"  # noqa: S608  # as above


class TokenStore:
    """The tokens in the catalog, each with the hash of its secret, never the secret."""

    def __init__(self, engine: Engine, writer: Writer, scope: Scope) -> None:
        self._engine = engine
        self._writer = writer
        self._scope = scope

    async def all(self) -> list[TokenView]:
        """Return all kept tokens, newest last."""
        return await self._engine.read_all(lambda session: [_token(row) for row in session.rows(_ALL)])

    async def add(self, token: TokenView, token_hash: str, *, by: Actor) -> None:
        """Store a new token; TooMany if TOKENS_MAX others can still be used."""

        def write(transaction: Transaction) -> None:
            _make_room(transaction.session, token.created_at_ms, self._scope)
            transaction.session.execute(
                """
                INSERT INTO tokens (id, hash, hive, uses_left, created_at_ms, expires_at_ms)
                VALUES (:id, :hash, :hive, :uses_left, :created_at_ms, :expires_at_ms)
                """,
                id=token.id,
                hash=token_hash,
                hive=token.hive,
                uses_left=token.uses_left,
                created_at_ms=token.created_at_ms,
                expires_at_ms=token.expires_at_ms,
            )
            bound_to = f" for the hive {token.hive}" if token.hive else ""
            uses = "1 use" if token.uses_left == 1 else f"{token.uses_left} uses"
            transaction.note(token.hive, f"token {token.id}{bound_to} was made, for {uses}", by)

        await self._writer.write(write)

    async def revoke(self, token_id: str, *, by: Actor) -> TokenView:
        """Revoke a token and return it, even if it was revoked before. Raises UnknownToken."""

        def write(transaction: Transaction) -> TokenView:
            session = transaction.session
            revoke = "UPDATE tokens SET is_revoked = 1 WHERE id = :id AND is_revoked = 0"
            if session.execute(revoke, id=token_id):
                transaction.note(None, f"token {token_id} is revoked", by)
            for row in session.rows(_ONE, id=token_id):
                return _token(row)
            raise UnknownToken(
                f"there is no token {token_id}", hint=self._scope.rbeectl("token list"), field="token_id"
            )

        return await self._writer.write(write)

    async def keep_to(self, fingerprint: str) -> None:
        """Revoke all tokens if they name another CA than this: with them no machine accepts this queen."""
        if await self._engine.read_all(_authority) == fingerprint:
            return

        def write(transaction: Transaction) -> None:
            session = transaction.session
            if _authority(session) is not None:
                # Also good ones, if the CA was replaced by a downgraded queen: to be on the safe side.
                revoked = session.execute("UPDATE tokens SET is_revoked = 1 WHERE is_revoked = 0")
                if revoked:
                    tokens = "1 token is" if revoked == 1 else f"{revoked} tokens are"
                    transaction.note(None, f"{tokens} revoked: the queen has another CA", None)
            session.execute("DELETE FROM token_authority")
            session.execute("INSERT INTO token_authority VALUES (1, :fingerprint)", fingerprint=fingerprint)

        await self._writer.write(write)


class Token(NamedTuple):
    """A row of the table tokens."""

    id: str
    hash: str
    hive: str | None
    uses_left: int
    expires_at_ms: int
    is_revoked: int

    def why_useless(self, now: int) -> str | None:
        """Return why it cannot be used at `now` (ms since the epoch) or later; None if it can."""
        if self.is_revoked:
            return "has been revoked"
        if self.uses_left < 1:
            return "is spent"
        return "has expired" if self.expires_at_ms <= now else None

    def is_for(self, hive_id: str) -> bool:
        """May a hive of this name join with it?"""
        return self.hive is None or is_same_name(self.hive, hive_id)


def check_token(session: Session, asked: Joining, now: int, scope: Scope) -> None:
    """Raise BadToken if a machine may not join with its token."""
    another = f"On the queen's machine: {scope.rbeectl('token create')}"
    token = next(iter(_tokens(session, "WHERE id = :id", id=asked.token_id)), None)
    if token is None or not hmac.compare_digest(token.hash.encode(), asked.token_hash.encode()):
        raise BadToken("this queen did not issue the token", hint=another)
    fault = token.why_useless(now)
    if fault is None and not token.is_for(asked.hive_id):
        fault = f"is for the hive {token.hive}"
    if fault is not None:
        raise BadToken(f"token {asked.token_id} {fault}", hint=another)


def spend_token(session: Session, asked: Joining, now: int, scope: Scope) -> None:
    """Take one use of a token; raises BadToken as check_token()."""
    check_token(session, asked, now, scope)
    session.execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = :id", id=asked.token_id)


def _authority(session: Session) -> str | None:
    """Return the fingerprint of the CA that the tokens name; None if it was never noted, as by 0.4.0."""
    for (fingerprint,) in session.rows("SELECT fingerprint FROM token_authority"):
        return str(fingerprint)
    return None


def _make_room(session: Session, now: int, scope: Scope) -> None:
    """Make room for one more by deleting the oldest unusable tokens; TooMany if those are too few."""
    tokens = _tokens(session, "ORDER BY created_at_ms")
    excess = len(tokens) + 1 - TOKENS_MAX
    if excess <= 0:
        return
    useless = [token for token in tokens if token.why_useless(now) is not None][:excess]
    for token in useless:
        session.execute("DELETE FROM tokens WHERE id = :id", id=token.id)
    if len(useless) < excess:
        hint = scope.rbeectl("token revoke")
        raise TooMany(f"there are {len(tokens) - len(useless)} tokens", hint=hint)


def _tokens(session: Session, which: str, **values: str) -> list[Token]:
    query = f"SELECT id, hash, hive, uses_left, expires_at_ms, is_revoked FROM tokens {which}"  # noqa: S608  # texts of our own
    return [Token(*row) for row in session.rows(query, **values)]


def _token(row: tuple[Any, ...]) -> TokenView:
    names = _COLUMNS.split(", ")
    return read_row(TokenView, dict(zip(names, (*row[:-1], bool(row[-1])), strict=True)))

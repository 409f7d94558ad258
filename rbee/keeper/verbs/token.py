"""rbeectl token: make, list and revoke the tokens with which machines join."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from rbee.errors import BadInput
from rbee.keeper.options import Suggesting, changing, in_session, looking, span
from rbee.keeper.output import tables
from rbee.keeper.output.tables import now_ms
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.scope import REMOTE, Scope
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.fleet import CreatedToken, CreateToken, Tokens
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import Name, TokenId


@click.group(cls=Suggesting, short_help="Make, list or revoke tokens, with which machines join.")
def token() -> None:
    """Make, list or revoke tokens, with which machines join as hives."""


@token.command("create", short_help="Make a token and print it.")
@click.option("--ttl", callback=span, metavar="SPAN", help="How long the token is valid; 1h if not given.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Number of joins.")
@click.option("--hive", metavar="NAME", help="Allow only this hive name.")
@changing
@in_session
def create_token(session: Session, ttl: float | None, uses: int, hive: str | None) -> None:
    """Make a token and print it. Only its hash is stored, so it cannot be shown again."""
    if hive is not None:
        checked(Name, "--hive", hive)
    if ttl is not None and not 1 <= ttl <= 30 * 86400:
        raise BadInput("--ttl must be from 1s to 30d", field="--ttl")
    request = CreateToken(round(ttl) if ttl is not None else 3600, uses, hive)
    with session.queen() as queen:
        made: CreatedToken = queen.ask_woken(QueenRoutes.CREATE_TOKEN, request)
        listens = queen.ask_woken(QueenRoutes.TCP).listens
    if session.as_json:
        session.tell_json(encode(made))
        return
    click.echo(printable(made.text))
    if sys.stdout.isatty():
        for line in joining_lines(listens, made.text, session.scope, hive):
            session.say(line)


def joining_lines(listens: Sequence[str], token: str, scope: Scope, hive: str | None = None) -> Iterator[str]:
    """Lines with the command to type on a machine that is to join, with an address of the queen."""
    from rbee.keeper.fleet.address import reachable_at

    if not listens:
        open_it = scope.rbeectl("tcp enable")
        yield f"No machine can join yet, as the queen is not open to other machines: {open_it}"
        return
    first, *others = reachable_at(listens) or [f"ADDRESS:{listens[0].rpartition(':')[2]}"]
    named = f" --name {hive}" if hive else ""
    command = REMOTE.rbeectl(f"join {first} --token {token}{named}", as_root=True)
    yield f"On the machine that is to join: {command}"
    if others:
        yield f"If it does not reach {first}, use one of: {' '.join(others)}"


@token.command("list", short_help="List the tokens.")
@looking
@in_session
def list_tokens(session: Session) -> None:
    """List the tokens, without their secrets."""
    with session.queen() as queen:
        listed: Tokens = queen.ask_if_awake(QueenRoutes.TOKENS)
    if session.as_json:
        session.tell_json(encode(listed))
    elif listed.tokens:
        session.show(lambda frame: tables.tokens_table(listed.tokens, now_ms(), frame))
    elif session.has_legend:
        session.say(f"No tokens. Make one: {session.scope.rbeectl('token create')}")


@token.command("revoke", short_help="Revoke a token, so that no machine can join with it.")
@click.argument("token_id", metavar="TOKEN")
@changing
@in_session
def revoke_token(session: Session, token_id: str) -> None:
    """Revoke the token whose id or text is TOKEN, so that no machine can join with it."""
    token_id = checked(TokenId, "TOKEN", token_id.partition(".")[0])
    with session.queen() as queen:
        revoked = queen.ask_woken(QueenRoutes.REVOKE_TOKEN, token_id=token_id)
    if session.as_json:
        session.tell_json({"event": "done", **encode(revoked)})
    else:
        session.say(f"Token {token_id} is revoked")

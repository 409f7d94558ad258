"""rbeectl key: make, list and revoke the keys with which clients use the gateway over TCP."""

from __future__ import annotations

import sys

import click

from rbee.errors import BadInput, UnknownKey
from rbee.keeper.models.catalog import Models
from rbee.keeper.options import Suggesting, changing, in_session, looking, span
from rbee.keeper.output import models as drawn
from rbee.keeper.output import tables
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.keeper.typed import checked, did_you_mean
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.keys import CreatedKey, CreateKey, Keys, KeyView
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import ModelName, NewName, spelled

TTL_MAX = 3650 * 86400
MODELS_MAX = 64


@click.group(cls=Suggesting, short_help="Make, list or revoke keys for clients over TCP.")
def key() -> None:
    """Make, list or revoke keys, with which clients use the gateway over TCP."""


@key.command("create", short_help="Make a key and print it.")
@click.argument("name")
@click.option("--models", metavar="NAMES", help="Allow only these models, separated by commas.")
@click.option(
    "--ttl", callback=span, metavar="SPAN", help="How long the key is valid; for ever if not given."
)
@changing
@in_session
def create_key(session: Session, name: str, models: str | None, ttl: float | None) -> None:
    """Make a key for the client NAME and print it. Only its hash is stored, so it cannot be shown again."""
    checked(NewName, "NAME", name)
    allowed = [] if models is None else [one.strip() for one in models.split(",")]
    for one in allowed:
        checked(ModelName, "--models", one)
    if len(allowed) > MODELS_MAX:
        raise BadInput(f"--models may have at most {MODELS_MAX} names", field="--models")
    if ttl is not None and not 1 <= ttl <= TTL_MAX:
        raise BadInput("--ttl must be from 1s to 3650d", field="--ttl")
    with session.queen() as queen:
        names = _models_of(queen, allowed)
        request = CreateKey(name, names, None if ttl is None else round(ttl))
        made: CreatedKey = queen.ask_woken(QueenRoutes.CREATE_KEY, request)
        is_open = queen.ask_woken(QueenRoutes.GATEWAY).is_open
    if session.as_json:
        session.tell_json(encode(made))
        return
    click.echo(printable(made.text))
    if sys.stdout.isatty() and not is_open:
        opened = session.scope.rbeectl("gateway enable")
        session.say(f"No client can use it yet, as the gateway is not open to TCP: {opened}")


def _models_of(queen: Queen, typed: list[str]) -> tuple[str, ...]:
    """The names as the catalog spells them; UnknownModel for one that it does not have: it is mistyped."""
    if not typed:
        return ()
    known = [model.name for model in queen.ask_woken(QueenRoutes.MODELS).models]
    names = dict.fromkeys(spelled(name, known) for name in typed)
    for name in names:
        if name not in known:
            raise Models(queen).unknown(name)
    return tuple(names)


@key.command("list", short_help="List the keys.")
@looking
@in_session
def list_keys(session: Session) -> None:
    """List the keys, without their texts, and how they were used."""
    with session.queen() as queen:
        listed: Keys = queen.ask_if_awake(QueenRoutes.KEYS)
    if session.as_json:
        session.tell_json(encode(listed))
    elif listed.keys:
        session.show(lambda frame: drawn.keys_table(listed.keys, tables.now_ms(), frame))
    elif session.has_legend:
        session.say(f"No keys. Make one: {session.scope.rbeectl('key create NAME')}")


@key.command("revoke", short_help="Revoke a key, at once.")
@click.argument("key")
@changing
@in_session
def revoke_key(session: Session, key: str) -> None:
    """Revoke the key of the name KEY: its next request is refused."""
    checked(NewName, "KEY", key)
    with session.queen() as queen:
        revoked = revoke(queen, key)
    if session.as_json:
        session.tell_json({"event": "done", **encode(revoked)})
    else:
        session.say(f"Key {printable(key)} is revoked")


def revoke(queen: Queen, key: str) -> KeyView:
    """Wake the queen, and have it revoke a key; UnknownKey suggests similar names."""
    try:
        revoked: KeyView = queen.ask_woken(QueenRoutes.REVOKE_KEY, key=key)
    except UnknownKey as error:
        names = (one.name for one in queen.ask(QueenRoutes.KEYS).keys if not one.is_revoked)
        raise UnknownKey(
            f"there is no key '{key}'{did_you_mean(key, names)}",
            hint=queen.work.scope.rbeectl("key list"),
            field="KEY",
        ) from error
    return revoked

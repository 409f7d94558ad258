"""Hives on other machines: opening the queen to them, tokens, joining, labels, cordons, the audit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from rbee.contracts import (
    CreateToken,
    HiveView,
    Label,
    LabelKey,
    LabelValue,
    Name,
    QueenRoutes,
    Route,
    SetCordon,
    SetLabels,
    Text,
    TokenId,
    encode,
)
from rbee.errors import BadInput
from rbee.keeper.commands import checked
from rbee.keeper.options import Suggesting, changing, in_session, looking, span
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.keeper.verbs.hives import now_ms
from rbee.text import NotUtf8, decoded, printable


@click.group(cls=Suggesting, short_help="Open the queen to hives on other machines, or close her.")
def tcp() -> None:
    """Open the queen to hives on other machines, or close her. She is closed until she is opened."""


@tcp.command("enable", short_help="Make the keys and open the TCP socket.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to listen, kept in a drop-in; as root.")
@changing
@in_session
def enable_tcp(session: Session, listen: str | None) -> None:
    """Make the queen's keys, where there are none, and open queen-rbee-tcp.socket.

    A socket cannot join a queen who runs: she is restarted, and says so.
    """
    with session.keeper() as work:
        told = work.set_tcp(is_open=True, listen=listen)
    if session.as_json:
        session.tell_json({"event": "done", **encode(told)})
    else:
        session.say(f"The queen listens on {', '.join(told.listens)}; fingerprint {told.fingerprint}")
        for line in joining_lines(told.listens, "TOKEN"):
            session.say(line)
        session.say("For a TOKEN: rbeectl token create")
        if told.problem:
            session.say(f"Nobody can join: {printable(told.problem)}. Try: sudo rbeectl doctor")


@tcp.command("disable", short_help="Close the TCP socket.")
@changing
@in_session
def disable_tcp(session: Session) -> None:
    """Close queen-rbee-tcp.socket; keys and hives stay as they are."""
    with session.keeper() as work:
        told = work.set_tcp(is_open=False)
    if session.as_json:
        session.tell_json({"event": "done", **encode(told)})
    else:
        session.say("The queen listens on her own machine alone")


@tcp.command("status", short_help="Say whether the queen is open, and her keys' fingerprint.")
@looking
@in_session
def tcp_status(session: Session) -> None:
    """Say whether the queen is open to other machines, and the fingerprint of her keys."""
    with session.keeper() as work:
        told = work.ask_if_awake(QueenRoutes.TCP)
    if session.as_json:
        session.tell_json(encode(told))
        return
    lines = [
        f"       Open: {'yes' if told.is_open else 'no'}",
        f"  Listening: {', '.join(told.listens) or '-'}",
        f"Fingerprint: {told.fingerprint or '-'}",
        f"    Expires: {tables.clock(told.expires_ms * 1000) if told.expires_ms else '-'}",
    ]
    if told.problem:
        lines.append(f"    Problem: {printable(told.problem)}. Try: sudo rbeectl doctor")
    session.show("\n".join(lines))


@click.group(cls=Suggesting, short_help="Make, list or revoke tokens, with which machines join.")
def token() -> None:
    """Make, list or revoke tokens, with which machines join as hives."""


@token.command("create", short_help="Make a token and print it, this once.")
@click.option("--ttl", callback=span, metavar="SPAN", help="How long it can be used: 1h if not given.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How often.")
@click.option("--hive", metavar="NAME", help="For a hive of this name alone.")
@changing
@in_session
def create_token(session: Session, ttl: float | None, uses: int, hive: str | None) -> None:
    """Make a token and print it. It is stored as a hash alone, and never shown again."""
    if hive is not None:
        checked(Name, "--hive", hive)
    if ttl is not None and not 1 <= ttl <= 30 * 86400:
        raise BadInput("--ttl must be from 1s to 30d", field="--ttl")
    asked = CreateToken(round(ttl) if ttl is not None else 3600, uses, hive)
    with session.keeper() as work:
        made = work.ask_woken(QueenRoutes.CREATE_TOKEN, asked)
        listens = work.ask_woken(QueenRoutes.TCP).listens
    if session.as_json:
        session.tell_json(encode(made))
        return
    click.echo(printable(made.text))
    if sys.stdout.isatty():
        for line in joining_lines(listens, made.text, hive):
            session.say(line)


def joining_lines(listens: Sequence[str], token: str, hive: str | None = None) -> Iterator[str]:
    """What to type on a machine that is to join, with an address at which it finds the queen."""
    from rbee.keeper.remote.address import reachable_at

    if not listens:
        yield "Nobody can join yet, as the queen is not open to other machines: rbeectl tcp enable"
        return
    first, *others = reachable_at(listens) or [f"ADDRESS:{listens[0].rpartition(':')[2]}"]
    named = f" --name {hive}" if hive else ""
    yield f"On the machine that is to join: sudo rbeectl join {first} --token {token}{named}"
    if others:
        yield f"Where it does not reach {first}, one of: {' '.join(others)}"


@token.command("list", short_help="List the tokens.")
@looking
@in_session
def list_tokens(session: Session) -> None:
    """List the tokens, never their secrets."""
    with session.keeper() as work:
        found = work.ask_if_awake(QueenRoutes.TOKENS)
    if session.as_json:
        session.tell_json(encode(found))
    elif found.tokens:
        session.show(lambda frame: tables.tokens_table(found.tokens, now_ms(), frame))
    elif session.has_legend:
        session.say("No tokens. Make one: rbeectl token create")


@token.command("revoke", short_help="Let nobody join with a token any more.")
@click.argument("token_id", metavar="TOKEN")
@changing
@in_session
def revoke_token(session: Session, token_id: str) -> None:
    """Let nobody join any more with the token whose id, or whose text, is TOKEN."""
    token_id = checked(TokenId, "TOKEN", token_id.partition(".")[0])
    with session.keeper() as work:
        revoked = work.ask_woken(QueenRoutes.REVOKE_TOKEN, token_id=token_id)
    if session.as_json:
        session.tell_json({"event": "done", **encode(revoked)})
    else:
        session.say(f"Token {token_id} is revoked")


@click.command(short_help="Make this machine a hive of a queen on another; as root.")
@click.argument("queen")
@click.option("--token", "shown", metavar="TOKEN", help="From rbeectl token create; '-' reads it from stdin.")
@click.option("--name", metavar="NAME", help="The hive's name: this machine's, if not given.")
@changing
@in_session
def join(session: Session, queen: str, shown: str | None, name: str | None) -> None:
    """Make this machine a hive of the queen at QUEEN, which is HOST or HOST:PORT; as root.

    Without a token, a hive that has joined follows its queen to another address.
    """
    if name is not None:
        checked(Name, "--name", name)
    if shown is not None:
        shown = _token_from_stdin() if shown == "-" else shown.removeprefix("\ufeff")
    with session.keeper() as work:
        told = work.join(queen, token=shown, name=name)
    if session.as_json:
        session.tell_json({"event": "done", **told})
    else:
        session.say(f"This machine is the hive {told['hive_id']} of the queen at {told['queen']}")


def _token_from_stdin() -> str:
    try:
        return decoded(sys.stdin.buffer.readline()).strip()
    except NotUtf8 as error:
        raise BadInput(f"--token: what stdin has is no token: {error}", field="--token") from error


@click.command(short_help="Set or take away labels of HIVE.")
@click.argument("hive")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@changing
@in_session
def label(session: Session, hive: str, labels: tuple[str, ...]) -> None:
    """Set labels of HIVE as KEY=VALUE, and take away those given as KEY-."""
    checked(Name, "HIVE", hive)
    given, taken = [], []
    for one in labels:
        key, has_value, value = one.partition("=")
        if has_value:
            given.append(Label(checked(LabelKey, "KEY", key), checked(LabelValue, "VALUE", value)))
        elif one.endswith("-"):
            taken.append(checked(LabelKey, "KEY", one[:-1]))
        else:
            raise BadInput(f"'{one:.100}' is neither KEY=VALUE nor KEY-", field="KEY")
    change(session, QueenRoutes.SET_LABELS, SetLabels(tuple(given), tuple(taken)), hive, labels_said)


@click.command(short_help="Mark HIVE as one to give no new work, with a reason.")
@click.argument("hive")
@click.argument("reason")
@changing
@in_session
def cordon(session: Session, hive: str, reason: str) -> None:
    """Mark HIVE as one to give no new work, and say why."""
    if not reason.strip():
        raise BadInput("REASON must say something", field="REASON")
    change(session, QueenRoutes.SET_CORDON, SetCordon(checked(Text, "REASON", reason)), hive, cordon_said)


@click.command(short_help="Take the mark of cordon from HIVE.")
@click.argument("hive")
@changing
@in_session
def uncordon(session: Session, hive: str) -> None:
    """Take the mark of cordon from HIVE."""
    change(session, QueenRoutes.SET_CORDON, SetCordon(None), hive, cordon_said)


def change(
    session: Session, route: Route[HiveView], body: Any, hive: str, said: Callable[[HiveView], str]
) -> None:
    checked(Name, "HIVE", hive)
    with session.keeper() as work:
        changed = work.ask_woken(route, body, hive_id=hive)
    if session.as_json:
        session.tell_json({"event": "done", "hive": encode(changed)})
    else:
        session.say(said(changed))


def labels_said(hive: HiveView) -> str:
    return f"Hive {printable(hive.id)} has the labels {tables.labels(hive) or '(none)'}"


def cordon_said(hive: HiveView) -> str:
    if hive.cordoned is None:
        return f"Hive {printable(hive.id)} is not cordoned"
    return f"Hive {printable(hive.id)} is cordoned: {printable(hive.cordoned)}"


@click.command(short_help="Show who changed what in catalog, tokens and labels.")
@click.argument("hive", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(0, 1000), default=100, show_default=True, help="How many, at most."
)
@looking
@in_session
def audit(session: Session, hive: str | None, lines: int) -> None:
    """Show the last changes of catalog, tokens and labels, of HIVE or of all, and who made them."""
    about = {} if hive is None else {"hive": checked(Name, "HIVE", hive)}
    with session.keeper() as work:
        found = work.ask_if_awake(QueenRoutes.AUDIT, limit=str(lines), **about)
    if session.as_json:
        session.tell_json(encode(found))
    elif found.entries:
        session.show(lambda frame: tables.audit_table(found.entries, frame))
    elif session.has_legend and lines:
        session.say("No changes yet")

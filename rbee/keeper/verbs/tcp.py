"""The queen's TCP socket: open to hives on other machines, or closed."""

from __future__ import annotations

import click

from rbee.keeper.options import Suggesting, changing, in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.queen.queen import Queen, reached
from rbee.keeper.session import Session
from rbee.keeper.verbs.token import joining_lines
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.fleet import Tcp
from rbee.wire.routes import QueenRoutes


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
    with session.queen() as queen:
        told = set_tcp(queen, is_open=True, listen=listen)
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
    with session.queen() as queen:
        told = set_tcp(queen, is_open=False)
    if session.as_json:
        session.tell_json({"event": "done", **encode(told)})
    else:
        session.say("The queen listens on her own machine alone")


@tcp.command("status", short_help="Say whether the queen is open, and her keys' fingerprint.")
@looking
@in_session
def tcp_status(session: Session) -> None:
    """Say whether the queen is open to other machines, and the fingerprint of her keys."""
    with session.queen() as queen:
        told: Tcp = queen.ask_if_awake(QueenRoutes.TCP)
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


def set_tcp(queen: Queen, *, is_open: bool, listen: str | None = None) -> Tcp:
    """Open the queen to other machines, or close her, who is woken for it."""
    from rbee.keeper.fleet import tcp as listening  # for who changes it alone

    address = None if listen is None else listening.check_listen(listen)
    queen.wake()
    with reached():
        return listening.set_tcp(queen, is_open=is_open, address=address)

"""rbeectl tcp: open the queen to hives on other machines, or close it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rbee.keeper.options import Suggesting, changing, in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.keeper.verbs.token import joining_lines
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.routes import QueenRoutes

if TYPE_CHECKING:
    from rbee.wire.fleet import Tcp


@click.group(cls=Suggesting, short_help="Open the queen to hives on other machines, or close it.")
def tcp() -> None:
    """Open the queen to hives on other machines, or close it. Without tcp enable it is closed."""


@tcp.command("enable", short_help="Make the keys and open the TCP socket.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Address to listen on, stored in a drop-in, as root.")
@changing
@in_session
def enable_tcp(session: Session, listen: str | None) -> None:
    """Make the queen's keys, if there are none, and open queen-rbee-tcp.socket.

    The queen is restarted for it, as a running service cannot get another socket.
    """
    with session.queen() as queen:
        state = set_tcp(queen, is_open=True, listen=listen)
    if session.as_json:
        session.tell_json({"event": "done", **encode(state)})
    else:
        session.say(f"The queen listens on {', '.join(state.listens)}; fingerprint {state.fingerprint}")
        for line in joining_lines(state.listens, "TOKEN", session.scope):
            session.say(line)
        session.say(f"For a TOKEN: {session.scope.rbeectl('token create')}")
        if state.problem:
            session.say(f"No hive can join: {printable(state.problem)}. Try: {session.scope.doctor}")


@tcp.command("disable", short_help="Close the TCP socket.")
@changing
@in_session
def disable_tcp(session: Session) -> None:
    """Close queen-rbee-tcp.socket; keys and hives are kept."""
    with session.queen() as queen:
        state = set_tcp(queen, is_open=False)
    if session.as_json:
        session.tell_json({"event": "done", **encode(state)})
    else:
        session.say("The queen listens on its own machine only")


@tcp.command("status", short_help="Show whether the queen is open, and the fingerprint of its keys.")
@looking
@in_session
def tcp_status(session: Session) -> None:
    """Show whether the queen is open to other machines, and the fingerprint of its keys."""
    with session.queen() as queen:
        state: Tcp = queen.ask_if_awake(QueenRoutes.TCP)
    if session.as_json:
        session.tell_json(encode(state))
        return
    lines = [
        f"       Open: {'yes' if state.is_open else 'no'}",
        f"  Listening: {', '.join(state.listens) or '-'}",
        f"Fingerprint: {state.fingerprint or '-'}",
        f"    Expires: {tables.clock(state.expires_ms * 1000) if state.expires_ms else '-'}",
    ]
    if state.problem:
        lines.append(f"    Problem: {printable(state.problem)}. Try: {session.scope.doctor}")
    session.show("\n".join(lines))


def set_tcp(queen: Queen, *, is_open: bool, listen: str | None = None) -> Tcp:
    """Wake the queen, and open it to other machines or close it; see fleet.tcp.set_tcp()."""
    from rbee.keeper.fleet import tcp as listening  # only to change it

    address = None if listen is None else listening.check_listen(listen, queen.work.scope)
    queen.wake()
    with queen.reached():
        return listening.set_tcp(queen, is_open=is_open, address=address)

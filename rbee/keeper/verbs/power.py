"""Turning the queen on and off."""

from __future__ import annotations

import click

from rbee.keeper.options import doing, in_session
from rbee.keeper.session import Session


@click.command(short_help="Stop the queen, all hives and their sockets.")
@doing
@in_session
def shutdown(session: Session) -> None:
    """Stop the queen, all hives and their sockets; returns when they are stopped."""
    with session.keeper() as work:
        work.shutdown(waits=session.waits)
    if session.as_json:
        session.tell_json({"event": "done", "hive": None})
    else:
        session.say("Queen and hives are off" if session.waits else "Queen and hives are being stopped")

"""rbeectl wake, sleep and shutdown."""

from __future__ import annotations

import click

from rbee.keeper.listener import closed_tcp
from rbee.keeper.options import doing, in_session
from rbee.keeper.queen.shutdown import begin_shutdown, shut_down
from rbee.keeper.queen.sleep import put_to_sleep
from rbee.keeper.session import Session


@click.command()
@doing
@in_session
def wake(session: Session) -> None:
    """Wake the queen, which wakes its hives."""
    with session.queen() as queen:
        if session.waits:
            queen.wake()
        else:
            queen.begin_waking()
        closed = closed_tcp(queen.work.bus) if session.waits else None
    print_done(session, "awake", "Queen is awake" if session.waits else "Queen is being woken")
    if closed:
        session.warn(closed.message, closed.hint)


@click.command(short_help="Stop the queen until a client wakes it.")
@doing
@in_session
def sleep(session: Session) -> None:
    """Stop the queen and this machine's hive, and leave their sockets listening.

    The next client that connects wakes the queen. The gateway keeps running, and so do
    workers for two minutes.
    """
    with session.work() as work:
        put_to_sleep(work, waits=session.waits)
    print_done(session, "asleep", "Queen is asleep" if session.waits else "Queen is being stopped")


@click.command(short_help="Stop the queen, all hives and workers, the gateway, and their sockets.")
@doing
@in_session
def shutdown(session: Session) -> None:
    """Stop the queen, all hives and workers, the gateway, and their sockets, and wait until they are stopped.

    On a machine without a queen it stops only the hive.
    """
    with session.queen() as queen:
        state = queen.state()
        if session.waits:
            shut_down(queen)
        else:
            begin_shutdown(queen)
    if state == "absent":
        subject, verb = "This machine's hive", "is"
    else:
        subject, verb = "Queen and hives", "are"
    print_done(
        session,
        "absent" if state == "absent" else "off",
        f"{subject} {verb} {'off' if session.waits else 'being stopped'}",
    )


def print_done(session: Session, queen: str, text: str) -> None:
    """Print the state that the queen has now, or will have."""
    if session.as_json:
        session.tell_json({"event": "done" if session.waits else "begun", "queen": queen})
    else:
        session.say(text)

"""rbeectl join: make this machine a hive of a queen on another machine."""

from __future__ import annotations

import sys

import click

from rbee.errors import BadInput
from rbee.keeper.options import changing, in_session
from rbee.keeper.permission import explained
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.text import NotUtf8, decoded
from rbee.wire.types import Name


@click.command(short_help="Make this machine a hive of a remote queen, as root.")
@click.argument("queen")
@click.option("--token", "shown", metavar="TOKEN", help="From rbeectl token create; '-' reads it from stdin.")
@click.option("--name", metavar="NAME", help="Name of the hive; the machine's host name if not given.")
@changing
@in_session
def join(session: Session, queen: str, shown: str | None, name: str | None) -> None:
    """Make this machine a hive of the queen at QUEEN, which is HOST or HOST:PORT, as root.

    Without a token, a hive that has joined follows its queen to another address.
    """
    if name is not None:
        checked(Name, "--name", name)
    if shown is not None:
        shown = _token_from_stdin() if shown == "-" else shown.removeprefix("\ufeff")
    from rbee.keeper.fleet.join import check_join
    from rbee.keeper.fleet.join import join as join_queen

    address = check_join(queen, shown, session.scope)
    with session.work() as work, explained(session.scope):
        joined = join_queen(work, address, token=shown, name=name)
    if session.as_json:
        session.tell_json({"event": "done", "hive_id": joined.hive_id, "queen": joined.queen})
    else:
        session.say(f"This machine is the hive {joined.hive_id} of the queen at {joined.queen}")


def _token_from_stdin() -> str:
    try:
        return decoded(sys.stdin.buffer.readline()).strip()
    except NotUtf8 as error:
        raise BadInput(f"--token: the input is not a token: {error}", field="--token") from error

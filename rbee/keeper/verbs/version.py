"""What is installed and what runs, and whether they fit."""

from __future__ import annotations

import click

from rbee import __version__
from rbee.contracts import HiveView
from rbee.keeper import tables
from rbee.keeper.commands import Versions
from rbee.keeper.options import in_session, looking
from rbee.keeper.session import Session


@click.command(short_help="Show the versions of all that runs.")
@looking
@in_session
def version(session: Session) -> None:
    """Show the versions of rbeectl, of the queen and of the hives that run, and say where they differ.

    A queen who is not awake is not asked.
    """
    with session.keeper() as work:
        found = work.versions()
    if session.as_json:
        session.tell_json(
            {
                "rbeectl": __version__,
                "queen": {"state": found.queen_state, "version": found.queen},
                "hives": [
                    {"id": hive.id, "state": hive.state, "version": hive.version} for hive in found.hives
                ],
            }
        )
        return
    rows = [("rbeectl", __version__, ""), ("queen", found.queen or "-", _queen_note(found))]
    rows += [(f"hive {hive.id}", hive.version or "-", _hive_note(hive)) for hive in found.hives]
    session.show(tables.table(("PROGRAM", "VERSION", "NOTE"), rows, session.frame))


def _queen_note(found: Versions) -> str:
    if found.queen is None:
        return f"she is {found.queen_state}"
    if found.queen != __version__:
        return f"runs another version than rbeectl's {__version__}: sudo systemctl try-restart queen-rbee"
    return ""


def _hive_note(hive: HiveView) -> str:
    if hive.version is None:
        return f"it is {hive.state}"
    if hive.version != __version__:
        return f"runs another version than rbeectl's {__version__}: sudo systemctl try-restart rbee-hive"
    return ""

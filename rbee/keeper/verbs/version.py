"""What is installed and what runs, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass

import click

from rbee import __version__
from rbee.keeper.local_hive import LocalHive
from rbee.keeper.options import in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.queen.queen import Queen
from rbee.keeper.queen.state import QueenState
from rbee.keeper.queen.version import RESTART, numbers_of
from rbee.keeper.session import Session
from rbee.scope import HIVE_UNIT
from rbee.wire.hives import HiveView
from rbee.wire.routes import QueenRoutes


@dataclass(frozen=True, slots=True)
class Versions:
    """What queen and hives say they are; `queen` is None where she is not awake to tell.

    `lone` is the hive of a machine that has no queen.
    """

    queen_state: QueenState
    queen: str | None
    hives: tuple[HiveView, ...]
    lone: LocalHive | None = None


def find_versions(queen: Queen) -> Versions:
    """What runs here, as far as somebody is awake to tell."""
    state = queen.state()
    if state == "awake":
        return Versions(state, queen.version(), queen.ask(QueenRoutes.HIVES).hives)
    lone = LocalHive.find(queen.work.bus) if state == "absent" else None
    return Versions(state, None, (), lone)


@click.command(short_help="Show the versions of all that runs.")
@looking
@in_session
def version(session: Session) -> None:
    """Show the versions of rbeectl, of the queen and of the hives that run, and say where they differ.

    A queen who is not awake is not asked.
    """
    with session.queen() as queen:
        found = find_versions(queen)
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
    rows += [(f"hive {hive.id}", hive.version or "-", _hive_note(hive, found.queen)) for hive in found.hives]
    session.show(lambda frame: tables.table(("PROGRAM", "VERSION", "NOTE"), rows, frame, key="NOTE"))


def _queen_note(found: Versions) -> str:
    if found.lone is not None:
        link = found.lone.link
        return f"she is on another machine, {link.queen}" if link else "there is none on this machine"
    if found.queen is None:
        return f"she is {found.queen_state}"
    if found.queen != __version__:
        return f"the package has {__version__}: {RESTART}"
    return ""


def _hive_note(hive: HiveView, queen: str | None) -> str:
    """Which machine has to do what, where a hive and its queen are of two versions."""
    if hive.version is None:
        return f"it is {hive.state}"
    if not hive.is_remote:
        if hive.version == __version__:
            return ""
        return f"the package has {__version__}: sudo systemctl try-restart {HIVE_UNIT}"
    if queen is None or hive.version == queen:
        return ""
    if numbers_of(hive.version) > numbers_of(queen):
        return f"newer than the queen's {queen}: upgrade rbee-queen, on this machine"
    return f"older than the queen's {queen}: upgrade rbee-hive, on {hive.id}"

"""rbeectl version: the versions that are installed and that run, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from rbee import __version__
from rbee.keeper.hives import Hives
from rbee.keeper.local_hive import LocalHive
from rbee.keeper.options import in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.queen.queen import Queen
from rbee.keeper.queen.state import QueenState
from rbee.keeper.queen.version import numbers_of, restart
from rbee.keeper.session import Session
from rbee.scope import HIVE_UNIT, Scope

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView


class Versions(NamedTuple):
    """The versions of queen and hives; `queen` is None if it is not awake.

    `lone` is the hive of a machine without a queen.
    """

    queen_state: QueenState
    queen: str | None
    hives: tuple[HiveView, ...]
    lone: LocalHive | None = None


def find_versions(queen: Queen) -> Versions:
    """The versions that run, if the queen is awake."""
    state = queen.state()
    if state == "awake":
        return Versions(state, queen.version(), Hives(queen).of_awake())
    lone = LocalHive.find(queen.work.bus) if state == "absent" else None
    return Versions(state, None, (), lone)


@click.command(short_help="Show the versions of rbeectl, queen and hives.")
@looking
@in_session
def version(session: Session) -> None:
    """Show the versions of rbeectl, the queen and the hives, and where they differ.

    It does not wake the queen.
    """
    with session.queen() as queen:
        versions = find_versions(queen)
    if session.as_json:
        session.tell_json(
            {
                "rbeectl": __version__,
                "queen": {"state": versions.queen_state, "version": versions.queen},
                "hives": [
                    {"id": hive.id, "state": hive.state, "version": hive.version} for hive in versions.hives
                ],
            }
        )
        return
    scope = session.scope
    rows = [("rbeectl", __version__, ""), ("queen", versions.queen or "-", _queen_note(versions, scope))]
    rows += [
        (f"hive {hive.id}", hive.version or "-", _hive_note(hive, versions.queen, scope))
        for hive in versions.hives
    ]
    session.show(lambda frame: tables.table(("PROGRAM", "VERSION", "NOTE"), rows, frame, key="NOTE"))


def _queen_note(versions: Versions, scope: Scope) -> str:
    if versions.lone is not None:
        link = versions.lone.link
        return f"it is on another machine, {link.queen}" if link else "there is no queen on this machine"
    if versions.queen is None:
        return f"it is {versions.queen_state}"
    if versions.queen != __version__:
        return f"the package has {__version__}: {restart(scope)}"
    return ""


def _hive_note(hive: HiveView, queen: str | None, scope: Scope) -> str:
    """What to do, and on which machine, if a hive and its queen have different versions."""
    if hive.version is None:
        return f"it is {hive.state}"
    if not hive.is_remote:
        if hive.version == __version__:
            return ""
        again = scope.systemctl(f"try-restart {HIVE_UNIT}", as_root=True)
        return f"the package has {__version__}: {again}"
    if queen is None or hive.version == queen:
        return ""
    if numbers_of(hive.version) > numbers_of(queen):
        return f"newer than the queen's {queen}: upgrade rbee-queen, on this machine"
    return f"older than the queen's {queen}: upgrade rbee-hive, on {hive.id}"

"""rbeectl label, cordon and uncordon."""

from __future__ import annotations

from typing import Any

import click

from rbee.errors import BadInput
from rbee.keeper.options import changing, in_session
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.hives import HiveView, Label, SetCordon, SetLabels
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import LabelKey, LabelValue, Name, Text


@click.command(short_help="Set or remove labels of HIVE.")
@click.argument("hive")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@changing
@in_session
def label(session: Session, hive: str, labels: tuple[str, ...]) -> None:
    """Set labels of HIVE with KEY=VALUE, and remove labels with KEY-."""
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
    change(session, QueenRoutes.SET_LABELS, SetLabels(tuple(given), tuple(taken)), hive, labels_of)


@click.command(short_help="Mark HIVE to get no new work, with a reason.")
@click.argument("hive")
@click.argument("reason")
@changing
@in_session
def cordon(session: Session, hive: str, reason: str) -> None:
    """Mark HIVE to get no new work, because of REASON."""
    if not reason.strip():
        raise BadInput("REASON must not be empty", field="REASON")
    change(session, QueenRoutes.SET_CORDON, SetCordon(checked(Text, "REASON", reason)), hive, cordon_of)


@click.command(short_help="Remove the cordon of HIVE.")
@click.argument("hive")
@changing
@in_session
def uncordon(session: Session, hive: str) -> None:
    """Remove the cordon of HIVE."""
    change(session, QueenRoutes.SET_CORDON, SetCordon(None), hive, cordon_of)


def change(session: Session, route: Any, body: Any, hive: str, describe: Any) -> None:
    """Send a change of a hive to the queen, and print the changed hive with `describe`."""
    checked(Name, "HIVE", hive)
    with session.queen() as queen:
        changed: HiveView = queen.ask_woken(route, body, hive_id=hive)
    if session.as_json:
        session.tell_json({"event": "done", "hive": encode(changed)})
    else:
        session.say(describe(changed))


def labels_of(hive: HiveView) -> str:
    """What label prints: the labels of a hive."""
    return f"Hive {printable(hive.id)} has the labels {tables.labels(hive) or '(none)'}"


def cordon_of(hive: HiveView) -> str:
    """What cordon and uncordon print: whether a hive is cordoned, and why."""
    if hive.cordoned is None:
        return f"Hive {printable(hive.id)} is not cordoned"
    return f"Hive {printable(hive.id)} is cordoned: {printable(hive.cordoned)}"

"""rbeectl audit: who changed what, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rbee.keeper.options import in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.wire.codec import encode
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import Name

if TYPE_CHECKING:
    from rbee.wire.catalog import Audit


@click.command(short_help="Show who changed hives, models, tokens, keys and labels.")
@click.argument("hive", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(0, 1000), default=100, show_default=True, help="How many changes."
)
@looking
@in_session
def audit(session: Session, hive: str | None, lines: int) -> None:
    """Show the latest changes of hives, models, tokens, keys and labels, and who made them; of HIVE only,
    if given."""
    about = {} if hive is None else {"hive": checked(Name, "HIVE", hive)}
    with session.queen() as queen:
        changes: Audit = queen.ask_if_awake(QueenRoutes.AUDIT, limit=str(lines), **about)
    if session.as_json:
        session.tell_json(encode(changes))
    elif changes.entries:
        session.show(lambda frame: tables.audit_table(changes.entries, frame))
    elif session.has_legend and lines:
        session.say("No changes yet")

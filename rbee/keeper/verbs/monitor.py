"""What happens, as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import date, datetime

import click

from rbee.config import parse_span
from rbee.errors import BadInput, Interrupted
from rbee.keeper.monitor import Monitor, QueenIs, Told
from rbee.keeper.options import in_session, watching
from rbee.keeper.output.tables import with_problem
from rbee.keeper.queen.queen import Queen, reached
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.narration import ERROR, NOTICE, WARNING
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.events import EVENTS_MAX, FeedEvent, Gap
from rbee.wire.types import Name


@click.command(short_help="Show what happens, as it happens.")
@click.argument("hive", required=False)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, EVENTS_MAX),
    metavar="N",
    help="Begin with the last N events; 10.",
)
@click.option("--since", metavar="TIME", help="Begin with what came since then, such as -10min, or with all.")
@watching
@in_session
def monitor(session: Session, hive: str | None, lines: int | None, since: str | None) -> None:
    """Show what happens to the queen and her hives, or to HIVE, as it happens, until interrupted.

    Beside a queen who is not awake it waits and wakes nobody. It goes on where it was when she
    is back. TIME is 'all', 'today', a span as in '10min ago', or as in '2026-01-31 12:00'.
    """
    if lines is not None and since is not None:
        raise click.UsageError("--lines and --since do not go together")
    about = hive if hive is None else checked(Name, "HIVE", hive)
    since_ms = None if since is None else moment_ms(since)
    shown = ToldAsJson(session) if session.as_json else ToldInLines(session)
    try:
        with session.queen() as queen:
            for told in happening(queen, about, lines=10 if lines is None else lines, since_ms=since_ms):
                shown.show(told)
    except KeyboardInterrupt as error:
        raise SystemExit(Interrupted.exit_code) from error


def happening(queen: Queen, hive: str | None, *, lines: int, since_ms: int | None) -> Iterator[Told]:
    """What happens, for ever, to one hive or to all; see Monitor."""
    if queen.present_state() == "awake":
        queen.check_version()
    work = queen.work
    with reached():
        yield from Monitor(
            work.bus, queen.client, left=work.left, hive=hive, lines=lines, since_ms=since_ms,
            output=sys.stdout.fileno(),
        ).events()  # fmt: skip


def moment_ms(text: str) -> int:
    """A time as journalctl's --since takes it, or nearly so, in milliseconds since 1970."""
    now = time.time()
    span = text.removesuffix(" ago") if text.endswith(" ago") else text.removeprefix("-")
    try:
        if text == "all":
            return 0
        if text == "today":
            return round(datetime.combine(date.today(), datetime.min.time()).timestamp() * 1000)
        if span != text:
            return max(0, round((now - parse_span(span)) * 1000))
        return max(0, round(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise BadInput(
            "--since must be a time such as '2026-01-31 12:00', '10min ago', 'today' or 'all'",
            field="--since",
        ) from error


class ToldAsJson:
    """A JSON object a line: 'narrated', 'gap', or 'queen' for what the keeper itself says of her."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(self, told: Told) -> None:
        if isinstance(told, QueenIs):
            line = {"event": "queen", "state": told.state, "text": told.text}
        elif isinstance(told, Gap):
            line = {"event": "gap", **encode(told)}
        else:
            fields = encode(told)
            line = {"event": "narrated", "kind": fields.pop("event"), **fields}
        self._session.tell_json(line)


class ToldInLines:
    """For a person: time, hive, kind and text of each event, in journalctl's colours."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._day = date.today()

    def show(self, told: Told) -> None:
        if isinstance(told, QueenIs):
            self._session.say(f"-- {printable(told.text)} --")
        elif isinstance(told, Gap):
            click.echo("-- Some events are missing here: the queen knows nothing of them any more. --")
        else:
            self._show_event(told)

    def _show_event(self, event: FeedEvent) -> None:
        at = datetime.fromisoformat(event.at).astimezone()
        if at.date() != self._day:
            self._day = at.date()
            self._session.say(f"-- {self._day} --")
        text = self._session.screen.dress(printable(with_problem(event.text, event)), _colour(event.priority))
        click.echo(f"{at:%H:%M:%S} {printable(event.hive or '-'):<9} {printable(event.event):<17} {text}")


def _colour(priority: int) -> str:
    if priority <= ERROR:
        return "1;31"
    return {WARNING: "1;33", NOTICE: "1"}.get(priority, "")

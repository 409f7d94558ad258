"""rbeectl monitor: events as they happen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import date, datetime

import click

from rbee.errors import BadInput, Interrupted
from rbee.keeper.monitor import Event, Monitor, QueenIs
from rbee.keeper.options import in_session, watching
from rbee.keeper.output.tables import with_problem
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.narration import ERROR, NOTICE, WARNING
from rbee.text import parse_span, printable
from rbee.wire.codec import encode
from rbee.wire.events import FeedEvent, Gap
from rbee.wire.types import EVENTS_MAX, Name


@click.command(short_help="Show events as they happen.")
@click.argument("hive", required=False)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, EVENTS_MAX),
    metavar="N",
    help="Begin with the last N events; 10 if not given.",
)
@click.option("--since", metavar="TIME", help="Begin with the events since TIME, such as -10min, or all.")
@watching
@in_session
def monitor(session: Session, hive: str | None, lines: int | None, since: str | None) -> None:
    """Show the events of the queen and its hives, or of HIVE, as they happen, until interrupted.

    While the queen is not awake it waits, without waking it, and then continues where it stopped.
    TIME is 'all', 'today', a time span such as '10min ago', or a time such as '2026-01-31 12:00'.
    """
    if lines is not None and since is not None:
        raise click.UsageError("--lines and --since cannot be used together")
    about = hive if hive is None else checked(Name, "HIVE", hive)
    since_ms = None if since is None else moment_ms(since)
    printer = AsJson(session) if session.as_json else AsLines(session)
    try:
        with session.queen() as queen:
            for event in happening(queen, about, lines=10 if lines is None else lines, since_ms=since_ms):
                printer.show(event)
    except KeyboardInterrupt as error:
        raise SystemExit(Interrupted.exit_code) from error


def happening(queen: Queen, hive: str | None, *, lines: int, since_ms: int | None) -> Iterator[Event]:
    """The events of one hive or of all, without end; see Monitor."""
    if queen.present_state() == "awake":
        queen.check_version()
    work = queen.work
    with queen.reached():
        yield from Monitor(
            work.bus, queen.client, left=work.left, hive=hive, lines=lines, since_ms=since_ms,
            output=sys.stdout.fileno(),
        ).events()  # fmt: skip


def moment_ms(text: str) -> int:
    """Parse a TIME of --since, in milliseconds since 1970. Raises BadInput if it is not a time."""
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


class AsJson:
    """A JSON object per line: 'narrated', 'gap', or 'queen' for the queen's state, from the keeper."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(self, event: Event) -> None:
        """Print an event."""
        if isinstance(event, QueenIs):
            line = {"event": "queen", "state": event.state, "text": event.text}
        elif isinstance(event, Gap):
            line = {"event": "gap", **encode(event)}
        else:
            fields = encode(event)
            line = {"event": "narrated", "kind": fields.pop("event"), **fields}
        self._session.tell_json(line)


class AsLines:
    """For a person: time, hive, kind and text of each event, in journalctl's colours."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._day = date.today()

    def show(self, event: Event) -> None:
        """Print an event."""
        if isinstance(event, QueenIs):
            self._session.say(f"-- {printable(event.text)} --")
        elif isinstance(event, Gap):
            click.echo("-- Some events are missing here: the queen does not have them any more. --")
        else:
            self._show_event(event)

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

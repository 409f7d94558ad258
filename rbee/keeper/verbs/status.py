"""rbeectl status: the queen, this machine's hive and all hives, as systemctl status shows units."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from rbee.errors import NotPermitted, NotRunning
from rbee.journal.reader import tail
from rbee.keeper.hives import Hives
from rbee.keeper.listener import ClosedTcp, closed_tcp
from rbee.keeper.local_hive import LocalHive
from rbee.keeper.models.named import named
from rbee.keeper.models.status import ModelStatus
from rbee.keeper.options import in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.output.screen import Screen, dot
from rbee.keeper.output.tables import Frame
from rbee.keeper.queen.queen import Queen
from rbee.keeper.queen.state import QueenState
from rbee.keeper.session import Session
from rbee.keeper.verbs.hives import hives_page
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, REDIAL_UNIT, Scope
from rbee.systemd.exitstatus import cure_for_exit
from rbee.systemd.unit import UnitState
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.hives import HiveView
from rbee.wire.logs import LogQuery

if TYPE_CHECKING:
    from rbee.wire.hives import State


class Overview(NamedTuple):
    """What is shown without HIVE; `hives` is None if the queen is not awake, or refused the request."""

    queen_state: QueenState
    queen: UnitState
    local: LocalHive
    hives: tuple[HiveView, ...] | None
    refused: NotPermitted | None = None
    tcp: ClosedTcp | None = None

    @property
    def has_queen(self) -> bool:
        """Is a queen installed on this machine?"""
        return self.queen_state != "absent"

    @property
    def is_up(self) -> bool:
        """Is the queen awake; or, on a machine without one, is the hive connected to its queen?"""
        return self.queen_state == "awake" if self.has_queen else self.local.is_connected


def look_around(queen: Queen) -> Overview:
    """The queen, this machine's hive, and all hives if the queen is awake."""
    state, bus = queen.state(), queen.work.bus
    hives, refused = None, None
    if state == "awake":
        try:
            hives = Hives(queen).of_awake()
        except NotPermitted as error:
            refused = error  # any user may see the units, but not the hives
    tcp = closed_tcp(bus) if state == "awake" else None
    return Overview(state, bus.state(QUEEN_UNIT), LocalHive.find(bus), hives, refused, tcp)


@click.command(short_help="Show the queen and all hives, or one hive or model with its last log lines.")
@click.argument("name", metavar="HIVE|MODEL|WORKER", required=False)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    default=10,
    metavar="N",
    help="Show the last N lines of its log; 10 if not given.",
)
@looking
@in_session
def status(session: Session, name: str | None, lines: int) -> None:
    """Show the queen, the hive of this machine and all hives; or one hive with its devices and log; or one
    model with its workers and their log, which is shown for the name of a worker, too.

    Exits 3 if the queen is not awake, the hive is not online, or the model is not served or has failed. On a
    machine without a queen it shows the hive and the address of its queen, and exits 3 if they are not
    connected.
    """
    if not (status_of(session, name, lines) if name is not None else overview_of(session)):
        raise SystemExit(NotRunning.exit_code)


def overview_of(session: Session) -> bool:
    """Show all; return whether the queen is awake."""
    with session.queen() as queen:
        overview = look_around(queen)
    show_overview(session, overview)
    return overview.is_up


def status_of(session: Session, name: str, lines: int) -> bool:
    """Show one hive or model; return whether it is online, or answers requests."""
    with session.queen() as queen:
        view = named(queen, name).view
        if isinstance(view, HiveView):
            log = last_lines(Hives(queen), view.id, lines)
        else:
            shown = ModelStatus.find(queen, view, lines)
    if isinstance(view, HiveView):
        show_hive(session, view, log)
        return view.state == "online"
    shown.show(session)
    return shown.is_up


def show_overview(session: Session, overview: Overview) -> None:
    """Print the overview; warns if the queen's TCP socket could not be opened."""
    if session.as_json:
        session.tell_json(overview_json(overview))
    else:
        session.show(lambda frame: overview_page(overview, session.screen, frame))
    if overview.tcp:
        session.warn(overview.tcp.message, overview.tcp.hint)


def last_lines(hives: Hives, hive: str, lines: int) -> list[str]:
    """A hive's last lines in the journal; if this user may not read it, the last events of the queen."""
    if not lines:
        return []
    scope = hives.scope
    return tail(LogQuery(hive=hive), lines, scope) or [
        f"{datetime.fromisoformat(event.at).astimezone():%b %d %H:%M:%S} {event.speaker}: {event.text}"
        for event in hives.last_events(hive, lines)
    ]


def show_hive(session: Session, hive: HiveView, log: list[str]) -> None:
    """Print one hive, and the lines of its log."""
    if session.as_json:
        session.tell_json({"hive": encode(hive), "log": log})
    else:
        lines = ["", *map(printable, log)] if log else []
        session.show(lambda frame: "\n".join([hive_page(hive, session.screen, frame), *lines]))


def hive_page(hive: HiveView, screen: Screen, frame: Frame) -> str:
    """A hive as systemctl status shows a unit."""
    now = tables.now_ms()
    rows = [
        ("State", f"{hive.state} since {tables.moment(hive.since_ms * 1000)}"),
        ("Reason", hive.reason),
        ("Problem", hive.problem or ""),
        ("Cordoned", hive.cordoned or ""),
        ("Address", tables.address(hive)),
        ("Labels", tables.labels(hive)),
        ("Version", hive.version or ""),
        ("Last beat", tables.ago(hive.last_beat_ms, now) if hive.last_beat_ms else ""),
    ]
    rows += [(device, what) for device, what in tables.device_lines(hive)]
    mark = dot(DOTS.get(hive.state, "inactive"), screen)
    return "\n".join(
        [
            f"{mark} {printable(hive.id)} - bee hive",
            *(frame.fit(f"{name:>11}: {printable(text)}") for name, text in rows if text),
        ]
    )


INSTALL = "sudo apt install rbee-hive"

DOTS: Mapping[State, str] = {"online": "active", "suspect": "waiting", "offline": "failed"}
"""The state of systemd whose dot a hive's state gets; others get that of inactive."""


def overview_page(overview: Overview, screen: Screen, frame: Frame) -> str:
    """The overview as text."""
    scope = overview.local.scope
    if not overview.has_queen:
        return lone_page(overview.local, screen, frame)
    parts = [
        unit_page(QUEEN_UNIT, f"the queen is {overview.queen_state}", overview.queen, screen, scope),
        "\n".join(
            [
                unit_page(HIVE_UNIT, "the hive of this machine", overview.local.hive, screen, scope),
                *two_queens(overview),
            ]
        ),
    ]
    if overview.refused is not None:
        parts.append(f"Hives are not shown: {printable(overview.refused.message)}")
    elif overview.hives:
        parts.append(hives_page(overview.hives, frame))
    elif overview.hives is not None and frame.has_header:
        parts.append(tables.no_hives(scope))
    return "\n\n".join(parts)


def lone_page(lone: LocalHive, screen: Screen, frame: Frame) -> str:
    """The overview of a machine without a queen."""
    if not lone.is_installed:
        return f"Neither a queen nor a hive is installed here. To be a hive: {INSTALL}"
    parts = [unit_page(HIVE_UNIT, "the hive of this machine", lone.hive, screen, lone.scope)]
    if lone.is_waiting:
        parts.append(unit_page(REDIAL_UNIT, "waits for this hive's queen", lone.redial, screen, lone.scope))
    state = f"This hive {printable(lone.describe())}"
    hint = (lone.hint() if frame.has_header else None) or ""
    return "\n\n".join([*parts, "\n".join([state, *(f"  try: {line}" for line in hint.splitlines())])])


def two_queens(overview: Overview) -> list[str]:
    """Lines about a hive that has joined another queen than the one on its machine."""
    remote = overview.local.remote_queen() if overview.queen.load != "not-found" else None
    if remote is None:
        return []
    return [
        f"    Problem: it is {printable(str(remote))}, and this machine has a queen of its own",
        f"        Try: {overview.local.scope.doctor}",
    ]


def unit_page(unit: str, name: str, state: UnitState, screen: Screen, scope: Scope) -> str:
    """A unit as systemctl status shows it, with the cure for its exit status."""
    since = f" since {tables.moment(state.since_us)}" if state.since_us else ""
    lines = [
        f"{dot(state.active, screen)} {unit} - {name}",
        f"     Active: {state.active} ({state.sub}){since}",
    ]
    if state.result not in ("", "success"):
        lines.append(f"     Result: {state.result}{f' ({state.end})' if state.end else ''}")
        cure = cure_for_exit(state.exit_status, unit, scope) or ""
        lines += [f"        Try: {line}" for line in cure.splitlines()]
    if state.main_pid:
        lines.append(f"   Main PID: {state.main_pid}")
    if state.status_text:
        lines.append(f"     Status: {printable(state.status_text)}")
    return "\n".join(lines)


def overview_json(overview: Overview) -> dict[str, Any]:
    """The overview as --json prints it."""
    return {
        "queen": {"state": overview.queen_state, "unit": QUEEN_UNIT, **unit_json(overview.queen)},
        "hive": {"unit": HIVE_UNIT, **unit_json(overview.local.hive)},
        "hives": None if overview.hives is None else encode(overview.hives),
        "tcp": None if overview.tcp is None else {"problem": overview.tcp.message, "hint": overview.tcp.hint},
        "remote_queen": None if overview.has_queen else lone_json(overview.local),
    }


def lone_json(lone: LocalHive) -> dict[str, Any] | None:
    """The remote queen of this machine's hive; None if it has none."""
    if lone.link is None:
        return None
    return {"address": lone.link.queen, "connected": lone.is_connected, "waiting": lone.is_waiting}


def unit_json(state: UnitState) -> dict[str, Any]:
    """A unit's state as --json prints it; times in milliseconds since 1970."""
    return {
        "active": state.active,
        "sub": state.sub,
        "since_ms": state.since_us // 1000 or None,
        "result": state.result,
        "exit_status": state.exit_status,
        "restarts": state.restarts,
        "status": state.status_text,
        "main_pid": state.main_pid or None,
    }

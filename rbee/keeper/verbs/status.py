"""The queen, this machine's hive and all hives at a glance, as systemctl status shows a unit."""

from __future__ import annotations

from typing import Any

import click

from rbee.contracts import encode
from rbee.errors import NotRunning
from rbee.keeper import tables
from rbee.keeper.commands import Overview
from rbee.keeper.options import in_session, looking
from rbee.keeper.screen import Screen
from rbee.keeper.session import Session
from rbee.keeper.verbs.hives import NO_HIVES, hives_page
from rbee.systemd import HIVE_UNIT, QUEEN_UNIT, UnitState
from rbee.text import printable


@click.command(short_help="Show the queen, this machine's hive and all hives.")
@looking
@in_session
def status(session: Session) -> None:
    """Show the queen, the hive of this machine and all hives; exits 3 if the queen is not awake."""
    with session.keeper() as work:
        overview = work.status()
    if session.as_json:
        session.tell_json(overview_json(overview))
    else:
        session.show(overview_page(overview, session))
    if overview.queen_state != "awake":
        raise SystemExit(NotRunning.exit_code)


def overview_page(overview: Overview, session: Session) -> str:
    parts = [
        unit_page(QUEEN_UNIT, f"the queen is {overview.queen_state}", overview.queen, session.screen),
        unit_page(HIVE_UNIT, "the hive of this machine", overview.hive, session.screen),
    ]
    if overview.refused is not None:
        parts.append(f"Hives are not shown: {printable(overview.refused.message)}")
    elif overview.hives:
        parts.append(hives_page(session, overview.hives))
    elif overview.hives is not None and session.has_legend:
        parts.append(NO_HIVES)
    return "\n\n".join(parts)


def unit_page(unit: str, name: str, state: UnitState, screen: Screen) -> str:
    since = f" since {tables.moment(state.since_us)}" if state.since_us else ""
    lines = [
        f"{dot(state, screen)} {unit} - {name}",
        f"     Active: {state.active} ({state.sub}){since}",
    ]
    if state.result not in ("", "success"):
        lines.append(f"     Result: {state.result}")
    if state.main_pid:
        lines.append(f"   Main PID: {state.main_pid}")
    if state.status_text:
        lines.append(f"     Status: {printable(state.status_text)}")
    return "\n".join(lines)


def dot(state: UnitState, screen: Screen) -> str:
    """systemctl's state dot: green where active, red where failed; an asterisk where there is no dot."""
    if not state.is_active and state.active != "failed":
        return "○" if screen.has_unicode else "*"
    return screen.dress("●" if screen.has_unicode else "*", "32" if state.is_active else "31")


def overview_json(overview: Overview) -> dict[str, Any]:
    return {
        "queen": {"state": overview.queen_state, "unit": QUEEN_UNIT, **unit_json(overview.queen)},
        "hive": {"unit": HIVE_UNIT, **unit_json(overview.hive)},
        "hives": None if overview.hives is None else encode(overview.hives),
    }


def unit_json(state: UnitState) -> dict[str, Any]:
    return {
        "active": state.active,
        "sub": state.sub,
        "since_ms": state.since_us // 1000 or None,
        "result": state.result,
        "status": state.status_text,
        "main_pid": state.main_pid or None,
    }

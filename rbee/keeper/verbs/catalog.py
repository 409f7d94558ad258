"""rbeectl catalog: back up, check and restore the hive catalog."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbee.keeper.options import Suggesting, common, in_session
from rbee.keeper.session import Session
from rbee.narration import Journal
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport


@click.group(cls=Suggesting, short_help="Back up, check or restore the hive catalog.")
def catalog() -> None:
    """Back up, check or restore the queen's hive catalog."""


@catalog.command("backup", short_help="Copy the catalog of the awake queen to FILE.")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@common
@in_session
def backup_catalog(session: Session, file: str, force: bool) -> None:
    """Copy the catalog of the awake queen to FILE; '-' is stdout."""
    if file == "-" and session.as_json:
        raise click.UsageError("with '-' the catalog itself is the output, so that --json cannot be used")
    from rbee.keeper.catalog.backup import backup  # with sqlite3, which only this needs

    with session.queen() as queen:
        report = backup(queen, queen.settled_state(), file, is_forced=force)
    if report is not None:
        print_report(session, report, f"Saved {report.path}")


@catalog.command("check", short_help="Check that FILE, or the queen's own catalog, is sound.")
@click.argument("file", required=False)
@common
@in_session
def check_catalog(session: Session, file: str | None) -> None:
    """Read all of FILE, or of the queen's own catalog, and report damage; exits 78 if it is not sound."""
    from rbee.keeper.catalog.check import check_file, check_own
    from rbee.keeper.catalog.location import is_the_queens

    if file is not None and not is_the_queens(file, session.scope):
        report = check_file(Path(file), session.scope)  # needs neither bus nor queen
    else:
        with session.queen() as queen:
            report = check_own(queen)
    print_report(session, report, f"{report.path} is sound")


@catalog.command("restore", short_help="Replace the catalog with FILE; the old one is kept.")
@click.argument("file", required=False)
@click.option("--empty", is_flag=True, help="Use no FILE: the queen makes an empty catalog.")
@common
@in_session
def restore_catalog(session: Session, file: str | None, empty: bool) -> None:
    """Replace the catalog with FILE, as root and with the queen off; the old one is kept beside it."""
    if (file is None) != empty:
        raise click.UsageError("restore takes a FILE, or --empty and no FILE")
    from rbee.keeper.catalog.restore import restore  # with sqlite3, which only this needs

    journal = Journal("rbeectl", fallback=StringIO())  # without a journal it works, too
    done = restore(file, session.scope, journal=journal)
    if session.as_json:
        old = str(done.old) if done.old else None
        report = encode(done.report) if done.report else {"path": str(done.path)}
        session.tell_json({
            "event": "done", **report,
            "path": str(done.path), "old": old, "keeps_revoked": done.keeps_revoked,
        })  # fmt: skip
        return
    session.say(
        f"{printable(str(done.path))} is restored: {contents(done.report)}"
        if done.report
        else f"{printable(str(done.path))} is set aside: the queen makes an empty one"
    )
    if done.old:
        session.say(f"The previous catalog is {printable(str(done.old))}")
    if done.report and not done.keeps_revoked:
        session.say(
            "It cannot be read: clients' keys that were revoked since the backup are valid again. See: "
            + session.scope.rbeectl("key list")
        )
    session.say(f"Next: {session.scope.rbeectl(f'add-hive {LOCALHOST}')}")


def print_report(session: Session, report: CatalogReport, title: str) -> None:
    """Print what a catalog contains, after a title."""
    if session.as_json:
        session.tell_json({"event": "done", **encode(report)})
    else:
        session.say(f"{printable(title)}: {contents(report)}")


def contents(report: CatalogReport) -> str:
    """Such as '2 hives, 44.0 KiB, version 3'."""
    hives = "1 hive" if report.hives == 1 else f"{report.hives} hives"
    return f"{hives}, {report.size_bytes / 1024:.1f} KiB, version {report.version}"

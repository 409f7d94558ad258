"""The hive catalog as a file: a copy, a check, and the way back to a copy."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import click

from rbee.keeper.options import Suggesting, common, in_session
from rbee.keeper.session import Session
from rbee.narration import Journal
from rbee.text import printable
from rbee.wire.catalog import CatalogReport
from rbee.wire.codec import encode


@click.group(cls=Suggesting, short_help="Back up, check or restore the hive catalog.")
def catalog() -> None:
    """Back up, check or restore the queen's hive catalog."""


@catalog.command("backup", short_help="Copy the catalog of the awake queen to FILE.")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a FILE that is there.")
@common
@in_session
def backup_catalog(session: Session, file: str, force: bool) -> None:
    """Copy the catalog of the awake queen to FILE; '-' is stdout."""
    if file == "-" and session.as_json:
        raise click.UsageError("'-' is the catalog itself, and --json has no place there")
    from rbee.keeper.catalog.backup import backup  # with sqlite3, which only this needs

    with session.queen() as queen:
        report = backup(queen, queen.settled_state(), file, is_forced=force)
    if report is not None:
        print_report(session, report, f"Saved {report.path}")


@catalog.command("check", short_help="Say whether FILE, or the queen's own catalog, is sound.")
@click.argument("file", required=False)
@common
@in_session
def check_catalog(session: Session, file: str | None) -> None:
    """Read FILE, or the queen's own catalog, and say whether it is sound; exits 78 if it is not."""
    from rbee.keeper.catalog.check import check_file, check_own
    from rbee.keeper.catalog.location import is_the_queens

    if file is not None and not is_the_queens(file):
        report = check_file(Path(file))  # for which neither bus nor queen is needed
    else:
        with session.queen() as queen:
            report = check_own(queen)
    print_report(session, report, f"{report.path} is sound")


@catalog.command("restore", short_help="Put FILE in the catalog's place; the old one is kept.")
@click.argument("file", required=False)
@click.option("--empty", is_flag=True, help="No file: the queen makes an empty catalog.")
@common
@in_session
def restore_catalog(session: Session, file: str | None, empty: bool) -> None:
    """Put FILE in the catalog's place, as root and with the queen off; the old one is kept beside it."""
    if (file is None) != empty:
        raise click.UsageError("restore takes a FILE, or --empty and no FILE")
    from rbee.keeper.catalog.restore import restore  # with sqlite3, which only this needs

    done = restore(file, journal=Journal("rbeectl", fallback=StringIO()))  # no journal is no error
    if session.as_json:
        old = str(done.old) if done.old else None
        report = encode(done.report) if done.report else {"path": str(done.path)}
        session.tell_json({"event": "done", **report, "path": str(done.path), "old": old})
        return
    session.say(
        f"{printable(str(done.path))} is restored: {contents(done.report)}"
        if done.report
        else f"{printable(str(done.path))} is set aside: the queen makes an empty one"
    )
    if done.old:
        session.say(f"The catalog before is {printable(str(done.old))}")
    session.say("Next: rbeectl add-hive localhost")


def print_report(session: Session, report: CatalogReport, said: str) -> None:
    if session.as_json:
        session.tell_json({"event": "done", **encode(report)})
    else:
        session.say(f"{printable(said)}: {contents(report)}")


def contents(report: CatalogReport) -> str:
    hives = "1 hive" if report.hives == 1 else f"{report.hives} hives"
    return f"{hives}, {report.size_bytes / 1024:.1f} KiB, version {report.version}"

"""rbeectl's verbs as a person types them, and what is printed for each."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import click

from rbee import __version__
from rbee.client.queen import QueenClient
from rbee.config import QUEEN_SOCKET
from rbee.contracts import CatalogReport, Hives, HiveView, encode
from rbee.errors import NotRunning, RbeeError
from rbee.keeper import tables
from rbee.keeper.commands import Keeper, Overview
from rbee.narration import Journal, JsonLines, Teller, Terminal
from rbee.systemd import HIVE_UNIT, QUEEN_UNIT, Bus, UnitState
from rbee.text import printable

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Verbs(click.Group):
    """click takes a verb that begins with a sign for an option, and then shows the help and exits with 0."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command '{args[0]}'.")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rbeectl", message="%(prog)s %(version)s")
@click.option("--no-color", is_flag=True, help="Plain text on a terminal, too; so does NO_COLOR=1.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, no_color: bool, debug: bool) -> None:
    """Run a few Linux machines with CPUs and GPUs as one.

    Adding and removing wakes the queen; looking never wakes anything.
    """
    context.obj |= {"colour": not no_color, "debug": debug}


@cli.command("add-hive")
@click.argument("host")
@click.option("--port", type=int, help="The port kept in the hive's row; 8600 for a new one.")
@json_option
@click.pass_context
def add_hive(context: click.Context, host: str, port: int | None, as_json: bool) -> None:
    """Add HOST to the hive catalog and see it online.

    Today HOST is localhost. A hive that is there already goes on from wherever it is.
    """
    with keeper(context, as_json) as work:
        hive = work.add_hive(host, port)
    if as_json:
        print_json({"event": "done", "hive": encode(hive)})
        return
    click.echo(f"Hive {printable(hive.id)} is Online")
    print_devices([hive])


@cli.command("remove-hive")
@click.argument("hive")
@json_option
@click.pass_context
def remove_hive(context: click.Context, hive: str, as_json: bool) -> None:
    """Stop HIVE and take it out of the hive catalog."""
    with keeper(context, as_json) as work:
        work.remove_hive(hive)
    if as_json:
        print_json({"event": "done", "hive": None})
    else:
        click.echo(f"Hive {printable(hive)} is removed")


@cli.command("list-hives")
@json_option
@click.pass_context
def list_hives(context: click.Context, as_json: bool) -> None:
    """List the hives of the catalog and who is alive."""
    with keeper(context, as_json) as work:
        hives = work.list_hives()
    if as_json:
        print_json(encode(Hives(hives)))
    elif hives:
        click.echo(tables.hives_table(hives, now_ms()))
    else:
        click.echo("No hives. Add this machine: rbeectl add-hive localhost")


@cli.command("list-devices")
@click.argument("hive", required=False)
@json_option
@click.pass_context
def list_devices(context: click.Context, hive: str | None, as_json: bool) -> None:
    """List the devices of HIVE, or of every hive."""
    with keeper(context, as_json) as work:
        hives = [work.hive(hive)] if hive else list(work.list_hives())
    if as_json:
        told = [{"id": one.id, "state": one.state, "devices": encode(one.devices)} for one in hives]
        print_json({"hives": told})
    elif hives:
        print_devices(hives)
    else:
        click.echo("No hives. Add this machine: rbeectl add-hive localhost")


@cli.command(short_help="Show the queen, this machine's hive and all hives.")
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show the queen, the hive of this machine and all hives; exits 3 if the queen is not awake."""
    with keeper(context, as_json) as work:
        overview = work.status()
    if as_json:
        print_json(overview_json(overview))
    else:
        print_overview(overview, wants_colour(context))
    if overview.queen_state != "awake":
        raise SystemExit(NotRunning.exit_code)


@cli.command(short_help="Stop the queen, all hives and their sockets.")
@json_option
@click.pass_context
def shutdown(context: click.Context, as_json: bool) -> None:
    """Stop the queen, all hives and their sockets; returns when they are stopped."""
    with keeper(context, as_json) as work:
        work.shutdown()
    if as_json:
        print_json({"event": "done", "hive": None})
    else:
        click.echo("Queen and hives are off")


@cli.group(short_help="Back up, check or restore the hive catalog.")
def catalog() -> None:
    """Back up, check or restore the queen's hive catalog."""


@catalog.command("backup", short_help="Copy the catalog of the awake queen to FILE.")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a FILE that is there.")
@json_option
@click.pass_context
def backup_catalog(context: click.Context, file: str, force: bool, as_json: bool) -> None:
    """Copy the catalog of the awake queen to FILE; '-' is stdout."""
    if file == "-" and as_json:
        raise click.UsageError("'-' is the catalog itself, and --json has no place there")
    with keeper(context, as_json) as work:
        report = work.backup_catalog(file, is_forced=force)
    if report is not None:
        print_report(report, f"Saved {report.path}", as_json)


@catalog.command("check", short_help="Say whether FILE, or the queen's own catalog, is sound.")
@click.argument("file", required=False)
@json_option
@click.pass_context
def check_catalog(context: click.Context, file: str | None, as_json: bool) -> None:
    """Read FILE, or the queen's own catalog, and say whether it is sound; exits 78 if it is not."""
    if file is not None:
        context.obj["json"] = as_json
        report = check_catalog_file(file)
    else:
        with keeper(context, as_json) as work:
            report = work.check_catalog()
    print_report(report, f"{report.path} is sound", as_json)


@catalog.command("restore", short_help="Put FILE in the catalog's place; the old one is kept.")
@click.argument("file", required=False)
@click.option("--empty", is_flag=True, help="No file: the queen makes an empty catalog.")
@json_option
@click.pass_context
def restore_catalog(context: click.Context, file: str | None, empty: bool, as_json: bool) -> None:
    """Put FILE in the catalog's place, as root and with the queen off; the old one is kept beside it."""
    if (file is None) != empty:
        raise click.UsageError("restore takes a FILE, or --empty and no FILE")
    context.obj["json"] = as_json
    from rbee.keeper.catalog import restore  # with sqlite3, which only this needs

    done = restore(file, journal=Journal("rbeectl", fallback=StringIO()))  # no journal is no error
    if as_json:
        old = str(done.old) if done.old else None
        report = encode(done.report) if done.report else {"path": str(done.path)}
        print_json({"event": "done", **report, "path": str(done.path), "old": old})
        return
    click.echo(
        f"{printable(str(done.path))} is restored: {contents(done.report)}"
        if done.report
        else f"{printable(str(done.path))} is set aside: the queen makes an empty one"
    )
    if done.old:
        click.echo(f"The catalog before is {printable(str(done.old))}")
    click.echo("Next: rbeectl add-hive localhost")


def check_catalog_file(file: str) -> CatalogReport:
    """As Keeper.check_catalog(), for a file: neither bus nor queen is needed, unless it is hers."""
    from rbee.keeper.catalog import check, is_the_queens

    if is_the_queens(file):
        with Bus() as bus:
            return Keeper(bus, QueenClient(QUEEN_SOCKET), Teller()).check_catalog()
    return check(QueenClient(QUEEN_SOCKET), "off", file)


def print_report(report: CatalogReport, said: str, as_json: bool) -> None:
    if as_json:
        print_json({"event": "done", **encode(report)})
    else:
        click.echo(f"{printable(said)}: {contents(report)}")


def contents(report: CatalogReport) -> str:
    hives = "1 hive" if report.hives == 1 else f"{report.hives} hives"
    return f"{hives}, {report.size_bytes / 1024:.1f} KiB, version {report.version}"


@cli.command(short_help="Find what keeps rbee from working here, and mend it.")
@click.option("--fix", is_flag=True, help="Run the commands that are shown; as root.")
@json_option
@click.pass_context
def doctor(context: click.Context, fix: bool, as_json: bool) -> None:
    """Find what keeps rbee from working on this machine, and show the commands that mend it.

    Looking wakes nobody and changes nothing. Exits 1 if a problem is left.
    """
    from rbee.keeper.doctor import Doctor, verdict_json  # here: no other verb pays for it

    context.obj["json"] = as_json
    at_work = Doctor(Bus, None if as_json else sys.stdout)
    verdicts = at_work.mend() if fix else at_work.look()
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    if as_json:
        told = [verdict_json(verdict) for verdict in verdicts]
        print_json({"ok": not faults, "checks": told, "ran": [list(command) for command in at_work.ran]})
    else:
        print_diagnosis(len(faults), sum(bool(fault.cures) for fault in faults), has_mended=bool(at_work.ran))
    if faults:
        raise SystemExit(RbeeError.exit_code)


@contextmanager
def keeper(context: click.Context, as_json: bool) -> Iterator[Keeper]:
    """A keeper with a bus, for the length of a verb."""
    teller: Teller = JsonLines(sys.stdout) if as_json else Terminal(sys.stdout, colour=wants_colour(context))
    context.obj["json"] = as_json
    with Bus() as bus:
        yield Keeper(bus, QueenClient(QUEEN_SOCKET), teller)


def wants_colour(context: click.Context) -> bool:
    """Colour on a terminal that can, unless NO_COLOR (no-color.org) or --no-color says no."""
    return (
        bool(context.obj["colour"])
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
        and sys.stdout.isatty()
    )


def print_json(value: Any) -> None:
    click.echo(json.dumps(value))


def print_devices(hives: list[HiveView]) -> None:
    click.echo(tables.devices_table(hives))
    for line in tables.findings(hives):
        click.echo(line)


def print_overview(overview: Overview, colour: bool) -> None:
    for unit, name, state in (
        (QUEEN_UNIT, f"the queen is {overview.queen_state}", overview.queen),
        (HIVE_UNIT, "the hive of this machine", overview.hive),
    ):
        click.echo(f"{dot(state, colour)} {unit} - {name}")
        since = f" since {tables.moment(state.since_us)}" if state.since_us else ""
        click.echo(f"     Active: {state.active} ({state.sub}){since}")
        if state.result not in ("", "success"):
            click.echo(f"     Result: {state.result}")
        if state.main_pid:
            click.echo(f"   Main PID: {state.main_pid}")
        if state.status_text:
            click.echo(f"     Status: {printable(state.status_text)}")
        click.echo()
    if overview.refused is not None:
        click.echo(f"Hives are not shown: {printable(overview.refused.message)}")
    elif overview.hives:
        click.echo(tables.hives_table(overview.hives, now_ms()))
    elif overview.hives is not None:
        click.echo("No hives. Add this machine: rbeectl add-hive localhost")


def print_diagnosis(faults: int, curable: int, *, has_mended: bool) -> None:
    if not faults:
        click.echo("All is well now." if has_mended else "All is well.")
        return
    left = f"{faults} problem{'s' if faults > 1 else ''}{' left' if has_mended else ''}."
    click.echo(left + (" Mend with the commands shown, or: sudo rbeectl doctor --fix" if curable else ""))


def dot(state: UnitState, colour: bool) -> str:
    """systemctl's state dot: green where active, red where failed."""
    if not state.is_active and state.active != "failed":
        return "○"
    code = "32" if state.is_active else "31"
    return f"\033[{code}m●\033[0m" if colour else "●"


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


def now_ms() -> int:
    return time.time_ns() // 1_000_000

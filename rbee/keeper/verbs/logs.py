"""What rbee wrote into the journal, shown by journalctl."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace

import click

from rbee.errors import NotPermitted, RbeeError, UnknownHive
from rbee.files import reason
from rbee.keeper.hives import Hives
from rbee.keeper.journal import is_readable, matches
from rbee.keeper.options import in_session, looking
from rbee.keeper.queen.state import queen_state
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.wire.types import JobId, Name

REST = "rbee.journalctl"
"""Where a context keeps what stands after '--'."""


LOOK_TIMEOUT = 2.0
"""Seconds for the queen to say whether a hive is in her catalog: the log is wanted most when she hangs."""


class Logs(click.Command):
    """click forgets where '--' stood, and what stands after it is journalctl's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[REST] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@click.command(
    cls=Logs,
    short_help="Show the journal of queen and hives, of HIVE, or of a job.",
    options_metavar="[OPTIONS]",
)
@click.argument("hive", required=False)
@click.option("-f", "--follow", is_flag=True, help="Show what comes, too.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="The last N entries only.")
@click.option("-x", "--catalog", is_flag=True, help="Explain the entries.")
@click.option("--job", metavar="ID", help="The entries of one job only.")
@looking
@in_session
@click.pass_context
def logs(
    context: click.Context, session: Session, hive: str | None, follow: bool, lines: int | None,
    catalog: bool, job: str | None,
) -> None:  # fmt: skip
    """Show the journal of the queen and her hives, of HIVE, or of one job.

    This is journalctl(1) with the right matches. What stands after '--' goes to it as it is, such as:

        rbeectl logs -- --since=-1h -o verbose

    Who may not read the journal may see what happens by rbeectl monitor.
    """
    if hive is not None:
        checked(Name, "HIVE", hive)
    if job is not None:
        checked(JobId, "--job", job)
    if not is_readable():
        raise not_readable(session, hive)
    if hive is not None and job is None:
        hive = in_catalog(session, hive)
    about = matches(hive, job)
    options = (
        ("--follow", follow),
        (f"--lines={lines}", lines is not None),
        ("--catalog", catalog),
        ("--output=json", session.as_json),
        ("--quiet", session.is_quiet or not session.has_legend),
        ("--no-pager", not session.has_pager),
        ("--full", session.is_full),
    )
    command = ["journalctl", *(name for name, is_asked in options if is_asked), *context.meta[REST], *about]
    if not session.has_colour:
        os.environ["SYSTEMD_COLORS"] = "false"
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell, and no child: journalctl is what is asked for
    except OSError as error:
        raise RbeeError(f"journalctl cannot be run: {reason(error)}", hint="command -v journalctl") from error


def not_readable(session: Session, hive: str | None) -> NotPermitted:
    """Why nothing is shown, and where the same is narrated to whoever may speak to the queen."""
    hints = [shlex.join(["sudo", "rbeectl", *sys.argv[1:]])]
    with session.work() as work:
        if queen_state(work.bus) != "absent":
            hints.insert(0, shlex.join(["rbeectl", "monitor", *([hive] if hive else [])]))
    return NotPermitted(
        "only root and the groups adm and systemd-journal may read the system's journal",
        hint="\n".join(hints),
    )


def in_catalog(session: Session, hive: str) -> str:
    """The name as the catalog has it; UnknownHive for one of whom an awake queen does not know."""
    try:
        with replace(session, timeout=LOOK_TIMEOUT).queen() as queen:
            return Hives(queen).one(hive).id
    except UnknownHive:
        raise
    except RbeeError:
        return hive  # nobody can be asked now, and the journal is there all the same

"""rbeectl logs: rbee's entries in the journal, shown by journalctl."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from dataclasses import replace
from typing import NoReturn

import click

from rbee.errors import NotPermitted, NotRunning, RbeeError, UnknownHive
from rbee.files import reason
from rbee.journal.matches import command
from rbee.journal.reader import Outputs, ask_door, is_readable
from rbee.keeper.models.named import named
from rbee.keeper.options import in_session, looking
from rbee.keeper.output.screen import pager
from rbee.keeper.output.streams import OutputFailed, is_writable
from rbee.keeper.permission import explained
from rbee.keeper.queen.state import queen_state
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.wire.hives import HiveView
from rbee.wire.logs import LogQuery
from rbee.wire.types import JobId, Name

REST = "rbee.journalctl"
"""The key in a context's meta of the arguments after '--'."""

LOOK_TIMEOUT = 2.0
"""Seconds to ask the queen whether it has a hive: the log is needed most when the queen hangs."""


class Logs(click.Command):
    """Keeps the arguments after '--' for journalctl; click does not remember where '--' was."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[REST] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@click.command(
    cls=Logs,
    short_help="Show the journal of queen and hives, of a hive, a model, a worker, or a job.",
    options_metavar="[OPTIONS]",
)
@click.argument("name", metavar="HIVE|MODEL|WORKER", required=False)
@click.option("-f", "--follow", is_flag=True, help="Keep showing new entries.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Show the last N entries only.")
@click.option("-x", "--catalog", is_flag=True, help="Show explanations of the entries, too.")
@click.option("--job", metavar="ID", help="Show the entries of this job only.")
@looking
@in_session
@click.pass_context
def logs(
    context: click.Context, session: Session, name: str | None, follow: bool, lines: int | None,
    catalog: bool, job: str | None,
) -> None:  # fmt: skip
    """Show the journal of the queen and its hives, of one hive, of a model's workers or one of them, or of
    one job.

    It runs journalctl(1) with the matches for rbee. Arguments after '--' are passed on to it, such as:

        rbeectl logs -- --since=-1h -o verbose

    For members of group rbee who may not read the journal, queen-rbee-logs.socket shows them these entries;
    of journalctl's options it takes those that select among them, or say how they are shown.
    """
    if name is not None:
        checked(Name, "HIVE", name)
    if job is not None:
        checked(JobId, "--job", job)
    is_direct = session.scope.kind == "user" or is_readable()
    options = (
        ("--follow", follow),
        (f"--lines={lines}", lines is not None),
        ("--catalog", catalog),
        ("--output=json", session.as_json),
        ("--quiet", session.is_quiet or not session.has_legend),
        ("--no-pager", not session.has_pager),
        ("--full", session.is_full),
    )
    asked = [option for option, is_asked in options if is_asked]
    query = LogQuery(hive=name, job=job) if name is None or job is not None else query_of(session, name)
    query = query._replace(options=(*asked, *context.meta[REST]), has_colour=session.screen.has_colour)
    if not is_writable(1):
        # journalctl ignores what it cannot write.
        raise OutputFailed(errno.EBADF, os.strerror(errno.EBADF))
    if is_direct:
        if not session.has_colour:
            os.environ["SYSTEMD_COLORS"] = "false"
        become(command(query, session.scope))
    else:
        raise SystemExit(through_door(session, query, has_pager=session.has_pager and not follow))


def become(words: tuple[str, ...]) -> NoReturn:
    """Replace this process with journalctl. Raises RbeeError if it cannot be run."""
    try:
        os.execvp(words[0], words)  # noqa: S606  # no shell; it replaces this process
    except OSError as error:
        raise RbeeError(f"journalctl cannot be run: {reason(error)}", hint="command -v journalctl") from error


def through_door(session: Session, query: LogQuery, *, has_pager: bool) -> int:
    """Have the door of group rbee show the entries; return the exit status. NotPermitted if there is none."""
    try:
        with explained(session.scope), pager(session.screen, is_wanted=has_pager) as output:
            return ask_door(query, Outputs(output), session.scope)
    except NotRunning as error:
        raise not_readable(session, query.hive) from error


def not_readable(session: Session, hive: str | None) -> NotPermitted:
    """The error for a user who may not read the journal; its hint names rbeectl monitor."""
    hints = [session.scope.rbeectl(shlex.join(sys.argv[1:]), as_root=True)]
    with session.work() as work:
        if queen_state(work.bus) != "absent":
            hints.insert(0, session.scope.rbeectl(shlex.join(["monitor", *([hive] if hive else [])])))
    return NotPermitted(
        "only root and the groups adm and systemd-journal may read the system's journal",
        hint="\n".join(hints),
    )


def query_of(session: Session, name: str) -> LogQuery:
    """The query for a hive, by the name that the catalog has, for a model's workers, or for a worker.

    UnknownHive if an awake queen has none of them.
    """
    try:
        with replace(session, timeout=LOOK_TIMEOUT).queen() as queen:
            found = named(queen, name)
    except UnknownHive:
        raise
    except RbeeError:
        # The queen cannot be asked; the journal can be read without it.
        return LogQuery(hive=name)
    if found.worker is not None:
        return LogQuery(worker=found.worker)
    if isinstance(found.view, HiveView):
        return LogQuery(hive=found.view.id)
    return LogQuery(model=found.view.name)

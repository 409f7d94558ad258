"""rbeectl logs: rbee's entries in the journal, shown by journalctl."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from dataclasses import replace
from typing import NoReturn

import click

from rbee.errors import NotPermitted, RbeeError, UnknownHive
from rbee.files import reason
from rbee.keeper.journal import WITHOUT_ENGINES, is_readable, matches, matches_of_model
from rbee.keeper.models.named import hive_or_model
from rbee.keeper.options import in_session, looking
from rbee.keeper.output.streams import OutputFailed, is_writable
from rbee.keeper.queen.state import queen_state
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.wire.hives import HiveView
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
    short_help="Show the journal of queen and hives, of a hive, a model, or a job.",
    options_metavar="[OPTIONS]",
)
@click.argument("name", metavar="HIVE|MODEL", required=False)
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
    """Show the journal of the queen and its hives, of one hive, of a model's workers, or of one job.

    It runs journalctl(1) with the matches for rbee. Arguments after '--' are passed on to it, such as:

        rbeectl logs -- --since=-1h -o verbose

    Users who may not read the journal can use rbeectl monitor.
    """
    if name is not None:
        checked(Name, "HIVE", name)
    if job is not None:
        checked(JobId, "--job", job)
    if session.scope.kind == "system" and not is_readable():
        raise not_readable(session, name)
    matched = matches(name, job, session.scope)
    if name is not None and job is None:
        matched = matches_of(session, name)
    options = (
        ("--follow", follow),
        (f"--lines={lines}", lines is not None),
        ("--catalog", catalog),
        ("--output=json", session.as_json),
        ("--quiet", session.is_quiet or not session.has_legend),
        ("--no-pager", not session.has_pager),
        ("--full", session.is_full),
    )
    flags = [name for name, is_asked in options if is_asked]
    if WITHOUT_ENGINES in matched:
        # Before the arguments after '--', which may have another priority: the last one counts.
        matched.remove(WITHOUT_ENGINES)
        flags.append(WITHOUT_ENGINES)
    command = session.scope.command("journalctl", *flags, *context.meta[REST], *matched)
    if not session.has_colour:
        os.environ["SYSTEMD_COLORS"] = "false"
    become(command)


def become(command: tuple[str, ...]) -> NoReturn:
    """Replace this process with journalctl. Raises OutputFailed, or RbeeError if it cannot be run."""
    if not is_writable(1):
        # journalctl ignores what it cannot write.
        raise OutputFailed(errno.EBADF, os.strerror(errno.EBADF))
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell; it replaces this process
    except OSError as error:
        raise RbeeError(f"journalctl cannot be run: {reason(error)}", hint="command -v journalctl") from error


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


def matches_of(session: Session, name: str) -> list[str]:
    """The matches for a hive, by the name that the catalog has, or for a model's workers.

    UnknownHive if an awake queen has neither.
    """
    try:
        with replace(session, timeout=LOOK_TIMEOUT).queen() as queen:
            named = hive_or_model(queen, name)
    except UnknownHive:
        raise
    except RbeeError:
        # The queen cannot be asked; the journal can be read without it.
        return matches(name, scope=session.scope)
    if isinstance(named, HiveView):
        return matches(named.id, scope=session.scope)
    return matches_of_model(named.name)

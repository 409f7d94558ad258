"""rbeectl metrics: the queen's metrics, printed or for node_exporter's textfile collector."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from rbee.errors import BadInput, NotRunning, RbeeError
from rbee.files import end_of, make_beside, refused
from rbee.keeper.options import in_session, looking
from rbee.keeper.session import Session
from rbee.scope import Scope
from rbee.text import printable_lines
from rbee.wire.routes import QueenRoutes

DOWN = """\
# HELP rbee_queen_up Whether the queen is awake: 1 if it answers.
# TYPE rbee_queen_up gauge
rbee_queen_up 0
"""
"""The content of the file if the queen does not answer."""


@click.command(short_help="Print the queen's metrics as OpenMetrics.")
@click.option("--textfile", metavar="FILE", help="Write to FILE, for node_exporter's textfile collector.")
@looking
@in_session
def metrics(session: Session, textfile: str | None) -> None:
    """Print the queen's metrics as OpenMetrics.

    A FILE is written in Prometheus's older text format, which node_exporter reads. If the queen is not
    awake, that is not an error, and the file has rbee_queen_up 0.
    """
    if textfile is not None:
        write_textfile(session, target(textfile, session.scope))
        return
    with session.queen() as queen:
        text = b"".join(queen.fetch_if_awake(QueenRoutes.METRICS)).decode()
    if session.as_json:
        session.tell_json({"media_type": QueenRoutes.METRICS.media_type, "text": text})
    else:
        # Without any escape sequence: labels have text from outside.
        session.show(printable_lines(text.rstrip("\n")))


def target(textfile: str, scope: Scope) -> Path:
    """The file that --textfile names; BadInput if it cannot be one."""
    if textfile == "-":
        hint = scope.rbeectl("metrics")
        raise BadInput("--textfile takes a file, and not -", hint=hint, field="--textfile")
    try:
        hint = f"{scope.rbeectl('metrics')}, which prints them"
        return end_of(textfile, field="--textfile", hint=hint)
    except OSError as error:
        raise _refused(error, Path(textfile)) from error


def write_textfile(session: Session, path: Path) -> None:
    """Write the metrics to a file; DOWN if the queen does not answer."""
    try:
        with session.queen() as queen:
            content = b"".join(queen.fetch_if_awake(QueenRoutes.METRICS, accept="text/plain"))
    except RbeeError as error:
        # Before anything else: the file of an earlier run would report the queen as up for ever.
        replace(path, [DOWN.encode()])
        if not isinstance(error, NotRunning):
            raise
        if session.as_json:
            session.tell_json({"event": "done", "path": str(path), "up": False})
        return
    replace(path, [content])
    if session.as_json:
        session.tell_json({"event": "done", "path": str(path), "up": True})


def replace(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file in one step: another user may read it at any moment."""
    new: Path | None = None
    try:
        number, new = make_beside(path)
        with os.fdopen(number, "wb") as file:
            file.writelines(parts)
            os.fchmod(file.fileno(), 0o644)
        new.replace(path)
    except BaseException as error:
        if new is not None:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _refused(error, path) from error
        raise


def _refused(error: OSError, path: Path) -> RbeeError:
    failure = refused(error, path, "written")
    return type(failure)(f"--textfile: {failure.message}", hint=failure.hint, field="--textfile")

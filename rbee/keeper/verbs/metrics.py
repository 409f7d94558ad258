"""The queen's metrics: for eyes, and for node_exporter's textfile collector."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from rbee.errors import BadInput, NotRunning, RbeeError
from rbee.files import end_of, refused
from rbee.keeper.options import in_session, looking
from rbee.keeper.session import Session
from rbee.text import printable_lines
from rbee.wire.routes import QueenRoutes

DOWN = """\
# HELP rbee_queen_up Whether the queen is awake: 1 where she answers.
# TYPE rbee_queen_up gauge
rbee_queen_up 0
"""
"""What is written of a queen who does not answer."""


@click.command(short_help="Print the queen's metrics as OpenMetrics.")
@click.option("--textfile", metavar="FILE", help="Into FILE, for node_exporter's textfile collector.")
@looking
@in_session
def metrics(session: Session, textfile: str | None) -> None:
    """Print the queen's metrics as OpenMetrics.

    Into a FILE they go in Prometheus's older text format, which is what node_exporter reads, and then
    a queen who is not awake is no error: the file says that she is not up.
    """
    if textfile is not None:
        write_textfile(session, target(textfile))
        return
    with session.queen() as queen:
        told = b"".join(queen.fetch_if_awake(QueenRoutes.METRICS)).decode()
    if session.as_json:
        session.tell_json({"media_type": QueenRoutes.METRICS.media_type, "text": told})
    else:
        # Nor with a colour: all of it is others' words.
        session.show(printable_lines(told.rstrip("\n")))


def target(textfile: str) -> Path:
    if textfile == "-":
        raise BadInput("--textfile is for a file, and - is none", hint="rbeectl metrics", field="--textfile")
    try:
        return end_of(textfile, field="--textfile", hint="rbeectl metrics, which prints them")
    except OSError as error:
        raise _refused(error, Path(textfile)) from error


def write_textfile(session: Session, path: Path) -> None:
    try:
        with session.queen() as queen:
            content = b"".join(queen.fetch_if_awake(QueenRoutes.METRICS, accept="text/plain"))
    except RbeeError as error:
        # First of all: what an older run wrote would say for ever that she is up.
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
    """Write a file that is there whole or not at all: it is read at any moment, by another user."""
    new: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            new = Path(file.name)
            file.writelines(parts)
            os.fchmod(file.fileno(), 0o644)
        new.replace(path)
    except OSError as error:
        if new is not None:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        raise _refused(error, path) from error


def _refused(error: OSError, path: Path) -> RbeeError:
    told = refused(error, path, "written")
    return type(told)(f"--textfile: {told.message}", hint=told.hint, field="--textfile")

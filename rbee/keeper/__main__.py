"""rbeectl: the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import TextIO

import click

from rbee.errors import BadInput, Interrupted, RbeeError
from rbee.files import unforeseen
from rbee.keeper.cli import cli
from rbee.keeper.interrupts import interruptible
from rbee.keeper.output.streams import OutputFailed, open_streams
from rbee.keeper.session import Session
from rbee.scope import SYSTEM
from rbee.text import printable


def program() -> int:
    """Run the program rbeectl; a signal may end it at any moment."""
    return interruptible(main)


def main() -> int:
    """Run the command line; return the exit code."""
    open_streams()
    try:
        code = run()
        sys.stdout.flush()
    except OutputFailed as error:
        if error.errno != errno.EPIPE:  # EPIPE: the reader of our output has gone
            print(f"rbeectl: the output could not be written: {error.strerror}", file=sys.stderr)
        code = 1
    else:
        return code
    # Or Python would report the failure again as it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def run() -> int:
    """Run the verb, and report its failure if there is one; return the exit code."""
    session = Session(SYSTEM)
    try:
        cli.main(prog_name="rbeectl", standalone_mode=False, obj=session)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except click.UsageError as error:
        if session.as_json or wants_json(sys.argv[1:]):
            session.as_json = True
            path = error.ctx.command_path if error.ctx is not None else "rbeectl"
            return report(BadInput(error.format_message(), hint=f"{path} --help"), session)
        if error.ctx is not None:
            usage = f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n"
            print(usage, file=sys.stderr)
        # Not error.show(): it repeats an argument as it was typed.
        print(f"Error: {printable(error.format_message())}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return report(Interrupted("interrupted"), session)
    except RbeeError as error:
        return report(error, session)
    except OutputFailed:
        raise
    except OSError as error:
        failure = unforeseen(error)
        failure.__cause__ = error
        return report(failure, session)
    return 0


def wants_json(arguments: Sequence[str]) -> bool:
    """Does a command line that could not be parsed ask for JSON? After -- nothing is an option."""
    return "--json" in takewhile(lambda word: word != "--", arguments)


def report(error: RbeeError, session: Session, stream: TextIO | None = None) -> int:
    """Report an error with its hint: as text on stderr, or as JSON on stdout; return its exit code."""
    if session.is_debugging:
        import traceback  # only with --debug

        for part in traceback.format_exception(error):
            # A frame has several lines. A message has one, unless a name in it has a line end.
            is_ours = part.startswith((" ", "\n", "Traceback"))
            for line in part.splitlines() if is_ours else [part.removesuffix("\n")]:
                print(printable(line), file=sys.stderr)
    if session.as_json:
        print(json.dumps({"event": "error", **error.to_problem()}), file=stream or sys.stdout, flush=True)
    else:
        out = stream or sys.stderr
        print(f"rbeectl: {printable(error.message)}", file=out)
        for line in getattr(error, "__notes__", ()):
            print(f"  journal: {printable(line)}", file=out)
        for line in (error.hint or "").splitlines():
            print(f"  try: {printable(line)}", file=out)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(program())

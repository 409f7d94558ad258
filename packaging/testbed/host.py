"""This computer, on which machines are booted: whether it can, its network, and how a failure is reported."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGING = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGING.parent


class MachineError(Exception):
    """A machine, its tree or a command in it failed; the message has the output."""


def why_not() -> str | None:
    """One line with the cure if no machine can be booted here."""
    return subprocess.run([PACKAGING / "why-not"], stdout=subprocess.PIPE, text=True).stdout.strip() or None


def family(pid: int) -> str:
    """What the names of this process's machines begin with."""
    return f"rbee-{pid}-"


def ip(*arguments: str, inside: int = 0) -> str:
    """Runs ip(8) and returns its output; inside: in the network of the process with that ID."""
    enter = ["nsenter", f"--target={inside}", "--net", "--"] if inside else []
    try:
        done = subprocess.run(
            [*enter, "ip", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise MachineError("There is no ip for a bridge. Install it with: apt install iproute2") from None
    if done.returncode:
        raise MachineError(said(["ip", *arguments], f"exit code {done.returncode}", done.stdout, done.stderr))
    return done.stdout


def tail(text: str, lines: int = 30) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def said(argv: Sequence[str], how: str, out: str, err: str) -> str:
    """The message for a command that failed, with its output."""
    return "\n".join(filter(None, [f"{' '.join(argv)}: {how}", out.rstrip(), err.rstrip()]))

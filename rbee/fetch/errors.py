"""The errors that end a fetch, with the exit statuses of sysexits(3): systemd restarts it after any other."""

from __future__ import annotations

from typing import ClassVar

from rbee.errors import RbeeError


class Verdict(RbeeError):
    """A fetch has failed, and an immediate retry would not help.

    `keeps_part` is whether what has arrived is kept for a later fetch.
    """

    keeps_part: ClassVar[bool] = False


class NotAModel(Verdict):
    """What has arrived is not a model, or not the file with the requested SHA-256."""

    exit_code = 65


class NotThere(Verdict):
    """The file does not exist."""

    exit_code = 66


class Unavailable(Verdict):
    """The server does not answer, or its answer cannot be used."""

    exit_code = 69
    keeps_part = True


class NoRoom(Verdict):
    """The store cannot be written. What has arrived is removed, so that the disk is not left full."""

    exit_code = 73


class Forbidden(Verdict):
    """The server or the operating system does not allow it."""

    exit_code = 77
    keeps_part = True


class BadRequest(Verdict):
    """The request is not valid."""

    exit_code = 78


class Again(Exception):
    """A temporary failure. `after` is the Retry-After of the server in seconds, None if it sent none."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Anew(Exception):
    """The file has changed at its source: what has arrived is of no use."""

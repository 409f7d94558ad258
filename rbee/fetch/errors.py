"""What ends a fetch, with the exit statuses of sysexits(3): systemd starts it again after any other."""

from __future__ import annotations

from typing import ClassVar

from rbee.errors import RbeeError


class Verdict(RbeeError):
    """A fetch is over, and trying again at once would not help.

    `keeps_part` is whether what has arrived is kept for a later try.
    """

    keeps_part: ClassVar[bool] = False


class NotAModel(Verdict):
    """What has arrived is not a model, or not the one that was asked for."""

    exit_code = 65


class NotThere(Verdict):
    """There is no such file."""

    exit_code = 66


class Unavailable(Verdict):
    """The server does not answer, or not as it should."""

    exit_code = 69
    keeps_part = True


class NoRoom(Verdict):
    """The file cannot be written. What has arrived is removed, so that the disk is not left full."""

    exit_code = 73


class Forbidden(Verdict):
    """The server or the operating system does not allow it."""

    exit_code = 77
    keeps_part = True


class BadRequest(Verdict):
    """What is to be fetched cannot be."""

    exit_code = 78


class Again(Exception):
    """Something that may pass; `after` are the seconds that the server asks for, None if it does not."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Anew(Exception):
    """The file has changed: what has arrived is of no use."""

"""Errors of the bus that become ours, with their cures."""

from __future__ import annotations

import errno
import os

import pystemd.dbusexc
import pytest

from rbee.errors import NotPermitted, RbeeError, Stopping, TimedOut, UnitFailed, Unreachable
from rbee.scope import user_scope
from rbee.systemd.errors import translate, translated

exc = pystemd.dbusexc


@pytest.mark.parametrize(
    ("error", "kind", "message", "cure"),
    [
        (
            exc.DBusInteractiveAuthorizationRequiredError(
                -errno.EACCES, None, b"Interactive authentication required."
            ),
            NotPermitted,
            "starting x: systemd does not let you do this (Interactive authentication required)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusAccessDeniedError(-errno.EACCES, None, b"Permission denied"),
            NotPermitted,
            "starting x: systemd does not let you do this (Permission denied)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusNoSuchUnitError(-errno.ENOENT, None, b"Unit x.service not found."),
            UnitFailed,
            "starting x: systemd has no such unit (Unit x.service not found)",
            "sudo apt install ./*.deb",
        ),
        (
            exc.DBusBaseError(
                -errno.EBADR, "org.freedesktop.systemd1.UnitMasked", b"Unit x.service is masked."
            ),
            UnitFailed,
            "starting x: the unit is masked (Unit x.service is masked)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusBaseError(-errno.ENOENT, "org.freedesktop.systemd1.NoSuchUnit", "Unit x not found."),
            UnitFailed,
            "starting x: systemd has no such unit (Unit x not found)",
            "sudo apt install ./*.deb",
        ),
        (
            exc.DBusBaseError(
                -errno.EDEADLK,
                "org.freedesktop.systemd1.TransactionIsDestructive",
                b"Transaction for x.service/start is destructive.",
            ),
            Stopping,
            "starting x: it is being stopped (Transaction for x.service/start is destructive)",
            "Wait for the stop to end",
        ),
        (
            exc.DBusNoReplyError(-errno.ETIMEDOUT, None, b"Remote peer did not answer"),
            TimedOut,
            "starting x: no answer within 3 s (Remote peer did not answer)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusTimeoutError(-errno.ETIMEDOUT, None, None),
            TimedOut,
            "starting x: no answer within 3 s (Connection timed out)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusTimedOutError(-errno.ETIMEDOUT, None, None),
            TimedOut,
            "starting x: no answer within 3 s (Connection timed out)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusDisconnectedError(-errno.ECONNRESET, None, None),
            UnitFailed,
            "starting x: Connection reset by peer",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusFailedError(-errno.EIO, None, b"\xff broken"),
            UnitFailed,
            "starting x: \ufffd broken",
            "sudo rbeectl doctor",
        ),
        (exc.DBusBaseError(None), UnitFailed, "starting x: Success", "sudo rbeectl doctor"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_of_the_bus_becomes_ours_with_its_cure(
    error: Exception, kind: type[RbeeError], message: str, cure: str
) -> None:
    ours = translate("starting x", error)

    assert type(ours) is kind
    assert ours.message == message
    assert cure in (ours.hint or "")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ECONNREFUSED])
def test_a_machine_without_a_bus_is_told_apart(code: int) -> None:
    ours = translate("connecting to the system bus", exc.DBusBaseError(-code))

    assert type(ours) is Unreachable
    assert ours.message == f"the system bus does not answer ({os.strerror(code)})"
    assert ours.hint == "sudo rbeectl doctor"


def test_the_library_s_error_stays_chained() -> None:
    theirs = exc.DBusAccessDeniedError(-errno.EACCES)

    with pytest.raises(NotPermitted) as caught, translated("stopping x"):
        raise theirs

    assert caught.value.__cause__ is theirs


def test_an_error_that_is_not_the_bus_s_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), translated("stopping x"):
        raise ZeroDivisionError


def test_an_error_of_a_user_s_bus_has_the_cure_as_that_user_types_it() -> None:
    ours = translate("connecting to the user bus", exc.DBusBaseError(-errno.ENOENT), user_scope())

    assert ours.message == "the user bus does not answer (No such file or directory)"
    assert ours.hint == "rbeectl --user doctor"

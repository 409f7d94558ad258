"""What it means that a connection to another machine was not made, by what the libraries raise."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path

import pytest

from rbee.client.answers import cannot_connect, os_error
from rbee.errors import Disconnected, NotRunning, RbeeError
from rbee.scope import user_scope

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def called(error: Exception) -> type[RbeeError]:
    return type(cannot_connect("queen:8500", os_error(error)))


def test_a_name_with_several_addresses_that_all_refuse_is_a_queen_who_is_not_open() -> None:
    both = OSError("All connection attempts failed")
    both.__cause__ = ExceptionGroup("multiple connection attempts failed", [REFUSED, REFUSED])

    assert called(both) is NotRunning
    assert called(REFUSED) is NotRunning


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError])
def test_an_end_in_the_middle_of_the_handshake_is_a_broken_connection(kind: type[ssl.SSLError]) -> None:
    assert called(kind(8, "EOF occurred in violation of protocol")) is Disconnected


def test_the_cure_is_typed_as_for_whom_the_asker_is(tmp_path: Path) -> None:
    of_the_machine = cannot_connect(tmp_path / "s", REFUSED)
    of_a_user = cannot_connect(tmp_path / "s", REFUSED, user_scope())

    assert of_the_machine.hint == "systemctl status queen-rbee.socket rbee-hive.socket"
    assert of_a_user.hint == "systemctl --user status queen-rbee.socket rbee-hive.socket"

"""Trying the queen's address from another machine, which is a shell here."""

from __future__ import annotations

import socket

from rbee.keeper.fleet import find_queen
from rbee.keeper.fleet.find_queen import try_from_there
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from rbee.wire.fleet import Tcp
from tests.unit.keeper.fleet.conftest import There

TCP = Tcp(True, ("[::]:8500",), "f" * 64, 4_000_000_000_000)


def test_an_address_that_does_not_answer_is_said_to_have_had_what_was_left_of_the_timeout(
    there: There,
) -> None:
    def left(most: float) -> float:
        return 0.5 if most == find_queen.REACH_TIMEOUT else most

    with socket.create_server(("127.0.0.1", 0)) as silent, Ssh(Typed("gpu1", None), left) as ssh:
        assert try_from_there(ssh, "127.0.0.1", silent.getsockname()[1], TCP) == "no answer within 0.5 s"

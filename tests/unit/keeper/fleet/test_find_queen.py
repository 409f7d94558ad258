"""Where another machine finds the queen."""

from __future__ import annotations

import pytest

import rbee.keeper.fleet.address
import rbee.keeper.fleet.find_queen
from rbee.errors import Unreachable
from rbee.keeper.fleet.find_queen import find_queen
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from rbee.wire.fleet import Tcp
from tests.unit.keeper.fleet.conftest import There

TCP = Tcp(True, ("[::]:8500",), "f" * 64, 4_000_000_000_000)


@pytest.mark.parametrize("own", ["UNKNOWN", "fe80::1%eth0", "169.254.3.4", "fe80::1"])
def test_what_ssh_came_from_may_be_no_address_to_hand_over(
    there: There, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    monkeypatch.setattr(
        rbee.keeper.fleet.address, "own_addresses", lambda: ["10.0.0.1", "10.0.0.2", "fd00::1"]
    )
    answers = {"10.0.0.2", "fd00::1"}
    monkeypatch.setattr(
        rbee.keeper.fleet.find_queen,
        "try_from_there",
        lambda _ssh, host, _port, _tcp: "" if host in answers else "no",
    )
    with Ssh(Typed("gpu1", "root")) as ssh:
        ssh.own_address = own
        with pytest.raises(Unreachable, match=f"ssh came from {own}, which is not") as caught:
            find_queen(ssh, TCP, None)
    assert (caught.value.hint or "").splitlines() == [
        "rbeectl add-hive root@gpu1 --queen 10.0.0.2:8500",
        "rbeectl add-hive root@gpu1 --queen '[fd00::1]:8500'",
    ]


def test_an_address_that_nobody_has_is_not_reached_in_bash_s_words(there: There) -> None:
    with Ssh(Typed("gpu1", None)) as ssh:
        assert rbee.keeper.fleet.find_queen.try_from_there(ssh, "127.0.0.1", 1, TCP) == "Connection refused"


def test_a_name_that_the_other_machine_does_not_know_is_said_to_be_unknown_there(there: There) -> None:
    name = "n" * 64  # one more than DNS has room for, which nobody is asked about
    with Ssh(Typed("gpu1", None)) as ssh:
        told = rbee.keeper.fleet.find_queen.try_from_there(ssh, name, 8500, TCP)
    assert told.startswith(f"the name {name} is not known on gpu1 (")
    assert "Invalid argument" not in told


def test_where_else_the_queen_was_not_found_is_told_and_no_command(
    there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.fleet.address, "own_addresses", lambda: ["10.0.0.1", "fd00::1"])
    monkeypatch.setattr(rbee.keeper.fleet.find_queen, "try_from_there", lambda *_: "no")
    with Ssh(Typed("gpu1", "root")) as ssh, pytest.raises(Unreachable) as caught:
        find_queen(ssh, TCP, "10.0.0.9")
    assert caught.value.message == (
        "gpu1 does not reach the queen at 10.0.0.9:8500: no; nor at 10.0.0.1:8500, [fd00::1]:8500"
    )
    assert (caught.value.hint or "").startswith("With an address that gpu1 reaches: rbeectl add-hive ")

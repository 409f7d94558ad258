"""Another machine that cannot be brought as it was typed."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.keeper.fleet.remote_machine import RemoteMachine
from tests.unit.played_systemd import PlayedBus


def test_two_users_are_one_too_many(bus: PlayedBus, rbeectl: Rbeectl, remote: RemoteMachine) -> None:
    ran = rbeectl("add-hive", "ada@gpu1", "--user", "root")

    assert (ran.code, ran.out, bus.asked) == (2, "", [])
    assert ran.err == (
        "rbeectl: HOST has another user before its @ than --user\n  try: rbeectl add-hive gpu1 --user root\n"
    )


@pytest.mark.parametrize("host", ["gpu 1", "user@gpu 1", "@gpu1", "a@b@gpu1 2", "-oProxyCommand=x", ""])
def test_a_host_that_can_have_no_such_name_is_refused_before_anybody_is_woken(
    bus: PlayedBus, rbeectl: Rbeectl, remote: RemoteMachine, host: str
) -> None:
    ran = rbeectl("add-hive", "--", host)

    assert (ran.code, ran.out) == (2, "")
    assert "HOST must" in ran.err
    assert bus.asked == []

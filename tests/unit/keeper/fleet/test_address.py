"""The addresses of this machine, and those that are typed."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from rbee.keeper.fleet.address import own_addresses

TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.1
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
Local:
        |-- 10.0.0.1
           /32 host LOCAL
"""

INET6 = """fd000000000000000000000000000001 02 40 00 80     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_the_addresses_of_a_machine_are_those_that_others_may_know(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/fib_trie").write_text(TRIE)
    assert own_addresses(tmp_path) == ["10.0.0.1"]  # IPv6 is off
    (tmp_path / "net/if_inet6").write_text(INET6)
    assert own_addresses(tmp_path) == ["10.0.0.1", "fd00::1"]


def test_of_this_machine_there_are_addresses_and_no_loopback() -> None:
    for one in own_addresses():
        assert not ipaddress.ip_address(one).is_loopback

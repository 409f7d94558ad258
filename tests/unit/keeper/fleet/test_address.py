"""The addresses of this machine, and those that are typed."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from rbee.errors import BadInput
from rbee.keeper.fleet.address import own_addresses, parse_address

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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("queen", ("queen", 8500)),
        ("queen.example:9000", ("queen.example", 9000)),
        ("10.0.0.1", ("10.0.0.1", 8500)),
        ("[fd00::1]", ("fd00::1", 8500)),
        ("[fd00::1]:9000", ("fd00::1", 9000)),
        ("queen.lan.:9000", ("queen.lan.", 9000)),
        ("queen.lan.", ("queen.lan.", 8500)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text, field="QUEEN") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8500",
        "queen:",
        "queen:x",
        "queen:0",
        "queen:65536",
        "a b",
        "fd00::1",
        "[x]:1",
        "a:1:2",
        "ü",
        "a/b",
        "-queen",
        ".queen",
        "queen..lan",
        "queen.lan..",
        "x" * 64,
        "[]:1",
        "[fe80::1",
    ],
)
def test_what_is_no_address_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(BadInput, match="QUEEN must") as caught:
        parse_address(text, field="QUEEN")
    assert caught.value.field == "QUEEN"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("::", "have an IPv6 address in brackets: [::]:8500"),
        ("fe80::1", "have an IPv6 address in brackets: [fe80::1]:8500"),
        ("fd00:0:0:0:0:0:0:1:9000", "have an IPv6 address in brackets: [fd00::1]:9000"),
        (
            ":8500",
            "be HOST:PORT, such as queen.example:8500 or [fd00::1]:8500, and has no host; "
            "all addresses are 0.0.0.0 or [::]",
        ),
    ],
)
def test_who_leaves_out_the_brackets_or_the_host_is_told_so(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_address(text, field="--listen")
    assert caught.value.message == f"--listen must {told}"

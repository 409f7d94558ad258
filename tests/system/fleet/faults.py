"""Faults of a machine's network by nftables, each counted, so that a test shows that it struck."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from testbed.machine import Machine

Direction = Literal["in", "out", "both"]

CHAINS = {"in": ("input", "iifname", "saddr"), "out": ("output", "oifname", "daddr")}
"""The hook, and what the network and the peer are called in its rules."""


class Fault:
    """What a machine's rules have struck so far."""

    def __init__(self, machine: Machine) -> None:
        self.table = f"fault_{secrets.token_hex(4)}"
        self._machine = machine
        self._last: int | None = None

    @property
    def packets(self) -> int:
        """Of both directions; of the whole time, once it is over."""
        return self._counted() if self._last is None else self._last

    def end(self) -> None:
        self._last = self._counted()
        self._machine.run("nft", "delete", "table", "inet", self.table)

    def _counted(self) -> int:
        told = self._machine.run("nft", "--json", "list", "counter", "inet", self.table, "struck").stdout
        [packets] = [item["counter"]["packets"] for item in json.loads(told)["nftables"] if "counter" in item]
        return int(packets)


@contextmanager
def dropped(
    machine: Machine, direction: Direction = "both", *, port: int | None = None, peer: str | None = None
) -> Iterator[Fault]:
    """What comes in or goes out vanishes, without a word to the sender.

    port: only TCP with it at either end; peer: only from or to this IPv4 address. The machine may not reboot
    meanwhile.
    """
    with _fault(machine, direction, _matches(port, peer), "drop") as fault:
        yield fault


@contextmanager
def counted(machine: Machine, port: int, flag: Literal["syn", "rst"]) -> Iterator[Fault]:
    """What comes in to that port with this flag of TCP is counted, and passes."""
    with _fault(machine, "in", [f"tcp dport {port} tcp flags & {flag} == {flag}"], "") as fault:
        yield fault


@contextmanager
def rejected_with_reset(
    machine: Machine, direction: Direction = "in", *, port: int | None = None, peer: str | None = None
) -> Iterator[Fault]:
    """Who sends TCP hears a reset, as from a machine without such a service; port and peer as in dropped.

    "in" is for others who send, "out" for the machine itself.
    """
    # Resets pass, or those that answer what came in would not get out.
    matches = [f"{match} tcp flags & rst == 0" for match in _matches(port, peer)]
    with _fault(machine, direction, matches, "reject with tcp reset") as fault:
        yield fault


def _matches(port: int | None, peer: str | None) -> list[str]:
    """Rules of which each is for one end that may have the port."""
    match = f"ip PEER {peer} " if peer else ""
    if port is None:
        return [match]
    return [f"{match}tcp {end} {port}" for end in ("sport", "dport")]


@contextmanager
def _fault(machine: Machine, direction: Direction, matches: list[str], verdict: str) -> Iterator[Fault]:
    fault = Fault(machine)
    rules = [f"add table inet {fault.table}", f"add counter inet {fault.table} struck"]
    for way in ("in", "out") if direction == "both" else (direction,):
        hook, interface, peer = CHAINS[way]
        # Before any rule of the machine's own.
        rules.append(f"add chain inet {fault.table} {hook} {{ type filter hook {hook} priority -300; }}")
        for match in matches:
            # What a machine says to itself comes to no network.
            condition = f'{interface} != "lo" {match.replace("PEER", peer)}'
            rules.append(f"add rule inet {fault.table} {hook} {condition} counter name struck {verdict}")
    machine.run("nft", "--file", "-", input="\n".join(rules) + "\n")
    try:
        yield fault
    finally:
        fault.end()

"""Networks for machines: a bridge, and each machine's link to it."""

import fcntl
import ipaddress
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from testbed.host import MachineError, family, ip
from testbed.lifetime import Lifetime
from testbed.processes import undisturbed

LINK_SECONDS = 5.0
PREFIX = 24
FORWARDING = "3"
"""The state of a bridge's port, BR_STATE_FORWARDING in linux/if_bridge.h."""


class Plugged(Protocol):
    """What a bridge needs of a machine."""

    hostname: str

    def write_names(self, names: Mapping[str, str]) -> None:
        """Write these addresses by name as the machine's /etc/hosts."""


class Bridge(Lifetime):
    """A network for machines, as a context: they reach each other and this computer, nothing else.

    They know each other by hostname, also one that has ended. It outlives its machines.
    """

    def __init__(self) -> None:
        self.name = ""
        """Of the network interface, at most 15 characters."""
        self.address = ""
        """This computer's own on it, IPv4."""
        self.names: dict[str, str] = {}
        """The addresses by name, as all machines have them in /etc/hosts."""
        self._addresses: Iterator[ipaddress.IPv4Address] = iter(())
        """Those that are free."""
        self._hosts: set[str] = set()
        self._machines: list[Plugged] = []
        self._lock = threading.Lock()

    def _start(self) -> None:
        # One at a time takes a name and a network, so that no other takes the same.
        with Path("/proc/self/ns/net").open("rb") as namespace:
            fcntl.flock(namespace, fcntl.LOCK_EX)
            links = {name for _, name in socket.if_nameindex()}
            free = (f"{family(os.getpid())}{number}" for number in range(len(links) + 1))
            self.name = next(name for name in free if name not in links)
            self._addresses = _free_network().hosts()
            self._make()

    def _make(self) -> None:
        # With an address of its own it does not take that of whichever port was plugged in last.
        mac = f"02:01:{secrets.token_bytes(4).hex(':')}"
        ip("link", "add", self.name, "address", mac, "type", "bridge")
        self.address = self._add_address()
        ip("link", "set", self.name, "up")

    def _stop(self) -> None:
        with undisturbed():
            if self.name in {name for _, name in socket.if_nameindex()}:
                ip("link", "delete", self.name)

    def _add_address(self) -> str:
        address = str(next(self._addresses))
        ip("address", "add", f"{address}/{PREFIX}", "dev", self.name)
        return address

    def host(self, name: str) -> str:
        """One more address of this computer, which the machines know by this name, such as for a relay."""
        with self._lock:
            if name in self.names:
                raise MachineError(f"There is a {name} on {self.name} already")
            self._hosts.add(name)
            self.names[name] = self._add_address()
            self._tell()
            return self.names[name]

    def join(self, machine: Plugged) -> str:
        """The address for a machine that is about to boot; the same for the next of that name."""
        with self._lock:
            if machine.hostname not in self.names:
                self.names[machine.hostname] = str(next(self._addresses))
            elif machine.hostname in self._hosts or any(
                other.hostname == machine.hostname for other in self._machines
            ):
                raise MachineError(f"There is a {machine.hostname} on {self.name} already")
            self._machines.append(machine)
            self._tell()
            return self.names[machine.hostname]

    def leave(self, machine: Plugged) -> None:
        """Forget a machine that has ended; its address stays reserved for its name."""
        with self._lock, suppress(ValueError):  # if it was refused
            self._machines.remove(machine)

    def _tell(self) -> None:
        for machine in self._machines:
            machine.write_names(self.names)


class Link:
    """A machine's link to its bridge, of which each boot has a new one."""

    def __init__(self, hostname: str, address: str) -> None:
        self._hostname = hostname
        self._address = address
        self._is_cut = False
        self._name = ""
        """This computer's end."""

    def connect(self, leader: int) -> None:
        """Gives the machine's end its address: nothing in the machine has to, nor does DHCP."""
        # Made from the address, so that neighbours that knew an earlier machine of that name reach this one.
        mac = "02:00:" + ipaddress.IPv4Address(self._address).packed.hex(":")
        ip("link", "set", "host0", "address", mac, inside=leader)
        ip("address", "add", f"{self._address}/{PREFIX}", "dev", "host0", inside=leader)
        ip("link", "set", "host0", "up", inside=leader)
        [link] = json.loads(ip("-json", "link", "show", "host0", inside=leader))
        self._name = socket.if_indextoname(link["link_index"])
        if self._is_cut:
            self.cut()
        else:
            self._await_forwarding()

    def cut(self) -> None:
        """Cuts the link: the machine loses its carrier. It stays cut over a reboot, until mend()."""
        self._is_cut = True
        ip("link", "set", self._name, "down")

    def mend(self) -> None:
        """Restores the link; returns when the bridge forwards again."""
        self._is_cut = False
        ip("link", "set", self._name, "up")
        self._await_forwarding()

    def _await_forwarding(self) -> None:
        # A worker of the kernel makes an end that is up a port that forwards, a moment later.
        deadline = time.monotonic() + LINK_SECONDS
        state = Path(f"/sys/class/net/{self._name}/brport/state")
        while state.read_text().strip() != FORWARDING:
            if time.monotonic() > deadline:
                raise MachineError(f"The bridge forwards nothing to {self._hostname}, its link {self._name}")
            time.sleep(0.005)


def _free_network() -> ipaddress.IPv4Network:
    """A 10.x.y.0/24 of which nothing on this computer has an address, and to which it has no route."""
    taken = []
    for link in json.loads(ip("-json", "-4", "address")):
        taken += [f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", [])]
    for route in json.loads(ip("-json", "-4", "route", "show", "table", "all")):
        if route["dst"] not in ("default", "0.0.0.0/0"):
            taken.append(route["dst"])
    networks = [ipaddress.IPv4Network(network, strict=False) for network in taken]
    while True:
        network = ipaddress.IPv4Network((f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.0", PREFIX))
        if not any(network.overlaps(other) for other in networks):
            return network

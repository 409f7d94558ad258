"""Who is at the other end of a connection."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol


class AnyPeer(Protocol):
    """Of its `owner`, and of its `process`, there may be only so many connections; each has its words."""

    @property
    def owner(self) -> tuple[Hashable, str]: ...

    @property
    def process(self) -> tuple[Hashable, str]: ...

    @property
    def fields(self) -> dict[str, str]:
        """Who it is, for the journal."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel says (SO_PEERCRED of unix(7)); pid 0 is out of sight."""

    pid: int
    uid: int
    gid: int

    @property
    def owner(self) -> tuple[Hashable, str]:
        return self.uid, f"user {self.uid}"

    @property
    def process(self) -> tuple[Hashable, str]:
        return (self.uid, self.pid), f"process {self.pid}"

    @property
    def fields(self) -> dict[str, str]:
        return {"actor_uid": str(self.uid), "actor_pid": str(self.pid)}


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """Who connected over TCP: from where, and the credential that its certificate names, if it showed one.

    What it showed is signed by the queen's CA, or there would be no connection. `hive_id` is the hive that
    the certificate was made for, which its credential may not be that of any more.
    """

    address: str
    credential: str | None
    hive_id: str | None = None

    @property
    def owner(self) -> tuple[Hashable, str]:
        if self.credential is not None:
            return self.credential, f"credential {self.credential}"
        return self.address, f"address {self.address}"

    @property
    def process(self) -> tuple[Hashable, str]:
        return self.owner

    @property
    def fields(self) -> dict[str, str]:
        told = {"actor_address": self.address}
        return told if self.credential is None else {**told, "actor_credential": self.credential}


_UCRED = struct.Struct("iII")
"""struct ucred of unix(7): pid_t has a sign, uid_t and gid_t have none, and some are above 2**31."""


def peer_at(channel: socket.socket) -> Peer:
    return Peer(*_UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def remote_peer_at(channel: socket.socket, tls: ssl.SSLObject) -> RemotePeer:
    """Raises OSError where the other side is gone already."""
    shown: Any = tls.getpeercert() or {}
    subject = dict(pair for names in shown.get("subject", ()) for pair in names)
    address = address_of(channel.getpeername())
    return RemotePeer(address, subject.get("serialNumber"), subject.get("commonName"))


def address_of(name: tuple[object, ...]) -> str:
    """The address in a socket's name; that of an IPv4 client of a socket for both as IPv4."""
    address = ip_address(str(name[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)

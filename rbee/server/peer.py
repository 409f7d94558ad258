"""The peer at the other end of a connection."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple, Protocol


class AnyPeer(Protocol):
    """A peer whose connections and streams are limited (rbee.server.limits)."""

    @property
    def owner(self) -> tuple[Hashable, str]:
        """The user, as a key to count by and as text for messages."""

    @property
    def process(self) -> tuple[Hashable, str]:
        """The process, in the same way."""

    @property
    def fields(self) -> dict[str, str]:
        """The peer as fields for the journal."""


class Peer(NamedTuple):
    """The process that connected, by SO_PEERCRED of unix(7); pid 0 if it is in another PID namespace."""

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


class RemotePeer(NamedTuple):
    """A peer over TCP: its address, and the credential that its certificate names, if it showed one.

    The certificate is signed by the queen's CA, or there would be no connection. `hive_id` is the hive that
    it was made for, which may have another credential by now.
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
        fields = {"actor_address": self.address}
        return fields if self.credential is None else {**fields, "actor_credential": self.credential}


_UCRED = struct.Struct("iII")
"""struct ucred of unix(7): pid_t is signed; uid_t and gid_t are not, and may be above 2**31."""


def peer_at(channel: socket.socket) -> Peer:
    """Return the process at the other end of a Unix socket."""
    return Peer(*_UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def remote_peer_at(channel: socket.socket, tls: ssl.SSLObject) -> RemotePeer:
    """Return the peer of a TLS connection. Raises OSError if it is gone already."""
    certificate: Any = tls.getpeercert() or {}
    subject = dict(pair for names in certificate.get("subject", ()) for pair in names)
    address = address_of(channel.getpeername())
    return RemotePeer(address, subject.get("serialNumber"), subject.get("commonName"))


def address_of(name: tuple[object, ...]) -> str:
    """Return the IP address in a socket's name; one that is mapped into IPv6 as IPv4."""
    address = ip_address(str(name[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)

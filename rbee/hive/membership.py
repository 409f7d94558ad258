"""Whose hive this is, where its queen is on another machine.

An invitation is a queen's address and a token, put into the state directory by an operator
(rbeectl join, or rbeectl add-hive over ssh). The hive takes it up when it starts: it makes its
own key, joins, and keeps a membership. That is one file, so that it is whole or not there:
a line of JSON behind '# ', which OpenSSL passes over, then key and certificate.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from rbee import __version__, tls
from rbee.client.link import Afar, Link
from rbee.contracts import FleetRoutes, Join, Joined, Limit, MachineId, Name, Pem, Port, Renew, decode, encode
from rbee.errors import BadConfig, BadInput, RbeeError, WrongQueen
from rbee.files import explained, write_whole

JOIN_TIMEOUT = 8.0
"""Seconds for each of the questions of a join."""

APPLICATION = bytes.fromhex("6f1b9a27c3f84e5d9b40ae7d152c8e36")
"""Makes of a machine-id an id that says nothing of it (sd_id128_get_machine_app_specific(3))."""

REJOIN = "sudo rbeectl join QUEEN:8500 --token TOKEN"

Host = Annotated[str, Limit(1, 253, r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")]


@dataclass(frozen=True)
class Invitation:
    """`token` None is for a hive whose queen has moved: it keeps its credential."""

    host: Host
    port: Port
    name: Name | None = None
    token: Annotated[str, Limit(1, 200)] | None = None


@dataclass(frozen=True)
class _Told:
    hive_id: Name
    host: Host
    port: Port
    ca: Pem


@dataclass(frozen=True)
class Membership:
    """Which hive of which queen. `path` holds it, its key and its certificate too."""

    hive_id: str
    host: str
    port: int
    ca: str
    path: Path

    def queen(self) -> Afar:
        """Where she is; who keeps it has the certificate of now, and takes another by show()."""
        return Afar(self.host, self.port, tls.client_context(self.ca, self.path, None))

    def show(self, queen: Afar) -> None:
        """Have the next connections to her show the certificate that there is now."""
        queen.context.load_cert_chain(self.path)

    def queen_to_strangers(self) -> Afar:
        """The same for who shows no certificate."""
        return Afar(self.host, self.port, tls.client_context(self.ca, None, None))

    def is_to_be_renewed(self) -> bool:
        return tls.renewal_of(_certificate_of(self.path.read_text())) <= datetime.now(UTC)


class Memberships:
    """In the hive's state directory."""

    def __init__(self, folder: Path, *, machine_id: Path = Path("/etc/machine-id")) -> None:
        self._path = folder / "membership"
        self._invitation = folder / "invitation"
        self._machine_id = machine_id

    def load(self) -> Membership | None:
        """The one there is; BadConfig for what cannot be read as one."""
        content = _read(self._path)
        if content is None:
            return None
        try:
            head = content.partition("\n")[0]
            told = decode(_Told, json.loads(head.removeprefix("# ")))
            membership = Membership(told.hive_id, told.host, told.port, told.ca, self._path)
            membership.queen()
        except (OSError, ValueError, BadInput) as error:
            raise BadConfig(f"{self._path} is no membership: {error}", hint=REJOIN) from error
        return membership

    async def take_up_invitation(self) -> Membership | None:
        """Do as an invitation says, if there is one; it is gone then, whatever came of it.

        What keeps the hive from joining is raised, and a membership that there was stays as it is.
        """
        content = _read(self._invitation)
        if content is None:
            return None
        try:
            try:
                invitation = decode(Invitation, json.loads(content))
            except (ValueError, BadInput) as error:
                raise BadConfig(f"{self._invitation} is no invitation: {error}", hint=REJOIN) from error
            return await (self._join(invitation) if invitation.token else self._move(invitation))
        finally:
            with explained(self._invitation, "removed", BadConfig):
                self._invitation.unlink(missing_ok=True)

    async def renew(self, membership: Membership) -> Membership:
        """Another certificate for the same key, over the connection that the old one opens."""
        key = _key_of(membership.path.read_text())
        link = Link(membership.queen(), timeout=JOIN_TIMEOUT)
        try:
            joined: Joined = await link.ask(FleetRoutes.RENEW, Renew(tls.request_for(key)))
        finally:
            await link.close()
        return self._keep(membership, key, joined.certificate)

    def forget(self) -> None:
        with explained(self._path, "removed", RbeeError):
            self._path.unlink(missing_ok=True)

    async def _join(self, invitation: Invitation) -> Membership:
        token = invitation.token or ""
        *_, fingerprint = tls.read_token(token)
        ca = await self._ca(invitation, fingerprint)
        key = tls.new_key()
        asked = Join(token, invitation.name or own_name(), self._machine(), tls.request_for(key), __version__)
        # Only now, over a connection to who is known to be the queen, is the token shown.
        link = Link(
            Afar(invitation.host, invitation.port, tls.client_context(ca, None, None)), timeout=JOIN_TIMEOUT
        )
        try:
            joined: Joined = await link.ask(FleetRoutes.JOIN, asked)
        finally:
            await link.close()
        membership = Membership(joined.hive_id, invitation.host, invitation.port, ca, self._path)
        return self._keep(membership, key, joined.certificate)

    async def _ca(self, invitation: Invitation, fingerprint: str) -> str:
        afar = Afar(invitation.host, invitation.port, tls.trusting_context())
        link = Link(afar, timeout=JOIN_TIMEOUT)
        try:
            content: bytes = await link.ask(FleetRoutes.CA)
        finally:
            await link.close()
        ca = content.decode(errors="replace")
        try:
            is_hers = hmac.compare_digest(tls.fingerprint(ca), fingerprint)
        except BadInput:
            is_hers = False
        if not is_hers:
            raise WrongQueen(
                f"whoever answers at {afar} is not the queen that the token is of",
                hint="Look at the address, and at the token: rbeectl token create, on the queen's machine",
            )
        return ca

    async def _move(self, invitation: Invitation) -> Membership:
        """The same queen at another address, if it is she."""
        membership = self.load()
        if membership is None:
            raise BadConfig("without a token only a hive that has joined can follow its queen", hint=REJOIN)
        moved = replace(membership, host=invitation.host, port=invitation.port)
        link = Link(moved.queen(), timeout=JOIN_TIMEOUT)
        try:
            await link.ask(FleetRoutes.CA)
        finally:
            await link.close()
        content = self._path.read_text()
        return self._keep(moved, _key_of(content), _certificate_of(content))

    def _keep(self, membership: Membership, key: str, certificate: str) -> Membership:
        told = _Told(membership.hive_id, membership.host, membership.port, membership.ca)
        head = f"# {json.dumps(encode(told))}\n"
        content = f"{head}{key.strip()}\n{certificate.strip()}\n"
        with explained(self._path, "written", BadConfig):
            write_whole(self._path, content.encode(), mode=0o600)
        return membership

    def _machine(self) -> str:
        """As systemd-id128 machine-id --app-specific= prints it."""
        try:
            machine_id = decode(MachineId, self._machine_id.read_text().strip())
        except (OSError, BadInput) as error:
            raise BadConfig(
                f"{self._machine_id} is no machine-id: {error}", hint="sudo systemd-machine-id-setup"
            ) from error
        digest = bytearray(hmac.new(bytes.fromhex(machine_id), APPLICATION, hashlib.sha256).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x40
        digest[8] = digest[8] & 0x3F | 0x80
        return digest.hex()


def own_name() -> str:
    """What this machine is called, as the name of a hive: its host name, up to the first dot."""
    return socket.gethostname().partition(".")[0]


def _read(path: Path) -> str | None:
    """A file of the hive's own; None where there is none."""
    with explained(path, "read", BadConfig):
        try:
            return path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return None


def _key_of(content: str) -> str:
    return _block(content, "PRIVATE KEY")


def _certificate_of(content: str) -> str:
    return _block(content, "CERTIFICATE")


def _block(content: str, what: str) -> str:
    found = re.search(
        rf"^-----BEGIN {what}-----\n.*?^-----END {what}-----$", content, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise BadInput(f"it has no {what.lower()}")
    return found[0]

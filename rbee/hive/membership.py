"""Which queen on another machine this is a hive of.

An invitation is a queen's address and a token, put into the state directory by an operator
(rbeectl join, or rbeectl add-hive over ssh). rbee-hive-join.service takes it up while the hive
runs on: it makes a key, joins, proves the result, and leaves a membership for the hive's next
start. That is one file, so that it is whole or not there: a line of JSON behind '# ', which
OpenSSL passes over, then key and certificate.

In the state directory, by who writes them: `invitation` the operator; `membership.unproven` and
`membership.new` rbee-hive-join; `membership` and `membership.old` the hive, which keeps the old
one until it has become ready with the new one. (Where there is no membership yet, rbee-hive-join
puts the first in place.) A crash between any two steps leaves one that works in place.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rbee import tls
from rbee.client.link import Link, QueenAddress
from rbee.errors import BadConfig, BadInput, RbeeError
from rbee.files import explained, sync_folder, write_whole
from rbee.scope import SYSTEM, Scope
from rbee.wire.codec import decode, encode
from rbee.wire.routes import FleetRoutes
from rbee.wire.types import Host, Name, Pem, Port

ASK_TIMEOUT = 8.0
"""Seconds for each request to the queen about keys."""


class _Stored(NamedTuple):
    hive_id: Name
    host: Host
    port: Port
    ca: Pem


class Membership(NamedTuple):
    """Which hive of which queen. The file `path` has it, with its key and its certificate."""

    hive_id: str
    host: str
    port: int
    ca: str
    path: Path

    def queen(self) -> QueenAddress:
        """Return the queen's address, with the present certificate; show() gives it a later one."""
        return QueenAddress(self.host, self.port, tls.client_context(self.ca, self.path, None))

    def show(self, queen: QueenAddress) -> None:
        """Use the present certificate for the next connections to this address."""
        queen.context.load_cert_chain(self.path)

    def queen_to_strangers(self) -> QueenAddress:
        """Return the address for connections without a certificate."""
        return QueenAddress(self.host, self.port, tls.client_context(self.ca, None, None))

    def is_to_be_renewed(self) -> bool:
        """Whether two thirds of the certificate's life are over; raises OSError, BadInput."""
        return tls.renewal_of(certificate_of(self.path.read_text())) <= datetime.now(UTC)

    def is_replaced_by(self, other: Membership) -> bool:
        """Whether the same queen gave this hive another credential, so that it no longer accepts this one."""
        keys = (key_of(one.path.read_text()) for one in (self, other))
        return (self.hive_id, self.ca) == (other.hive_id, other.ca) and next(keys) != next(keys)


class Memberships:
    """The memberships in a hive's state directory."""

    def __init__(self, folder: Path, scope: Scope = SYSTEM) -> None:
        self._scope = scope
        self._path = folder / "membership"
        self._new = folder / "membership.new"
        self._old = folder / "membership.old"
        self.unproven = folder / "membership.unproven"
        """Where a membership is written before the queen has accepted its credential."""

    def load(self) -> Membership | None:
        """Return the present membership, None if there is none; BadConfig if it cannot be read."""
        return self._read(self._path)

    def _read(self, path: Path) -> Membership | None:
        content = read(path)
        if content is None:
            return None
        try:
            head = content.partition("\n")[0]
            stored = decode(_Stored, json.loads(head.removeprefix("# ")))
            membership = Membership(stored.hive_id, stored.host, stored.port, stored.ca, path)
            membership.queen()
        except (OSError, ValueError, BadInput) as error:
            raise BadConfig(f"{path} is not a valid membership: {error}", hint=self._scope.rejoin) from error
        return membership

    def usable(self) -> Membership | None:
        """Return the present membership; None if there is none, or it cannot be read."""
        return self._usable(self._path)

    def offer(self, membership: Membership) -> Membership:
        """Keep a proven membership for the hive's next start; the first one is in place at once."""
        # The hive that runs writes its own, too, when it renews its certificate.
        kept = membership.path.rename(self._path if self.usable() is None else self._new)
        sync_folder(kept.parent)
        return membership._replace(path=kept)

    def adopt(self) -> bool:
        """As the hive starts: take over a membership that was kept for it, and keep the old one aside.

        Return True if the hive did not become ready with one that it took over before, and the old
        one is in place again. Raises OSError.
        """
        new, old = self._usable(self._new), self._usable(self._old) or self.usable()
        if new is not None:
            if old is None or old.is_replaced_by(new):
                self._old.unlink(missing_ok=True)
            elif not self._old.exists():
                # A second name and not a move: cut off here, all of this is done once more.
                os.link(self._path, self._old)
            self._new.rename(self._path)
        is_back = new is None and self._old.exists()
        if is_back:
            self._old.rename(self._path)
        if new is not None or is_back:
            sync_folder(self._path.parent)
        return is_back

    def has_new(self) -> bool:
        """Whether one is kept for the hive's next start."""
        return self._new.exists()

    def confirm(self) -> None:
        """The hive is ready: remove the old membership, to which it could have gone back. Raises OSError."""
        if self._old.exists():
            self._old.unlink()
            sync_folder(self._path.parent)

    def _usable(self, path: Path) -> Membership | None:
        try:
            return self._read(path)
        except BadConfig:
            return None

    async def renew(self, membership: Membership) -> Membership:
        """Get another certificate for the same key, and write it; raises RbeeError."""
        key, certificate = await certify(membership, self._scope)
        return keep(membership, key, certificate)

    def forget(self) -> None:
        """Remove the membership, if there is one; raises RbeeError."""
        with explained(self._path, "removed", RbeeError):
            self._path.unlink(missing_ok=True)


async def certify(membership: Membership, scope: Scope = SYSTEM) -> tuple[str, str]:
    """Return a membership's key and another certificate for it, signed by its queen; raises RbeeError.

    This changes nothing at the queen, and proves that the queen knows the credential.
    """
    from rbee.wire.fleet import Renew  # only for a queen on another machine

    key = key_of(membership.path.read_text())
    link = Link(membership.queen(), timeout=ASK_TIMEOUT, scope=scope)
    try:
        joined = await link.ask(FleetRoutes.RENEW, Renew(tls.request_for(key)))
    finally:
        await link.close()
    return key, joined.certificate


def keep(membership: Membership, key: str, certificate: str) -> Membership:
    """Write the file of a membership, and return it; BadConfig if it cannot be written."""
    stored = _Stored(membership.hive_id, membership.host, membership.port, membership.ca)
    head = f"# {json.dumps(encode(stored))}\n"
    content = f"{head}{key.strip()}\n{certificate.strip()}\n"
    with explained(membership.path, "written", BadConfig):
        write_whole(membership.path, content.encode(), mode=0o600)
    return membership


def read(path: Path) -> str | None:
    """Return the text of a file of the hive's; None if there is none. BadConfig if it cannot be read."""
    with explained(path, "read", BadConfig):
        try:
            return path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return None


def key_of(content: str) -> str:
    """Return the private key of a membership's text, as PEM; BadInput if it has none."""
    return _block(content, "PRIVATE KEY")


def certificate_of(content: str) -> str:
    """Return the certificate of a membership's text, as PEM; BadInput if it has none."""
    return _block(content, "CERTIFICATE")


def _block(content: str, what: str) -> str:
    found = re.search(
        rf"^-----BEGIN {what}-----\n.*?^-----END {what}-----$", content, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise BadInput(f"it has no {what.lower()}")
    return found[0]

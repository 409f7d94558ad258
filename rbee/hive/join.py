"""rbee-hive-join: takes up an invitation while the hive runs, and changes nothing for the hive if that fails.

The hive uses the new membership from its next start on; see rbee.hive.membership.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

from rbee import __version__, tls
from rbee.client.link import Link, QueenAddress
from rbee.errors import BadConfig, BadInput, RbeeError, TimedOut, Unreachable, WrongQueen
from rbee.files import explained, refused
from rbee.hive.membership import (
    ASK_TIMEOUT,
    Membership,
    Memberships,
    certificate_of,
    certify,
    keep,
    key_of,
    read,
)
from rbee.narration import JOIN_FAILED, JOINED_QUEEN, Journal
from rbee.scope import HIVE_UNIT, JOIN_UNIT, REMOTE, SYSTEM, Scope, program_of, scope_of
from rbee.server.daemon import run_daemon
from rbee.systemd.daemon import Notifier, state_directory
from rbee.systemd.links import invocation_of
from rbee.wire.codec import decode
from rbee.wire.fleet import Join
from rbee.wire.routes import INSTANCE_HEADER, FleetRoutes
from rbee.wire.types import Host, Limit, MachineId, Name, Port

WHERE_SHE_IS = f"For the queen's address, on its machine: {REMOTE.rbeectl('tcp status')}"

APPLICATION = bytes.fromhex("6f1b9a27c3f84e5d9b40ae7d152c8e36")
"""Makes an id from a machine-id without revealing it (sd_id128_get_machine_app_specific(3))."""


class Invitation(NamedTuple):
    """Without a `token` it is for a hive whose queen has moved: the hive keeps its credential."""

    host: Host
    port: Port
    name: Name | None = None
    token: Annotated[str, Limit(1, 200)] | None = None


class Guest:
    """Takes up the invitation of a state directory. `instance` returns that of the running hive, or None."""

    def __init__(
        self,
        folder: Path,
        *,
        machine_id: Path = Path("/etc/machine-id"),
        instance: Callable[[], str | None] | None = None,
        scope: Scope = SYSTEM,
    ) -> None:
        self._invitation = folder / "invitation"
        self._memberships = Memberships(folder, scope)
        self._scope = scope
        self._machine_id = machine_id
        self._instance = instance or (lambda: invocation_of(HIVE_UNIT, scope=scope))

    async def take_up_invitation(self) -> Membership | None:
        """Join as an invitation says, and return the membership; None if there is no invitation.

        An invitation is taken up once, even if that fails. Raises RbeeError; the present membership
        is then unchanged. The new one is proven by a request to the queen, and is the hive's from its
        next start.
        """
        invitation = self._take_invitation()
        if invitation is None:
            return None
        old = self._memberships.usable()
        try:
            if not invitation.token:
                return await self._offer(await self._move(invitation), old)
            return await self._join(invitation, old)
        except OSError as error:
            raise refused(error, self._memberships.unproven, "written", BadConfig) from error

    async def _offer(self, joined: Membership, old: Membership | None) -> Membership:
        try:
            await certify(joined, self._scope)
        except RbeeError:
            # The queen no longer accepts the old credential, and the new one is all that there is.
            if old is None or not old.is_replaced_by(joined):
                joined.path.unlink()
                raise
        return self._memberships.offer(joined)

    def _take_invitation(self) -> Invitation | None:
        content = read(self._invitation)
        if content is None:
            return None
        # First of all: interrupted later, it is not taken up again.
        with explained(self._invitation, "removed", BadConfig):
            self._invitation.unlink(missing_ok=True)
        try:
            return decode(Invitation, json.loads(content))
        except (ValueError, BadInput) as error:
            raise BadConfig(
                f"{self._invitation} is not a valid invitation: {error}", hint=self._scope.rejoin
            ) from error

    async def _join(self, invitation: Invitation, old: Membership | None) -> Membership:
        token = invitation.token or ""
        *_, fingerprint = tls.read_token(token)
        ca = await self._ca(invitation, fingerprint)
        key = tls.new_key()
        asked = Join(token, invitation.name or own_name(), self._machine(), tls.request_for(key), __version__)
        queen = QueenAddress(invitation.host, invitation.port, tls.client_context(ca, None, None))
        headers: dict[str, str] = {}
        if old is not None and old.ca == ca and await self._is_taken(moved := _at(old, invitation)):
            # The hive is connected, and the queen would take a second one for a copy of it.
            queen, headers = moved.queen(), {INSTANCE_HEADER: self._instance() or ""}
        path = self._memberships.unproven
        is_same_queen = old is not None and old.ca == ca
        with _stop_put_off() if is_same_queen else nullcontext():
            # Only now, over a connection that is known to be to the queen, is the token sent.
            link = Link(queen, timeout=ASK_TIMEOUT, scope=self._scope)
            try:
                joined = await link.ask(FleetRoutes.JOIN, asked, headers=headers)
            finally:
                await link.close()
            membership = Membership(joined.hive_id, invitation.host, invitation.port, ca, path)
            return await self._offer(keep(membership, key, joined.certificate), old)

    async def _ca(self, invitation: Invitation, fingerprint: str) -> str:
        address = QueenAddress(invitation.host, invitation.port, tls.trusting_context())
        content = await self._ask_ca(address)
        ca = content.decode(errors="replace")
        if not tls.has_fingerprint(ca, fingerprint):
            raise WrongQueen(
                f"the server at {address} is not the queen that the token is from",
                hint="Check the address, or make a new token on the queen's machine: "
                + REMOTE.rbeectl("token create"),
            )
        return ca

    async def _is_taken(self, membership: Membership) -> bool:
        """Whether the queen accepts this credential; it breaks off where the certificate has expired."""
        try:
            await self._ask_ca(membership.queen())
        except RbeeError:
            return False
        return True

    async def _ask_ca(self, queen: QueenAddress) -> bytes:
        link = Link(queen, timeout=ASK_TIMEOUT, scope=self._scope)
        try:
            content: bytes = await link.ask(FleetRoutes.CA)
        finally:
            await link.close()
        return content

    async def _move(self, invitation: Invitation) -> Membership:
        """Write the membership for the same queen at another address; the credential proves that it is."""
        membership = self._memberships.load()
        if membership is None:
            raise BadConfig(
                "without a token only a hive that has joined can follow its queen", hint=self._scope.rejoin
            )
        content = membership.path.read_text()
        moved = _at(membership, invitation)._replace(path=self._memberships.unproven)
        return keep(moved, key_of(content), certificate_of(content))

    def _machine(self) -> str:
        """As systemd-id128 machine-id --app-specific= prints it."""
        try:
            machine_id = decode(MachineId, self._machine_id.read_text().strip())
        except (OSError, BadInput) as error:
            raise BadConfig(
                f"{self._machine_id} is not a valid machine-id: {error}",
                hint="sudo systemd-machine-id-setup",
            ) from error
        digest = bytearray(hmac.new(bytes.fromhex(machine_id), APPLICATION, hashlib.sha256).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x40
        digest[8] = digest[8] & 0x3F | 0x80
        return digest.hex()


@contextmanager
def _stop_put_off() -> Iterator[None]:
    """Ignore SIGTERM: once the queen has the token, it no longer accepts the old credential.

    What is left are two requests of ASK_TIMEOUT at most; TimeoutStopSec= of the unit is longer.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _at(membership: Membership, invitation: Invitation) -> Membership:
    return membership._replace(host=invitation.host, port=invitation.port)


def own_name() -> str:
    """Return the name of this machine's hive: the host name up to the first dot."""
    return socket.gethostname().partition(".")[0]


async def run(notifier: Notifier, journal: Journal, scope: Scope = SYSTEM) -> None:
    """Accept the invitation, if there is one; raises RbeeError."""
    notifier.status("joining")
    try:
        joined = await Guest(state_directory(scope.hive_state), scope=scope).take_up_invitation()
    except RbeeError as error:
        hint = error.hint
        if hint is None and isinstance(error, Unreachable | TimedOut):
            hint = WHERE_SHE_IS  # mostly the address is mistyped
        # Not tried again by systemd: a token may be spent, and a person waits for the answer.
        raise BadConfig(f"joining failed: {error.message}", hint=hint) from error
    if joined is not None:
        text = f"this machine is the hive {joined.hive_id} of the queen at {joined.queen()}"
        journal.narrate(JOINED_QUEEN, text, hive=joined.hive_id)


def main() -> int:
    """The program rbee-hive-join."""
    return run_daemon(program_of(JOIN_UNIT), JOIN_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())

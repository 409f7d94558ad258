"""Who may be a hive on another machine: tokens, credentials, joins and connections."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from dataclasses import replace

from rbee import __version__, tls
from rbee.errors import (
    BadInput,
    BadToken,
    CatalogFailed,
    ClonedHive,
    NameTaken,
    NotPermitted,
    TooMany,
    UnknownHive,
    VersionSkew,
)
from rbee.narration import HIVE_CLONED, HIVE_JOINED, JOIN_REFUSED, Event, Narrator
from rbee.queen.access import TcpAccess
from rbee.queen.authority import Identity
from rbee.queen.hives.hives import Hives
from rbee.queen.restraint import Restraint, network_of
from rbee.queen.store.records import Actor, Joining, Row, now_ms
from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from rbee.server.peer import RemotePeer
from rbee.uplink.accept import Uplink
from rbee.wire.fleet import CreatedToken, CreateToken, Join, Joined, TokenView
from rbee.wire.hives import Heartbeat, HeartbeatAck
from rbee.wire.types import LOCALHOST, is_same_name

log = logging.getLogger("rbee")


class Fleet:
    """Tokens, credentials, and the connections that are made with them."""

    def __init__(
        self,
        access: TcpAccess,
        catalog: Store,
        hives: Hives,
        narrator: Narrator,
        restraint: Restraint,
    ) -> None:
        self._access = access
        self._catalog = catalog
        self._hives = hives
        self._narrator = narrator
        self._restraint = restraint
        self._members: dict[str, str] = {}
        """Each credential's hive."""
        hives.when_removed(self._forget)

    async def load(self) -> None:
        """Take up the credentials of the catalog."""
        rows = await self._catalog.hives.all()
        self._members = {credential: row.id for row in rows for credential in row.credentials}

    # Tokens

    async def create_token(self, asked: CreateToken, by: Actor) -> CreatedToken:
        fingerprint = self._access.authority.fingerprint
        if is_same_name(LOCALHOST, asked.hive):
            raise _reserved("hive")
        token_id, secret, now = secrets.token_hex(4), secrets.token_urlsafe(24), now_ms()
        token = TokenView(token_id, asked.hive, asked.uses, now, now + asked.ttl_s * 1000, is_revoked=False)
        await self._catalog.tokens.add(token, _hash(secret), by=by)
        return CreatedToken(tls.token_text(token_id, secret, fingerprint), token)

    # Those who come

    def hive_of(self, peer: RemotePeer) -> str:
        """The hive whose credential this is; UnknownHive where it was removed."""
        found = self._members.get(peer.credential or "")
        if found is None:
            raise UnknownHive(
                "this machine was removed from the hive catalog, or joined anew under another credential",
                hint=f"To join again: {SYSTEM.rejoin}",
            )
        return found

    def check_joins(self, peer: RemotePeer) -> None:
        """TooMany where so many joins of this address were refused that no other is looked at now."""
        if self._restraint.joins.has(network_of(peer.address)):
            return
        told = f"{peer.address} may not join: too many of its joins were refused"
        self._tell_refusal(JOIN_REFUSED, told, peer)
        raise TooMany(f"too many joins from {peer.address} were refused", hint="Try again in a minute.")

    def join_failed(self, peer: RemotePeer) -> None:
        """Count a join of this address that was refused, for whatever reason."""
        self._restraint.joins.take(network_of(peer.address))

    async def join(self, asked: Join, peer: RemotePeer, instance: str | None = None) -> Joined:
        """A hive that asks for its name in another case keeps the one that it has.

        `instance` is of the process that the machine says to run as the hive while it joins anew.
        """
        asked = replace(asked, name=self._hives.spelled(asked.name))
        try:
            return await self._join(asked, peer, instance)
        except ClonedHive as error:
            self._tell_refusal(HIVE_CLONED, error.message, peer, hive=asked.name)
            raise
        except (BadToken, NameTaken, VersionSkew) as error:
            told = f"{peer.address} may not join as {asked.name}: {error.message}"
            self._tell_refusal(JOIN_REFUSED, told, peer)
            raise

    def _tell_refusal(self, event: Event, text: str, peer: RemotePeer, **about: str) -> None:
        source = peer.credential or network_of(peer.address)
        self._restraint.folded.tell(event, text, source=source, **about, **peer.fields)

    async def _join(self, asked: Join, peer: RemotePeer, instance: str | None) -> Joined:
        check_version(asked.version, asked.name)
        if asked.name == LOCALHOST:
            raise _reserved(
                "name",
                hint=f"By a name of its own: {SYSTEM.rejoin} --name NAME",
            )
        token_id, secret, fingerprint = tls.read_token(asked.token)
        if fingerprint != self._access.authority.fingerprint:
            raise BadToken(
                "the token is another queen's", hint="On this queen's machine: rbeectl token create"
            )
        credential = secrets.token_hex(8)
        joining = Joining(asked.name, asked.machine, credential, peer.address, token_id, _hash(secret))
        # The token before all that costs something: a request is read and signed for who has one.
        await self._catalog.hives.check_join(joining)
        if not self._is_beside(asked.name, peer, instance):
            await self._hives.uplinks.check_free(asked.name, peer.address)
        certificate = await asyncio.to_thread(
            self._access.authority.sign, asked.request, Identity(asked.name, credential)
        )
        row = await self._catalog.hives.join(joining, by={**peer.fields, "actor_credential": credential})
        self._learn(row)
        # It proves its credential by a renewal, and for each join an operator gave a token.
        self._restraint.renewals.renew(row.id)
        self._hives.has_joined(row)
        told = f"the beehive {row.id} has joined from {peer.address}"
        self._narrator.narrate(HIVE_JOINED, told, hive=row.id, **peer.fields)
        return Joined(row.id, certificate)

    def _is_beside(self, hive_id: str, peer: RemotePeer, instance: str | None) -> bool:
        """Is it of the machine on which that hive lives, and no copy? It has its credential, and knows which
        process is connected."""
        uplink = self._hives.uplinks.find(hive_id)
        is_it = self._members.get(peer.credential or "") == hive_id
        return is_it and uplink is not None and uplink.instance == instance

    async def renew(self, request: str, peer: RemotePeer) -> Joined:
        """Another certificate for the same credential, whose hive may have had enough of the old one."""
        hive_id = self.hive_of(peer)
        assert peer.credential is not None
        if not self._restraint.renewals.take(hive_id):
            self._restraint.beyond(hive_id, "asks for certificates more often than it gets one")
            raise TooMany(f"the beehive {hive_id} has had too many certificates", hint="Ask again later.")
        identity = Identity(hive_id, peer.credential)
        return Joined(hive_id, await asyncio.to_thread(self._access.authority.sign, request, identity))

    async def connect(self, peer: RemotePeer, instance: str, version: str) -> Uplink:
        """A hive's control connection, to be.

        ClonedHive where another process of that identity lives, VersionSkew for one too old or too new."""
        try:
            hive_id = self.hive_of(peer)
        except UnknownHive:
            await self._note_unknown(peer)
            raise
        try:
            check_version(version, hive_id)
        except VersionSkew as error:
            await self._hives.remote_hive(hive_id).refused(error)
            raise
        if not self._restraint.streams.take(hive_id):
            self._restraint.beyond(hive_id, "connects more often than it is let in: does its network break?")
            raise TooMany(f"the beehive {hive_id} connects too often", hint="Dial again later.")

        async def heard(beat: Heartbeat) -> HeartbeatAck:
            return await self._heartbeat(beat, peer, instance)

        uplink = Uplink(hive_id, instance, peer.address, heard)
        try:
            await self._hives.uplinks.take(uplink)
        except ClonedHive as error:
            self._tell_refusal(HIVE_CLONED, error.message, peer, hive=hive_id)
            raise
        hive = self._hives.remote_hive(hive_id)
        hive.taken()
        try:
            await self._catalog.hives.set_address(hive_id, peer.address, peer.credential, by=peer.fields)
            await hive.standing.reload()
            self._learn(hive.standing.row)
        except CatalogFailed as error:
            # It lives there all the same; the next connection has it written.
            log.error(
                "hive %s is at %s, and that could not be stored: %s", hive_id, peer.address, error.message
            )
        return uplink

    async def refuse_older(self, peer: RemotePeer, version: str) -> VersionSkew:
        """What to raise for a hive of before 0.5.0, which does not connect as hives do now."""
        hive_id = self.hive_of(peer)
        error = VersionSkew(
            f"the beehive {hive_id} has version {version or 'unknown'}, and does not know how hives connect "
            f"to a queen of {__version__}",
            hint=_upgrade(hive_id, "rbee-hive"),
        )
        await self._hives.remote_hive(hive_id).refused(error)
        return error

    async def _heartbeat(self, beat: Heartbeat, peer: RemotePeer, instance: str) -> HeartbeatAck:
        hive_id = self.hive_of(peer)
        if (beat.hive_id, beat.instance) != (hive_id, instance):
            raise NotPermitted(f"this is the connection of the hive {hive_id}, and of no other", hint=None)
        return await self._hives.heartbeat(beat, peer.fields)

    async def _note_unknown(self, peer: RemotePeer) -> None:
        """Of a hive that is in the catalog, and comes with another credential than the catalog has.

        While that hive is connected it is another machine that comes, and changes nothing.
        """
        hive_id = self._hives.spelled(peer.hive_id or "")
        if not self.is_member(hive_id) or self._hives.uplinks.find(hive_id) is not None:
            return
        error = UnknownHive(
            f"the beehive {hive_id} comes from {peer.address} with a credential that is not in the hive "
            "catalog: it joined after the backup that was restored, or was removed since",
            hint=f"rbeectl add-hive {hive_id}",
        )
        await self._hives.remote_hive(hive_id).refused(error)

    def is_member(self, hive_id: str) -> bool:
        return hive_id in self._members.values()

    def _learn(self, row: Row) -> None:
        self._forget(row.id)
        self._members |= dict.fromkeys(row.credentials, row.id)

    def _forget(self, hive_id: str) -> None:
        """None of its credentials is valid any more."""
        for credential, member in list(self._members.items()):
            if member == hive_id:
                del self._members[credential]


def check_version(version: str, hive_id: str) -> None:
    """VersionSkew where it and the queen's are more than one minor version apart."""
    theirs, ours = _minor(version), _minor(__version__)
    if theirs[0] == ours[0] and abs(theirs[1] - ours[1]) <= 1:
        return
    is_older = theirs < ours
    machine, package = (hive_id, "rbee-hive") if is_older else ("the queen's machine", "rbee-queen")
    raise VersionSkew(
        f"the beehive {hive_id} has version {version or 'unknown'}, and the queen {__version__}: "
        f"they may be one minor version apart, and {package} on {machine} is the older",
        hint=_upgrade(machine, package),
    )


def _upgrade(machine: str, package: str) -> str:
    # By their files: no repository need have them.
    return f"On {machine}: sudo apt install ./python3-rbee_*.deb ./{package}_*.deb ./rbeectl_*.deb"


def _minor(version: str) -> tuple[int, int]:
    """Major and minor; of what is no version less than of any."""
    found = re.match(r"([0-9]{1,5})\.([0-9]{1,5})(?![0-9])", version)
    return (int(found[1]), int(found[2])) if found else (-1, 0)


def _hash(secret: str) -> str:
    # The secret has 192 random bits: there is nothing that a slow hash would make harder to guess.
    return hashlib.sha256(secret.encode()).hexdigest()


def _reserved(field: str, hint: str | None = None) -> BadInput:
    told = f"{field} must not be {LOCALHOST}: that is the queen's own machine"
    return BadInput(told, hint=hint, field=field)

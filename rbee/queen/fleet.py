"""Which machines may be remote hives: tokens, credentials, joins and connections."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from functools import partial
from typing import TYPE_CHECKING

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
from rbee.scope import REMOTE, Scope
from rbee.server.peer import RemotePeer
from rbee.uplink.accept import Uplink
from rbee.wire.fleet import CreatedToken, CreateToken, Join, Joined, Tcp, TokenView
from rbee.wire.types import LOCALHOST, is_same_name

if TYPE_CHECKING:
    from rbee.wire.heartbeats import Heartbeat, HeartbeatAck

log = logging.getLogger("rbee")


class Fleet:
    """Creates tokens, accepts joins, and admits the connections of hives by their credentials."""

    def __init__(
        self,
        access: TcpAccess,
        catalog: Store,
        hives: Hives,
        narrator: Narrator,
        restraint: Restraint,
        scope: Scope,
    ) -> None:
        self._scope = scope
        self._access = access
        self._catalog = catalog
        self._hives = hives
        self._narrator = narrator
        self._restraint = restraint
        self._members: dict[str, str] = {}
        """Credential -> hive id; a hive that has joined again may have two."""
        self._credentials: dict[str, tuple[str, ...]] = {}
        """Hive id -> its credentials."""
        hives.when_removed(self._forget)

    async def load(self) -> None:
        """Learn the credentials of the hives, and revoke the tokens of a CA that was replaced."""
        for hive in self._hives.remote():
            self._learn(hive.standing.row)
        try:
            if self._access.fingerprint is not None:
                await self._catalog.tokens.keep_to(self._access.fingerprint)
        except CatalogFailed as error:
            log.error("tokens of another CA are not revoked: %s", error.message)

    async def set_tcp(self, is_open: bool) -> Tcp:
        """As TcpAccess.set(), which may make a CA."""
        tcp = await self._access.set(is_open)
        if tcp.fingerprint is not None:
            await self._catalog.tokens.keep_to(tcp.fingerprint)
        return tcp

    # Tokens

    async def create_token(self, asked: CreateToken, by: Actor) -> CreatedToken:
        """Create a token; BadInput for the name localhost, TcpClosed, or TooMany if too many are valid."""
        fingerprint = self._access.authority.fingerprint
        if is_same_name(LOCALHOST, asked.hive):
            raise _reserved("hive")
        token_id, secret, now = secrets.token_hex(4), secrets.token_urlsafe(24), now_ms()
        token = TokenView(token_id, asked.hive, asked.uses, now, now + asked.ttl_s * 1000, is_revoked=False)
        await self._catalog.tokens.add(token, _hash(secret), by=by)
        return CreatedToken(tls.token_text(token_id, secret, fingerprint), token)

    # Joins and connections

    def hive_of(self, peer: RemotePeer) -> str:
        """Return the id of the hive with this credential; UnknownHive if it was removed."""
        hive_id = self._members.get(peer.credential or "")
        if hive_id is None:
            raise UnknownHive(
                "this machine was removed from the hive catalog, or joined anew under another credential",
                hint=f"To join again: {REMOTE.rejoin}",
            )
        return hive_id

    def check_joins(self, peer: RemotePeer) -> None:
        """Raise TooMany if too many joins from this address were refused lately."""
        if self._restraint.joins.has(network_of(peer.address)):
            return
        text = f"{peer.address} may not join: too many of its joins were refused"
        self._narrate_refusal(JOIN_REFUSED, text, peer)
        raise TooMany(f"too many joins from {peer.address} were refused", hint="Try again in a minute.")

    def join_failed(self, peer: RemotePeer) -> None:
        """Count a refused join from this address, whatever the reason."""
        self._restraint.joins.take(network_of(peer.address))

    async def join(self, asked: Join, peer: RemotePeer, instance: str | None = None) -> Joined:
        """Make a machine a hive and sign its certificate; a known hive keeps its spelling of the name.

        `instance` is that of the hive process which the machine still runs while it joins again. Raises
        BadInput, BadToken, NameTaken, ClonedHive or VersionSkew.
        """
        asked = asked._replace(name=self._hives.spelled(asked.name))
        try:
            return await self._join(asked, peer, instance)
        except ClonedHive as error:
            self._narrate_refusal(HIVE_CLONED, error.message, peer, hive=asked.name)
            raise
        except (BadToken, NameTaken, VersionSkew) as error:
            text = f"{peer.address} may not join as {asked.name}: {error.message}"
            self._narrate_refusal(JOIN_REFUSED, text, peer)
            raise

    def _narrate_refusal(self, event: Event, text: str, peer: RemotePeer, **about: str) -> None:
        source = peer.credential or network_of(peer.address)
        self._restraint.folded.report(event, text, source=source, **about, **peer.fields)

    async def _join(self, asked: Join, peer: RemotePeer, instance: str | None) -> Joined:
        check_version(asked.version, asked.name)
        if asked.name == LOCALHOST:
            raise _reserved("name", hint=f"Under a name of its own: {REMOTE.rejoin} --name NAME")
        token_id, secret, fingerprint = tls.read_token(asked.token)
        if fingerprint != self._access.authority.fingerprint:
            hint = f"On this queen's machine: {self._scope.rbeectl('token create')}"
            raise BadToken("the token is another queen's", hint=hint)
        credential = secrets.token_hex(8)
        joining = Joining(asked.name, asked.machine, credential, peer.address, token_id, _hash(secret))
        # The token first: reading and signing a request costs time, which only its holder may use.
        await self._catalog.hives.check_join(joining)
        if not self._is_beside(asked.name, peer, instance):
            await self._hives.uplinks.check_free(asked.name, peer.address)
        certificate = await asyncio.to_thread(
            self._access.authority.sign, asked.request, Identity(asked.name, credential)
        )
        row = await self._catalog.hives.join(joining, by={**peer.fields, "actor_credential": credential})
        self._learn(row)
        # The hive proves its credential by a renewal; an operator allowed this join by a token.
        self._restraint.renewals.renew(row.id)
        self._hives.has_joined(row)
        text = f"the beehive {row.id} has joined from {peer.address}"
        self._narrator.narrate(HIVE_JOINED, text, hive=row.id, **peer.fields)
        return Joined(row.id, certificate)

    def _is_beside(self, hive_id: str, peer: RemotePeer, instance: str | None) -> bool:
        """Is this the machine of the connected hive, and not a copy: same credential, same process?"""
        uplink = self._hives.uplinks.find(hive_id)
        has_credential = self._members.get(peer.credential or "") == hive_id
        return has_credential and uplink is not None and uplink.instance == instance

    async def renew(self, request: str, peer: RemotePeer) -> Joined:
        """Sign another certificate for the same credential; TooMany if the hive asks too often."""
        hive_id = self.hive_of(peer)
        assert peer.credential is not None
        if not self._restraint.renewals.take(hive_id):
            self._restraint.beyond(hive_id, "asks for certificates more often than it gets one")
            raise TooMany(f"the beehive {hive_id} has had too many certificates", hint="Ask again later.")
        identity = Identity(hive_id, peer.credential)
        return Joined(hive_id, await asyncio.to_thread(self._access.authority.sign, request, identity))

    async def connect(self, peer: RemotePeer, instance: str, version: str) -> Uplink:
        """Accept a hive and return the Uplink that its connection becomes; `instance` is its process.

        Raises UnknownHive, VersionSkew, TooMany, or ClonedHive if another process with this identity lives.
        """
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
            self._restraint.beyond(hive_id, "connects too often; its network may be unstable")
            raise TooMany(f"the beehive {hive_id} connects too often", hint="Dial again later.")

        take_beat = partial(self._heartbeat, peer, instance)
        uplink = Uplink(hive_id, instance, peer.address, take_beat, partial(self._plain, peer, instance))
        try:
            await self._hives.uplinks.take(uplink)
        except ClonedHive as error:
            self._narrate_refusal(HIVE_CLONED, error.message, peer, hive=hive_id)
            raise
        hive = self._hives.remote_hive(hive_id)
        hive.accepted()
        if await hive.standing.store_address(peer.address, peer.credential, peer.fields):
            self._learn(hive.standing.row)
        return uplink

    async def refuse_older(self, peer: RemotePeer, version: str) -> VersionSkew:
        """Return the error for a hive older than 0.5.0, which connects in the old way."""
        hive_id = self.hive_of(peer)
        error = VersionSkew(
            f"the beehive {hive_id} has version {version or 'unknown'}, and cannot connect to a queen "
            f"of version {__version__}",
            hint=_upgrade(hive_id, "rbee-hive"),
        )
        await self._hives.remote_hive(hive_id).refused(error)
        return error

    def _plain(self, peer: RemotePeer, instance: str, beat: Heartbeat) -> HeartbeatAck | None:
        """As Hive.take_plain(), for a connection of the hive with this peer's credential."""
        hive_id = self._members.get(peer.credential or "")
        hive = self._hives.find(beat.hive_id)
        if hive is None or hive.id != hive_id or beat.instance != instance:
            return None
        return hive.take_plain(beat)

    async def _heartbeat(self, peer: RemotePeer, instance: str, beat: Heartbeat) -> HeartbeatAck:
        hive_id = self.hive_of(peer)
        if (beat.hive_id, beat.instance) != (hive_id, instance):
            raise NotPermitted(f"this connection is only for the hive {hive_id}", hint=None)
        return await self._hives.heartbeat(beat, peer.fields)

    async def _note_unknown(self, peer: RemotePeer) -> None:
        """Refuse a hive in the catalog that shows another credential than the catalog has.

        While that hive is connected, the peer is some other machine and the hive's state stays.
        """
        hive_id = self._hives.spelled(peer.hive_id or "")
        if not self.is_member(hive_id) or self._hives.uplinks.find(hive_id) is not None:
            return
        error = UnknownHive(
            f"the beehive {hive_id} comes from {peer.address} with a credential that is not in the hive "
            "catalog: it joined after the backup that was restored, or was removed since",
            hint=self._scope.rbeectl(f"add-hive {hive_id}"),
        )
        await self._hives.remote_hive(hive_id).refused(error)

    def is_member(self, hive_id: str) -> bool:
        """Has this hive joined from another machine?"""
        return hive_id in self._credentials

    def _learn(self, row: Row) -> None:
        self._forget(row.id)
        if row.credentials:
            self._credentials[row.id] = row.credentials
            self._members |= dict.fromkeys(row.credentials, row.id)

    def _forget(self, hive_id: str) -> None:
        """Accept its credentials no longer."""
        for credential in self._credentials.pop(hive_id, ()):
            self._members.pop(credential, None)


def check_version(version: str, hive_id: str) -> None:
    """Raise VersionSkew if a hive and the queen are more than one minor version apart."""
    theirs, ours = _minor(version), _minor(__version__)
    if theirs[0] == ours[0] and abs(theirs[1] - ours[1]) <= 1:
        return
    is_older = theirs < ours
    machine, package = (hive_id, "rbee-hive") if is_older else ("the queen's machine", "rbee-queen")
    raise VersionSkew(
        f"the beehive {hive_id} has version {version or 'unknown'}, and the queen {__version__}: "
        f"they may be at most one minor version apart, and {package} on {machine} is the older",
        hint=_upgrade(machine, package),
    )


def _upgrade(machine: str, package: str) -> str:
    # By file names: the packages may be in no repository that apt knows.
    return f"On {machine}: sudo apt install ./python3-rbee_*.deb ./{package}_*.deb ./rbeectl_*.deb"


def _minor(version: str) -> tuple[int, int]:
    """Return major and minor; (-1, 0), less than any version, if it is not a version."""
    match = re.match(r"([0-9]{1,5})\.([0-9]{1,5})(?![0-9])", version)
    return (int(match[1]), int(match[2])) if match else (-1, 0)


def _hash(secret: str) -> str:
    # The secret has 192 random bits: a slow hash would not make it harder to guess.
    return hashlib.sha256(secret.encode()).hexdigest()


def _reserved(field: str, hint: str | None = None) -> BadInput:
    message = f"{field} must not be {LOCALHOST}: that is the queen's own machine"
    return BadInput(message, hint=hint, field=field)

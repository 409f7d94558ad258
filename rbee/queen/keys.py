"""The keys of the gateway's clients, in RAM as in the catalog: checking one reads nothing from the disk.

Uses are counted exactly in RAM. They are written at most once in WRITE_INTERVAL, and at the queen's end: a
queen that is killed loses those of the last minute. The audit has a summary of each key's use within
WRITE_INTERVAL of the first, then at most once in AUDIT_INTERVAL_MS.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field

from rbee.errors import BadKey, CatalogFailed, KeyNotForModel
from rbee.queen.store.keys import KeyRow, Use
from rbee.queen.store.records import Actor, free_name, now_ms
from rbee.queen.store.store import Store
from rbee.scope import Scope
from rbee.text import printable
from rbee.wire.keys import CreatedKey, CreateKey, Keys, KeyView

log = logging.getLogger("rbee")

PREFIX = "rbee-sk-"
"""How the text of a key begins, so that programs which look for leaked secrets find it."""

SECRET_BYTES = 32

WRITE_INTERVAL = 60.0
"""Seconds at least between two writes of how keys are used."""

AUDIT_INTERVAL_MS = 3_600_000
"""Milliseconds at least between two entries in the audit about the use of one key."""

SHOWN_MAX = 5
"""Models and addresses that an entry in the audit names."""


@dataclass
class _Key:
    """A key, and its uses that are not in the audit yet."""

    row: KeyRow
    is_written: bool = True
    models: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    audited_ms: int | None = None
    unwritten: str | None = None
    """A summary that could not be written."""

    def used(self, model: str, address: str | None, now: int) -> None:
        self.row = self.row._replace(uses=self.row.uses + 1, last_used_ms=now)
        self.is_written = False
        self.models[model] += 1
        if address is not None and (address in self.addresses or len(self.addresses) < 1000):
            self.addresses[address] += 1

    def summary(self, now: int, *, is_last: bool) -> str | None:
        """Return the summary for the audit and begin the next; None if none is due."""
        if self.unwritten is not None:
            text, self.unwritten = self.unwritten, None
            return text
        is_due = is_last or self.audited_ms is None or now - self.audited_ms >= AUDIT_INTERVAL_MS
        if not self.models or not is_due:
            return None
        uses = self.models.total()
        text = f"key {self.row.name} was used {'once' if uses == 1 else f'{uses} times'}"
        text += f", for {_most(self.models)}"
        if self.addresses:
            text += f", from {_most(self.addresses)}"
        self.audited_ms = now
        self.models.clear()
        self.addresses.clear()
        return text


class ClientKeys:
    """The keys that are kept, by name and by the hash of their texts."""

    def __init__(self, catalog: Store, scope: Scope) -> None:
        self._catalog = catalog
        self._scope = scope
        self._keys: dict[str, _Key] = {}
        self._by_hash: dict[str, _Key] = {}
        self._writing = asyncio.Lock()
        self._used = asyncio.Event()

    async def load(self) -> None:
        """Load the keys from the catalog."""
        rows = await self._catalog.keys.all()
        for row in sorted(rows, key=lambda row: row.problem is not None):  # readable names first
            self._take(row._replace(name=free_name(row.name, self._keys)))

    async def run(self) -> None:
        """Write how keys are used, until cancelled."""
        while True:
            await self._used.wait()
            await asyncio.sleep(WRITE_INTERVAL)
            await self.write()

    async def write(self, *, is_last: bool = False) -> None:
        """Write how keys were used since the last time; a failure is logged, and it is tried again later."""
        async with self._writing:
            self._used.clear()
            now = now_ms()
            used = [key for key in self._keys.values() if not key.is_written or (is_last and key.models)]
            if not used:
                return
            uses = {
                key.row.name: Use(
                    key.row.uses, key.row.last_used_ms or now, key.summary(now, is_last=is_last)
                )
                for key in used
            }
            for key in used:
                key.is_written = True
            try:
                await self._catalog.keys.note_uses(uses)
            except CatalogFailed as error:
                log.error("how keys were used could not be stored, retrying: %s", error.message)
                for key in used:
                    key.is_written, key.unwritten = False, uses[key.row.name].text
                self._used.set()

    # For requests

    def check(
        self, key_hash: str | None, model: str | None, *, address: str | None = None, counts: bool = True
    ) -> KeyRow:
        """Return the key whose text has this SHA-256, in hexadecimal digits, if it is valid for the model.

        With `counts` and a model this is a use, by a client at `address`. Raises BadKey if the key is not
        known, has expired, or is revoked, and KeyNotForModel.
        """
        hint = f"On the queen's machine: {self._scope.rbeectl('key create NAME')}"
        if key_hash is None:
            raise BadKey("the request has no key", hint=hint)
        key = self._by_hash.get(key_hash)
        if key is None:
            raise BadKey("this queen did not issue the key", hint=hint)
        now = now_ms()
        fault = key.row.why_useless(now)
        if fault is not None:
            raise BadKey(f"the key {key.row.name} {fault}", hint=hint)
        if model is not None:
            self._check_model(key.row, model)
            if counts:
                key.used(model, address, now)
                self._used.set()
        return key.row

    def _check_model(self, row: KeyRow, model: str) -> None:
        if not row.is_for(model):
            raise KeyNotForModel(
                f"the key {row.name} is not for the model {printable(model)[:100]}",
                hint=f"It is for: {', '.join(row.models)}",
                field="model",
            )

    # For operators

    def all(self) -> Keys:
        """Return the keys as operators see them."""
        return Keys(tuple(_view(key.row) for _, key in sorted(self._keys.items())))

    def uses(self) -> dict[str, int]:
        """Return how often each key was used in all."""
        return {name: key.row.uses for name, key in sorted(self._keys.items())}

    async def create(self, asked: CreateKey, by: Actor) -> CreatedKey:
        """Make a key, and return it with its text, which is not kept. Raises NameTaken or TooMany."""
        text, now = PREFIX + secrets.token_urlsafe(SECRET_BYTES), now_ms()
        expires = None if asked.ttl_s is None else now + asked.ttl_s * 1000
        row = KeyRow(
            asked.name, hash_of(text), asked.models, now, expires, is_revoked=False, uses=0, last_used_ms=None
        )
        async with self._writing:  # or uses of the former key of this name would become its own
            dropped = await self._catalog.keys.add(row, by=by)
            for name in (row.name, *dropped):
                self._drop(name)
            self._take(row)
        return CreatedKey(row.name, text, row.models, row.expires_at_ms)

    async def revoke(self, name: str, by: Actor) -> KeyView:
        """Revoke a key, and return it; the next request with it is refused. Raises UnknownKey."""
        key = self._keys.get(name)
        if key is not None:
            # Even if the catalog cannot be written now.
            key.row = key.row._replace(is_revoked=True)
        stored = await self._catalog.keys.revoke(name, by=by)
        return _view(stored if key is None else key.row)

    def _take(self, row: KeyRow) -> None:
        self._keys[row.name] = self._by_hash[row.hash] = _Key(row)

    def _drop(self, name: str) -> None:
        key = self._keys.pop(name, None)
        if key is not None:
            self._by_hash.pop(key.row.hash, None)


def hash_of(text: str) -> str:
    """Return the SHA-256 of a key's text, by which it is stored.

    The text has 256 random bits: a slow hash would not make it harder to guess.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def _view(row: KeyRow) -> KeyView:
    return KeyView(
        row.name, row.models, row.created_at_ms, row.expires_at_ms, row.is_revoked, row.uses,
        row.last_used_ms, row.problem,
    )  # fmt: skip


def _most(counted: Counter[str]) -> str:
    """Return the most frequent names, and how many others there are."""
    shown = ", ".join(printable(name) for name, _ in counted.most_common(SHOWN_MAX))
    others = len(counted) - SHOWN_MAX
    return f"{shown} and {others} more" if others > 0 else shown

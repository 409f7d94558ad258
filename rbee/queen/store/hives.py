"""The hives in the catalog, and the rules for a machine to become one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from rbee.errors import BadInput, NameTaken, UnknownHive
from rbee.queen.store.engine import Engine, Session
from rbee.queen.store.records import COLUMNS, TABLES, Actor, Joining, Row, as_stored, read_hive
from rbee.queen.store.tokens import check_token, spend_token
from rbee.queen.store.writer import Transaction, Writer
from rbee.scope import Scope
from rbee.wire.devices import Devices
from rbee.wire.hives import LABELS_MAX, Status
from rbee.wire.types import DEFAULT_PORT

NOTED_MAX = 20
"""Hives set offline in one write that are noted one by one; if there are more, only their number is noted."""


class HiveStore:
    """Reads and writes hives. `by` is who requested a write; one that changes nothing is not recorded."""

    def __init__(self, engine: Engine, writer: Writer, scope: Scope) -> None:
        self._engine = engine
        self._writer = writer
        self._scope = scope

    async def all(self) -> list[Row]:
        """Return all hives, ordered by id."""
        return await self._engine.read_all(lambda session: _hives(session, "ORDER BY id"))

    async def find(self, hive_id: str) -> Row | None:
        """Return the hive with this id, or None."""
        return await self._engine.read(lambda session: _find(session, hive_id))

    async def add(self, hive_id: str, host: str, port: int | None, *, by: Actor | None = None) -> Row:
        """Make the hive desired: a new row is 'pending', an existing one keeps its status and devices."""
        at = f"host {host}" if port is None else f"host {host}, port {port}"

        def write(transaction: Transaction) -> Row:
            is_new = _find(transaction.session, hive_id) is None
            if is_new:
                _insert(transaction, hive_id, host, DEFAULT_PORT if port is None else port)
            wish = {"host": host, "wanted": True} | ({} if port is None else {"port": port})
            if _update(transaction, hive_id, wish) or is_new:
                transaction.note(hive_id, f"hive {hive_id} ({at}) should be online", by)
            return _there(transaction.session, hive_id)

        return await self._writer.write(write)

    async def set_online(
        self, hive_id: str, devices: Devices, report: str | None = None, *, by: Actor | None = None
    ) -> None:
        """Store the devices, Row.report and the status 'online'; a hive that comes online is desired."""
        text = f"hive {hive_id} is online in the hive catalog, with its devices"
        fields = {"devices": devices, "status": "online", "wanted": True}
        await self._set(hive_id, fields, text, by, also=partial(_keep_report, hive_id, report))

    async def set_devices(
        self, hive_id: str, devices: Devices, report: str | None = None, *, by: Actor | None = None
    ) -> None:
        """Store the devices and Row.report; nothing is written if both are the same."""
        text = f"hive {hive_id} has other devices in the hive catalog"
        await self._set(hive_id, {"devices": devices}, text, by, also=partial(_keep_report, hive_id, report))

    async def set_status(
        self, hive_id: str, status: Status, *, wanted: bool | None = None, by: Actor | None = None
    ) -> None:
        """Store the status, and with `wanted` whether it is desired; nothing if neither changes."""
        wish = {
            None: " in the hive catalog",
            True: ", and should be online",
            False: ", and should stay offline",
        }[wanted]
        await self._set(
            hive_id,
            {"status": status} | ({} if wanted is None else {"wanted": wanted}),
            f"hive {hive_id} is {status}{wish}",
            by,
            # Hives that come and go would displace what operators did.
            is_audited=wanted is not None,
        )

    async def set_offline(self, rows: Collection[Row]) -> list[Row]:
        """Store the status 'offline' for those hives that exist and have another; return their new rows."""

        def write(transaction: Transaction) -> list[Row]:
            changed = [
                row._replace(status="offline", updated_at_ms=transaction.now_ms)
                for row in rows
                if transaction.session.execute(
                    "UPDATE hives SET status = 'offline', updated_at_ms = :now "
                    "WHERE id = :id AND status != 'offline'",
                    id=row.id,
                    now=transaction.now_ms,
                )
            ]
            if len(changed) > NOTED_MAX:
                text = f"{len(changed)} hives are offline in the hive catalog"
                transaction.note(None, text, None, is_audited=False)
            else:
                for row in changed:
                    text = f"hive {row.id} is offline in the hive catalog"
                    transaction.note(row.id, text, None, is_audited=False)
            return changed

        return await self._writer.write(write)

    async def touch(self, hive_id: str) -> None:
        """Write the hive's time of update; CatalogFailed if the catalog cannot be written now."""
        await self._writer.write(lambda transaction: _write(transaction, hive_id, {}))

    async def remove(self, hive_id: str, *, by: Actor | None = None) -> bool:
        """Remove a hive; return whether it existed."""

        def write(transaction: Transaction) -> bool:
            _keep_former(transaction.session, hive_id)
            _keep_report(hive_id, None, transaction.session)
            was_there = transaction.session.execute("DELETE FROM hives WHERE id = :id", id=hive_id) > 0
            if was_there:
                transaction.note(hive_id, f"hive {hive_id} is removed from the hive catalog", by)
            return was_there

        return await self._writer.write(write)

    async def check_join(self, asked: Joining) -> None:
        """Check what join() checks, without using up the token. Raises BadToken or NameTaken."""

        def look(session: Session) -> None:
            check_token(session, asked, self._writer.now_ms(), self._scope)
            _check_name(session, asked, self._scope)

        await self._engine.read(look)

    async def join(self, asked: Joining, *, by: Actor) -> Row:
        """Spend one use of the token and create the row, or replace the credential in this machine's row.

        Raises BadToken, or NameTaken if the name is another machine's or the machine has another name.
        """

        def write(transaction: Transaction) -> Row:
            session, hive_id = transaction.session, asked.hive_id
            spend_token(session, asked, transaction.now_ms, self._scope)
            _check_name(session, asked, self._scope)
            row = _find(session, hive_id)
            if row is None:
                _insert(transaction, hive_id, hive_id, DEFAULT_PORT, asked.machine)
            # The last one that the hive has used: it may receive neither the new one nor any in between.
            former = None if row is None else row.former_credential or row.credential
            identity = {"credential": asked.credential, "address": asked.address, "wanted": True}
            _write(transaction, hive_id, identity)
            _keep_former(session, hive_id, former, asked.credential)
            text = f"hive {hive_id} joined from {asked.address} with token {asked.token_id}"
            transaction.note(hive_id, f"{text}, as credential {asked.credential}", by)
            return _there(session, hive_id)

        return await self._writer.write(write)

    async def set_address(self, hive_id: str, address: str, credential: str | None, *, by: Actor) -> None:
        """Store the address from which a hive last connected.

        Once it uses the credential of its last join, the former credential is removed.
        """

        def write(transaction: Transaction) -> None:
            row = _find(transaction.session, hive_id)
            if row is not None and row.credential == credential and row.former_credential is not None:
                _keep_former(transaction.session, hive_id)
            if _update(transaction, hive_id, {"address": address}):
                transaction.note(hive_id, f"hive {hive_id} is at {address}", by)

        await self._writer.write(write)

    async def set_labels(
        self, hive_id: str, labels: Mapping[str, str], remove: Collection[str], *, by: Actor
    ) -> Row:
        """Set and remove labels. Raises UnknownHive, or BadInput for more than LABELS_MAX."""

        def write(transaction: Transaction) -> Row:
            row = _find(transaction.session, hive_id)
            if row is None:
                raise UnknownHive(f"hive '{hive_id}' is not in the hive catalog", field="hive_id")
            kept = {key: value for key, value in row.labels.items() if key not in remove}
            changed = kept | dict(labels)
            if len(changed) > LABELS_MAX:
                raise BadInput(f"a hive may have at most {LABELS_MAX} labels", field="set")
            if changed != row.labels:
                _write(transaction, hive_id, {"labels": changed})
                shown = ", ".join(f"{key}={value}" for key, value in sorted(changed.items())) or "none"
                transaction.note(hive_id, f"the labels of hive {hive_id} are {shown}", by)
            return row._replace(labels=changed)

        return await self._writer.write(write)

    async def set_cordon(self, hive_id: str, reason: str | None, *, by: Actor) -> None:
        """Store why no new work may run on a hive, or None to allow it."""
        state = "is not cordoned any more" if reason is None else f"is cordoned: {reason}"
        await self._set(hive_id, {"cordoned": reason}, f"hive {hive_id} {state}", by)

    async def _set(
        self, hive_id: str, fields: Mapping[str, Any], text: str, by: Actor | None, *,
        is_audited: bool = True, also: Callable[[Session], None] = lambda session: None,
    ) -> None:  # fmt: skip
        """Set fields of a hive, if it exists, and note the change if one of them differs.

        `also` is called in the same transaction, whether or not a field differs.
        """

        def write(transaction: Transaction) -> None:
            if _update(transaction, hive_id, fields):
                transaction.note(hive_id, text, by, is_audited=is_audited)
            also(transaction.session)

        await self._writer.write(write)


def _check_name(session: Session, asked: Joining, scope: Scope) -> None:
    """Raise NameTaken if the name is another machine's, or the machine has another name."""
    named = _hives(session, "WHERE lower(id) = lower(:id)", id=asked.hive_id)
    # The exact spelling first: a catalog from before 0.5.0 may have two that differ only in case.
    there = min(named, key=lambda row: row.id != asked.hive_id, default=None)
    if there is not None and there.machine != asked.machine:
        raise NameTaken(
            f"the name {there.id} is taken by the hive at {there.address or there.host}",
            hint="Join under another name, or on the queen's machine: "
            + scope.rbeectl(f"remove-hive {there.id}"),
            field="name",
        )
    for other in _hives(session, "WHERE machine = :machine", machine=asked.machine):
        if other.id != asked.hive_id:
            raise NameTaken(
                f"this machine is the hive {other.id} already, which last connected from {other.address}; "
                "or both machines were made from one image",
                hint=f"On the queen's machine: {scope.rbeectl(f'remove-hive {other.id}')}\n"
                "If this is a clone, on the clone: "
                "sudo sh -c 'rm /etc/machine-id && systemd-machine-id-setup'; then reboot it",
                field="name",
            )


# Statements


def _hives(session: Session, which: str, **values: str) -> list[Row]:
    return [read_hive(row) for row in session.rows(f"SELECT {COLUMNS} FROM {TABLES} {which}", **values)]  # noqa: S608  # texts of our own


def _find(session: Session, hive_id: str) -> Row | None:
    return next(iter(_hives(session, "WHERE id = :id", id=hive_id)), None)


def _there(session: Session, hive_id: str) -> Row:
    row = _find(session, hive_id)
    assert row is not None
    return row


def _insert(transaction: Transaction, hive_id: str, host: str, port: int, machine: str | None = None) -> None:
    transaction.session.execute(
        """
        INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted, machine)
        VALUES (:id, :host, :port, 'pending', :now, :now, 1, :machine)
        """,
        id=hive_id,
        host=host,
        port=port,
        now=transaction.now_ms,
        machine=machine,
    )


def _update(transaction: Transaction, hive_id: str, fields: Mapping[str, Any]) -> bool:
    """Write fields of a hive if it exists and one of them differs; return whether they were written."""
    values = {name: as_stored(value) for name, value in fields.items()}
    # Compared as stored: the blank for an unreadable value could be equal by chance.
    query = f"SELECT {', '.join(values)} FROM hives WHERE id = :id"  # noqa: S608  # names of our own
    rows = transaction.session.rows(query, id=hive_id)
    if not rows or rows[0] == tuple(values.values()):
        return False
    _write(transaction, hive_id, fields)
    return True


def _write(transaction: Transaction, hive_id: str, fields: Mapping[str, Any]) -> None:
    """Write fields of a hive and its time of update."""
    columns = ", ".join(f"{name} = :{name}" for name in (*fields, "updated_at_ms"))
    transaction.session.execute(
        f"UPDATE hives SET {columns} WHERE id = :id",  # noqa: S608  # names of our own
        id=hive_id,
        updated_at_ms=transaction.now_ms,
        **{name: as_stored(value) for name, value in fields.items()},
    )


def _keep_former(session: Session, hive_id: str, former: str | None = None, successor: str = "") -> None:
    """Store the credential that a hive may use besides `successor`; None deletes it."""
    session.execute("DELETE FROM former_credentials WHERE hive = :hive", hive=hive_id)
    if former is not None:
        session.execute(
            "INSERT INTO former_credentials VALUES (:hive, :former, :successor)",
            hive=hive_id, former=former, successor=successor,
        )  # fmt: skip


def _keep_report(hive_id: str, report: str | None, session: Session) -> None:
    """Store a hive's Row.report, if the hive exists; None deletes it."""
    if session.rows("SELECT report FROM reports WHERE hive = :hive", hive=hive_id) == [(report,)]:
        return
    session.execute("DELETE FROM reports WHERE hive = :hive", hive=hive_id)
    if report is not None:
        kept = "INSERT INTO reports SELECT id, :report FROM hives WHERE id = :hive"
        session.execute(kept, hive=hive_id, report=report)

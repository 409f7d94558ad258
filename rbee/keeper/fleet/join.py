"""Make this machine's hive join a remote queen, or follow a queen that has moved."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from functools import partial
from pathlib import Path

from rbee.errors import BadInput, Interrupted, NotPermitted, RbeeError, with_packages
from rbee.files import as_owner_of, explained, read_regular, write_whole
from rbee.keeper.fleet.address import joined, parse_address
from rbee.keeper.fleet.invitation import (
    check_no_join,
    has_queen,
    invitation,
    restart_hive,
    still,
)
from rbee.keeper.local_hive import MEMBERSHIP_LIMIT, Membership, read_membership
from rbee.keeper.work import Work
from rbee.narration import COMPARING_KEYS, JOINING_QUEEN, REACHING_QUEEN, STARTING_HIVE, Teller
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, REMOTE, Scope
from rbee.systemd.bus import Bus


def check_join(address: str, token: str | None, scope: Scope) -> tuple[str, int]:
    """The queen's host and port; raises if what was typed is not valid, or this user may not join."""
    queen = parse_address(address, field="QUEEN")
    if token is not None:
        from rbee.tls import read_token

        read_token(token)
    if not scope.is_owner():
        hint = scope.rbeectl(f"join {address} --token TOKEN", as_root=True)
        raise NotPermitted("only root may make this machine join a queen", hint=hint)
    if token is None and not (scope.hive_state / "membership").exists():
        raise BadInput(
            "--token is needed: this machine is not yet a hive of a queen on another machine",
            hint=f"On the queen's machine: {REMOTE.rbeectl('token create')}",
            field="--token",
        )
    return queen


def join(work: Work, queen: tuple[str, int], *, token: str | None, name: str | None) -> Membership:
    """Make this machine's hive join a remote queen, or follow one that has moved; return its membership.

    Raises RbeeError if the machine has a queen, no rbee-hive, or another join; TimedOut, Unreachable or
    WrongQueen if the queen is not reached; UnitFailed if the hive does not join or start; Interrupted, which
    says whether the machine has joined.
    """
    bus = work.bus
    if bus.state(QUEEN_UNIT).load == "loaded":
        raise has_queen("this machine", work.scope)
    if bus.state(HIVE_UNIT).load != "loaded":
        raise RbeeError("rbee-hive is not installed here", hint=with_packages("rbee-hive"))
    check_no_join(bus)
    folder = work.scope.hive_state
    before = _heads(folder)
    try:
        _check_queen(work, queen, token)
        _invite(work.scope, invitation(*queen, name=name, token=token))
        restart_hive(bus, work.left, partial(_narrate_start, work.teller, queen, token))
    except KeyboardInterrupt as error:
        raise _interrupted(bus, is_joined=_heads(folder) != before) from error
    joined_now = _membership(folder / "membership")
    if (joined_now.host, joined_now.port) != queen:
        raise RbeeError(
            f"somebody else made this machine join meanwhile: it is the hive {joined_now.hive_id} of the "
            f"queen at {joined_now.queen}",
            hint="Join again, with another token",
        )
    return joined_now


def _check_queen(work: Work, queen: tuple[str, int], token: str | None) -> None:
    """Before anything is changed: can the queen be reached, and is the token one of its own?"""
    from rbee.keeper.fleet.reach import check_keys, connect  # late, as it imports TLS

    try:
        work.teller.narrate(REACHING_QUEEN, f"reaching the queen at {joined(*queen)}")
        with connect(*queen, work.left, work.scope) as channel:
            if token is not None:
                from rbee.tls import read_token

                work.teller.narrate(COMPARING_KEYS, "comparing the queen's keys with the token's fingerprint")
                check_keys(channel, *queen, read_token(token)[-1], work.left, work.scope)
    except RbeeError as error:
        raise type(error)(f"{error.message}{still(work.bus)}", hint=error.hint, field=error.field) from error


def _invite(scope: Scope, content: str) -> None:
    folder = scope.hive_state
    path = folder / "invitation"
    account = pwd.getpwnam(scope.hive_user)
    if not folder.is_dir():
        with explained(folder, "made"):
            folder.mkdir(mode=0o700)
    with explained(path, "written"):
        os.chown(folder, account.pw_uid, account.pw_gid)
    with explained(path, "written"), as_owner_of(folder):
        write_whole(path, content.encode(), mode=0o600)


def _narrate_start(teller: Teller, queen: tuple[str, int], token: str | None, unit: str) -> None:
    host = queen[0]
    if unit == HIVE_UNIT:
        teller.narrate(STARTING_HIVE, f"starting {HIVE_UNIT}")
    elif token is not None:
        teller.narrate(JOINING_QUEEN, f"joining the queen at {host} with the token")
    else:
        teller.narrate(JOINING_QUEEN, f"following the queen to {host} with the key that this hive has")


def _heads(folder: Path) -> list[bytes]:
    """The content of the memberships, the running hive's and the one for its next start."""
    heads = []
    for name in ("membership", "membership.new"):
        with suppress(OSError), as_owner_of(folder):
            heads.append(read_regular(folder / name, MEMBERSHIP_LIMIT))
    return heads


def _interrupted(bus: Bus, *, is_joined: bool) -> Interrupted:
    if is_joined:
        return Interrupted(
            "interrupted; this machine has joined, and its hive has to be restarted",
            hint=bus.scope.systemctl(f"restart {HIVE_UNIT}", as_root=True),
        )
    return Interrupted(
        f"interrupted; this machine has not joined{still(bus)}",
        hint="The token may have been spent all the same; on the queen's machine: "
        + REMOTE.rbeectl("token list"),
    )


def _membership(path: Path) -> Membership:
    try:
        with explained(path, "read"):
            return read_membership(path)
    except ValueError as error:
        raise RbeeError(f"{path} is not a membership", hint=f"ls -l {path}") from error

"""Having this machine's hive join a queen on another, or follow one who moved."""

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
    INVITATION,
    STATE,
    check_no_join,
    has_queen,
    invitation,
    restart_hive,
    still,
)
from rbee.keeper.local_hive import MEMBERSHIP_LIMIT, Membership, read_membership
from rbee.keeper.work import Work
from rbee.narration import COMPARING_KEYS, JOINING_QUEEN, REACHING_QUEEN, STARTING_HIVE, Teller
from rbee.scope import HIVE_UNIT, QUEEN_UNIT
from rbee.systemd.bus import Bus


def check_join(address: str, token: str | None) -> tuple[str, int]:
    """The queen's host and port, if this user may join her with what was typed."""
    queen = parse_address(address, field="QUEEN")
    if token is not None:
        from rbee.tls import read_token

        read_token(token)
    if os.geteuid() != 0:
        raise NotPermitted("joining a queen is root's", hint=f"sudo rbeectl join {address} --token TOKEN")
    if token is None and not Path(STATE, "membership").exists():
        raise BadInput(
            "--token is needed: this machine is no hive of a queen elsewhere yet",
            hint="On the queen's machine: rbeectl token create",
            field="--token",
        )
    return queen


def join(work: Work, queen: tuple[str, int], *, token: str | None, name: str | None) -> Membership:
    """Have this machine's hive join a queen elsewhere, or follow one who moved; what it is then.

    Who interrupts that is told what has come of it.
    """
    bus = work.bus
    if bus.state(QUEEN_UNIT).load == "loaded":
        raise has_queen("this machine")
    if bus.state(HIVE_UNIT).load != "loaded":
        raise RbeeError("rbee-hive is not installed here", hint=with_packages("rbee-hive"))
    check_no_join(bus)
    folder = Path(STATE)
    before = _heads(folder)
    try:
        _look_at(work, queen, token)
        _invite(folder, invitation(*queen, name=name, token=token))
        restart_hive(bus, work.left, partial(_tell_joining, work.teller, queen, token))
    except KeyboardInterrupt as error:
        raise _interrupted(bus, is_joined=_heads(folder) != before) from error
    told = _membership(folder / "membership")
    if (told.host, told.port) != queen:
        raise RbeeError(
            f"somebody else had this machine join meanwhile: it is the hive {told.hive_id} of the queen "
            f"at {told.queen}",
            hint="Join again, with another token",
        )
    return told


def _look_at(work: Work, queen: tuple[str, int], token: str | None) -> None:
    """Before anything is changed: is she reached, and is she the one that the token is of?"""
    from rbee.keeper.fleet.reach import check_keys, connect  # with TLS, once all else is known to be right

    try:
        work.teller.narrate(REACHING_QUEEN, f"reaching the queen at {joined(*queen)}")
        with connect(*queen, work.left) as channel:
            if token is not None:
                from rbee.tls import read_token

                work.teller.narrate(COMPARING_KEYS, "comparing her keys with those that the token is of")
                check_keys(channel, *queen, read_token(token)[-1], work.left)
    except RbeeError as error:
        raise type(error)(f"{error.message}{still(work.bus)}", hint=error.hint, field=error.field) from error


def _invite(folder: Path, content: str) -> None:
    account = pwd.getpwnam("rbee-hive")
    if not folder.is_dir():
        with explained(folder, "made"):
            folder.mkdir(mode=0o700)
    with explained(Path(INVITATION), "written"):
        os.chown(folder, account.pw_uid, account.pw_gid)
    with explained(Path(INVITATION), "written"), as_owner_of(folder):
        write_whole(Path(INVITATION), content.encode(), mode=0o600)


def _tell_joining(teller: Teller, queen: tuple[str, int], token: str | None, unit: str) -> None:
    host = queen[0]
    if unit == HIVE_UNIT:
        teller.narrate(STARTING_HIVE, f"starting {HIVE_UNIT}")
    elif token is not None:
        teller.narrate(JOINING_QUEEN, f"joining the queen at {host} with the token")
    else:
        teller.narrate(JOINING_QUEEN, f"following the queen to {host} with the key that this hive has")


def _heads(folder: Path) -> list[bytes]:
    """What has been joined, for the hive that runs or for its next start."""
    heads = []
    for name in ("membership", "membership.new"):
        with suppress(OSError), as_owner_of(folder):
            heads.append(read_regular(folder / name, MEMBERSHIP_LIMIT))
    return heads


def _interrupted(bus: Bus, *, is_joined: bool) -> Interrupted:
    if is_joined:
        return Interrupted(
            "interrupted; this machine has joined, and its hive is to be started with that",
            hint=f"sudo systemctl restart {HIVE_UNIT}",
        )
    return Interrupted(
        f"interrupted; this machine has not joined{still(bus)}",
        hint="The queen may have taken the token all the same: rbeectl token list, on her machine",
    )


def _membership(path: Path) -> Membership:
    try:
        with explained(path, "read"):
            return read_membership(path)
    except ValueError as error:
        raise RbeeError(f"{path} is not a membership", hint=f"ls -l {path}") from error

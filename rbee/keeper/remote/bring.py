"""Making another machine a hive of this one's queen, by ssh.

Nothing is changed there before all has been looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rbee.contracts import CreatedToken, CreateToken, QueenRoutes, Tcp, is_same_name
from rbee.errors import RbeeError, TcpClosed, UnitFailed
from rbee.keeper.fleet import (
    INVITATION,
    STATE,
    Ask,
    check_no_join,
    has_queen,
    invitation,
    parse_address,
    restart_hive,
)
from rbee.keeper.remote.address import find_queen, joined
from rbee.keeper.remote.package import find_packages, install
from rbee.keeper.remote.ssh import Ssh
from rbee.keeper.remote.units import RemoteUnits
from rbee.narration import HANDING_OVER, LOOKING_AT_HOST, STARTING_HIVE, Teller
from rbee.systemd import HIVE_UNIT, QUEEN_UNIT

TOKEN_LIFE = 600
"""Seconds of a token that goes straight to the machine it is for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed: the hive's name, which ssh knows, too, and how to get there.

    `queen` is where the machine finds her, if not where ssh comes from; `is_member` is whether the
    catalog has a hive of this name.
    """

    name: str
    user: str | None
    queen: str | None
    package: Path | None
    is_member: bool


def bring(ask: Ask, teller: Teller, left: Callable[[float], float], request: Request) -> None:
    """Have the machine's hive run if it has joined as this name; or have it join."""
    tcp: Tcp = ask(QueenRoutes.TCP)
    if not tcp.listens:
        raise TcpClosed("the queen is not open to other machines", hint="rbeectl tcp enable")
    # Before the first word there: these are mistakes here.
    if request.queen is not None:
        parse_address(request.queen, field="--queen")
    debs = find_packages(request.package) if request.package else []
    name = request.name
    with Ssh(name, request.user, left, teller.asking) as ssh:
        teller.narrate(LOOKING_AT_HOST, f"looking at {name} by ssh")
        units = RemoteUnits(ssh)
        if units.state(QUEEN_UNIT).load == "loaded":
            raise has_queen(name, f"ssh -t {ssh.target} ")
        is_installed = units.state(HIVE_UNIT).load == "loaded"
        if not (is_installed or debs):
            raise _not_installed(ssh)
        if not (is_installed and request.is_member and has_joined(ssh, name, tcp)):
            check_no_join(units, f"ssh -t {ssh.target} ")
            host, port = find_queen(ssh, tcp, request.queen)
            # Before a token is made for it.
            ssh.become_root()
            if not is_installed:
                install(ssh, teller, debs)
            hand_over(ask, teller, ssh, name, host, port)
        teller.narrate(STARTING_HIVE, f"starting {HIVE_UNIT} on {name}")
        try:
            restart_hive(units, left)
        except UnitFailed as error:
            raise UnitFailed(f"on {name}: {error.message}", hint=error.hint) from error


def has_joined(ssh: Ssh, name: str, tcp: Tcp) -> bool:
    """Is that machine this hive, of a queen with these keys?"""
    from rbee.tls import fingerprint

    head = ssh.run_as_root("sh", "-c", f"test ! -e {STATE}/membership || head -n1 {STATE}/membership")
    try:
        found = json.loads(head.removeprefix("# "))
        return bool(is_same_name(name, str(found["hive_id"])) and fingerprint(found["ca"]) == tcp.fingerprint)
    except (ValueError, KeyError, TypeError, RbeeError):
        return False  # there is no membership, or none that it could use


def hand_over(ask: Ask, teller: Teller, ssh: Ssh, name: str, host: str, port: int) -> None:
    """Put an invitation there, with a token for this name and one use."""
    created: CreatedToken = ask(QueenRoutes.CREATE_TOKEN, CreateToken(TOKEN_LIFE, 1, name))
    telling = f"handing {name} the queen's address, {joined(host, port)}, and a token for one use"
    teller.narrate(HANDING_OVER, telling)
    content = invitation(host, port, name=name, token=created.text)
    owned = ("-o", "rbee-hive", "-g", "rbee-hive")
    ssh.run_as_root("install", "-d", *owned, "-m", "0700", STATE)
    ssh.run_as_root("install", *owned, "-m", "0600", "/dev/stdin", INVITATION, content=content.encode())


def _not_installed(ssh: Ssh) -> RbeeError:
    return RbeeError(
        f"rbee-hive is not installed on {ssh.host}",
        hint=f"On {ssh.host}: sudo apt install rbee-hive\nOr with its packages at hand: "
        f"rbeectl add-hive {ssh.target} --install FOLDER",
    )

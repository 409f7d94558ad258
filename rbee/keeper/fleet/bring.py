"""Make another machine a hive of this machine's queen, by ssh.

Nothing is changed there before everything has been checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rbee.errors import CommandFailed, Interrupted, RbeeError, TcpClosed, UnitFailed, with_packages
from rbee.keeper.fleet.address import joined, parse_address
from rbee.keeper.fleet.find_queen import find_queen, try_from_there
from rbee.keeper.fleet.here import is_same_machine
from rbee.keeper.fleet.invitation import (
    has_queen,
    invitation,
    is_this_machine,
    restart_hive,
    take_up,
)
from rbee.keeper.fleet.package import find_packages, install
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from rbee.keeper.fleet.units import RemoteUnits
from rbee.keeper.local_hive import Membership, parse_membership
from rbee.keeper.queen.queen import Queen
from rbee.narration import HANDING_OVER, LOOKING_AT_HOST, STARTING_HIVE
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT, REMOTE
from rbee.wire.fleet import CreatedToken, CreateToken, Tcp
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import is_same_name

TOKEN_LIFE = 600
"""Seconds for which the token that is handed to the machine is valid."""

STATE = str(REMOTE.hive_state)

INVITATION = f"{STATE}/invitation"

AS_HIVE = ("setpriv", f"--reuid={REMOTE.hive_user}", f"--regid={REMOTE.hive_user}", "--clear-groups", "--")
"""Runs a command as user rbee-hive, who may have replaced any file in its folder with a link."""

READ_HEAD = 'test ! -f "$0" || head -c 65536 -- "$0" | head -n1'

PUT = (
    'find "${0%/*}" -maxdepth 1 -type f -name ".${0##*/}.??????" -mmin +60 -delete; '
    'new=$(mktemp -- "${0%/*}/.${0##*/}.XXXXXX") || exit; '
    'cat >"$new" && mv -fT -- "$new" "$0" || { rm -f -- "$new"; exit 1; }'
)
"""Replaces a file; under a name of its own meanwhile, as another operator may be doing the same. First it
removes the files of writers that were killed."""


class Request(NamedTuple):
    """What was typed, and what the queen knows about a hive of that name.

    `is_member`: the catalog has it. `is_up`: its heartbeats are received. `is_refused`: the queen refuses
    its credential.
    """

    typed: Typed
    is_member: bool
    is_up: bool = False
    is_refused: bool = False


def bring(queen: Queen, request: Request) -> None:
    """Start the machine's hive if it has joined under this name at the queen's address; else have it join.

    Raises TcpClosed if the queen is not open to other machines, BadInput for a mistake in the command,
    NotPermitted without root's rights there, UnitFailed if the hive does not join or start, Interrupted,
    which says what was changed, and CommandFailed, TimedOut, Unreachable or RbeeError for the rest.
    """
    typed, work = request.typed, queen.work
    tcp: Tcp = queen.ask(QueenRoutes.TCP)
    if not tcp.listens:
        hint = work.scope.rbeectl("tcp enable")
        raise TcpClosed("the queen is not open to other machines", hint=hint)
    # Before anything is done there: these are mistakes in the command.
    if typed.queen is not None:
        parse_address(typed.queen, field="--queen")
    debs = find_packages(typed.package, typed.scope) if typed.package else []
    # Before ssh may ask for a password.
    work.teller.narrate(LOOKING_AT_HOST, f"looking at {typed.host} by ssh")
    ssh = Ssh(typed, work.left, work.teller.asking)
    visit = Visit(queen, ssh, tcp, request)
    try:
        with ssh:
            visit.make(debs)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {visit.left_behind}", hint=f"To go on: {typed}") from error


class Visit:
    """The work on the other machine. `left_behind` says what has been changed there if it ends now."""

    def __init__(self, queen: Queen, ssh: Ssh, tcp: Tcp, request: Request) -> None:
        self._queen = queen
        self._teller = queen.work.teller
        self._left = queen.work.left
        self._ssh = ssh
        self._units = RemoteUnits(ssh)
        self._tcp = tcp
        self._request = request
        self._name = request.typed.host
        self.left_behind = f"nothing was changed on {ssh.host}"

    def make(self, debs: list[Path]) -> None:
        """Do all of it; `debs` are installed if rbee-hive is not."""
        ssh, units, name = self._ssh, self._units, self._name
        if units.state(QUEEN_UNIT).load == "loaded":
            if is_same_machine(ssh):
                raise is_this_machine(name, self._request.typed.port, self._request.typed.scope)
            raise has_queen(name, REMOTE, f"ssh -t {ssh.target} ")
        is_installed = units.state(HIVE_UNIT).load == "loaded"
        if not (is_installed or debs):
            raise _not_installed(ssh)
        if is_installed and debs:
            self._teller.narrate(LOOKING_AT_HOST, not_installed_again(name))
        is_known = is_installed and self._request.is_member
        membership = find_membership(ssh, name, self._tcp) if is_known else None
        if membership is None:
            address = find_queen(ssh, self._tcp, self._request.typed.queen)
            # Before a token is made for it.
            ssh.become_root()
            if not is_installed:
                self.left_behind = f"an apt that was begun on {name} may go on there"
                install(ssh, self._teller, debs)
            self.left_behind = f"{name} has rbee-hive, and has not joined"
            self._hand_over(*address)
        elif not self._repair(membership):
            return
        self.left_behind = f"the hive of {name} is unchanged, or restarts with its new membership"
        self._teller.narrate(STARTING_HIVE, f"starting {HIVE_UNIT} on {name}")
        with _named_in_errors(name):
            restart_hive(units, self._left)

    def _repair(self, membership: Membership) -> bool:
        """Give a hive of this queen its address, and a token if needed; False if it need not be restarted.

        It keeps its credential with a new address. If the queen refuses the credential, now or before, the
        hive gets a token.
        """
        name, now = self._name, (membership.host, membership.port)
        address = self._queen_address(now)
        if self._request.is_refused:
            self._hand_over(*address)
            return True
        if address == now:
            return not self._request.is_up
        if self._units.state(JOIN_UNIT).load != "loaded":  # 0.4.0: nothing proves the address
            self._hand_over(*address)
            return True
        self._teller.narrate(HANDING_OVER, f"handing {name} the queen's new address, {joined(*address)}")
        _invite(self._ssh, invitation(*address, name=None, token=None))
        try:
            take_up(self._units, self._left)
        except UnitFailed as error:
            self._teller.narrate(
                HANDING_OVER, f"{name} could not connect to the queen's new address: {error.message}"
            )
            self._hand_over(*address)
        return True

    def _queen_address(self, now: tuple[str, int]) -> tuple[str, int]:
        """The address that was typed; else `now`, if the queen answers there; else one where it does."""
        typed = self._request.typed.queen
        if typed is not None and parse_address(typed, field="--queen") != now:
            return find_queen(self._ssh, self._tcp, typed)
        if not try_from_there(self._ssh, *now, self._tcp):
            return now
        return find_queen(self._ssh, self._tcp, typed)

    def _hand_over(self, host: str, port: int) -> None:
        """Leave an invitation on the machine, with a token for this name and one use."""
        name = self._name
        created: CreatedToken = self._queen.ask(QueenRoutes.CREATE_TOKEN, CreateToken(TOKEN_LIFE, 1, name))
        text = f"handing {name} the queen's address, {joined(host, port)}, and a token for one use"
        self._teller.narrate(HANDING_OVER, text)
        _invite(self._ssh, invitation(host, port, name=name, token=created.text))


@contextmanager
def _named_in_errors(name: str) -> Iterator[None]:
    try:
        yield
    except UnitFailed as error:
        raise UnitFailed(f"on {name}: {error.message}", hint=error.hint) from error


def find_membership(ssh: Ssh, name: str, tcp: Tcp) -> Membership | None:
    """The membership of that machine, if it is for a hive of this name and a queen with these keys."""
    from rbee.tls import fingerprint

    head = ssh.run_as_root(*AS_HIVE, "sh", "-c", READ_HEAD, f"{STATE}/membership")
    with suppress(ValueError, RbeeError):  # there is no membership, or it is not valid
        membership = parse_membership(head)
        if is_same_name(name, membership.hive_id) and fingerprint(membership.ca) == tcp.fingerprint:
            return membership
    return None


def _invite(ssh: Ssh, content: str) -> None:
    owned = ("-o", REMOTE.hive_user, "-g", REMOTE.hive_user)
    try:
        ssh.run_as_root("install", "-d", *owned, "-m", "0700", STATE)
        ssh.run_as_root(*AS_HIVE, "sh", "-c", PUT, INVITATION, content=content.encode())
    except CommandFailed as error:
        raise RbeeError(
            f"{INVITATION} on {ssh.host} cannot be written: {error.reason}",
            hint=f"ssh -t {ssh.target} df -h {STATE}\nssh -t {ssh.target} ls -ld {STATE}",
        ) from error


def not_installed_again(name: str) -> str:
    """The message if --install is given for a machine that has the package."""
    return f"{name} has rbee-hive already: --install changes nothing there"


def _not_installed(ssh: Ssh) -> RbeeError:
    return RbeeError(
        f"rbee-hive is not installed on {ssh.host}",
        hint=f"With the packages in a folder here: {ssh.typed.installing()}\n"
        f"Or on {ssh.host}, {with_packages('rbee-hive')}",
    )

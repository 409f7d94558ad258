"""What rbeectl does about other machines: opening the queen to them, and having this one join another.

Bringing another machine by ssh is rbee.keeper.remote's.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Protocol

from rbee.contracts import LOCALHOST, QUEEN_PORT, Answer, Host, QueenRoutes, Route, SetTcp, Tcp, decode
from rbee.errors import (
    BadConfig,
    BadInput,
    Interrupted,
    JobReplaced,
    NotPermitted,
    RbeeError,
    UnitFailed,
    with_packages,
)
from rbee.files import as_owner_of, explained, read_regular, write_whole
from rbee.keeper.local_hive import queen_dialled
from rbee.narration import (
    CLOSING_TCP,
    COMPARING_KEYS,
    JOINING_QUEEN,
    OPENING_TCP,
    REACHING_QUEEN,
    STARTING_HIVE,
    Teller,
)
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT, REDIAL_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.bus import Bus
from rbee.systemd.unit import Units, said_by

STOP_TIMEOUT = 20.0
START_TIMEOUT = 35.0
RESTARTS = 5
"""Times that a hive is started while others have it restarted, too."""

JOIN_TIMEOUT = 45.0
"""Seconds for rbee-hive-join.service, which systemd gives 40."""

STATE = "/var/lib/rbee-hive"
INVITATION = f"{STATE}/invitation"
MEMBERSHIP_LIMIT = 65536
"""Bytes of a membership that are read, which has some 4,000."""

DROPIN = Path("/etc/systemd/system/queen-rbee-tcp.socket.d/50-listen.conf")

DROPIN_CONTENT = "# By rbeectl tcp enable --listen.\n[Socket]\nListenStream=\nListenStream=%s\n"


class Ask(Protocol):
    """Asks a queen who is awake."""

    def __call__(self, route: Route[Answer], body: Any = None, **values: str) -> Answer: ...


def parse_address(text: str, *, field: str) -> tuple[str, int]:
    """HOST:PORT, [ADDRESS]:PORT, or one without a port, which is QUEEN_PORT then."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", text)
    try:
        host = decode(Host, (found[1] or found[2]) if found else "")
    except BadInput as error:
        raise BadInput(f"{field} must {_address_wanted(text)}", field=field) from error
    port = int(found[3] or QUEEN_PORT) if found else 0
    if not 1 <= port <= 65535:
        raise BadInput(f"{field} must have a port from 1 to 65535", field=field)
    return host, port


def _address_wanted(text: str) -> str:
    """What somebody should have typed who typed this."""
    with suppress(ValueError):
        return f"have an IPv6 address in brackets: [{IPv6Address(text)}]:{QUEEN_PORT}"
    found = re.fullmatch(r"(.*:.*):([0-9]{1,5})", text)
    with suppress(ValueError):
        if found:
            return f"have an IPv6 address in brackets: [{IPv6Address(found[1])}]:{found[2]}"
    wanted = "be HOST:PORT, such as queen.example:8500 or [fd00::1]:8500"
    if text.startswith(":"):
        return f"{wanted}, and has no host; all addresses are 0.0.0.0 or [::]"
    return wanted


# On the queen's machine


def set_tcp(
    bus: Bus,
    ask: Ask,
    teller: Teller,
    left: Callable[[float], float],
    *,
    is_open: bool,
    address: str | None = None,
) -> Tcp:
    """Open the queen to other machines, at `address` from now on if one is given, or close her.

    Where that fails she listens as before, and the error says so.
    """
    before = ask(QueenRoutes.TCP)
    old = new = None
    if address is not None:
        old, new = _dropin(), (DROPIN_CONTENT % address).encode()
    try:
        if new != old:
            _put_dropin(bus, new)
        return _switch_tcp(bus, ask, teller, left, is_open=is_open, moved=new != old)
    except BaseException as error:
        told = _go_back(bus, ask, before, dropin=old, moved=new != old)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}; {told}", hint=error.hint) from error
        raise


def _switch_tcp(
    bus: Bus, ask: Ask, teller: Teller, left: Callable[[float], float], *, is_open: bool, moved: bool
) -> Tcp:
    """A socket cannot join a queen who runs, so she is restarted."""
    told = ask(QueenRoutes.SET_TCP, SetTcp(is_open))
    if bool(told.listens) == is_open and not moved:
        return told
    if is_open:
        teller.narrate(OPENING_TCP, "restarting the queen with her TCP socket; hives reconnect")
    else:
        teller.narrate(CLOSING_TCP, "restarting the queen without her TCP socket")
    _restart_queen(bus, left)
    told = ask(QueenRoutes.TCP)
    if bool(told.listens) != is_open:
        state = bus.state(TCP_SOCKET_UNIT)
        raise UnitFailed(
            f"{TCP_SOCKET_UNIT} is {state.active} ({state.result or state.sub})",
            hint=f"systemctl status {TCP_SOCKET_UNIT}; sudo journalctl -u {TCP_SOCKET_UNIT} -e",
        )
    return told


def _restart_queen(bus: Bus, left: Callable[[float], float]) -> None:
    """Her TCP socket with her: it is part of her unit, and her own start opens it.

    In one job: a hive or a person who speaks to her socket between a stop and a start would wake her.
    """
    if bus.active_state(TCP_SOCKET_UNIT) == "failed":
        bus.reset_failed(TCP_SOCKET_UNIT)
    bus.restart(QUEEN_UNIT, timeout=left(STOP_TIMEOUT + START_TIMEOUT))


def _go_back(bus: Bus, ask: Ask, before: Tcp, *, dropin: bytes | None, moved: bool) -> str:
    """Have the queen listen as before; the end of a sentence with what has come of that."""

    def most(seconds: float) -> float:
        return seconds  # whatever the deadline was: she is not left half-way

    try:
        if moved:
            _put_dropin(bus, dropin)
        bus.start(QUEEN_UNIT, timeout=START_TIMEOUT)
        now = ask(QueenRoutes.SET_TCP, SetTcp(before.is_open))
        if now.listens != before.listens:
            _restart_queen(bus, most)
            now = ask(QueenRoutes.TCP)
    except RbeeError as error:
        return f"going back failed, too: {error}"
    if now.listens != before.listens:
        return f"she does not listen on {', '.join(before.listens)} any more, either"
    return f"the queen listens on {', '.join(now.listens) or 'her own machine alone'}, as before"


def check_listen(text: str) -> str:
    """What was typed as ListenStream= has it, if this user may set it."""
    host, port = parse_address(text, field="--listen")
    try:
        ip_address(host)
    except ValueError as error:
        told = "--listen must have an IP address, as a socket unit knows no names"
        raise BadInput(told, field="--listen") from error
    if os.geteuid() != 0:
        raise NotPermitted(
            f"the address is a drop-in in {DROPIN.parent}, which is root's",
            hint=f"sudo rbeectl tcp enable --listen {text}",
        )
    _check_free(host, port)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_free(host: str, port: int) -> None:
    """BadInput where systemd could not listen there: it would find out after the queen has been stopped."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the socket unit has it, so that the queen's own socket is not in the way.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(
                    f"another program listens on port {port} already",
                    hint=f"sudo ss -ltnp 'sport = :{port}'", field="--listen",
                ) from error  # fmt: skip
            raise BadInput(
                f"this machine does not have the address {host} ({error.strerror})",
                hint="ip -brief address", field="--listen",
            ) from error  # fmt: skip


def _dropin() -> bytes | None:
    with explained(DROPIN, "read"):
        try:
            return DROPIN.read_bytes()
        except FileNotFoundError:
            return None


def _put_dropin(bus: Bus, content: bytes | None) -> None:
    """Write what says where the TCP socket listens, as root, or take it away."""
    with explained(DROPIN, "written"):
        if content is None:
            DROPIN.unlink(missing_ok=True)
        else:
            DROPIN.parent.mkdir(parents=True, exist_ok=True)
            write_whole(DROPIN, content, mode=0o644)
    bus.reload()


# On the other machine itself


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


def join(
    bus: Bus,
    teller: Teller,
    left: Callable[[float], float],
    queen: tuple[str, int],
    *,
    token: str | None,
    name: str | None,
) -> dict[str, Any]:
    """Have this machine's hive join a queen elsewhere, or follow one who moved; what it is then.

    Who interrupts that is told what has come of it.
    """
    if bus.state(QUEEN_UNIT).load == "loaded":
        raise has_queen("this machine")
    if bus.state(HIVE_UNIT).load != "loaded":
        raise RbeeError("rbee-hive is not installed here", hint=with_packages("rbee-hive"))
    check_no_join(bus)
    folder = Path(STATE)
    before = _heads(folder)
    try:
        _look_at(bus, teller, left, queen, token)
        _invite(folder, invitation(*queen, name=name, token=token))
        restart_hive(bus, left, partial(_tell_joining, teller, queen, token))
    except KeyboardInterrupt as error:
        raise _interrupted(bus, is_joined=_heads(folder) != before) from error
    told = _membership(folder / "membership")
    if (told["host"], told["port"]) != queen:
        raise RbeeError(
            f"somebody else had this machine join meanwhile: it is the hive {told['hive_id']} of the queen "
            f"at {told['host']}:{told['port']}",
            hint="Join again, with another token",
        )
    return {"hive_id": told["hive_id"], "queen": f"{told['host']}:{told['port']}"}


def _look_at(
    bus: Bus, teller: Teller, left: Callable[[float], float], queen: tuple[str, int], token: str | None
) -> None:
    """Before anything is changed: is she reached, and is she the one that the token is of?"""
    from rbee.keeper.reach import check_keys, connect, joined

    try:
        teller.narrate(REACHING_QUEEN, f"reaching the queen at {joined(*queen)}")
        with connect(*queen, left) as channel:
            if token is not None:
                from rbee.tls import read_token

                teller.narrate(COMPARING_KEYS, "comparing her keys with those that the token is of")
                check_keys(channel, *queen, read_token(token)[-1], left)
    except RbeeError as error:
        raise type(error)(f"{error.message}{_still(bus)}", hint=error.hint, field=error.field) from error


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
        f"interrupted; this machine has not joined{_still(bus)}",
        hint="The queen may have taken the token all the same: rbeectl token list, on her machine",
    )


def _membership(path: Path) -> dict[str, Any]:
    """The first line of a membership, which user rbee-hive wrote."""
    with explained(path, "read"), as_owner_of(path.parent):
        head = read_regular(path, MEMBERSHIP_LIMIT).partition(b"\n")[0]
    try:
        told = json.loads(head.removeprefix(b"# "))
        return {name: told[name] for name in ("hive_id", "host", "port")}
    except (ValueError, KeyError, TypeError) as error:
        raise RbeeError(f"{path} is not a membership", hint=f"ls -l {path}") from error


def restart_hive(
    bus: Units, left: Callable[[float], float], tell: Callable[[str], None] = lambda _unit: None
) -> None:
    """Have an invitation taken up, if there is one, and then the hive started with what came of it.

    The hive runs on until it has been. Where that, or the start, fails, the hive is what it was before,
    and the error says so. `tell` is called with each unit that is about to be started.
    """
    was_up = not bus.state(HIVE_UNIT).is_stopped or not bus.state(REDIAL_UNIT).is_stopped
    if bus.state(JOIN_UNIT).load == "loaded":
        # Before 0.5.0 the hive itself takes it up as it starts.
        tell(JOIN_UNIT)
        take_up(bus, left)
    stop_within, start_within = left(STOP_TIMEOUT), left(START_TIMEOUT)
    tell(HIVE_UNIT)
    try:
        _start_anew(bus, stop_within, start_within)
    except BaseException as error:
        if was_up:
            # It goes back by itself to the membership with which it was ready last.
            with suppress(RbeeError):
                bus.reset_failed(HIVE_UNIT)
                bus.start(HIVE_UNIT, timeout=START_TIMEOUT)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}{_still(bus)}", hint=error.hint) from error
        raise


def check_no_join(bus: Units) -> None:
    """Another join's answer would be taken for this one's."""
    if not bus.state(JOIN_UNIT).is_stopped:
        raise RbeeError(
            f"another join is under way: {JOIN_UNIT} runs, for 40 s at most; wait for its end, or stop it",
            hint=f"sudo systemctl stop {JOIN_UNIT}",
        )


def _start_anew(bus: Units, stop_within: float, start_within: float) -> None:
    """Stop the hive and start it, as may do another operator at the same time.

    systemd cancels the job of whoever came first. The stop of the one is as good as that of the other,
    and two starts are one.
    """
    with suppress(JobReplaced):
        bus.stop(HIVE_UNIT, timeout=stop_within)
    if bus.state(HIVE_UNIT).active == "failed":
        bus.reset_failed(HIVE_UNIT)
    for _ in range(RESTARTS - 1):
        with suppress(JobReplaced):
            return bus.start(HIVE_UNIT, timeout=start_within)
    return bus.start(HIVE_UNIT, timeout=start_within)


def take_up(bus: Units, left: Callable[[float], float]) -> None:
    """Have rbee-hive-join take up the invitation that there is; the hive that runs is not touched."""
    try:
        bus.start(JOIN_UNIT, timeout=left(JOIN_TIMEOUT))
    except UnitFailed as error:
        state = bus.state(JOIN_UNIT)
        # Of one that died otherwise, its last words say nothing.
        said = said_by(state)[0] if state.exit_status == BadConfig.exit_code else ""
        told = f"{said or error.message}{_still(bus)}"
        with suppress(RbeeError):
            bus.reset_failed(JOIN_UNIT)  # nothing is broken
        raise UnitFailed(told, hint=error.hint) from error
    except BaseException:
        with suppress(RbeeError):
            bus.stop(JOIN_UNIT, timeout=STOP_TIMEOUT)  # or it would join when nobody waits for it any more
            if bus.state(JOIN_UNIT).active == "failed":
                bus.reset_failed(JOIN_UNIT)  # to be ended is no fault
        raise


def _still(bus: Units) -> str:
    """The end of a sentence, with what a hive that runs is all the same."""
    found = queen_dialled(bus.state(HIVE_UNIT))
    return f"; the machine is still {found}" if found else ""


def invitation(host: str, port: int, *, name: str | None, token: str | None) -> str:
    return json.dumps({"host": host, "port": port, "name": name, "token": token}) + "\n"


def has_queen(name: str, where: str = "") -> RbeeError:
    """`where` is what comes before a command that is for another machine."""
    return RbeeError(
        f"{name} has a queen of its own: a machine is hers, or a hive of another",
        hint=f"What that queen has: {where}rbeectl list-hives\n"
        f"If nobody needs her any more: {where}sudo apt remove rbee-queen",
    )


def is_this_machine(host: str, port: int | None) -> BadInput:
    again = f"rbeectl add-hive {LOCALHOST}" + ("" if port is None else f" --port {port}")
    return BadInput(f"{host} is this machine", hint=again, field="HOST")

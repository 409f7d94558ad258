"""The gateway: do its sockets listen, and has it failed?"""

from __future__ import annotations

from collections.abc import Iterator

from rbee.keeper.doctor.check import Complaint, no_bus
from rbee.keeper.doctor.patient import LAUNCHERS, Patient
from rbee.keeper.doctor.sockets import complain_of_socket, listening_paths
from rbee.keeper.doctor.units import complain_of_file, reason_of, where_to_look
from rbee.keeper.listener import port_holders
from rbee.scope import (
    GATEWAY_PROGRAM,
    GATEWAY_SOCKET_UNIT,
    GATEWAY_TCP_SOCKET_UNIT,
    GATEWAY_UNIT,
    QUEEN_SOCKET_UNIT,
    Scope,
)
from rbee.systemd.bus import Bus
from rbee.systemd.exitstatus import SETUPS
from rbee.systemd.unit import UnitState


def has_gateway(patient: Patient) -> bool:
    """Is the gateway installed on this machine?"""
    return (patient.root / LAUNCHERS / GATEWAY_PROGRAM).exists()


def check_gateway(patient: Patient) -> Iterator[Complaint]:
    """The service, the Unix socket, and the TCP socket if it is to be open."""
    bus, scope = patient.bus, patient.scope
    if bus is None:
        yield no_bus(scope)
        return
    service, socket = bus.state(GATEWAY_UNIT), bus.state(GATEWAY_SOCKET_UNIT)
    for unit, state in ((GATEWAY_UNIT, service), (GATEWAY_SOCKET_UNIT, socket)):
        yield from complain_of_file(unit, state, *bus.file_state(unit), scope)
    if service.load == "loaded" and service.active == "failed":
        yield complain_of_service(service, scope)
    if socket.load == "loaded" and not socket.is_active and bus.active_state(QUEEN_SOCKET_UNIT) == "active":
        why = f"has failed ({socket.result})" if socket.active == "failed" else "does not listen"
        yield Complaint(
            f"{GATEWAY_SOCKET_UNIT} {why}: no client reaches a model",
            (
                scope.command("systemctl", "reset-failed", GATEWAY_UNIT, GATEWAY_SOCKET_UNIT),
                scope.command("systemctl", "start", GATEWAY_SOCKET_UNIT),
            ),
        )
    folder = patient.root / scope.runtime.relative_to("/")
    # Without the folder check_sockets() has all sockets made anew.
    if socket.load == "loaded" and socket.is_active and folder.is_dir():
        yield from complain_of_socket(
            GATEWAY_SOCKET_UNIT,
            scope.gateway_socket,
            patient.root,
            bus.socket_access(GATEWAY_SOCKET_UNIT),
            listening_paths(patient.root),
            scope,
            cure=scope.command("systemctl", "restart", GATEWAY_SOCKET_UNIT),
        )
    yield from complain_of_tcp(bus, patient)


def complain_of_service(state: UnitState, scope: Scope) -> Complaint:
    """A gateway that has failed. The next client starts it again, unless its start limit is reached."""
    status = f"; its status: {state.status_text}" if state.status_text else ""
    cures = () if state.exit_status in SETUPS else (scope.command("systemctl", "reset-failed", GATEWAY_UNIT),)
    return Complaint(
        f"{GATEWAY_UNIT} has failed: {reason_of(state)}{status}",
        cures,
        hint=where_to_look(GATEWAY_UNIT, state, scope),
    )


def complain_of_tcp(bus: Bus, patient: Patient) -> Iterator[Complaint]:
    """A TCP socket that could not be opened, with who has its port."""
    state, scope = bus.state(GATEWAY_TCP_SOCKET_UNIT), patient.scope
    if state.active != "failed":
        return
    addresses, holders = port_holders(bus, GATEWAY_TCP_SOCKET_UNIT, patient.root)
    why = "; ".join(holders) or state.result
    yield Complaint(
        f"{GATEWAY_TCP_SOCKET_UNIT} could not be opened at {' and '.join(addresses)}: {why}",
        hint=f"When that is mended: {scope.rbeectl('gateway enable')}\n"
        f"Or on another port: {scope.rbeectl('gateway enable --listen ADDRESS:PORT', as_root=True)}",
    )

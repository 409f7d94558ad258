"""The units: are they there, can systemd use their files, and has one failed?"""

from __future__ import annotations

from collections.abc import Iterator

from rbee.errors import BadConfig, with_packages
from rbee.keeper.doctor.check import Command, Complaint, no_bus, restart
from rbee.keeper.doctor.patient import Patient, Program
from rbee.scope import (
    CONTROL_SOCKET_UNIT,
    JOIN_UNIT,
    METRICS_UNIT,
    QUEEN_UNIT,
    SYSTEM,
    TARGET,
    Scope,
    package_of,
)
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import NO_SOCKET
from rbee.systemd.exitstatus import SETUPS, cure_for_exit, describe_exit
from rbee.systemd.unit import UnitState, said_by
from rbee.wire.types import LOCALHOST

FAILING_TIMEOUT = 1.0
"""Seconds to wait for a service that is being restarted to fail again: only then systemd has the reason."""

BACK_TIMEOUT = 3.0
"""Seconds for a unit that is being restarted to be back, before that is a problem."""


def check_units(patient: Patient) -> Iterator[Complaint]:
    """Every unit of the installed programs: its file first, then whether it has failed."""
    scope = patient.scope
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    if not patient.programs:
        yield Complaint("neither the queen nor a hive is installed here", hint=with_packages("rbee"))
    for program in patient.programs:
        states = {unit: patient.bus.state(unit) for unit in (program.service, program.socket)}
        if states[program.service].is_restarting:
            states[program.service] = state_after_restart(patient.bus, program.service)
        for unit, state in states.items():
            yield from complain_of_file(unit, state, *patient.bus.file_state(unit), scope)
        # A unit that cannot be started at all is not reported as failed as well.
        if all(state.load == "loaded" for state in states.values()):
            service, socket = states.values()
            yield from complain_of_failure(program, service, socket, scope)
    if patient.is_installed(patient.queen):
        yield from complain_of_control(patient.bus, scope)
    yield from complain_of_metrics(patient.bus)
    if patient.is_installed(patient.hive):
        yield from complain_of_join(patient.bus.state(JOIN_UNIT), scope)
    yield from complain_of_file(TARGET, patient.bus.state(TARGET), *patient.bus.file_state(TARGET), scope)


def state_after_restart(bus: Bus, unit: str) -> UnitState:
    """Wait until a unit that is being restarted is active or has failed; return its state.

    If it is still being restarted after BACK_TIMEOUT, wait until it fails once more, for the reason.
    """
    state = bus.await_state(
        unit, lambda one: one.active == "active" or not one.is_restarting, timeout=BACK_TIMEOUT
    )
    if state.is_restarting and not state.has_reason:
        state = bus.failing_state(unit, timeout=FAILING_TIMEOUT)
    return state


def complain_of_file(
    unit: str, state: UnitState, file_state: str, needs_reload: bool, scope: Scope = SYSTEM
) -> Iterator[Complaint]:
    """What is wrong with a unit before it is even started."""
    if state.load == "masked":
        cures: tuple[Command, ...] = (unmask(unit, file_state, scope),)
        if unit.endswith(".socket") and state.is_active:
            # systemd closed the descriptor as it masked the unit, and leaves the unit active.
            cures = (*cures, restart(scope))
        yield Complaint(f"{unit} is masked: systemd refuses to start it and what depends on it", cures)
    elif state.load == "not-found":
        yield Complaint(
            f"the file of {unit} is missing, although its program is installed",
            hint=f"Install the package again: sudo apt install --reinstall ./{package_of(unit)}_*.deb",
        )
    elif state.load != "loaded":
        yield Complaint(
            f"systemd cannot use the file of {unit} ({state.load})",
            hint=" ".join(scope.command("systemd-analyze", "verify", unit)),
        )
    elif needs_reload:
        yield Complaint(
            f"the file of {unit} or a drop-in was changed, and systemd still uses the old one",
            (scope.command("systemctl", "daemon-reload"),),
        )


def unmask(unit: str, file_state: str, scope: Scope) -> Command:
    """The command that unmasks a unit with this UnitFileState."""
    # Without --runtime systemctl looks in /etc only, and reports nothing if the link is not there.
    flags = ["--runtime"] if file_state == "masked-runtime" else []
    return scope.command("systemctl", "unmask", *flags, unit)


def complain_of_failure(
    program: Program, service: UnitState, socket: UnitState, scope: Scope = SYSTEM
) -> Iterator[Complaint]:
    """A service or a socket that has failed, in one complaint: mostly one is the cause of the other."""
    service_failed, socket_failed = service.active == "failed", socket.active == "failed"
    if service.is_restarting:
        yield complain_of_restarts(program, service, scope)
    if not service_failed and not socket_failed:
        return
    has_no_socket = service_failed and NO_SOCKET in service.status_text
    if service_failed and service.exit_status == BadConfig.exit_code and not has_no_socket:
        yield Complaint(
            f"{program.service} cannot run: {service.status_text or reason_of(service)}",
            hint=f"Mend that; then wake it with: {scope.rbeectl(f'add-hive {LOCALHOST}')}",
        )
        return
    causes = []
    if socket_failed:
        causes.append(f"{program.socket} has failed and does not listen: {reason_of(socket)}")
    if service_failed:
        status = f"; its status: {service.status_text}" if service.status_text else ""
        causes.append(f"{program.service} has failed: {reason_of(service)}{status}")
    # reset-failed also resets the start limit, which would refuse the next start.
    cures = [scope.command("systemctl", "reset-failed", program.service, program.socket)]
    start = scope.command("systemctl", "start", program.socket)
    if service_failed and service.exit_status in SETUPS:
        # reset-failed is not a cure: the next start would fail as this one did.
        commands = [*cures, *([start] if socket_failed else [])]
        afterwards = "; ".join(scope.as_root(" ".join(command)) for command in commands)
        hint = f"{where_to_look(program.service, service, scope)}\nWhen that is mended: {afterwards}"
        yield Complaint("; ".join(causes), hint=hint)
        return
    if has_no_socket or (socket_failed and not service.is_stopped):
        cures.append(restart(scope))
    elif socket_failed:
        cures.append(start)
    yield Complaint("; ".join(causes), tuple(cures), hint=where_to_look(program.service, service, scope))


def complain_of_metrics(bus: Bus) -> Iterator[Complaint]:
    """A failed metrics unit, which nobody would notice, as a timer starts it."""
    state = bus.state(METRICS_UNIT)
    if state.active == "failed":
        yield Complaint(
            f"{METRICS_UNIT} has failed, and Prometheus gets no metrics from the queen: {reason_of(state)}",
            hint=where_to_look(METRICS_UNIT, state, bus.scope),
        )


def complain_of_control(bus: Bus, scope: Scope) -> Iterator[Complaint]:
    """The socket through which the queen controls its hive; the queen's start opens it."""
    state = bus.state(CONTROL_SOCKET_UNIT)
    yield from complain_of_file(CONTROL_SOCKET_UNIT, state, *bus.file_state(CONTROL_SOCKET_UNIT), scope)
    is_missed = not state.is_active and bus.active_state(QUEEN_UNIT) == "active"
    if state.load == "loaded" and (state.active == "failed" or is_missed):
        why = f"has failed ({state.result})" if state.active == "failed" else "does not listen"
        yield Complaint(
            f"{CONTROL_SOCKET_UNIT} {why}: the queen can neither start nor stop the hive of this machine",
            (scope.command("systemctl", "restart", CONTROL_SOCKET_UNIT),),
        )


def complain_of_restarts(program: Program, service: UnitState, scope: Scope) -> Complaint:
    """A service that fails at each start: 'activating', and never 'failed', while systemd retries."""
    count = (
        f" repeatedly, {service.restarts} time{'s' if service.restarts != 1 else ''} so far"
        if service.restarts
        else ""
    )
    return Complaint(
        f"{program.service} fails and is restarted{count}: {reason_of(service)}",
        hint=where_to_look(program.service, service, scope),
    )


def where_to_look(unit: str, state: UnitState, scope: Scope) -> str:
    """The hint for a unit that has failed: the cure for its exit status, or its journal."""
    return cure_for_exit(state.exit_status, unit, scope) or scope.journalctl(f"-u {unit} -e")


def complain_of_join(state: UnitState, scope: Scope) -> Iterator[Complaint]:
    """A join that has failed; the hive is what it was before."""
    if state.active == "failed":
        why = said_by(state)[0] or reason_of(state)
        yield Complaint(
            f"{JOIN_UNIT} has failed: {why}",
            (scope.command("systemctl", "reset-failed", JOIN_UNIT),),
            hint=f"To join a queen: {scope.rejoin}",
        )


def reason_of(state: UnitState) -> str:
    """Why a unit failed: its Result= in systemd, explained."""
    if state.result == "exit-code":
        return f"it ended with {describe_exit(state.exit_status)}"
    if state.result in ("signal", "core-dump"):
        return f"it was ended by signal {state.exit_status}"
    last = f"; it last ended with {state.end}" if state.end else ""
    if state.result in ("", "success"):
        return f"its last run has ended{last}"
    return _RESULTS.get(state.result, f"its result is '{state.result}'") + last


_RESULTS = {
    "start-limit-hit": "it was started too often in a row (start-limit-hit)",
    "service-start-limit-hit": "its service was woken repeatedly and could not start"
    " (service-start-limit-hit)",
    "trigger-limit-hit": "its service was woken too often in a short time (trigger-limit-hit)",
    "timeout": "it did not start or stop in time (timeout)",
    "watchdog": "it hung, and the watchdog ended it (watchdog)",
    "oom-kill": "the machine ran out of memory (oom-kill)",
    "resources": "systemd could not set up what it needs, such as its socket's file (resources)",
    "protocol": "it did not report that it was ready (protocol)",
}

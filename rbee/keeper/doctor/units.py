"""The units: are they there, can systemd use their files, and has one failed?"""

from __future__ import annotations

from collections.abc import Iterator

from rbee.errors import BadConfig, with_packages
from rbee.keeper.doctor.check import NO_BUS, RESTART, Command, Complaint
from rbee.keeper.doctor.patient import HIVE, QUEEN, Patient, Program
from rbee.scope import JOIN_UNIT, TARGET
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import NO_SOCKET
from rbee.systemd.exitstatus import SETUPS, cure_for_exit, describe_exit
from rbee.systemd.unit import UnitState, said_by

FAILING_TIMEOUT = 1.0
"""Seconds for a service that is just being restarted to fail again, which is when systemd knows why."""

BACK_TIMEOUT = 3.0
"""Seconds that a unit has, which is being restarted, to be back before that is a problem."""

METRICS_UNIT = "rbee-metrics.service"


def check_units(patient: Patient) -> Iterator[Complaint]:
    """Every unit of what is installed: its file first, then whether it has failed."""
    if patient.bus is None:
        yield NO_BUS
        return
    if not patient.programs:
        yield Complaint("neither the queen nor a hive is installed here", hint=with_packages("rbee"))
    for program in patient.programs:
        states = {unit: patient.bus.state(unit) for unit in (program.service, program.socket)}
        if states[program.service].is_restarting:
            states[program.service] = state_after_restart(patient.bus, program.service)
        for unit, state in states.items():
            yield from complain_of_file(unit, state, *patient.bus.file_state(unit))
        # A unit that cannot be started at all need not be told to have failed, too.
        if all(state.load == "loaded" for state in states.values()):
            yield from complain_of_failure(program, *states.values())
    yield from complain_of_metrics(patient.bus)
    if patient.is_installed(HIVE):
        yield from complain_of_join(patient.bus.state(JOIN_UNIT))
    yield from complain_of_file(TARGET, patient.bus.state(TARGET), *patient.bus.file_state(TARGET))


def state_after_restart(bus: Bus, unit: str) -> UnitState:
    """What becomes of a unit that is being restarted: it is back in a moment, has failed, or is restarted on.

    After a fault that was just mended, such as a stopped bus, it mostly is the first.
    """
    state = bus.await_state(
        unit, lambda one: one.active == "active" or not one.is_restarting, timeout=BACK_TIMEOUT
    )
    if state.is_restarting and not state.has_reason:
        state = bus.failing_state(unit, timeout=FAILING_TIMEOUT)
    return state


def complain_of_file(unit: str, state: UnitState, file_state: str, needs_reload: bool) -> Iterator[Complaint]:
    """What is wrong with a unit before it is even started."""
    if state.load == "masked":
        cures: tuple[Command, ...] = (unmask(unit, file_state),)
        if unit.endswith(".socket") and state.is_active:
            # systemd closed the descriptor as it masked the unit, and leaves the unit active.
            cures = (*cures, RESTART)
        yield Complaint(f"{unit} is masked: systemd refuses to start it and all that needs it", cures)
    elif state.load == "not-found":
        yield Complaint(
            f"the file of {unit} is gone, though its program is installed",
            hint=f"Install the package again: sudo apt install --reinstall ./{_package_of(unit)}_*.deb",
        )
    elif state.load != "loaded":
        yield Complaint(
            f"systemd cannot use the file of {unit} ({state.load})", hint=f"systemd-analyze verify {unit}"
        )
    elif needs_reload:
        yield Complaint(
            f"the file of {unit} or a drop-in was changed, and systemd still goes by the old one",
            (("systemctl", "daemon-reload"),),
        )


def unmask(unit: str, file_state: str) -> Command:
    # Without --runtime systemctl looks into /etc only, and says nothing where it finds nothing.
    return ("systemctl", "unmask", *(["--runtime"] if file_state == "masked-runtime" else []), unit)


def _package_of(unit: str) -> str:
    if unit == TARGET:
        return "python3-rbee"
    return QUEEN.package if unit in (QUEEN.service, QUEEN.socket) else HIVE.package


def complain_of_failure(program: Program, service: UnitState, socket: UnitState) -> Iterator[Complaint]:
    """Whether service or socket have failed, told as one story: the one is mostly why the other did."""
    service_failed, socket_failed = service.active == "failed", socket.active == "failed"
    if service.is_restarting:
        yield complain_of_restarts(program, service)
    if not service_failed and not socket_failed:
        return
    has_no_socket = service_failed and NO_SOCKET in service.status_text
    if service_failed and service.exit_status == BadConfig.exit_code and not has_no_socket:
        yield Complaint(
            f"{program.service} cannot run: {service.status_text or reason_of(service)}",
            hint="Mend that; then wake it with: rbeectl add-hive localhost",
        )
        return
    causes = []
    if socket_failed:
        causes.append(f"{program.socket} has failed and listens no more: {reason_of(socket)}")
    if service_failed:
        said = f"; it said: {service.status_text}" if service.status_text else ""
        causes.append(f"{program.service} has failed: {reason_of(service)}{said}")
    # reset-failed also lets go of the start limit, which would refuse the next start.
    cures: list[Command] = [("systemctl", "reset-failed", program.service, program.socket)]
    if service_failed and service.exit_status in SETUPS:
        # Forgetting is no cure: the next start fails as this one did.
        commands = [*cures, *([("systemctl", "start", program.socket)] if socket_failed else [])]
        afterwards = "; ".join(f"sudo {' '.join(command)}" for command in commands)
        hint = f"{where_to_look(program.service, service)}\nWhen that is mended: {afterwards}"
        yield Complaint("; ".join(causes), hint=hint)
        return
    if has_no_socket or (socket_failed and not service.is_stopped):
        cures.append(RESTART)
    elif socket_failed:
        cures.append(("systemctl", "start", program.socket))
    yield Complaint("; ".join(causes), tuple(cures), hint=where_to_look(program.service, service))


def complain_of_metrics(bus: Bus) -> Iterator[Complaint]:
    """Whether Prometheus gets the queen's metrics where somebody wants that: nobody watches a timer."""
    state = bus.state(METRICS_UNIT)
    if state.active == "failed":
        yield Complaint(
            f"{METRICS_UNIT} has failed, and Prometheus gets no metrics of the queen: {reason_of(state)}",
            hint=where_to_look(METRICS_UNIT, state),
        )


def complain_of_restarts(program: Program, service: UnitState) -> Complaint:
    """A service that fails at each start. It is 'activating', and never 'failed', while systemd tries on."""
    count = (
        f" again and again, {service.restarts} time{'s' if service.restarts != 1 else ''} so far"
        if service.restarts
        else ""
    )
    return Complaint(
        f"{program.service} fails and is restarted{count}: {reason_of(service)}",
        hint=where_to_look(program.service, service),
    )


def where_to_look(unit: str, state: UnitState) -> str:
    return cure_for_exit(state.exit_status, unit) or f"sudo journalctl -u {unit} -e"


def complain_of_join(state: UnitState) -> Iterator[Complaint]:
    """An invitation that was left, and came to nothing; the hive is what it was before."""
    if state.active == "failed":
        told = said_by(state)[0] or reason_of(state)
        yield Complaint(
            f"{JOIN_UNIT} has failed: {told}",
            (("systemctl", "reset-failed", JOIN_UNIT),),
            hint="To join a queen: sudo rbeectl join QUEEN:8500 --token TOKEN",
        )


def reason_of(state: UnitState) -> str:
    """Why a unit failed: systemd's Result, explained."""
    if state.result == "exit-code":
        return f"it ended with {describe_exit(state.exit_status)}"
    if state.result in ("signal", "core-dump"):
        return f"it was ended by signal {state.exit_status}"
    last = f"; at last it ended with {state.end}" if state.end else ""
    if state.result in ("", "success"):
        return f"its last run is over{last}"
    return _RESULTS.get(state.result, f"its result is '{state.result}'") + last


_RESULTS = {
    "start-limit-hit": "it was started too often in a row (start-limit-hit)",
    "service-start-limit-hit": "its service was woken again and again and could not start"
    " (service-start-limit-hit)",
    "trigger-limit-hit": "its service was woken too often in a short time (trigger-limit-hit)",
    "timeout": "it did not start or stop in time (timeout)",
    "watchdog": "it was stuck, and the watchdog ended it (watchdog)",
    "oom-kill": "the machine ran out of memory (oom-kill)",
    "resources": "systemd could not set up what it needs, such as its socket's file (resources)",
    "protocol": "it did not say that it was ready (protocol)",
}

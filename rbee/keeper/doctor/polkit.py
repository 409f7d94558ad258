"""polkit, which lets users who are not root start units."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rbee.errors import RbeeError
from rbee.keeper.doctor.check import Complaint, no_bus
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.doctor.units import reason_of, unmask
from rbee.scope import Scope
from rbee.systemd.unit import UnitState

POLKIT = "polkit.service"

RULES = Path("usr/share/polkit-1/rules.d/50-rbee.rules")


def check_polkit(patient: Patient) -> Iterator[Complaint]:
    """Is polkit installed, does it answer, and are the rules of rbee there?"""
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    scope = patient.scope
    state = patient.bus.state(POLKIT)
    file_state, _ = patient.bus.file_state(POLKIT)
    broken = complain_of_polkit(state, file_state, scope)
    if broken is None:
        try:
            patient.bus.ping_polkit()
        except RbeeError as error:
            broken = Complaint(
                f"polkit does not answer ({error.message}), so that only root can turn rbee on and off",
                (scope.command("systemctl", "restart", POLKIT),),
                hint=scope.journalctl(f"-u {POLKIT} -e"),
            )
    if broken is not None:
        yield broken
    if is_missing(patient.root / RULES):
        yield Complaint(
            f"/{RULES} is missing, by which group {scope.group} may turn rbee on and off",
            hint="Install the package python3-rbee again: sudo apt install --reinstall ./python3-rbee_*.deb",
        )


def is_missing(path: Path) -> bool:
    """Is the file missing? False if the folder may not be read: on Debian 12 only root and polkit may."""
    try:
        return not path.is_file()
    except PermissionError:
        return False


def complain_of_polkit(state: UnitState, file_state: str, scope: Scope) -> Complaint | None:
    """A polkit that is masked, not installed, or has failed."""
    only_root = "so that only root can turn rbee on and off"
    if state.load == "masked":
        return Complaint(f"{POLKIT} is masked, {only_root}", (unmask(POLKIT, file_state, scope),))
    if state.load == "not-found":
        install = ("apt-get", "install", "--yes", "polkitd")
        return Complaint(f"polkit is not installed, {only_root}", (install,))
    if state.active == "failed":
        return Complaint(
            f"{POLKIT} has failed ({reason_of(state)}), {only_root}",
            tuple(scope.command("systemctl", verb, POLKIT) for verb in ("reset-failed", "start")),
            hint=scope.journalctl(f"-u {POLKIT} -e"),
        )
    return None

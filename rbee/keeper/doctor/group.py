"""The users of the daemons, the group rbee, and whether the caller is in it."""

from __future__ import annotations

from collections.abc import Iterator

from rbee.keeper import permission
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.owners import has_group, has_user
from rbee.keeper.doctor.patient import Patient


def check_group(patient: Patient) -> Iterator[Complaint]:
    """Are the users and the group of the packages there, and is the caller in the group?"""
    group = patient.scope.group or ""
    for program in patient.programs:
        missing = [] if has_user(program.user) else [f"the user {program.user}"]
        if program == patient.queen and not has_group(group):
            missing.append(f"the group {group}")
        if missing:
            verb = "are" if missing[1:] else "is"
            yield Complaint(
                f"{' and '.join(missing)} {verb} missing, which the package {program.package} makes",
                (("systemd-sysusers", f"{program.package}.conf"),),
            )
    if not patient.is_installed(patient.queen) or not has_group(group):
        return
    if patient.is_root and (patient.sudo_user in (None, "root") or not has_user(patient.sudo_user)):
        return
    user = (patient.sudo_user if patient.is_root else None) or permission.user_name()
    standing = permission.standing(group, user if patient.is_root else None)
    if standing == "out":
        yield Complaint(
            f"{user} is not in group {group}, and only its members and root may use rbee",
            (("adduser", user, group),),
            hint=permission.LOG_IN,
        )
    elif standing == "not-yet":
        yield Complaint(
            f"{user} is in group {group}, and this login does not know it yet",
            hint=permission.new_login(group),
            is_fault=False,
        )

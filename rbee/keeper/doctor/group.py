"""The users of the daemons, the group rbee, and whether the caller is in it."""

from __future__ import annotations

from collections.abc import Iterator

from rbee.keeper import permission
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.owners import has_group, has_user
from rbee.keeper.doctor.patient import QUEEN, Patient


def check_group(patient: Patient) -> Iterator[Complaint]:
    """Are the users and the group of the packages there, and is the caller in the group?"""
    for program in patient.programs:
        missing = [] if has_user(program.user) else [f"the user {program.user}"]
        if program is QUEEN and not has_group(permission.GROUP):
            missing.append(f"the group {permission.GROUP}")
        if missing:
            verb = "are" if missing[1:] else "is"
            yield Complaint(
                f"{' and '.join(missing)} {verb} missing, which the package {program.package} makes",
                (("systemd-sysusers", f"{program.package}.conf"),),
            )
    if not patient.is_installed(QUEEN) or not has_group(permission.GROUP):
        return
    if patient.is_root and (patient.sudo_user in (None, "root") or not has_user(patient.sudo_user)):
        return
    user = (patient.sudo_user if patient.is_root else None) or permission.user_name()
    standing = permission.standing(user if patient.is_root else None)
    if standing == "out":
        yield Complaint(
            f"{user} is not in group {permission.GROUP}, and only its members and root may use rbee",
            (("adduser", user, permission.GROUP),),
            hint=permission.LOG_IN,
        )
    elif standing == "not-yet":
        yield Complaint(
            f"{user} is in group {permission.GROUP}, and this login does not know it yet",
            hint=permission.NEW_LOGIN,
            is_fault=False,
        )

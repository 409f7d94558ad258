"""Users and groups by their names, and whose a file is."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from rbee.keeper.doctor.owners import access_of, group_name, has_group, has_user, user_name

NOBODY = 3_420_080_244
"""A number that no user and no group has."""


def test_who_is_in_the_database_is_there() -> None:
    assert has_user("root")
    assert has_group("root")
    assert not has_user("rbee-never-was")
    assert not has_group("rbee-never-was")


def test_a_number_without_a_name_is_shown_as_it_is() -> None:
    assert (user_name(0), group_name(0)) == ("root", "root")
    assert (user_name(NOBODY), group_name(NOBODY)) == (str(NOBODY), str(NOBODY))


def test_a_file_is_described_by_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o4640)
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(path.stat().st_gid).gr_name

    assert access_of(path.stat()) == f"{user}:{group} with mode 4640"
    path.chmod(0o6)
    assert access_of(path.stat()).endswith("with mode 0006")

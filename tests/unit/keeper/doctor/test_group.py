"""Users and groups."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from rbee.keeper.doctor.group import check_group
from tests.unit.keeper.doctor.doubles import asked


def test_who_called_sudo_is_looked_up_and_root_itself_needs_no_group(
    root: Path, everybody_is_here: dict[str, list[str]]
) -> None:
    assert asked(check_group, None, root, is_root=True) == []
    assert asked(check_group, None, root, is_root=True, sudo_user="ada") == []

    (complaint,) = asked(check_group, None, root, is_root=True, sudo_user="mallory")

    assert complaint.text.startswith("mallory is not in group rbee")
    assert complaint.cures == (("adduser", "mallory", "rbee"),)


def test_a_login_from_before_is_no_fault(
    root: Path, everybody_is_here: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    monkeypatch.setattr(pwd, "getpwuid", pwd.getpwnam)
    monkeypatch.setattr("rbee.keeper.permission.user_name", lambda: "ada")
    assert asked(check_group, None, root) == []

    monkeypatch.setattr(os, "getgroups", lambda: [100])

    (complaint,) = asked(check_group, None, root)
    assert (complaint.is_fault, complaint.hint) == (False, "newgrp rbee\nOr log in again")


def test_what_a_package_should_have_made_is_made(
    root: Path, everybody_is_here: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody_is_here.clear()

    def nobody(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", nobody)

    queen, hive = asked(check_group, None, root)

    assert queen.text == (
        "the user queen-rbee and the group rbee are missing, which the package rbee-queen makes"
    )
    assert queen.cures == (("systemd-sysusers", "rbee-queen.conf"),)
    assert hive.cures == (("systemd-sysusers", "rbee-hive.conf"),)

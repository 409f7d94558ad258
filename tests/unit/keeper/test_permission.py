"""Whoever is refused learns why, and what to do."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from typing import Any

import pytest

from rbee.errors import NotPermitted
from rbee.keeper.permission import explain
from rbee.scope import SYSTEM

RBEE, USERS = 980, 100
REFUSAL = NotPermitted("/run/rbee/queen.sock is not open to you")


def world(
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_group: bool = True,
    members: tuple[str, ...] = (),
    primary: int = USERS,
    egid: int = USERS,
    groups: tuple[int, ...] = (USERS,),
    has_user: bool = True,
    in_a_directory: tuple[str, ...] = (),
) -> None:
    """A machine with the user vince, uid 1000, who typed rbeectl.

    Of those `in_a_directory` only that knows of the membership: the group itself does not list them.
    """

    def getgrnam(name: str) -> grp.struct_group:
        if name != "rbee" or not has_group:
            raise KeyError(name)
        return grp.struct_group(("rbee", "x", RBEE, list(members)))

    def getpw(key: object) -> pwd.struct_passwd:
        if key not in ("vince", 1000) or not has_user:
            raise KeyError(key)
        return pwd.struct_passwd(("vince", "x", 1000, primary, "", "/home/vince", "/bin/sh"))

    monkeypatch.setattr(grp, "getgrnam", getgrnam)
    monkeypatch.setattr(pwd, "getpwnam", getpw)
    monkeypatch.setattr(pwd, "getpwuid", getpw)

    def getgrouplist(user: str, group: int) -> list[int]:
        return [group, *([RBEE] if user in (*members, *in_a_directory) else [])]

    monkeypatch.setattr(os, "getgrouplist", getgrouplist)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: egid)
    monkeypatch.setattr(os, "getgroups", lambda: list(groups))


def explained(refusal: NotPermitted = REFUSAL) -> tuple[str, str | None, int]:
    error = explain(refusal, SYSTEM)
    return error.message, error.hint, error.exit_code


def test_who_is_not_in_the_group_is_told_how_to_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    world(monkeypatch, members=("anna",))

    assert explained() == (
        f"{REFUSAL}: only group rbee and root may do this, and vince is not in it",
        "sudo adduser vince rbee\nLog in again afterwards: a login keeps the groups that it began with.",
        77,
    )


@pytest.mark.parametrize(
    "where",
    [{"members": ("anna", "vince")}, {"primary": RBEE}, {"in_a_directory": ("vince",)}],
    ids=["a member", "the user's own group", "a member by a directory"],
)
def test_who_was_added_and_has_not_logged_in_again_is_told_just_that(
    monkeypatch: pytest.MonkeyPatch, where: dict[str, Any]
) -> None:
    world(monkeypatch, **where)

    assert explained() == (
        "you were added to group rbee, and this login does not know it yet",
        "newgrp rbee\nOr log in again",
        77,
    )


def test_the_words_are_the_same_whether_the_bus_or_the_socket_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world(monkeypatch, members=("vince",))
    bus = NotPermitted("starting queen-rbee.service: systemd does not let you do this (Access denied)")

    assert explained(bus) == explained()


@pytest.mark.parametrize("effective", [False, True], ids=["supplementary", "effective"])
def test_who_is_in_the_group_and_is_refused_all_the_same_looks_at_the_machine(
    monkeypatch: pytest.MonkeyPatch, effective: bool
) -> None:
    if effective:
        world(monkeypatch, egid=RBEE)
    else:
        world(monkeypatch, members=("vince",), groups=(USERS, RBEE))

    message, hint, _ = explained()

    assert message == "/run/rbee/queen.sock is not open to you, though you are in group rbee"
    assert hint == "sudo rbeectl doctor"


def test_where_there_is_no_group_root_is_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    world(monkeypatch, has_group=False)
    monkeypatch.setattr(sys, "argv", ["rbeectl", "shutdown", "--timeout", "5 s"])

    message, hint, _ = explained()

    assert message == "/run/rbee/queen.sock is not open to you; there is no group rbee on this machine"
    assert hint == "sudo rbeectl shutdown --timeout '5 s'"


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    world(monkeypatch, has_user=False)

    message, hint, _ = explained()

    assert message.endswith("and 1000 is not in it")
    assert hint

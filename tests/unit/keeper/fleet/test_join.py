"""This machine's hive joins a queen on another."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.fleet.invitation
import rbee.keeper.fleet.join
from rbee.errors import TimedOut, UnitFailed
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT, REDIAL_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import STILL, TEXT, Rbeectl
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus

LOOKING = """\
(bee keeper) reaching the queen at queen:8500
(bee keeper) comparing the queen's keys with the token's fingerprint
(bee keeper) joining the queen at queen with the token
"""


def hive_joins(bus: PlayedBus, state: Path) -> Callable[..., None]:
    """rbee-hive-join.service, which takes an invitation up, and the hive, which is what came of it."""
    start = bus.start

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        invitation = state / "invitation"
        if unit == JOIN_UNIT:
            bus.states[unit] = INACTIVE
            assert invitation.stat().st_mode & 0o777 == 0o600
            told = json.loads(invitation.read_text())
            assert told["token"] == TEXT
            head = {"hive_id": told["name"] or "gpu1", "host": told["host"], "port": told["port"], "ca": "x"}
            (state / "membership.new").write_text(f"# {json.dumps(head)}\nkey\n")
            invitation.unlink()
        else:
            (state / "membership.new").rename(state / "membership")

    return started


def test_joining_hands_over_an_invitation_and_starts_the_hive_once_that_was_taken_up(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "start", hive_joins(bus, joining))
    bus.states[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="exit-code")
    bus.after_stop[HIVE_UNIT] = bus.states[HIVE_UNIT]
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"{LOOKING}(bee keeper) starting rbee-hive.service\n"
        "This machine is the hive gpu1 of the queen at queen:8500\n"
    )
    assert bus.asked == [
        ("start", JOIN_UNIT), ("stop", HIVE_UNIT), ("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT),
    ]  # fmt: skip
    told = rbeectl("join", "queen:9000", "--token", TEXT, "--name", "blade", "--json").json[-1]
    assert told == {"event": "done", "hive_id": "blade", "queen": "queen:9000"}


def test_a_hive_of_a_version_that_takes_it_up_itself_is_only_started(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[JOIN_UNIT] = UnitState("not-found", "inactive", "dead")
    (joining / "membership").write_text('# {"hive_id": "gpu1", "host": "queen", "port": 8500}\n')

    assert rbeectl("join", "queen").code == 0
    assert bus.asked == [("stop", HIVE_UNIT), ("start", HIVE_UNIT)]


def test_a_hive_s_folder_that_is_read_only_is_not_said_to_be_missing(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(rbee.keeper.fleet.join.os, "chown", refuse)

    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert f"{joining}/invitation cannot be written: Read-only file system" in ran.err
    assert f"-T {joining})" in ran.err


def test_a_join_that_another_has_overtaken_is_not_called_done(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    (joining / "membership").write_text('# {"hive_id": "gpu1", "host": "other", "port": 8500}\n')
    ran = rbeectl("join", "queen")

    assert ran.code == 1
    assert (
        "somebody else made this machine join meanwhile: it is the hive gpu1 of the queen at other:8500"
        in (ran.err)
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (UnitState("loaded", "failed", "failed", 0, "exit-code",
            "joining failed: nobody listens on queen:8500; try: rbeectl tcp enable", exit_status=78),
         "rbeectl: joining failed: nobody listens on queen:8500; the machine is still"),
        (UnitState("loaded", "failed", "failed", 0, "timeout", "joining"),
         "rbeectl: it did not start; the machine is still"),
        (UnitState("loaded", "failed", "failed", 0, "exit-code", "joining", exit_status=226),
         "rbeectl: it did not start; the machine is still"),
    ],
)  # fmt: skip
def test_an_invitation_that_comes_to_nothing_leaves_the_hive_alone_and_no_unit_failed(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, state: UnitState, words: str
) -> None:
    bus.states[HIVE_UNIT] = STILL
    bus.refusals["start", JOIN_UNIT] = UnitFailed("it did not start", hint="look there")
    bus.after["start", JOIN_UNIT] = state
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert ran.err == f"{words} a hive of the queen at queen:8500\n  try: look there\n"
    assert bus.asked == [("start", JOIN_UNIT), ("reset-failed", JOIN_UNIT)]


def test_who_does_not_wait_for_the_join_has_it_stopped(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[HIVE_UNIT] = STILL
    bus.refusals["start", JOIN_UNIT] = TimedOut("it was not done after 1 s")

    assert rbeectl("join", "queen", "--token", TEXT).code == 1
    assert bus.asked == [("start", JOIN_UNIT), ("stop", JOIN_UNIT)]


@pytest.mark.parametrize(
    ("is_joined", "words"),
    [
        (False, "interrupted; this machine has not joined; the machine is still a hive of the queen at"),
        (True, "interrupted; this machine has joined, and its hive has to be restarted"),
    ],
)
def test_who_interrupts_a_join_is_told_what_has_come_of_it(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, is_joined: bool, words: str
) -> None:
    bus.states[HIVE_UNIT] = STILL
    start = bus.start

    def interrupted(unit: str, **options: Any) -> None:
        start(unit, **options)
        if is_joined:
            (joining / "membership.new").write_text("# {}\n")
        raise KeyboardInterrupt

    bus.start = interrupted  # type: ignore[method-assign]
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 130
    assert words in ran.err
    assert bus.asked == [("start", JOIN_UNIT), ("stop", JOIN_UNIT)]


@pytest.mark.parametrize("error", [UnitFailed("it did not start"), TimedOut("not done"), KeyboardInterrupt()])
@pytest.mark.parametrize("unit", [HIVE_UNIT, REDIAL_UNIT])
def test_a_hive_that_does_not_start_with_what_was_joined_is_started_with_what_it_was(
    bus: PlayedBus, error: BaseException, unit: str
) -> None:
    bus.states[HIVE_UNIT] = INACTIVE
    bus.states[unit] = STILL
    start, tries = bus.start, iter([error])

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        if unit == HIVE_UNIT:
            for one in tries:
                raise one
            bus.states[unit] = STILL

    bus.start = started  # type: ignore[method-assign]
    with pytest.raises(type(error)) as caught:
        rbee.keeper.fleet.invitation.restart_hive(bus, lambda most: most)  # type: ignore[arg-type]

    assert bus.asked[-2:] == [("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT)]
    if isinstance(error, UnitFailed):
        assert str(caught.value) == (
            "it did not start; the machine is still a hive of the queen at queen:8500"
        )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("queen", "--token", "x.y.z"), 2, "the token is damaged"),
        (("queen:x", "--token", TEXT), 2, "QUEEN must be HOST:PORT"),
        (("queen",), 2, "--token is needed"),
        (("queen", "--token", TEXT, "--name", "a b"), 2, "--name must be made of"),
    ],
)
def test_what_cannot_be_joined_is_refused_and_nothing_is_stopped(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = rbeectl("join", *arguments)

    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert bus.asked == []
    assert list(joining.iterdir()) == []


def test_joining_is_root_s(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = rbeectl("join", "queen:9000", "--token", TEXT)

    assert ran.code == 77
    assert ran.err == (
        "rbeectl: only root may make this machine join a queen\n"
        "  try: sudo rbeectl join queen:9000 --token TOKEN\n"
    )


def test_a_machine_with_a_queen_of_its_own_does_not_join_another(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[QUEEN_UNIT] = ACTIVE
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert "this machine has a queen of its own" in ran.err
    assert list(joining.iterdir()) == []


def test_a_machine_without_rbee_hive_is_told_what_to_install(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[HIVE_UNIT] = UnitState("not-found", "inactive", "dead")
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert "sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb" in ran.err

"""rbeectl doctor: its last line, its JSON and its exit status; the checks are played."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import rbee.keeper.doctor.doctor
import rbee.keeper.verbs.doctor
from rbee.keeper.doctor.check import Command, Complaint
from rbee.keeper.doctor.doctor import Verdict
from rbee.keeper.verbs.doctor import diagnosis
from rbee.scope import SYSTEM, Scope
from rbee.systemd.errors import BUS_TIMEOUT
from tests.unit.keeper.doubles import Ran, Rbeectl
from tests.unit.played_systemd import PlayedBus

POLKIT_RULE_TIMEOUT = 15.0
"""Seconds after which polkit ends a rule that hangs; from then on it would answer."""

CURE = ("systemctl", "restart", "rbee.target")
BROKEN = Verdict("units", "the units are well", (Complaint("one has failed", (CURE,)),))
NOTED = Verdict("group", "the group is well", (Complaint("nobody is in it", is_fault=False),))


class PlayedDoctor:
    """Whose verdicts are these, before it mends and afterwards."""

    verdicts: Iterator[list[Verdict]]

    open_bus: Callable[[], object]

    def __init__(self, bus: Callable[[], object], stream: object, *, scope: Scope) -> None:
        PlayedDoctor.open_bus = staticmethod(bus)
        self.stream = stream
        self.ran: list[Command] = []

    def look(self) -> list[Verdict]:
        return next(self.verdicts)

    def mend(self) -> list[Verdict]:
        self.ran.append(CURE)
        return next(self.verdicts)


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> type[PlayedDoctor]:
    monkeypatch.setattr(rbee.keeper.doctor.doctor, "Doctor", PlayedDoctor)
    return PlayedDoctor


@pytest.mark.parametrize(
    ("faults", "curable", "has_mended", "said"),
    [
        (0, 0, False, "All is well."),
        (0, 0, True, "All is well now."),
        (1, 0, False, "1 problem."),
        (2, 0, True, "2 problems left."),
        (2, 1, False, "2 problems. Run the commands shown, or: sudo rbeectl doctor --fix"),
        (1, 1, True, "1 problem left. Run the commands shown, or: sudo rbeectl doctor --fix"),
    ],
)
def test_the_last_line_counts_what_is_left(faults: int, curable: int, has_mended: bool, said: str) -> None:
    assert diagnosis(faults, curable, SYSTEM, has_mended=has_mended) == said


def test_a_fault_that_is_left_is_an_exit_status_and_a_note_is_none(
    bus: PlayedBus, rbeectl: Rbeectl, finds: type[PlayedDoctor]
) -> None:
    finds.verdicts = iter([[NOTED], [NOTED, BROKEN], [NOTED]])

    assert rbeectl("doctor") == Ran(0, "All is well.\n", "")
    ran = rbeectl("doctor")
    assert (ran.code, ran.out.splitlines()[-1]) == (
        1, "1 problem. Run the commands shown, or: sudo rbeectl doctor --fix",
    )  # fmt: skip
    assert rbeectl("doctor", "--fix") == Ran(0, "All is well now.\n", "")


def test_a_program_reads_each_check_and_what_was_run(
    bus: PlayedBus, rbeectl: Rbeectl, finds: type[PlayedDoctor]
) -> None:
    finds.verdicts = iter([[NOTED, BROKEN]])

    ran = rbeectl("doctor", "--fix", "--json")

    (told,) = ran.json
    assert (ran.code, told["ok"], told["ran"]) == (1, False, [list(CURE)])
    assert [(check["check"], check["ok"]) for check in told["checks"]] == [("group", True), ("units", False)]


def test_a_busy_systemd_is_waited_for_and_a_polkit_that_hangs_is_found(
    bus: PlayedBus, rbeectl: Rbeectl, finds: type[PlayedDoctor], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float] = []

    def opened(_scope: Scope, *, timeout: float) -> PlayedBus:
        patience.append(timeout)
        return bus

    monkeypatch.setattr(rbee.keeper.verbs.doctor, "Bus", opened)
    finds.verdicts = iter([[]])
    rbeectl("doctor")
    finds.open_bus()

    assert 2 * BUS_TIMEOUT < patience[0] < POLKIT_RULE_TIMEOUT

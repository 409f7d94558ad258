"""The doctor at work: what is told, what is run, and what decides."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rbee.errors import NotPermitted, TimedOut, UnitFailed
from rbee.keeper.doctor.check import Check, Complaint, restart
from rbee.keeper.doctor.doctor import Doctor, Verdict, cures_of, verdict_json
from rbee.keeper.doctor.patient import Patient
from rbee.scope import SYSTEM
from rbee.systemd.connection import SYSTEMD
from tests.unit.played_systemd import PlayedBus

RESTART = restart(SYSTEM)


def verdict(*complaints: Complaint) -> Verdict:
    return Verdict("check", "well", complaints)


def doctor(
    bus: PlayedBus,
    *looks: Callable[[Patient], Iterator[Complaint]],
    stream: io.StringIO | None = None,
    root: Path = Path("/"),
) -> Doctor:
    table = tuple(Check(look.__name__, f"{look.__name__} is well", look) for look in looks)
    return Doctor(cast(Any, lambda: bus), stream, root=root, checks=table)


def test_each_cure_is_run_once_at_its_last_place_and_notes_have_none() -> None:
    unmask, make = ("systemctl", "unmask", "x"), ("systemd-tmpfiles", "--create")
    told = [
        verdict(Complaint("masked", (unmask, RESTART))),
        verdict(Complaint("gone", (make, RESTART)), Complaint("a note", (("never",),), is_fault=False)),
    ]

    assert cures_of(told) == [unmask, make, RESTART]


def test_what_is_shown_is_what_is_run_and_the_second_look_decides(
    bus: PlayedBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    mended = tmp_path / "it's mended"

    def broken(patient: Patient) -> Iterator[Complaint]:
        if not mended.exists():
            yield Complaint("it is broken", (("touch", str(mended)),), hint="look here")

    stream = io.StringIO()
    at_work = doctor(bus, broken, stream=stream)

    verdicts = at_work.mend()

    assert [one.faults for one in verdicts] == [[], []]
    assert at_work.ran == [("touch", str(mended))]
    quoted = f"touch '{tmp_path}/it'\"'\"'s mended'"
    assert stream.getvalue().splitlines() == [
        "ok       the system bus answers",
        "problem  broken: it is broken",
        f"  try: sudo {quoted}",
        "  hint: look here",
        f"run      {quoted}",
        "Looking again:",
        "ok       the system bus answers",
        "ok       broken is well",
    ]
    monkeypatch.delenv("SUDO_USER")
    assert not doctor(bus).typed(("x",)).startswith("sudo"), "root's own shell may have none"


def test_what_does_not_help_is_not_tried_for_ever(bus: PlayedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    numbers = iter(range(100))

    def stubborn(patient: Patient) -> Iterator[Complaint]:
        yield Complaint("it is broken", ((sys.executable, "-c", "print('no'); raise SystemExit(3)"),))

    def changing(patient: Patient) -> Iterator[Complaint]:
        yield Complaint(f"it is broken {next(numbers)}", (("/nonexistent/program",),))

    stream = io.StringIO()
    at_work = doctor(bus, stubborn, stream=stream)
    assert [len(one.faults) for one in at_work.mend()] == [0, 1]
    assert len(at_work.ran) == 1
    assert "  failed: exit status 3\n    no\n" in stream.getvalue()

    stream = io.StringIO()
    at_work = doctor(bus, changing, stream=stream)
    at_work.mend()
    assert len(at_work.ran) == 4
    assert "  failed: No such file or directory\n" in stream.getvalue()


def test_a_cure_that_hangs_has_its_deadline(bus: PlayedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("rbee.keeper.doctor.doctor.CURE_TIMEOUT", 0.05)

    def broken(patient: Patient) -> Iterator[Complaint]:
        yield Complaint("it is broken", (("sleep", "60"),))

    stream = io.StringIO()
    doctor(bus, broken, stream=stream).mend()

    assert "  failed: it was not done after 0.05 s\n" in stream.getvalue()


def test_only_root_may_mend_and_nothing_is_looked_at_before(
    bus: PlayedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NotPermitted) as caught:
        doctor(bus).mend()

    assert caught.value.hint == "sudo rbeectl doctor --fix"
    assert bus.pinged == []


def test_a_check_that_cannot_look_says_so_and_the_others_go_on(bus: PlayedBus) -> None:
    def refused(patient: Patient) -> Iterator[Complaint]:
        raise UnitFailed("asking for x: no", hint="why")
        yield

    def unreadable(patient: Patient) -> Iterator[Complaint]:
        Path("/nonexistent/file").read_text()
        yield Complaint("never")

    stream = io.StringIO()
    *_, last = doctor(bus, refused, unreadable, stream=stream).look()

    assert "problem  refused: could not be checked: asking for x: no\n  hint: why\n" in stream.getvalue()
    assert last.faults[0].text == "could not be checked: /nonexistent/file: No such file or directory"


def test_a_silent_systemd_is_the_bus_s_fault_and_the_checks_know_it(bus: PlayedBus, root: Path) -> None:
    bus.refusals["ping", SYSTEMD] = TimedOut("no answer within 3 s")
    seen: list[Patient] = []

    def look(patient: Patient) -> Iterator[Complaint]:
        seen.append(patient)
        yield from ()

    verdicts = doctor(bus, look, root=root).look()

    assert len(verdicts[0].faults) == 1
    assert seen[0].bus is None


def test_what_could_steer_a_terminal_is_shown_escaped(bus: PlayedBus) -> None:
    def rude(patient: Patient) -> Iterator[Complaint]:
        yield Complaint("process 12 (\033[2Jevil) holds a lock")

    stream = io.StringIO()
    doctor(bus, rude, stream=stream).look()

    assert "\033" not in stream.getvalue()


def test_json_tells_faults_from_notes() -> None:
    told = verdict_json(verdict(Complaint("note", is_fault=False)))
    assert told["ok"] is True
    told = verdict_json(verdict(Complaint("broken", (("a", "b"),), hint="c")))
    assert told == {
        "check": "check",
        "ok": False,
        "complaints": [{"fault": True, "text": "broken", "cures": [["a", "b"]], "hint": "c"}],
    }

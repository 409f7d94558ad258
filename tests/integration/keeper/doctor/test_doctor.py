"""Commands that mend, in processes of their own, while rbeectl is interrupted."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rbee.keeper.doctor.check import Check, Complaint
from rbee.keeper.doctor.doctor import Doctor
from rbee.keeper.doctor.patient import Patient
from tests.unit.played_systemd import PlayedBus


def doctor(look: Callable[[Patient], Iterator[Complaint]]) -> Doctor:
    return Doctor(cast(Any, PlayedBus), None, checks=[Check("a check", "all is well", look)])


def test_ctrl_c_waits_for_the_command_that_mends_and_got_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    done = tmp_path / "done"
    goes_on = tmp_path / "goes on"
    os.mkfifo(goes_on)
    mending = f"cat {shlex.quote(str(goes_on))}; touch {shlex.quote(str(done))}"

    def broken(patient: Patient) -> Iterator[Complaint]:
        yield Complaint("it is broken", (("sh", "-c", mending),))

    calls = itertools.count()
    communicate = subprocess.Popen.communicate

    def interrupted(running: Any, **options: Any) -> tuple[str, None]:
        if next(calls) == 0:
            raise KeyboardInterrupt
        goes_on.write_text("it does")
        return communicate(running, **options)

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)

    with pytest.raises(KeyboardInterrupt):
        doctor(broken).mend()

    assert done.exists()


def test_a_command_that_goes_on_after_ctrl_c_has_the_rest_of_its_time_and_nothing_else_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is with SIGTERM, which raises the same and does not reach the command."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("rbee.keeper.doctor.doctor.CURE_TIMEOUT", 0.05)
    calls = itertools.count()
    communicate = subprocess.Popen.communicate
    started: list[subprocess.Popen[str]] = []

    def interrupted(running: Any, **options: Any) -> tuple[str, None]:
        started.append(running)
        if next(calls) == 0:
            raise KeyboardInterrupt
        return communicate(running, **options)

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)

    def broken(patient: Patient) -> Iterator[Complaint]:
        yield Complaint("it is broken", (("sleep", "60"), ("sleep", "61")))

    with pytest.raises(KeyboardInterrupt):
        doctor(broken).mend()

    assert started[0] is started[-1]
    assert started[0].wait(5) == -signal.SIGKILL

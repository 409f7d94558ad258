"""The units of another machine, by a systemctl that is played; the real one is tests/system/fleet's."""

from __future__ import annotations

import pytest

import rbee.keeper.fleet.units
from rbee.errors import TimedOut, UnitFailed
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from rbee.keeper.fleet.units import RemoteUnits
from rbee.scope import HIVE_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.fleet.conftest import There

SYSTEMCTL = """
if [ "$1" = show ]; then
    printf 'LoadState=loaded\\nActiveState=%s\\nSubState=%s\\nResult=%s\\n' failed failed {result}
    printf 'StatusText=%s\\nMainPID=0\\nExecMainStatus=78\\n' '{said}'
    exit
fi
[ "$2" != {fails} ] || {{ echo 'Job for {unit} failed = see there.' >&2; {ends}; }}
"""
THERE = "ssh -t root@gpu1 sudo"
CURES = f"{THERE} systemctl status {HIVE_UNIT}\n{THERE} journalctl -n 20 -u {HIVE_UNIT}"


def play(there: There, *, fails: str, result: str = "success", said: str = "", ends: str = "exit 1") -> None:
    values = {"fails": fails, "result": result, "said": said, "ends": ends}
    there.program("systemctl", SYSTEMCTL.format(unit=HIVE_UNIT, **values))


def test_a_unit_is_what_systemctl_shows(there: There) -> None:
    play(there, fails="nothing", result="exit-code", said="a = b")
    with Ssh(Typed("gpu1", "root")) as ssh:
        units = RemoteUnits(ssh)
        assert units.state(HIVE_UNIT) == UnitState(
            "loaded", "failed", "failed", result="exit-code", status_text="a = b", exit_status=78
        )
        units.stop(HIVE_UNIT, timeout=5)
        units.reset_failed(HIVE_UNIT)
        units.start(HIVE_UNIT, timeout=5)


def test_a_unit_that_fails_is_told_in_its_own_words_and_its_cures_are_for_its_machine(there: There) -> None:
    said = "joining failed: the name is taken; try: rbeectl list-hives; try: sudo rbeectl join QUEEN"
    play(there, fails="start", result="exit-code", said=said)
    with (
        Ssh(Typed("gpu1", "root")) as ssh,
        pytest.raises(UnitFailed, match="joining failed: the name") as caught,
    ):
        RemoteUnits(ssh).start(HIVE_UNIT, timeout=5)
    assert caught.value.hint == "rbeectl list-hives\nssh -t root@gpu1 sudo rbeectl join QUEEN"


@pytest.mark.parametrize(("result", "told"), [("timeout", "its result is"), ("success", "Job for .* there")])
def test_a_unit_that_says_nothing_is_to_be_looked_at_on_its_machine(
    there: There, result: str, told: str
) -> None:
    play(there, fails="stop", result=result)
    with (
        Ssh(Typed("gpu1", "root")) as ssh,
        pytest.raises(UnitFailed, match=f"did not stop: {told}") as caught,
    ):
        RemoteUnits(ssh).stop(HIVE_UNIT, timeout=5)
    assert caught.value.hint == CURES


def test_a_unit_that_takes_too_long_is_given_up(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.keeper.fleet.units, "SLACK", 0.5)
    play(there, fails="start", ends="exec sleep 30")
    with (
        Ssh(Typed("gpu1", "root")) as ssh,
        pytest.raises(TimedOut, match="gpu1 was not done") as caught,
    ):
        RemoteUnits(ssh).start(HIVE_UNIT, timeout=0.1)
    assert caught.value.hint == CURES

"""Of which queen the hive of this machine is, as rbeectl finds out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee.keeper.local_hive import LocalHive, RemoteQueen
from rbee.scope import SYSTEM
from tests.unit.played_systemd import ACTIVE, INACTIVE

FOLDER = SYSTEM.hive_state.relative_to("/")
DIALS = "queen at queen:8500, heartbeat every 15 s"


def has_joined(root: Path, **changes: object) -> None:
    told = {"hive_id": "gpu1", "host": "10.0.0.1", "port": 8500, "ca": "x", **changes}
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    (root / FOLDER / "membership").write_text(f"# {json.dumps(told)}\n")


@pytest.mark.parametrize(("host", "shown"), [("10.0.0.1", "10.0.0.1:8500"), ("fd00::1", "[fd00::1]:8500")])
def test_a_membership_says_it_of_a_hive_that_does_not_run_too(tmp_path: Path, host: str, shown: str) -> None:
    has_joined(tmp_path, host=host)

    assert LocalHive(INACTIVE, INACTIVE).remote_queen(tmp_path) == RemoteQueen(shown, "gpu1")


def test_who_may_not_read_it_goes_by_what_the_hive_says(tmp_path: Path) -> None:
    local = LocalHive(ACTIVE._replace(status_text=DIALS), INACTIVE)

    assert str(local.remote_queen(tmp_path)) == "a hive of the queen at queen:8500"


@pytest.mark.parametrize(
    "state",
    [
        INACTIVE,
        INACTIVE._replace(status_text=DIALS),
        ACTIVE._replace(status_text="queen at /run/x.sock, no beat"),
    ],
    ids=["not there", "of before", "her own machine's"],
)
def test_a_local_queen_s_hive_has_no_remote_one(tmp_path: Path, state: object) -> None:
    assert LocalHive(state, INACTIVE).remote_queen(tmp_path) is None  # type: ignore[arg-type]  # parametrize has no types


def test_what_is_no_membership_says_nothing(tmp_path: Path) -> None:
    has_joined(tmp_path, host="\033[2J")

    assert LocalHive(INACTIVE, INACTIVE).remote_queen(tmp_path) is None

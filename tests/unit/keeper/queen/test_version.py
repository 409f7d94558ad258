"""Whether the queen who runs is one that this rbeectl can ask."""

from __future__ import annotations

import pytest

from rbee.errors import VersionSkew
from rbee.keeper.queen.version import check_version, numbers_of
from rbee.scope import SYSTEM


def test_versions_are_compared_as_numbers() -> None:
    assert numbers_of("0.10.2") > numbers_of("0.9")


@pytest.mark.parametrize("queen", ["0.5.0", "0.5.9", "0.6.0", "1.0.0"])
def test_a_queen_of_the_same_minor_version_or_a_newer_one_can_be_asked(queen: str) -> None:
    check_version(queen, SYSTEM, "0.5.1")


@pytest.mark.parametrize("queen", ["0.4.9", "0.0.1"])
def test_an_older_one_is_named_with_what_has_her_run_as_a_newer(queen: str) -> None:
    with pytest.raises(VersionSkew, match=f"is version {queen}, which is too old for") as caught:
        check_version(queen, SYSTEM, "0.5.1")

    restart, upgrade = (caught.value.hint or "").splitlines()
    assert restart == "sudo systemctl try-restart queen-rbee.service"
    assert "upgrade rbee-queen on this machine" in upgrade

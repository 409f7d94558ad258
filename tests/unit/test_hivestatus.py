"""What a hive's status line says of its queen is read back as it was written."""

from __future__ import annotations

import pytest

from rbee import hivestatus
from rbee.hivestatus import QueenLink

REMOTE, SOCKET = "queen:8500", "/run/rbee/queen.sock"


@pytest.mark.parametrize("queen", [REMOTE, SOCKET, "[fd00::1]:8500"])
def test_each_line_is_read_back_as_what_it_tells(queen: str) -> None:
    assert hivestatus.read(hivestatus.no_beat_yet(queen)) == QueenLink(queen)
    assert hivestatus.read(hivestatus.waits(queen)) == QueenLink(queen)
    assert hivestatus.read(hivestatus.beats(queen, 2.5)) == QueenLink(queen, is_connected=True)
    trouble = hivestatus.has_trouble(queen, "it broke: twice")
    assert hivestatus.read(trouble) == QueenLink(queen, trouble="it broke: twice")


def test_the_interval_is_shown_without_zeros_behind_it() -> None:
    assert hivestatus.beats(REMOTE, 15.0).endswith("heartbeat every 15 s")
    assert hivestatus.beats(REMOTE, 2.5).endswith("heartbeat every 2.5 s")


def test_the_line_of_a_hive_of_before_an_upgrade_is_read() -> None:
    line = f"queen at {REMOTE}, last beat 12:00:00 UTC, the next within 15 s"

    assert hivestatus.read(line) == QueenLink(REMOTE, is_connected=True)


@pytest.mark.parametrize(
    "text", ["", "rbee.conf: soon is no span", "queen at ", "the queen at queen:8500: x"]
)
def test_a_line_about_something_else_is_no_link(text: str) -> None:
    assert hivestatus.read(text) is None


def test_a_queen_by_a_path_is_on_this_machine() -> None:
    assert QueenLink(REMOTE).is_remote
    assert not QueenLink(SOCKET).is_remote

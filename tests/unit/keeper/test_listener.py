"""Who has a port, in words."""

from __future__ import annotations

from rbee.keeper.listener import Listener


def test_a_user_without_a_name_is_a_number() -> None:
    assert str(Listener(3420080244, None, "")) == "a process of user 3420080244"


def test_the_programs_name_steers_no_terminal() -> None:
    assert "\x1b" not in str(Listener(0, 1, "\x1b[31mnc"))

"""What systemd's own exit statuses mean, and what shows why."""

from __future__ import annotations

import pytest

from rbee.scope import user_scope
from rbee.systemd.exitstatus import SETUPS, cure_for_exit, describe_exit


def test_a_program_s_own_status_is_a_number_alone() -> None:
    assert describe_exit(78) == "exit status 78"
    assert cure_for_exit(78, "x.service") is None


@pytest.mark.parametrize("status", SETUPS)
def test_each_status_of_systemd_s_has_its_name_and_its_cure(status: int) -> None:
    assert describe_exit(status).startswith(f"exit status {status}/{SETUPS[status].name}: systemd could not ")
    assert (cure_for_exit(status, "x.service") or "").endswith("sudo journalctl -u x.service -e")


def test_of_a_user_s_unit_the_user_is_asked() -> None:
    assert cure_for_exit(226, "x.service", user_scope()) is not None
    for line in (cure_for_exit(226, "x.service", user_scope()) or "").splitlines():
        assert line.split()[:2] in (["systemctl", "--user"], ["journalctl", "--user"])

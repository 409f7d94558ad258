"""The doctor's decisions: systemd is played, and the machine is a folder."""

from __future__ import annotations

import grp
import io
import json
import os
import pwd
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import rbee.keeper.checks as checks
from rbee.errors import NotPermitted, RbeeError, TimedOut, UnitFailed, Unreachable
from rbee.keeper.checks import Complaint, Patient
from rbee.keeper.doctor import Doctor, Verdict, cures_of, verdict_json
from rbee.scope import (
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    JOIN_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    TARGET,
    TCP_RETRY_UNIT,
    TCP_SOCKET_UNIT,
)
from rbee.systemd.bus import Bus
from rbee.systemd.connection import SYSTEMD
from rbee.systemd.unit import UnitState
from tests.unit.played_systemd import ACTIVE, INACTIVE

LISTENING = UnitState("loaded", "active", "listening", result="success")
FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1)
MASKED = UnitState("masked", "inactive", "dead")
GONE = UnitState("not-found", "inactive", "dead")
POLKIT = "polkit.service"
RESTART = ("systemctl", "restart", TARGET)


@dataclass
class PlayedBus:
    """What the doctor asks of systemd; `silent` names do not answer."""

    states: dict[str, UnitState] = field(
        default_factory=lambda: {
            QUEEN_UNIT: INACTIVE,
            QUEEN_SOCKET_UNIT: LISTENING,
            HIVE_UNIT: INACTIVE,
            HIVE_SOCKET_UNIT: LISTENING,
            JOIN_UNIT: INACTIVE,
            TARGET: INACTIVE,
            TCP_SOCKET_UNIT: INACTIVE,
            TCP_RETRY_UNIT: INACTIVE,
            POLKIT: ACTIVE,
        }
    )
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)
    silent: dict[str, RbeeError] = field(default_factory=dict)
    access: tuple[str, str, int] = ("", "", 0o660)
    pinged: list[str] = field(default_factory=list)
    later: dict[str, list[UnitState]] = field(default_factory=dict)
    """What units become while somebody waits."""

    def __enter__(self) -> PlayedBus:
        if "open" in self.silent:
            raise self.silent["open"]
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ping(self, name: str) -> None:
        self.pinged.append(name)
        if name in self.silent:
            raise self.silent[name]

    def state(self, unit: str) -> UnitState:
        return self.states.get(unit, INACTIVE)

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        assert timeout > 0
        while not is_awaited(self.state(unit)) and self.later.get(unit):
            self.states[unit] = self.later[unit].pop(0)
        return self.state(unit)

    def active_state(self, unit: str) -> str:
        return self.states[unit].active

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        return [("Stream", "[::]:8500")]

    def file_state(self, unit: str) -> tuple[str, bool]:
        return self.files.get(unit, ("enabled", False))

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        return self.access

    def await_idle(self, units: object, *, timeout: float) -> None:
        pass


@pytest.fixture
def bus() -> PlayedBus:
    return PlayedBus()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A machine with rbee on it, whose files belong to whoever runs the test, that listens on its sockets."""
    (tmp_path / "usr/libexec/rbee").mkdir(parents=True)
    for name in ("queen-rbee", "rbee-hive"):
        (tmp_path / "usr/libexec/rbee" / name).touch()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "run/rbee").mkdir(mode=0o755)
    (tmp_path / checks.RULES).parent.mkdir(parents=True)
    (tmp_path / checks.RULES).touch()
    (tmp_path / "proc/net").mkdir(parents=True)
    lines = ["Num       RefCount Protocol Flags    Type St Inode Path"]
    with socket.socket(socket.AF_UNIX) as queen, socket.socket(socket.AF_UNIX) as hive:
        for listener, name in ((queen, "queen"), (hive, "hive")):
            path = tmp_path / f"run/rbee/{name}.sock"
            listener.bind(str(path))
            path.chmod(0o660)
            lines.append(f"0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/rbee/{name}.sock")
        (tmp_path / "proc/net/unix").write_text("\n".join(lines) + "\n")
        yield tmp_path


@pytest.fixture
def everybody_is_here(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The user database: users with anybody's name, and the groups of the answer with their members."""
    groups: dict[str, list[str]] = {"rbee": ["ada"]}

    def getgrnam(name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", 980, groups[name]))

    def getpw(key: str | int) -> pwd.struct_passwd:
        name = key if isinstance(key, str) else "ada"
        return pwd.struct_passwd((name, "x", 1000, 100, "", "/", "/bin/sh"))

    def getgrouplist(user: str, group: int) -> list[int]:
        return [group, *(980 for members in groups.values() if user in members)]

    monkeypatch.setattr(os, "getgrouplist", getgrouplist)
    monkeypatch.setattr(grp, "getgrnam", getgrnam)
    monkeypatch.setattr(pwd, "getpwnam", getpw)
    monkeypatch.setattr(os, "getgroups", lambda: [980])
    return groups


def asked(
    check: checks.Check,
    bus: PlayedBus | None,
    root: Path,
    *,
    is_root: bool = False,
    sudo_user: str | None = None,
) -> list[Complaint]:
    return list(check(Patient(cast(Bus, bus), root, is_root, sudo_user)))


def test_a_machine_on_which_all_is_well_has_no_complaints(bus: PlayedBus, root: Path) -> None:
    for check in (checks.check_polkit, checks.check_units, checks.check_configuration):
        assert asked(check, bus, root) == []
    # Who runs this test need not be root, whose these files should be.
    assert {complaint.text.split(" should ")[0] for complaint in asked(checks.check_sockets, bus, root)} <= {
        "/run/rbee",
        "/run/rbee/queen.sock",
        "/run/rbee/hive.sock",
    }


# The bus


def test_a_stopped_bus_is_started_and_one_that_is_masked_unmasked_first(root: Path) -> None:
    error = Unreachable("the system bus does not answer")
    start = ("systemctl", "start", "dbus.socket", "dbus.service")
    assert checks.complain_of_bus(error, root).cures == (start,)

    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/dbus.service").symlink_to("/dev/null")
    (root / "run/systemd/system/dbus.socket").symlink_to("/dev/null")

    complaint = checks.complain_of_bus(error, root)
    assert "stopped and masked" in complaint.text
    assert complaint.cures == (
        ("systemctl", "unmask", "--runtime", "dbus.socket"),
        ("systemctl", "unmask", "dbus.service"),
        start,
    )


def test_a_bus_that_hangs_is_not_started_but_set_going(root: Path) -> None:
    (cure,) = checks.complain_of_bus(TimedOut("no answer within 3 s"), root).cures

    assert cure == ("systemctl", "kill", "--signal=CONT", "dbus.service")


def test_a_machine_without_systemd_has_no_cure(tmp_path: Path) -> None:
    complaint = checks.complain_of_bus(Unreachable("no bus"), tmp_path)

    assert "systemd does not run this machine" in complaint.text
    assert complaint.cures == ()


def test_without_a_bus_the_rest_is_looked_at_as_far_as_it_goes(root: Path) -> None:
    for check in (checks.check_polkit, checks.check_units):
        (note,) = asked(check, None, root)
        assert (note.is_fault, note.cures) == (False, ())
    (root / "run/rbee/queen.sock").unlink()
    (root / "run/rbee/hive.sock").unlink()
    (root / "run/rbee").rmdir()
    (complaint,) = asked(checks.check_sockets, None, root)
    assert complaint.cures == (("systemd-tmpfiles", "--create", "rbee.conf"),)


# polkit


@pytest.mark.parametrize(
    ("state", "file_state", "said", "cures"),
    [
        (MASKED, "masked", "is masked", [("systemctl", "unmask", POLKIT)]),
        (MASKED, "masked-runtime", "is masked", [("systemctl", "unmask", "--runtime", POLKIT)]),
        (GONE, "", "not installed", [("apt-get", "install", "--yes", "polkitd")]),
        (
            replace(FAILED, result="timeout"),
            "static",
            "did not start or stop in time",
            [("systemctl", "reset-failed", POLKIT), ("systemctl", "start", POLKIT)],
        ),
    ],
)
def test_a_polkit_that_cannot_answer_is_told_by_its_unit_and_not_asked(
    bus: PlayedBus, root: Path, state: UnitState, file_state: str, said: str, cures: list[checks.Command]
) -> None:
    bus.states[POLKIT] = state
    bus.files[POLKIT] = file_state, False

    (complaint,) = asked(checks.check_polkit, bus, root)

    assert said in complaint.text
    assert list(complaint.cures) == cures
    assert bus.pinged == []


def test_a_polkit_that_is_there_and_silent_is_restarted(bus: PlayedBus, root: Path) -> None:
    bus.silent["org.freedesktop.PolicyKit1"] = TimedOut("no answer within 3 s")

    (complaint,) = asked(checks.check_polkit, bus, root)

    assert complaint.cures == (("systemctl", "restart", POLKIT),)


def test_missing_rules_are_no_command_s_to_mend_and_hidden_ones_are_not_missing(
    bus: PlayedBus, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / checks.RULES).unlink()
    (complaint,) = asked(checks.check_polkit, bus, root)
    assert complaint.cures == ()
    assert "python3-rbee" in (complaint.hint or "")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # as on Debian 12 for who is not root
    assert asked(checks.check_polkit, bus, root) == []


# Users and groups


def test_who_called_sudo_is_looked_up_and_root_itself_needs_no_group(
    root: Path, everybody_is_here: dict[str, list[str]]
) -> None:
    assert asked(checks.check_group, None, root, is_root=True) == []
    assert asked(checks.check_group, None, root, is_root=True, sudo_user="ada") == []

    (complaint,) = asked(checks.check_group, None, root, is_root=True, sudo_user="mallory")

    assert complaint.text.startswith("mallory is not in group rbee")
    assert complaint.cures == (("adduser", "mallory", "rbee"),)


def test_a_login_from_before_is_no_fault(
    root: Path, everybody_is_here: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    monkeypatch.setattr(pwd, "getpwuid", pwd.getpwnam)
    monkeypatch.setattr("rbee.keeper.permission.user_name", lambda: "ada")
    assert asked(checks.check_group, None, root) == []

    monkeypatch.setattr(os, "getgroups", lambda: [100])

    (complaint,) = asked(checks.check_group, None, root)
    assert (complaint.is_fault, complaint.hint) == (False, "newgrp rbee\nOr log in again")


def test_what_a_package_should_have_made_is_made(
    root: Path, everybody_is_here: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody_is_here.clear()

    def nobody(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", nobody)

    queen, hive = asked(checks.check_group, None, root)

    assert queen.text == (
        "the user queen-rbee and the group rbee are missing, which the package rbee-queen makes"
    )
    assert queen.cures == (("systemd-sysusers", "rbee-queen.conf"),)
    assert hive.cures == (("systemd-sysusers", "rbee-hive.conf"),)


# Units


def test_where_nothing_is_installed_that_is_said(bus: PlayedBus, tmp_path: Path) -> None:
    (complaint,) = asked(checks.check_units, bus, tmp_path)

    assert complaint.hint == "with rbee's packages in this folder: sudo apt install ./*.deb"


def test_of_a_machine_with_a_hive_only_no_queen_is_expected(bus: PlayedBus, root: Path) -> None:
    (root / "usr/libexec/rbee/queen-rbee").unlink()
    del bus.states[QUEEN_UNIT], bus.states[QUEEN_SOCKET_UNIT]

    assert asked(checks.check_units, bus, root) == []
    assert asked(checks.check_catalog, bus, root) == []


@pytest.mark.parametrize(
    ("unit", "state", "file_state", "cures"),
    [
        (QUEEN_UNIT, MASKED, ("masked", False), [("systemctl", "unmask", QUEEN_UNIT)]),
        (QUEEN_UNIT, MASKED, ("masked-runtime", False), [("systemctl", "unmask", "--runtime", QUEEN_UNIT)]),
        (TARGET, MASKED, ("masked", True), [("systemctl", "unmask", TARGET)]),
        (
            HIVE_SOCKET_UNIT,
            replace(LISTENING, load="masked"),
            ("masked", False),
            [("systemctl", "unmask", HIVE_SOCKET_UNIT), RESTART],
        ),
        (
            HIVE_SOCKET_UNIT,
            replace(INACTIVE, load="masked"),
            ("masked", False),
            [("systemctl", "unmask", HIVE_SOCKET_UNIT)],
        ),
        (HIVE_UNIT, GONE, ("", False), []),
        (HIVE_UNIT, replace(INACTIVE, load="bad-setting"), ("static", False), []),
        (HIVE_UNIT, ACTIVE, ("static", True), [("systemctl", "daemon-reload")]),
    ],
)
def test_a_unit_that_cannot_be_started_is_told_once(
    bus: PlayedBus,
    root: Path,
    unit: str,
    state: UnitState,
    file_state: tuple[str, bool],
    cures: list[checks.Command],
) -> None:
    bus.states[unit], bus.files[unit] = state, file_state

    (complaint,) = asked(checks.check_units, bus, root)

    assert unit in complaint.text
    assert list(complaint.cures) == cures
    assert cures or complaint.hint


def test_a_masked_unit_is_not_blamed_for_having_failed(bus: PlayedBus, root: Path) -> None:
    bus.states[QUEEN_UNIT] = replace(FAILED, load="masked")
    bus.files[QUEEN_UNIT] = "masked", False

    (complaint,) = asked(checks.check_units, bus, root)

    assert "is masked" in complaint.text


def test_a_unit_that_fails_and_is_restarted_for_ever_is_a_fault_and_says_of_what(
    bus: PlayedBus, root: Path
) -> None:
    bus.states[HIVE_UNIT] = replace(
        ACTIVE, active="activating", sub="auto-restart", result="exit-code", exit_status=226, restarts=7
    )

    (complaint,) = asked(checks.check_units, bus, root)

    assert complaint.is_fault
    assert complaint.text.startswith(
        "rbee-hive.service fails and is restarted again and again, 7 times so far: it ended with exit status "
        "226/NAMESPACE: systemd could not set up its view of the file system"
    )
    assert complaint.hint is not None
    assert complaint.hint.splitlines()[0].startswith("systemctl show -p ReadWritePaths,")
    assert complaint.hint.splitlines()[1] == "sudo journalctl -u rbee-hive.service -e"


def test_a_unit_that_is_back_in_a_moment_is_no_fault(bus: PlayedBus, root: Path) -> None:
    restarting = replace(ACTIVE, active="activating", sub="auto-restart", result="exit-code", restarts=2)
    bus.states[QUEEN_UNIT] = restarting
    bus.later[QUEEN_UNIT] = [replace(restarting, sub="start", result="success"), replace(ACTIVE, restarts=2)]

    assert asked(checks.check_units, bus, root) == []


def test_what_a_unit_ended_with_at_last_is_said_behind_a_limit_of_starts(bus: PlayedBus, root: Path) -> None:
    bus.states[QUEEN_UNIT] = replace(FAILED, result="start-limit-hit", exit_status=203)

    (complaint,) = asked(checks.check_units, bus, root)

    assert (
        "(start-limit-hit); at last it ended with exit status 203/EXEC: systemd could not" in complaint.text
    )
    assert complaint.hint is not None
    assert complaint.hint.startswith("systemctl show -p ExecStart queen-rbee.service\n")


@pytest.mark.parametrize("listener", [LISTENING, replace(FAILED, result="service-start-limit-hit")])
def test_what_systemd_could_not_set_up_is_not_forgotten_as_a_cure(
    bus: PlayedBus, root: Path, listener: UnitState
) -> None:
    bus.states[HIVE_UNIT] = replace(FAILED, result="exit-code", exit_status=226)
    bus.states[HIVE_SOCKET_UNIT] = listener

    (complaint,) = asked(checks.check_units, bus, root)

    assert (complaint.is_fault, complaint.cures) == (True, ())
    assert complaint.hint is not None
    told = "When that is mended: sudo systemctl reset-failed rbee-hive.service rbee-hive.socket"
    assert complaint.hint.splitlines()[2].startswith(told)
    assert complaint.hint.endswith("start rbee-hive.socket") == (listener is not LISTENING)


def test_metrics_that_do_not_reach_prometheus_are_a_fault(bus: PlayedBus, root: Path) -> None:
    bus.states[checks.METRICS_UNIT] = replace(FAILED, result="exit-code", exit_status=1)

    (complaint,) = asked(checks.check_units, bus, root)

    assert complaint.text.endswith("Prometheus gets no metrics of the queen: it ended with exit status 1")
    assert complaint.hint == "sudo journalctl -u rbee-metrics.service -e"


def test_an_invitation_that_came_to_nothing_is_told_with_its_reason(bus: PlayedBus, root: Path) -> None:
    said = "joining failed: nobody listens on queen:8500; try: rbeectl tcp enable"
    bus.states[JOIN_UNIT] = replace(FAILED, status_text=said)

    (complaint,) = asked(checks.check_units, bus, root)

    assert complaint.text == f"{JOIN_UNIT} has failed: joining failed: nobody listens on queen:8500"
    assert complaint.cures == (("systemctl", "reset-failed", JOIN_UNIT),)


RESET = ("systemctl", "reset-failed", QUEEN_UNIT, QUEEN_SOCKET_UNIT)
START = ("systemctl", "start", QUEEN_SOCKET_UNIT)


@pytest.mark.parametrize(
    ("service", "listener", "said", "cures"),
    [
        (
            FAILED,
            replace(FAILED, result="service-start-limit-hit"),
            "(service-start-limit-hit); queen-rbee.service has failed: it ended with exit status 1",
            [RESET, START],
        ),
        (INACTIVE, replace(FAILED, result="trigger-limit-hit"), "(trigger-limit-hit)", [RESET, START]),
        # A socket cannot be started while its service runs.
        (ACTIVE, replace(FAILED, result="trigger-limit-hit"), "(trigger-limit-hit)", [RESET, RESTART]),
        (replace(FAILED, result="start-limit-hit"), LISTENING, "started too often in a row", [RESET]),
        (replace(FAILED, result="signal", exit_status=9), LISTENING, "ended by signal 9", [RESET]),
        (replace(FAILED, result="watchdog"), LISTENING, "the watchdog ended it", [RESET]),
        (replace(FAILED, result="new-word"), LISTENING, "its result is 'new-word'", [RESET]),
        (
            replace(FAILED, exit_status=78, status_text="systemd handed over no socket (…)"),
            LISTENING,
            "handed over no socket",
            [RESET, RESTART],
        ),
        # What does not mend itself is not swept away, nor is the socket that gave up on it blamed.
        (
            replace(FAILED, exit_status=78, status_text="/x/catalog.db is damaged"),
            replace(FAILED, result="service-start-limit-hit"),
            "queen-rbee.service cannot run: /x/catalog.db is damaged",
            [],
        ),
    ],
)
def test_a_failure_is_explained_and_mended_with_what_listens_again(
    bus: PlayedBus,
    root: Path,
    service: UnitState,
    listener: UnitState,
    said: str,
    cures: list[checks.Command],
) -> None:
    bus.states |= {QUEEN_UNIT: service, QUEEN_SOCKET_UNIT: listener}

    (complaint,) = asked(checks.check_units, bus, root)

    assert said in complaint.text
    assert list(complaint.cures) == cures
    assert complaint.hint


# Sockets


def test_a_deleted_folder_is_made_again_and_the_units_restarted_where_they_listen(
    bus: PlayedBus, root: Path
) -> None:
    for name in ("queen", "hive"):
        (root / f"run/rbee/{name}.sock").unlink()
    (complaint,) = [c for c in asked(checks.check_sockets, bus, root) if "queen.sock" in c.text]
    assert complaint.cures == (RESTART,)
    (root / "run/rbee").rmdir()
    make = ("systemd-tmpfiles", "--create", "rbee.conf")
    assert [c.cures for c in asked(checks.check_sockets, bus, root)] == [(make, RESTART)]

    # Off: there is nothing to restart.
    bus.states |= {QUEEN_SOCKET_UNIT: INACTIVE, HIVE_SOCKET_UNIT: INACTIVE}
    assert [c.cures for c in asked(checks.check_sockets, bus, root)] == [(make,)]


def test_a_socket_s_file_is_held_against_its_unit(root: Path) -> None:
    path = Path("/run/rbee/queen.sock")
    heard = checks._listening_paths(root)
    assert heard == {"/run/rbee/queen.sock", "/run/rbee/hive.sock"}
    found = (root / "run/rbee/queen.sock").stat()
    owner = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name

    def complaints(
        mode: int = 0o660, group: str = owner[1], heard: set[str] | None = heard
    ) -> list[Complaint]:
        access = (owner[0], group, mode)
        return list(checks.complain_of_socket(QUEEN_SOCKET_UNIT, path, root, access, heard))

    assert complaints() == []
    assert complaints(heard=None) == [], "where /proc/net/unix cannot be read nothing is made of it"
    assert [c.cures for c in complaints(heard=set())] == [(RESTART,)]
    assert [c.cures for c in complaints(0o600)] == [(("chmod", "0600", str(path)),)]
    assert [c.cures for c in complaints(group="bees")] == [(("chown", f"{owner[0]}:bees", str(path)),)]
    (root / "run/rbee/queen.sock").unlink()
    (root / "run/rbee/queen.sock").touch()
    assert [c.cures for c in complaints()] == [(("rm", "-r", str(path)), RESTART)]


# Configuration and catalog


def test_a_configuration_that_cannot_be_used_is_told_and_an_unknown_key_is_a_note(root: Path) -> None:
    (root / "etc/rbee").mkdir(parents=True)
    (root / "etc/rbee/rbee.conf").write_text("[Queen]\nUnheard=1\n")
    (note,) = asked(checks.check_configuration, None, root)
    assert not note.is_fault

    (root / "etc/rbee/rbee.conf").write_text("[Queen]\nHeartbeatIntervalSec=soon\n")
    (complaint,) = asked(checks.check_configuration, None, root)
    assert "HeartbeatIntervalSec=" in complaint.text
    assert (complaint.is_fault, complaint.cures) == (True, ())


def test_the_catalog_is_root_s_to_look_at(root: Path) -> None:
    (note,) = asked(checks.check_catalog, None, root)

    assert (note.is_fault, note.hint) == (False, "sudo rbeectl doctor")


AS_QUEEN = ("setpriv", "--reuid=queen-rbee", "--regid=queen-rbee", "--clear-groups", "--")


def test_a_catalog_that_is_not_the_queen_s_is_given_to_her_and_a_link_is_left_alone(root: Path) -> None:
    directory = root / checks.STATE_DIRECTORY
    directory.mkdir(parents=True, mode=0o755)
    directory.chmod(0o755)
    assert [c.cures for c in checks.complain_of_directory(directory, root)] == [
        (("chown", "queen-rbee:queen-rbee", "/var/lib/queen-rbee"),),
        (("chmod", "0700", "/var/lib/queen-rbee"),),
    ]
    catalog = directory / "catalog.db"
    catalog.touch()
    catalog.chmod(0o400)
    assert [c.cures for c in checks.complain_of_owner(catalog, root)] == [
        (("chown", "--no-dereference", "queen-rbee:queen-rbee", "/var/lib/queen-rbee/catalog.db"),),
        ((*AS_QUEEN, "chmod", "u+rw", "/var/lib/queen-rbee/catalog.db"),),
    ]
    # What she can link to, and may not have.
    other = root / "other"
    os.link(catalog, other)
    (complaint,) = checks.complain_of_owner(catalog, root)
    assert complaint.cures == ()
    assert "has a name elsewhere, too, and is left alone" in complaint.text
    catalog.unlink()
    catalog.symlink_to("/etc/shadow")
    (complaint,) = checks.complain_of_owner(catalog, root)
    assert complaint.cures == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"f_bavail": 1}, "is full"),
        ({"f_favail": 0}, "is full"),
        ({"f_flag": os.ST_RDONLY}, "is read-only"),
        ({}, None),
        ({"f_files": 0, "f_favail": 0}, None),  # btrfs does not count inodes
    ],
)
def test_a_file_system_without_room_is_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, int], said: str | None
) -> None:
    @dataclass
    class Room:
        f_flag: int = 0
        f_bavail: int = 1_000_000
        f_frsize: int = 4096
        f_files: int = 1000
        f_favail: int = 900

    monkeypatch.setattr(os, "statvfs", lambda path: Room(**changed))

    complaints = list(checks.complain_of_room(root / "var/lib/queen-rbee", root))

    assert [complaint.cures for complaint in complaints] == ([()] if said else [])
    assert said is None or said in complaints[0].text


def test_a_file_system_that_is_read_only_is_asked_for_by_findmnt_which_knows_bind_mounts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / checks.STATE_DIRECTORY
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))

    (complaint,) = checks.complain_of_room(folder, root)

    assert complaint.hint is not None
    assert complaint.hint.endswith(
        ": sudo mount -o remount,rw $(findmnt -n -o TARGET -T /var/lib/queen-rbee)"
    )


def process(
    root: Path, pid: int, path: Path, lock: str, *, cgroup: str = "user.slice", state: str = "S"
) -> None:
    """A process that has the file open, as /proc shows it."""
    place = root / f"proc/{pid}"
    for folder in ("fd", "fdinfo"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "fd/3").symlink_to(path)
    (place / "fdinfo/3").write_text(f"pos:\t0\n{lock}")
    (place / "cgroup").write_text(f"0::/{cgroup}\n")
    (place / "status").write_text(f"Name:\tsqlite3\nState:\t{state} (so)\n")
    (place / "cmdline").write_text("sqlite3\0catalog.db\0")


WRITE = "lock:\t1: POSIX  ADVISORY  WRITE 12 00:28:82 120 120\n"
READ = "lock:\t1: POSIX  ADVISORY  READ 12 00:28:82 124 124\n"


def test_who_holds_a_lock_to_write_is_ended_and_nobody_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LOCK_PATIENCE", 0.01)
    shm, other = root / "catalog.db-shm", root / "other"
    shm.touch()
    other.touch()
    process(root, 12, shm, WRITE)
    process(root, 13, shm, READ)
    process(root, 14, other, WRITE)
    process(root, 15, shm, WRITE, cgroup="rbee.slice/queen-rbee.service")
    process(root, 16, shm, WRITE, state="T")
    (root / "proc/17").mkdir()  # gone while we look

    hung, stopped = checks.complain_of_lock([shm], root)

    assert "process 12 (sqlite3 catalog.db) holds a lock" in hung.text
    assert hung.cures == (("kill", "12"),)
    assert stopped.cures == (("kill", "-KILL", "16"),)


def test_a_lock_that_is_let_go_of_is_nobody_s_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shm = root / "catalog.db-shm"
    shm.touch()
    process(root, 12, shm, WRITE)
    monkeypatch.setattr(
        checks.time, "sleep", lambda seconds: (root / "proc/12/fdinfo/3").write_text("pos:\t0\n")
    )

    assert list(checks.complain_of_lock([shm], root)) == []


# The doctor at work


def verdict(*complaints: Complaint) -> Verdict:
    return Verdict("check", "well", complaints)


def test_each_cure_is_run_once_at_its_last_place_and_notes_have_none() -> None:
    unmask, make = ("systemctl", "unmask", "x"), ("systemd-tmpfiles", "--create")
    told = [
        verdict(Complaint("masked", (unmask, RESTART))),
        verdict(Complaint("gone", (make, RESTART)), Complaint("a note", (("never",),), is_fault=False)),
    ]

    assert cures_of(told) == [unmask, make, RESTART]


def doctor(
    bus: PlayedBus, *checks: checks.Check, stream: io.StringIO | None = None, root: Path = Path("/")
) -> Doctor:
    table = tuple((check.__name__, f"{check.__name__} is well", check) for check in checks)
    return Doctor(cast(Any, lambda: bus), stream, root=root, checks=table)


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
    monkeypatch.setattr("rbee.keeper.doctor.CURE_TIMEOUT", 0.05)

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

    assert "problem  refused: could not be looked at: asking for x: no\n  hint: why\n" in stream.getvalue()
    assert last.faults[0].text == "could not be looked at: /nonexistent/file: No such file or directory"


def test_a_silent_systemd_is_the_bus_s_fault_and_the_checks_know_it(bus: PlayedBus, root: Path) -> None:
    bus.silent[SYSTEMD] = TimedOut("no answer within 3 s")
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


def test_other_verbs_do_not_pay_for_the_doctor() -> None:
    code = "import sys, rbee.keeper.cli; print(*(n for n in sys.modules if n.startswith('rbee.keeper')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"rbee.keeper.doctor", "rbee.keeper.checks"} & set(run.stdout.split())


# Keys


def certificate_of(days: tuple[int, int]) -> str:
    """One in PEM that is valid from so many days from now to so many."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([])
    begins, ends = (now + timedelta(days=day) for day in days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


GOOD, FUTURE, PAST = (-1, 1), (1, 2), (-2, -1)


@pytest.mark.parametrize(
    ("place", "days", "words", "has_cure"),
    [
        ("var/lib/queen-rbee/tls/ca.crt", GOOD, None, False),
        (
            "var/lib/queen-rbee/tls/ca.crt",
            FUTURE,
            "CA is not valid before .* Nobody has joined",
            True,
        ),
        ("var/lib/queen-rbee/tls/ca.crt", PAST, "queen's CA has expired on", True),
        ("run/credentials/queen-rbee.service/rbee.ca.crt", FUTURE, "queen's CA is not valid before", False),
        ("var/lib/queen-rbee/tls/queen.crt", FUTURE, "the queen's certificate is not valid before", True),
        ("var/lib/queen-rbee/tls/queen.crt", PAST, "the queen's certificate has expired on", True),
        ("var/lib/rbee-hive/membership", GOOD, None, False),
        ("var/lib/rbee-hive/membership", FUTURE, "the certificate of this hive is not valid before", False),
        ("var/lib/rbee-hive/membership", PAST, "the certificate of this hive has expired on", False),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_named(
    bus: PlayedBus, root: Path, place: str, days: tuple[int, int], words: str | None, has_cure: bool
) -> None:
    (root / place).parent.mkdir(parents=True)
    # A membership begins with its queen's CA, in a line, and its key.
    head = f"# {json.dumps({'ca': certificate_of(PAST)})}\n" if "membership" in place else ""
    (root / place).write_text(head + certificate_of(days))

    found = asked(checks.check_keys, bus, root, is_root=True)

    assert len(found) == (words is not None)
    for complaint in found:
        assert re.search(words or "", complaint.text)
        assert bool(complaint.cures) is has_cure
        assert complaint.cures or complaint.hint


def test_new_keys_cost_the_hives_that_have_joined_and_are_left_to_a_person(
    bus: PlayedBus, root: Path
) -> None:
    state = root / checks.STATE_DIRECTORY
    (state / "tls").mkdir(parents=True)
    (state / "tls/ca.crt").write_text(certificate_of(FUTURE))
    with closing(sqlite3.connect(state / "catalog.db")) as connection:
        connection.execute("CREATE TABLE hives (id, credential)")
        connection.execute("INSERT INTO hives VALUES ('gpu1', 'c'), ('gpu2', 'd'), ('localhost', NULL)")
        connection.commit()

    (complaint,) = asked(checks.check_keys, bus, root, is_root=True)

    assert "Of its hives 2 have joined, and with new keys each has to join again" in complaint.text
    assert complaint.cures == ()
    assert "sudo rm -r /var/lib/queen-rbee/tls; sudo systemctl try-restart" in (complaint.hint or "")


def test_who_may_not_look_at_keys_is_told_so(bus: PlayedBus, root: Path) -> None:
    (note,) = asked(checks.check_keys, bus, root)

    assert not note.is_fault

"""rbee of the machine and rbee of a user: where each lives, and how a hint for each is typed."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from rbee import scope
from rbee.scope import SYSTEM, scope_of, uid_of, user_scope, worker_units

REPOSITORY = Path(__file__).parents[2]
HOME = {"HOME": "/home/ada"}


def test_rbee_of_the_machine_lives_where_its_packages_put_it() -> None:
    assert SYSTEM.queen_socket == Path("/run/rbee/queen.sock")
    assert SYSTEM.hive_socket == Path("/run/rbee/hive.sock")
    assert SYSTEM.queen_state == Path("/var/lib/queen-rbee")
    assert SYSTEM.hive_state == Path("/var/lib/rbee-hive")


@pytest.mark.parametrize(
    ("unit", "setting"),
    [
        ("queen-rbee.socket", f"ListenStream={SYSTEM.queen_socket}"),
        ("queen-rbee.socket", f"SocketGroup={SYSTEM.group}"),
        ("rbee-hive.socket", f"ListenStream={SYSTEM.hive_socket}"),
        ("queen-rbee.service", f"User={SYSTEM.queen_user}"),
        ("queen-rbee.service", f"StateDirectory={SYSTEM.queen_state.name}"),
        ("rbee-hive.service", f"User={SYSTEM.hive_user}"),
        ("rbee-hive.service", f"StateDirectory={SYSTEM.hive_state.name}"),
        ("queen-rbee-tcp.socket", f"FileDescriptorName={scope.TCP_SOCKETS}"),
    ],
)
def test_the_units_have_what_the_scope_has(unit: str, setting: str) -> None:
    assert setting in (REPOSITORY / "units" / unit).read_text().splitlines()


@pytest.mark.parametrize("name", [name for name in dir(scope) if name.endswith("_UNIT") or name == "TARGET"])
def test_each_unit_that_has_a_name_is_there(name: str) -> None:
    assert (REPOSITORY / "units" / getattr(scope, name)).exists()


def test_rbee_of_a_user_lives_in_the_user_s_own_folders() -> None:
    user = user_scope(HOME)

    assert user.queen_socket == Path(f"/run/user/{os.getuid()}/rbee/queen.sock")
    assert user.hive_state == Path("/home/ada/.local/state/rbee-hive")
    assert user.config_folders[0] == Path("home/ada/.config/rbee")
    assert Path("etc/rbee") not in user.config_folders


def test_a_user_who_keeps_those_elsewhere_is_heeded() -> None:
    user = user_scope({**HOME, "XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"})

    assert (user.runtime, user.state, user.config_folders[0]) == (Path("/r/rbee"), Path("/s"), Path("c/rbee"))


def test_all_of_rbee_of_a_user_runs_as_that_user() -> None:
    user = user_scope(HOME)

    assert user.queen_user == user.hive_user == pwd.getpwuid(os.getuid()).pw_name
    assert user.group is None
    assert uid_of(user.hive_user) == os.getuid()


def test_a_user_that_is_not_there_has_no_number() -> None:
    assert uid_of("no-such-user") is None


def test_what_is_root_s_on_the_machine_is_typed_with_sudo() -> None:
    assert SYSTEM.doctor == "sudo rbeectl doctor"
    assert SYSTEM.rejoin == "sudo rbeectl join QUEEN:8500 --token TOKEN"
    assert SYSTEM.rbeectl("wake") == "rbeectl wake"
    assert SYSTEM.systemctl("status x") == "systemctl status x"
    assert SYSTEM.systemctl("restart x", as_root=True) == "sudo systemctl restart x"
    assert SYSTEM.journalctl("-u x -e") == "sudo journalctl -u x -e"
    assert SYSTEM.journalctl("A=b", as_root=False) == "journalctl A=b"
    assert SYSTEM.command("systemctl", "restart", "x") == ("systemctl", "restart", "x")


def test_what_is_a_user_s_is_typed_without_sudo_and_for_the_user_s_systemd() -> None:
    user = user_scope(HOME)

    assert user.doctor == "rbeectl --user doctor"
    assert user.systemctl("restart x", as_root=True) == "systemctl --user restart x"
    assert user.journalctl("-u x -e") == "journalctl --user -u x -e"
    assert user.as_root("rm x") == "rm x"
    assert user.command("systemctl", "restart", "x") == ("systemctl", "--user", "restart", "x")


@pytest.mark.parametrize(("uid", "is_owner"), [(0, True), (1000, False)])
def test_the_machine_s_is_root_s_and_a_user_s_is_the_user_s(
    monkeypatch: pytest.MonkeyPatch, uid: int, is_owner: bool
) -> None:
    user = user_scope(HOME)
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert SYSTEM.is_owner() is is_owner
    assert user.is_owner()


def test_systemd_s_own_folders_are_beside_the_sockets() -> None:
    user = user_scope({**HOME, "XDG_RUNTIME_DIR": "/r"})

    assert (SYSTEM.runtime_units, user.runtime_units) == (
        Path("/run/systemd/system"),
        Path("/r/systemd/user"),
    )
    assert (SYSTEM.credentials, user.credentials) == (Path("/run/credentials"), Path("/r/credentials"))


def test_a_daemon_is_the_machine_s_unless_its_unit_says_otherwise() -> None:
    assert scope_of([]) is SYSTEM
    assert scope_of(["--user"], HOME) == user_scope(HOME)


def test_a_scope_does_not_change() -> None:
    with pytest.raises(AttributeError):
        SYSTEM.kind = "user"  # type: ignore[misc]  # that is what is tried


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("bee", "bee"), ("Qwen_2.5-7B", "qwen-2-5-7b"), ("a" * 30, "a" * 16), ("a" * 15 + "-b", "a" * 15),
        ("...", "model"),
    ],
)  # fmt: skip
def test_a_model_s_workers_are_found_by_its_name(model: str, stem: str) -> None:
    assert worker_units(model) == f"rbee-worker@{stem}-[0-9]*.service"

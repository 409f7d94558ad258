"""A machine that the doctor looks at: systemd is played, and the machine is a folder."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rbee.keeper.doctor.polkit import RULES
from tests.unit.played_systemd import PlayedBus


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
    (tmp_path / RULES).parent.mkdir(parents=True)
    (tmp_path / RULES).touch()
    (tmp_path / "proc/net").mkdir(parents=True)
    lines = ["Num       RefCount Protocol Flags    Type St Inode Path"]
    with ExitStack() as listening:
        for name in ("queen", "hive", "openai"):
            path = tmp_path / f"run/rbee/{name}.sock"
            listening.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
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

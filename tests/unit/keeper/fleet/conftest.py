"""An ssh in PATH that is played: the other machine is a shell here."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import rbee.keeper.fleet.bring
import rbee.keeper.fleet.find_queen
import rbee.keeper.fleet.join
import rbee.keeper.fleet.reach
from rbee.scope import HIVE_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import in_scope
from tests.unit.keeper.fleet.remote_machine import NOT_FOUND, RemoteMachine
from tests.unit.played_systemd import INACTIVE, PlayedBus

PLAYED = """#!/bin/sh
# As ssh: options, then -- and the target; what is left is one line for the shell there.
printf '%s\\n' "$@" '' >>"{folder}/asked"
path= is_exit=
while [ "$1" != -- ]; do
    case $1 in
        ControlPath=*) path=${{1#ControlPath=}} ;;
        BatchMode=yes) batch=yes ;;
        exit) is_exit=yes ;;
    esac
    shift
done
if [ -n "$is_exit" ]; then rm -f "$path"; else : >"$path"; fi
shift 2
{behaviour}
export SSH_CONNECTION='10.0.0.1 5 10.0.0.2 22'
[ $# -eq 0 ] || exec sh -c "$*"
"""


@dataclass(frozen=True)
class There:
    """The other machine: `folder/asked` has the words of each ssh, `tmp` what is kept of a connection."""

    folder: Path
    tmp: Path

    def play(self, behaviour: str = "") -> None:
        """`behaviour` is shell, before the command is run."""
        self.program("ssh", PLAYED.format(folder=self.folder, behaviour=behaviour))

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def uid(self, number: int, name: str = "grace") -> None:
        """Who one is over there."""
        self.program("id", f'[ "$1" = -un ] && echo {name} || echo {number}')


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    # A Unix socket's path has a bound, and those of pytest are long.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as tmp:
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
        monkeypatch.setattr(tempfile, "tempdir", tmp)
        there = There(tmp_path, Path(tmp))
        there.play()
        there.uid(0, "root")
        yield there


@pytest.fixture
def joining(bus: PlayedBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with rbee-hive and without a queen, for root; where the hive keeps its state."""
    bus.states |= {QUEEN_UNIT: UnitState("not-found", "inactive", "dead"), HIVE_UNIT: INACTIVE}
    folder = tmp_path / "rbee-hive"
    folder.mkdir()
    in_scope(monkeypatch, state=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid())
    monkeypatch.setattr(rbee.keeper.fleet.join.pwd, "getpwnam", lambda name: account)
    # A queen who is there, with the keys that the token is of.
    monkeypatch.setattr(rbee.keeper.fleet.reach, "connect", lambda *_asked: socket.socket())
    monkeypatch.setattr(rbee.keeper.fleet.reach, "check_keys", lambda *_asked: None)
    return folder


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteMachine:
    """A machine that ssh reaches and that reaches the queen, with rbee-hive installed and no queen."""
    for name in ("bin", "noted", "tmp", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "membership").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    there = RemoteMachine(tmp_path)
    there.bus.states = {HIVE_UNIT: INACTIVE, QUEEN_UNIT: NOT_FOUND}
    there.play()
    monkeypatch.setattr(rbee.keeper.fleet.bring, "RemoteUnits", lambda ssh: there.bus)
    for module in (rbee.keeper.fleet.find_queen, rbee.keeper.fleet.bring):
        monkeypatch.setattr(module, "try_from_there", lambda *_asked: "")
    return there


@pytest.fixture
def packages(remote: RemoteMachine, tmp_path: Path) -> Path:
    """A folder with rbee's packages, for a machine that has none of them."""
    remote.bus.states[HIVE_UNIT] = NOT_FOUND
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in ("python3-rbee", "rbeectl", "rbee-hive", "rbee-queen"):
        (folder / f"{name}_0.4.0_all.deb").write_text(f"the package {name}")
    return folder

"""An ssh in PATH that is played: the other machine is a shell here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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

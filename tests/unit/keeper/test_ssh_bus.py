"""The bus of another machine: what sd-bus itself makes of the address that we write for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rbee.systemd
from rbee.errors import RbeeError
from rbee.keeper.ssh import Ssh

PLAYED = """#!/bin/sh
case "$*" in *SSH_CONNECTION*) printf 'rbeectl: 10.0.0.1 %s\\n' {uid}; exit ;; esac
printf '%s\\0' "$@" >"{noted}"
"""

HOSTS = [
    "gpu1", "gpu1,argv9=evil", "gpu1;unix:path=/tmp/evil", "gpu1,guid=0", "a b", "50%25", "bücher",
    "'\"$HOME",
]  # fmt: skip


@pytest.mark.parametrize(
    ("uid", "bridge"),
    [(0, ["systemd-stdio-bridge"]), (1000, ["sudo", "-n", "--", "systemd-stdio-bridge"])],
    ids=["root", "sudo"],
)
@pytest.mark.parametrize("host", HOSTS)
def test_ssh_is_called_with_each_word_as_it_is_and_steers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, uid: int, bridge: list[str]
) -> None:
    noted = tmp_path / "noted"
    program = tmp_path / "ssh"
    program.write_text(PLAYED.format(noted=noted, uid=uid))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(rbee.systemd, "BUS_TIMEOUT", 2.0)

    with Ssh(host, "ada") as ssh, pytest.raises(RbeeError), ssh.bus():
        pytest.fail("the played ssh is no bus")

    words = noted.read_text().split("\0")[:-1]
    assert words[words.index("--") :] == ["--", f"ada@{host}", *bridge]

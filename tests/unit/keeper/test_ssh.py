"""The operator's own ssh, of which there is one in PATH that is played."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

import rbee.keeper.ssh
from rbee.errors import NotPermitted, RbeeError, TimedOut, Unreachable
from rbee.keeper.ssh import Ssh

PLAYED = """#!/bin/sh
# As ssh: options, then -- and the target; what is left is one line for the shell there.
printf '%s\\n' "$@" '' >>"{folder}/asked"
path=
while [ "$1" != -- ]; do
    case $1 in ControlPath=*) path=${{1#ControlPath=}} ;; exit) rm -f "$path" ;; esac
    shift
done
[ -e "$path" ] || [ -n "$(tail -n 3 "{folder}/asked" | grep -x exit)" ] || : >"$path"
shift 2
{behaviour}
export SSH_CONNECTION='10.0.0.1 5 10.0.0.2 22'
[ $# -eq 0 ] || exec sh -c "$*"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the played ssh is, and notes what it was asked."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    play(tmp_path)
    return tmp_path


def play(folder: Path, behaviour: str = "") -> None:
    ssh = folder / "bin/ssh"
    ssh.write_text(PLAYED.format(folder=folder, behaviour=behaviour))
    ssh.chmod(0o755)


def uid(folder: Path, number: int) -> None:
    """Who one is over there."""
    path = folder / "bin/id"
    path.write_text(f"#!/bin/sh\necho {number}\n")
    path.chmod(0o755)


def sudo(folder: Path, script: str) -> None:
    path = folder / "bin/sudo"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_command_is_run_as_it_is_whatever_is_in_its_words(folder: Path) -> None:
    words = ("a b", "$HOME", "'", '"', "; exit 1", "ü", "")
    with Ssh("gpu1", "grace") as ssh:
        assert ssh.own_address == "10.0.0.1"
        assert ssh.run("printf", "%s|", *words) == "".join(f"{word}|" for word in words)
        assert ssh.run("cat", content=b"what goes in") == "what goes in"
    asked = (folder / "asked").read_text().split("\n")
    assert "grace@gpu1" in asked
    assert asked[asked.index("grace@gpu1") - 1] == "--"


def test_one_connection_serves_all_and_nothing_of_it_is_left(folder: Path) -> None:
    with Ssh("gpu1", None) as ssh:
        (left,) = (folder / "tmp").iterdir()
        assert (left.stat().st_mode & 0o777, sorted(os.listdir(left))) == (0o700, ["ssh"])
        ssh.run("true")
    assert list((folder / "tmp").iterdir()) == []
    assert "-O\nexit\n" in (folder / "asked").read_text()


def test_a_connection_that_fails_says_why_and_what_else_there_is(folder: Path) -> None:
    play(folder, "echo 'ssh: connect to host gpu1 port 22: Connection refused' >&2; exit 255")
    with (
        pytest.raises(Unreachable, match="ssh to grace@gpu1 failed: .* Connection refused") as caught,
        Ssh("gpu1", "grace"),
    ):
        pass
    assert caught.value.hint == (
        "ssh grace@gpu1\nOr on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN"
    )
    assert list((folder / "tmp").iterdir()) == []


def test_a_command_that_fails_is_told_with_its_words(folder: Path) -> None:
    with Ssh("gpu1", None) as ssh, pytest.raises(RbeeError, match=r"on gpu1 sh failed \(3\): it is so"):
        ssh.run("sh", "-c", "echo it is so >&2; exit 3")


def test_a_command_has_its_time_and_no_more_than_is_left_of_the_deadline(folder: Path) -> None:
    told = "ssh gpu1 took longer than 0.5 s"
    with Ssh("gpu1", None, left=lambda most: min(most, 0.5)) as ssh, pytest.raises(TimedOut, match=told):
        ssh.run("exec", "sleep", "30")


def test_without_ssh_there_is_a_line_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RbeeError, match="ssh is not installed") as caught, Ssh("gpu1", None):
        pass
    assert caught.value.hint == "sudo apt install openssh-client"


def test_root_needs_no_sudo_and_anybody_else_does(folder: Path) -> None:
    sudo(folder, 'shift 2; echo "by sudo: $*"')
    uid(folder, 0)
    with Ssh("gpu1", "root") as ssh:
        assert ssh.run_as_root("echo", "done") == "done\n"
        assert "systemd-stdio-bridge" in ssh.bus()._address  # type: ignore[operator]
        assert "=sudo," not in ssh.bus()._address  # type: ignore[operator]
    uid(folder, 1000)
    with Ssh("gpu1", "grace") as ssh:
        assert ssh.run_as_root("echo", "done") == "by sudo: echo done\n"
        assert "=sudo," in ssh.bus()._address  # type: ignore[operator]


def test_a_sudo_that_wants_a_password_is_named_with_both_ways_out(folder: Path) -> None:
    uid(folder, 1000)
    sudo(folder, "echo 'sudo: a password is required' >&2; exit 1")
    with Ssh("gpu1", "grace") as ssh, pytest.raises(NotPermitted, match="sudo without a password") as caught:
        ssh.run_as_root("true")
    assert "--user root" in (caught.value.hint or "")
    assert "sudo rbeectl join" in (caught.value.hint or "")


@pytest.mark.parametrize("host", ["gpu1,argv9=evil", "a;b", "a b", "a%41", "ü", "-oProxyCommand=x"])
def test_a_host_steers_no_address_of_the_bus(folder: Path, host: str) -> None:
    uid(folder, 0)
    ssh = Ssh(host, None)
    ssh._folder = "/tmp/x"
    address = ssh.bus()._address
    assert address is not None
    values = [part.partition("=")[2] for part in address.partition(":")[2].split(",")]
    escaped = rbee.keeper.ssh._escaped(host)
    assert escaped in values
    assert values[values.index(escaped) - 1] == "--"
    assert all(c.isascii() and (c.isalnum() or c in "-_/.*%") for value in values for c in value)


def test_what_a_login_shell_says_of_its_own_is_passed_over(folder: Path) -> None:
    uid(folder, 0)
    play(folder, "echo 'Welcome to gpu1'; echo")
    with Ssh("gpu1", None) as ssh:
        assert ssh.own_address == "10.0.0.1"
        assert "=sudo," not in (ssh.bus()._address or "")


def test_a_login_that_runs_nothing_is_said_to(folder: Path) -> None:
    play(folder, "exit 0")
    with pytest.raises(RbeeError, match="ssh to gpu1 runs no commands") as caught, Ssh("gpu1", None):
        pass
    assert caught.value.hint == "ssh gpu1 id; then again"


def hang(ssh: Ssh, hanging: Path) -> None:
    hanging.touch()
    ssh.run("true", timeout=0.2)


def test_an_end_that_hangs_hides_nothing_and_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.ssh, "EXIT_TIMEOUT", 0.2)
    hanging = folder / "hanging"
    play(folder, f'[ ! -e "{hanging}" ] || exec sleep 30')
    with pytest.raises(TimedOut, match="ssh gpu1 took longer"), Ssh("gpu1", None) as ssh:
        hang(ssh, hanging)
    assert list((folder / "tmp").iterdir()) == []

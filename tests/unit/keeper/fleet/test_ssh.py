"""The operator's own ssh: one connection, the login, and what is said of a login that fails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rbee.keeper.fleet.ssh
from rbee.errors import CommandFailed, NotPermitted, RbeeError, TimedOut, Unreachable
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from tests.unit.keeper.fleet.conftest import There

CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /home/ada/.ssh/known_hosts:3
  remove with:
  ssh-keygen -f "/home/ada/.ssh/known_hosts" -R "gpu1"
Host key verification failed."""


def test_a_command_is_run_as_it_is_whatever_is_in_its_words(there: There) -> None:
    words = ("a b", "$HOME", "'", '"', "; exit 1", "ü", "", "!", "two\nlines")
    with Ssh(Typed("gpu1", "grace")) as ssh:
        assert ssh.own_address == "10.0.0.1"
        assert ssh.run("printf", "%s|", *words) == "".join(f"{word}|" for word in words)
        assert ssh.run("cat", content=b"what goes in") == "what goes in"
    asked = (there.folder / "asked").read_text().split("\n")
    assert "grace@gpu1" in asked
    assert asked[asked.index("grace@gpu1") - 1] == "--"


def test_one_connection_serves_all_and_nothing_of_it_is_left(there: There) -> None:
    with Ssh(Typed("gpu1", None)) as ssh:
        (left,) = there.tmp.iterdir()
        assert (left.stat().st_mode & 0o777, sorted(os.listdir(left))) == (0o700, ["s"])
        ssh.run("true")
        ssh.run("true")
    assert list(there.tmp.iterdir()) == []
    asked = (there.folder / "asked").read_text()
    assert "-O\nexit\n" in asked
    assert asked.count("\ngpu1\n") == 2  # which is the login and the end


@pytest.mark.parametrize(
    "host", ["gpu1,argv9=evil", "a;b", "a b", "a%41", "ü", "-oProxyCommand=x", "'\"$HOME"]
)
def test_a_host_is_one_word_behind_the_options(there: There, host: str) -> None:
    with Ssh(Typed(host, None)):
        pass
    asked = (there.folder / "asked").read_text().split("\n")
    assert asked[asked.index("--") + 1] == host


def test_a_connection_that_fails_says_why_and_what_else_there_is(there: There) -> None:
    there.play("echo 'ssh: connect to host gpu1 port 22: Connection refused' >&2; exit 255")
    with (
        pytest.raises(Unreachable, match="ssh to grace@gpu1 failed: .* Connection refused") as caught,
        Ssh(Typed("gpu1", "grace")),
    ):
        pass
    assert caught.value.hint == (
        "ssh grace@gpu1\nOr on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN"
    )
    assert list(there.tmp.iterdir()) == []
    assert (there.folder / "asked").read_text().count("-xT\n") == 1


def test_of_what_ssh_says_the_end_is_kept(there: There) -> None:
    there.play(
        f"echo '{'a banner, ' * 400}' >&2; echo 'root@gpu1: Permission denied (publickey).' >&2; exit 255"
    )
    with (
        pytest.raises(Unreachable, match=r"failed: … root@gpu1: Permission denied \(publickey\)\.$"),
        Ssh(Typed("gpu1", None)),
    ):
        pass


def test_a_changed_host_key_is_said_with_its_place_and_the_line_that_removes_it(there: There) -> None:
    there.play(f"echo '{CHANGED}' >&2; exit 255")
    told = r"the host key of gpu1 is not the one .* \(Offending ED25519 key in /home/ada/.ssh/known_hosts:3\)"
    with pytest.raises(NotPermitted, match=told) as caught, Ssh(Typed("gpu1", None)):
        pass
    assert caught.value.hint == (
        'If it was installed anew: ssh-keygen -f "/home/ada/.ssh/known_hosts" -R "gpu1"'
    )


@pytest.mark.parametrize(("says", "tries"), [("Permission denied (password).", 2), ("No route to host", 1)])
def test_a_person_is_asked_only_where_asking_helps(there: There, says: str, tries: int) -> None:
    there.play(f"""
        if [ -n "$batch" ]; then echo '{says}' >&2; exit 255; fi""")
    asked: list[str] = []

    @contextmanager
    def asking() -> Iterator[None]:
        asked.append("begin")
        yield
        asked.append("end")

    if tries == 2:
        with Ssh(Typed("gpu1", None), asking=asking) as ssh:
            assert ssh.run("echo", "done") == "done\n"
    else:
        with pytest.raises(Unreachable, match=says), Ssh(Typed("gpu1", None), asking=asking):
            pass
    assert asked == ["begin", "end"] * (tries - 1)


def test_without_ssh_there_is_a_line_to_install_it(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RbeeError, match="ssh is not installed") as caught, Ssh(Typed("gpu1", None)):
        pass
    assert caught.value.hint == "sudo apt install openssh-client"


def test_what_a_login_shell_says_of_its_own_is_passed_over(there: There) -> None:
    there.play("printf 'Welcome to gpu1\\nno line end'; echo 'no terminal' >&2")
    with Ssh(Typed("gpu1", None)) as ssh:
        assert ssh.own_address == "10.0.0.1"
        assert ssh.run("echo", "done") == "done\n"
        with pytest.raises(CommandFailed, match=r"on gpu1 sh failed \(3\): so it is$"):
            ssh.run("sh", "-c", "echo so it is >&2; exit 3")


@pytest.mark.parametrize(
    ("target", "says", "is_told"),
    [
        (("gpu1", None), "Permission denied (publickey,password).", True),
        (("gpu1", "grace"), "Permission denied (publickey,password).", False),
        (("gpu1", None), "No route to host", False),
    ],
)
def test_who_is_not_let_in_without_a_user_is_told_of_users(
    there: There, target: tuple[str, str | None], says: str, is_told: bool
) -> None:
    there.play(f"echo 'ada@gpu1: {says}' >&2; exit 255")
    with pytest.raises(Unreachable) as caught, Ssh(Typed(*target)):
        pass
    told = "As another user there: rbeectl add-hive root@gpu1"
    assert (told in (caught.value.hint or "").splitlines()) == is_told


def test_a_login_that_runs_nothing_is_said_to(there: There) -> None:
    there.play("echo 'No trespassing' >&2; echo 'This account is currently not available.'; exit 1")
    with (
        pytest.raises(
            RbeeError, match="ssh to gpu1 runs no commands there, but prints: This account is"
        ) as caught,
        Ssh(Typed("gpu1", None)),
    ):
        pass
    assert caught.value.hint == "ssh gpu1 id; then again"


def test_a_login_that_hangs_is_given_up_and_says_what_it_printed(
    there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.fleet.ssh, "LOGIN_TIMEOUT", 0.5)
    there.play("echo 'Choose a menu item'; exec sleep 30")
    told = "the login to gpu1 took longer than 0.5 s: Choose a menu item"
    with pytest.raises(TimedOut, match=told) as caught, Ssh(Typed("gpu1", None)):
        pass
    assert caught.value.hint == "ssh gpu1 true"
    assert list(there.tmp.iterdir()) == []


def test_an_end_that_hangs_hides_nothing_and_leaves_no_folder(
    there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.fleet.ssh, "EXIT_TIMEOUT", 0.2)
    there.play('[ -z "$is_exit" ] || { : >"$path"; exec sleep 30; }')
    with Ssh(Typed("gpu1", None)):
        pass
    assert list(there.tmp.iterdir()) == []


@pytest.mark.parametrize("name", ["t" * 100, "50%off", "${HOME}", "a b"])
def test_a_folder_that_ssh_could_not_use_is_not_used(
    there: There, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with Ssh(Typed("gpu1", None)) as ssh:
        (path,) = {word for word in ssh._command("") if word.startswith("ControlPath=")}
        assert len(path.removeprefix("ControlPath=")) + rbee.keeper.fleet.ssh.SSH_SUFFIX <= 107
        assert list((tmp_path / name).iterdir()) == []


def test_without_any_folder_there_is_a_reason(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with (
        pytest.raises(RbeeError, match="no room for temporary files: .* cannot be used: No space left"),
        Ssh(Typed("gpu1", None)),
    ):
        pass

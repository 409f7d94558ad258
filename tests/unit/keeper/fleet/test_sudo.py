"""Becoming root by a sudo that is played; the real one is tests/system/fleet/test_sudo.py's."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import rbee.keeper.fleet.sudo
from rbee.errors import NotPermitted, TimedOut
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from tests.unit.keeper.fleet.conftest import There

SUDO = """
echo "$@" >>"{folder}/sudo"
while [ "$1" != -- ]; do [ "$1" = -p ] && prompt=$2; shift; done; shift
for attempt in 1 2 3; do
    echo 'We trust you have received the usual lecture.' >&2
    printf '%s' "$prompt" >&2
    IFS= read -r password || break
    [ "$password" = 'se cret' ] && exec "$@"
    echo 'Sorry, try again.' >&2
done
echo "sudo: $attempt incorrect password attempts" >&2
exit 1
"""

Answer = Callable[..., list[str]]


@pytest.fixture
def answer(there: There, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Has a person type these passwords; returns the questions, of which there will be more."""
    there.uid(1000)
    there.program("sudo", SUDO.format(folder=there.folder))

    def begin(*passwords: str) -> list[str]:
        asked: list[str] = []
        left = list(passwords)

        def ask(question: str) -> str:
            asked.append(question)
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr(getpass, "getpass", ask)
        monkeypatch.setattr(rbee.keeper.fleet.sudo, "TERMINAL", os.devnull)
        return asked

    return begin


def test_root_needs_no_sudo(there: There) -> None:
    there.program("sudo", "echo no >&2; exit 1")
    with Ssh(Typed("gpu1", "root")) as ssh:
        assert ssh.run_as_root("echo", "done") == "done\n"


def test_one_password_is_for_all_commands_and_is_in_no_command_line(there: There, answer: Answer) -> None:
    asked = answer("se cret")
    with Ssh(Typed("gpu1", "grace")) as ssh:
        assert ssh.run_as_root("echo", "one") == "one\n"
        assert ssh.run_as_root("cat", content=b"two") == "two"
        assert ssh.run("echo", "as grace") == "as grace\n"
    assert asked == ["Password of grace on gpu1, for sudo: "]
    for noted in ("asked", "sudo"):
        assert "se cret" not in (Path(there.folder) / noted).read_text()


def test_a_sudo_that_asks_nothing_is_answered_nothing(there: There, answer: Answer) -> None:
    asked = answer("se cret")
    there.program("sudo", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    with Ssh(Typed("gpu1", "grace")) as ssh:
        assert ssh.run_as_root("cat", content=b"what goes in") == "what goes in"
    assert asked == []


def test_a_mistyped_password_is_asked_for_again_until_sudo_has_had_enough(answer: Answer) -> None:
    asked = answer("a", "se cret")
    with Ssh(Typed("gpu1", "grace")) as ssh:
        assert ssh.run_as_root("echo", "done") == "done\n"
    assert [question.startswith("Sorry, try again. ") for question in asked] == [False, True]

    answer("a", "b", "c", "d")
    told = r"sudo on gpu1 did not take the password of grace: .*3 incorrect password attempts$"
    with Ssh(Typed("gpu1", "grace")) as ssh, pytest.raises(NotPermitted, match=told) as caught:
        ssh.run_as_root("true")
    assert "lecture" not in caught.value.message
    assert caught.value.hint == "ssh -t grace@gpu1 sudo true\nrbeectl add-hive root@gpu1"


def test_who_types_no_password_is_told_what_else_there_is(answer: Answer) -> None:
    answer()
    with (
        Ssh(Typed("gpu1", "grace")) as ssh,
        pytest.raises(
            NotPermitted, match="no password was typed, and sudo on gpu1 wants that of grace"
        ) as caught,
    ):
        ssh.run_as_root("true")
    assert "with the line: grace ALL=(root) NOPASSWD: ALL" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("grace is not in the sudoers file.", "grace may not use sudo on gpu1: grace is not in"),
        (
            "Sorry, user grace is not allowed to execute '/usr/bin/env' as root on gpu1.",
            "grace may not use sudo on gpu1: Sorry",
        ),
        (
            "sudo: sorry, you must have a tty to run sudo",
            "sudo on gpu1 did not let grace become root: sudo: sorry, you must have a tty",
        ),
        (
            'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.',
            'sudo on gpu1 did not let grace become root: sudo: The "no new privileges" flag',
        ),
    ],
)
def test_a_refusal_of_sudo_s_is_told_in_its_words(there: There, says: str, told: str) -> None:
    there.uid(1000)
    there.program("sudo", f"cat >&2 <<'END'\n{says}\nEND\nexit 1")
    with Ssh(Typed("gpu1", "grace")) as ssh, pytest.raises(NotPermitted) as caught:
        ssh.run_as_root("true")
    assert caught.value.message.startswith(told)
    assert "rbeectl add-hive root@gpu1" in (caught.value.hint or "")


def test_a_sudo_that_hangs_is_given_up_with_what_it_said(
    there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.uid(1000)
    there.program("sudo", "echo 'sudo: unable to resolve host gpu1' >&2; exec sleep 30")
    monkeypatch.setattr(rbee.keeper.fleet.sudo, "SUDO_TIMEOUT", 0.5)
    told = "sudo on gpu1 neither asked for a password nor ran within 0.5 s: sudo: unable to resolve host gpu1"
    with Ssh(Typed("gpu1", "grace")) as ssh, pytest.raises(TimedOut, match=told):
        ssh.run_as_root("true")


def test_a_sudo_that_hangs_is_said_to_have_had_what_was_left_of_the_timeout(there: There) -> None:
    there.uid(1000)
    there.program("sudo", "exec sleep 30")

    def left(most: float) -> float:
        return 0.5 if most == rbee.keeper.fleet.sudo.SUDO_TIMEOUT else most

    told = "sudo on gpu1 neither asked for a password nor ran within 0.5 s"
    with Ssh(Typed("gpu1", "grace"), left) as ssh, pytest.raises(TimedOut, match=told):
        ssh.run_as_root("true")

"""A shell on another machine: what goes in, what comes out, and how each command ended."""

from __future__ import annotations

import pytest

from rbee.errors import CommandFailed, TimedOut, Unreachable
from rbee.keeper.fleet.shell import Pipes, reason
from rbee.keeper.fleet.ssh import Ssh
from rbee.keeper.fleet.typed import Typed
from tests.unit.keeper.fleet.conftest import There


def test_much_goes_through_either_way(there: There) -> None:
    content = b"0123456789abcde\n" * 200_000
    with Ssh(Typed("gpu1", None)) as ssh:
        assert ssh.run("cat", content=content) == content.decode()
        assert ssh.run("wc", "-c", content=content).strip() == str(len(content))


def test_what_a_command_leaves_of_its_input_is_no_command(there: There) -> None:
    with Ssh(Typed("gpu1", None)) as ssh:
        ssh.run("true", content=b"5 0\nexit\n" * 10_000)
        ssh.run("head", "-c1", content=b"7 0\nexit 9\n" * 10_000)
        assert ssh.run("echo", "still here") == "still here\n"


def test_a_failure_has_its_exit_status_and_the_end_of_both_streams(there: There) -> None:
    script = "seq 5000; echo the last on stdout; seq 5000 >&2; echo the last on stderr >&2; exit 100"
    with Ssh(Typed("gpu1", None)) as ssh:
        with pytest.raises(CommandFailed, match=r"on gpu1 sh failed \(100\)") as caught:
            ssh.run("sh", "-c", script)
        assert ssh.run("echo", "still here") == "still here\n"
    assert caught.value.exit_status == 100
    assert "5000 the last on stdout | … " in caught.value.message
    assert caught.value.message.endswith("5000 the last on stderr")
    assert len(caught.value.message) < 1600


def test_a_255_of_a_command_is_not_taken_for_ssh_s(there: There) -> None:
    with Ssh(Typed("gpu1", None)) as ssh, pytest.raises(CommandFailed, match=r"sh failed \(255\)"):
        ssh.run("sh", "-c", "exit 255")


def test_a_program_that_closes_its_output_and_lives_on_is_given_up() -> None:
    pipes = Pipes(["sh", "-c", "exec >&- 2>&-; exec sleep 30"])
    try:
        with pytest.raises(TimedOut, match="it has closed its output, and does not end"):
            pipes.exchange(b"", lambda: False, 0.5)
    finally:
        pipes._process.kill()
        pipes._process.communicate()


def test_commands_speak_one_language(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with Ssh(Typed("gpu1", None)) as ssh:
        assert ssh.run("printenv", "LC_ALL") == "C\n"


def test_a_command_has_its_time_and_no_more_than_is_left_of_the_deadline(there: There) -> None:
    told = "sleep on gpu1 was not done within 0.5 s"
    with Ssh(Typed("gpu1", None), left=lambda most: min(most, 0.5)) as ssh:
        with pytest.raises(TimedOut, match=told):
            ssh.run("sleep", "30")
        # What it would answer now could be that command's.
        with pytest.raises(Unreachable, match="lost while rm"):
            ssh.run("rm", "-rf", "/nowhere", content=b"x")


def test_a_connection_that_is_lost_in_the_middle_is_said_to_be(there: There) -> None:
    with (
        Ssh(Typed("gpu1", None)) as ssh,
        pytest.raises(Unreachable, match="to gpu1 was lost while sh ran there"),
    ):
        ssh.run("sh", "-c", "kill -9 0")


def test_who_says_nothing_is_not_quoted() -> None:
    assert reason("", "\n") == "it gave no reason"

"""Become root on another machine with sudo, whose password is asked for on the terminal here."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from rbee.errors import NotPermitted, RbeeError, TimedOut
from rbee.keeper.fleet.shell import Shell, reason
from rbee.keeper.fleet.typed import Typed
from rbee.text import printable, shown_span

SUDO_TIMEOUT = 90.0
"""Seconds: sudo may wait for a directory, or for a name server that does not answer."""

PROMPT = "rbeectl asks for sudo"
"""The prompt that sudo is given, by which its question is recognized."""

TERMINAL = "/dev/tty"

REFUSALS = ("is not in the sudoers file", "is not allowed to", "may not run sudo")
"""In sudo's messages, in English because of LC_ALL=C."""


class Account(NamedTuple):
    """The user on the other machine that ssh logs in as."""

    name: str
    uid: int
    has_sudo: bool


class Login(Protocol):
    """A connection to another machine, such as rbee.keeper.fleet.ssh.Ssh."""

    host: str
    target: str
    typed: Typed
    account: Account
    left: Callable[[float], float]
    asking: Callable[[], AbstractContextManager[None]]

    def shell(self, *before: str) -> Shell:
        """One more shell there, with `before` in front of it."""


def become_root(ssh: Login) -> Shell:
    """A shell of root. If sudo wants a password it is asked for, and not kept. NotPermitted if refused."""
    if not ssh.account.has_sudo:
        raise NotPermitted(
            f"{ssh.account.name} is not root on {ssh.host}, and sudo is not installed there",
            hint=f"{ssh.typed.by('root')}\nOr on {ssh.host}, as root: "
            f"apt install sudo; adduser {ssh.account.name} sudo",
        )
    # Without a path, sudo takes its own secure_path; with -S it reads byte by byte, and no more than a line.
    shell = ssh.shell("sudo", "-S", "-p", PROMPT, "--", "env", "LC_ALL=C")
    try:
        _answer(ssh, shell)
    except BaseException:
        shell.close()
        raise
    return shell


def _answer(ssh: Login, shell: Shell) -> None:
    """Answer each prompt of sudo with a password until the shell has started; sudo counts the tries."""
    asked, password = 0, b""
    err = shell.pipes.err
    while True:
        # A default argument, because a closure would see the number of a later iteration.
        def is_done(asked: int = asked) -> bool:
            return shell.is_ready or err.count(PROMPT.encode()) > asked

        timeout = ssh.left(SUDO_TIMEOUT)
        try:
            is_alive = shell.pipes.exchange(password, is_done, timeout)
        except TimedOut as error:
            said = _last_message(shell)
            raise TimedOut(
                f"sudo on {ssh.host} neither asked for a password nor ran within {shown_span(timeout)}"
                + (f": {said}" if said else ""),
                hint=f"ssh -t {ssh.target} sudo true",
            ) from error
        if not is_alive:
            raise _refusal(ssh, shell, asked)
        if shell.is_ready:
            return
        asked += 1
        password = _ask(ssh, is_again=asked > 1)


def _ask(ssh: Login, *, is_again: bool) -> bytes:
    """The password as a person types it, and a line end."""
    user, host = ssh.account.name, ssh.host
    with ssh.asking():
        try:
            os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
        except OSError as error:
            raise NotPermitted(
                f"sudo on {host} wants the password of {user}, and there is no terminal here to ask for it",
                hint=f"On a terminal: {ssh.typed}\n{_free(ssh)}\n{ssh.typed.by('root')}",
            ) from error
        question = f"{'Sorry, try again. ' if is_again else ''}Password of {user} on {host}, for sudo: "
        try:
            return getpass.getpass(printable(question)).encode(errors="surrogateescape") + b"\n"
        except EOFError as error:
            raise NotPermitted(
                f"no password was typed, and sudo on {host} wants that of {user}",
                hint=f"{ssh.typed}\n{_free(ssh)}",
            ) from error


def _free(ssh: Login) -> str:
    """The hint with the line for sudoers(5) that makes a password unnecessary."""
    user = ssh.account.name
    line = f"{user} ALL=(root) NOPASSWD: ALL"
    return f"Or on {ssh.host}, sudo visudo -f /etc/sudoers.d/{user.replace('.', '_')}, with the line: {line}"


def _refusal(ssh: Login, shell: Shell, asked: int) -> RbeeError:
    """The error for a sudo that has ended, by its last message."""
    user, host, said = ssh.account.name, ssh.host, _last_message(shell)
    other = ssh.typed.by("root")
    if any(refusal in said for refusal in REFUSALS):
        return NotPermitted(
            f"{user} may not use sudo on {host}: {said}",
            hint=f"{other}\nOr on {host}, as root: adduser {user} sudo",
        )
    if "incorrect password attempt" in said:
        return NotPermitted(
            f"sudo on {host} did not take the password of {user}: {said}",
            hint=f"ssh -t {ssh.target} sudo true\n{other}",
        )
    return NotPermitted(
        f"sudo on {host} did not let {user} become root: {said or 'it gave no reason'}",
        hint=f"ssh -t {ssh.target} sudo true\n{other}",
    )


def _last_message(shell: Shell) -> str:
    """What sudo printed after its last prompt, without its lecture, which comes before."""
    said = shell.pipes.err.decode(errors="replace").rpartition(PROMPT)[2]
    return reason("", said) if said.strip() else ""

"""The operator's own ssh to another machine: commands, and its systemd's bus.

One connection for all of it, so that a person is asked for a password once.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rbee.errors import NotPermitted, RbeeError, TimedOut, Unreachable
from rbee.files import make_temporary_folder
from rbee.systemd import Bus

CONNECT_TIMEOUT = 10
"""Seconds that ssh has for the connection; a person may take LOGIN_TIMEOUT for a password."""

LOGIN_TIMEOUT = 120.0

COMMAND_TIMEOUT = 30.0

EXIT_TIMEOUT = 5.0

ABOUT = """printf 'rbeectl: %s %s\\n' "${SSH_CONNECTION%% *}" "$(id -u)\""""
"""Of this machine its address, as the other sees it, and who one is there."""


class Ssh:
    """`host` is what ssh takes for one, `user` who to be there; None leaves that to ssh's configuration.

    `left` makes of a wait's bound what is left of a deadline.
    """

    def __init__(
        self, host: str, user: str | None, left: Callable[[float], float] = lambda most: most
    ) -> None:
        self._target = host if user is None else f"{user}@{host}"
        self._left = left
        self._folder = ""
        self._is_root = False
        self.own_address = ""
        """Of this machine, as the other sees it."""

    def __enter__(self) -> Self:
        if shutil.which("ssh") is None:
            raise RbeeError("ssh is not installed here", hint="sudo apt install openssh-client")
        self._folder = str(make_temporary_folder("rbeectl-"))
        try:
            told = self.run("sh", "-c", ABOUT, timeout=LOGIN_TIMEOUT)
            # A login shell may say something of its own before it.
            found = re.search(r"^rbeectl: (\S+) ([0-9]+)$", told, re.MULTILINE)
            if found is None:
                raise RbeeError(
                    f"ssh to {self._target} runs no commands", hint=f"ssh {self._target} id; then again"
                )
            self.own_address, self._is_root = found[1], found[2] == "0"
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, *argv: str, content: bytes | None = None, timeout: float = COMMAND_TIMEOUT) -> str:
        """What a command says; its failure, or that of the connection, is an error."""
        timeout = self._left(timeout)
        try:
            done = subprocess.run(
                [*self._command(), "-T", "--", self._target, shlex.join(argv)],
                input=content, stdin=None if content is not None else subprocess.DEVNULL,
                capture_output=True, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"ssh {self._target} took longer than {timeout:g} s") from error
        said = " ".join(done.stderr.decode(errors="replace").split())[:500]
        if done.returncode == 255:
            raise Unreachable(
                f"ssh to {self._target} failed: {said or 'it did not say why'}",
                hint=f"ssh {self._target}\nOr on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN",
            )
        if done.returncode:
            raise RbeeError(f"on {self._target} {argv[0]} failed ({done.returncode}): {said}")
        return done.stdout.decode(errors="replace")

    def run_as_root(self, *argv: str, content: bytes | None = None, timeout: float = COMMAND_TIMEOUT) -> str:
        """As run(), by sudo where the login is not root's."""
        if self._is_root:
            return self.run(*argv, content=content, timeout=timeout)
        try:
            return self.run("sudo", "-n", "--", *argv, content=content, timeout=timeout)
        except RbeeError as error:
            if "password is required" not in error.message:
                raise
            raise NotPermitted(
                f"{self._target} may not use sudo without a password",
                hint="rbeectl add-hive --user root\n"
                "Or on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN",
            ) from error

    def bus(self) -> Bus:
        """The bus of the other machine's systemd, the way systemctl -H goes."""
        command = [*self._command(), "-xT", "--", self._target, *self._bridge()]
        words = "".join(f",argv{number}={_escaped(word)}" for number, word in enumerate(command[1:], start=1))
        return Bus(f"unixexec:path={_escaped(command[0])}{words}")

    def _bridge(self) -> Sequence[str]:
        return ("systemd-stdio-bridge",) if self._is_root else ("sudo", "-n", "--", "systemd-stdio-bridge")

    def _command(self) -> list[str]:
        options: tuple[str, ...] = (
            "ControlMaster=auto",
            f"ControlPath={self._folder}/ssh",
            "ControlPersist=60",
        )
        return ["ssh", *(word for option in options for word in ("-o", option)), "-o", _CONNECT]

    def _close(self) -> None:
        if os.path.exists(f"{self._folder}/ssh"):
            # One that hangs goes by itself, ControlPersist= after its last use.
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._command(), "-O", "exit", "--", self._target],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    timeout=EXIT_TIMEOUT,
                )  # fmt: skip
        shutil.rmtree(self._folder, ignore_errors=True)


_CONNECT = f"ConnectTimeout={CONNECT_TIMEOUT}"


def _escaped(text: str) -> str:
    """As the D-Bus specification has the values in an address; the host comes from a person."""
    plain = "-_/.*"
    return "".join(
        chr(c) if chr(c).isascii() and (chr(c).isalnum() or chr(c) in plain) else f"%{c:02x}"
        for c in text.encode()
    )

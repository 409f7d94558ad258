"""The operator's own ssh to another machine, and commands there, as the user or as root.

All of them share one connection, so that a password is asked for once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Self

from rbee.errors import NotPermitted, RbeeError, TimedOut, Unreachable
from rbee.files import no_temporary_folder
from rbee.keeper.fleet.shell import Pipes, Shell, reason
from rbee.keeper.fleet.sudo import Account, become_root
from rbee.keeper.fleet.typed import Typed
from rbee.scope import REMOTE, Scope
from rbee.text import last_lines, shown_span

CONNECT_TIMEOUT = 10
"""Seconds for ssh to connect; a person has LOGIN_TIMEOUT to type a password."""

LOGIN_TIMEOUT = 120.0

COMMAND_TIMEOUT = 60.0
"""Seconds for a command over a network, on a machine that may be busy."""

EXIT_TIMEOUT = 5.0

SUN_PATH = 107
"""The most bytes of a Unix socket's path, unix(7), without the 0 at its end."""

SSH_SUFFIX = 17
"""Bytes that ssh appends to ControlPath= while it makes the socket: a dot and 16 random characters."""

ABOUT = (
    """printf 'rbeectl: %s %s %s %s\\n' """
    """"${SSH_CONNECTION%% *}" "$(id -u)" "$(id -un)" "$(command -v sudo)\""""
)
"""Prints this machine's address, as the other one sees it, and the user there and the path of sudo."""

ASKS = ("Permission denied", "Host key verification failed", "Too many authentication failures")
"""Texts in ssh's messages, always in English, that mean that it needs to ask a person."""

CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"

OTHER_WAY = f"Or on that machine: {REMOTE.rejoin}"


class Ssh:
    """`typed` has the host as ssh takes it, and the user there; None for that of ssh's configuration.

    `left` bounds a wait by what is left of a deadline; while the context `asking` is entered nothing else
    writes to the terminal.
    """

    def __init__(
        self,
        typed: Typed,
        left: Callable[[float], float] = lambda most: most,
        asking: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.host = typed.host
        self.target = typed.target
        self.typed = typed
        self.left = left
        self.asking = asking
        self.own_address = ""
        """This machine's address, as the other one sees it; not an IP address if ssh uses a ProxyCommand=."""
        self.account = Account("", 0, False)
        self._folder = ""
        self._shell: Shell | None = None
        self._root: Shell | None = None

    def __enter__(self) -> Self:
        if shutil.which("ssh") is None:
            raise RbeeError("ssh is not installed here", hint="sudo apt install openssh-client")
        self._folder = _private_folder(self.typed.scope)
        try:
            self._log_in()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, *argv: str, content: bytes = b"", timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a command and return its stdout. Raises as Shell.run() does."""
        assert self._shell is not None
        return self._shell.run(argv, content, self.left(timeout))

    def run_as_root(self, *argv: str, content: bytes = b"", timeout: float = COMMAND_TIMEOUT) -> str:
        """As run(), with sudo if the login is not root."""
        return self.become_root().run(argv, content, self.left(timeout))

    def become_root(self) -> Shell:
        """A shell of root, for which sudo may ask for a password once; NotPermitted if that is refused."""
        assert self._shell is not None
        if self._root is None:
            self._root = become_root(self) if self.account.uid else self._shell
        return self._root

    def shell(self, *before: str) -> Shell:
        """One more shell there over the same connection, with `before` in front of it."""
        return Shell(self.host, self._command, before=before)

    def pipes(self, line: str) -> Pipes:
        """Run a command line in the login shell there, over the same connection."""
        return Pipes(self._command(line), is_detached=True)

    def _log_in(self) -> None:
        """Try without questions first; only if ssh has to ask, again with the terminal to itself."""
        environ = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
        shell = self._shell = Shell(self.host, self._silent_command, environ=environ)
        is_ready = self._await(shell)
        if not is_ready and any(text in shell.pipes.err.decode(errors="replace") for text in ASKS):
            shell.close()
            with self.asking():
                shell = self._shell = Shell(self.host, self._command, is_detached=False)
                is_ready = self._await(shell)
        if not is_ready:
            raise self._no_login(shell.pipes)
        about = self.run("sh", "-c", ABOUT)
        found = re.search(r"^rbeectl: (\S+) ([0-9]+) (\S+) ?(\S*)$", about, re.MULTILINE)
        if found is None:
            raise RbeeError(f"{self.target} does not report the user there: {last_lines(about)}")
        self.own_address = found[1]
        self.account = Account(found[3], int(found[2]), bool(found[4]))

    def _await(self, shell: Shell) -> bool:
        timeout = self.left(LOGIN_TIMEOUT)
        try:
            return shell.await_ready(timeout)
        except TimedOut as error:
            said = reason(shell.pipes.out.decode(errors="replace"), shell.pipes.err.decode(errors="replace"))
            raise TimedOut(
                f"the login to {self.target} took longer than {shown_span(timeout)}: {said}",
                hint=f"ssh {self.target} true",
            ) from error

    def _no_login(self, pipes: Pipes) -> RbeeError:
        out, err = pipes.out.decode(errors="replace"), pipes.err.decode(errors="replace")
        if pipes.status != 255:
            # A banner is on stderr; the output of what runs in place of a shell is on stdout.
            said = last_lines(out) or last_lines(err) or "nothing"
            return RbeeError(
                f"ssh to {self.target} runs no commands there, but prints: {said}",
                hint=f"ssh {self.target} id; then again",
            )
        if CHANGED in err:
            return self._changed_key(err)
        hints = [f"ssh {self.target}", OTHER_WAY]
        if "Permission denied" in err and self.target == self.host:
            hints.insert(
                1, f"As another user there: {self.typed.scope.rbeectl(f'add-hive root@{self.host}')}"
            )
        return Unreachable(
            f"ssh to {self.target} failed: {last_lines(err) or 'it gave no reason'}",
            hint="\n".join(hints),
        )

    def _changed_key(self, err: str) -> RbeeError:
        """Of ssh's dozen lines about a changed host key, the two that matter."""
        known = re.search(r"^Offending .*$", err, re.MULTILINE)
        remove = re.search(r"^ *(ssh-keygen -f .*)$", err, re.MULTILINE)
        cure = remove[1].strip() if remove else f"ssh-keygen -R {self.host}"
        return NotPermitted(
            f"the host key of {self.host} is not the one that ssh knows: either it was installed anew, or "
            f"somebody else answers in its place ({known[0].strip() if known else last_lines(err)})",
            hint=f"If it was installed anew: {cure}",
        )

    def _silent_command(self, line: str) -> list[str]:
        return self._command(line, "BatchMode=yes")

    def _command(self, line: str, *more: str) -> list[str]:
        return [*self._options(*more), "-xT", "--", self.target, line]

    def _options(self, *more: str) -> list[str]:
        options: Sequence[str] = (
            "ControlMaster=auto",
            f"ControlPath={self._folder}/s",
            "ControlPersist=60",
            f"ConnectTimeout={CONNECT_TIMEOUT}",
            # Settings of ssh's configuration that are for interactive sessions.
            "ClearAllForwardings=yes",
            "RemoteCommand=none",
            *more,
        )
        return ["ssh", *(word for option in options for word in ("-o", option))]

    def _close(self) -> None:
        for shell in (self._root, self._shell):
            if shell is not None:
                shell.close()
        if os.path.exists(f"{self._folder}/s"):
            # If it hangs it ends by itself, ControlPersist= after its last use.
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._options(), "-O", "exit", "--", self.target],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    timeout=EXIT_TIMEOUT,
                )  # fmt: skip
        shutil.rmtree(self._folder, ignore_errors=True)


def _private_folder(scope: Scope) -> str:
    """Make a folder for ssh's socket, whose path has a limit that a long $TMPDIR exceeds.

    In ControlPath= % and ${ are special, so a path with such characters is not used.
    """
    named = os.environ.get("TMPDIR", "/tmp")  # noqa: S108  # mkdtemp makes the folder, with 0700
    failure: OSError | None = None
    for parent in (tempfile.tempdir or named, f"/run/user/{os.getuid()}", "/tmp", "/var/tmp"):  # noqa: S108  # as above
        length = len(os.fsencode(f"{parent}/rbeectl-12345678/s")) + SSH_SUFFIX
        if length > SUN_PATH or not re.fullmatch(r"[\w/.+,@-]+", parent, re.ASCII):
            continue
        try:
            return tempfile.mkdtemp(prefix="rbeectl-", dir=parent)
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise no_temporary_folder(failure) from failure
    hint = f"TMPDIR=/tmp {scope.rbeectl('add-hive HOST')}"
    raise RbeeError("there is no folder here for ssh's socket", hint=hint)

"""Commands in a machine, and files into it."""

import json
import os
import signal
import subprocess
import termios
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from testbed.host import MachineError, said
from testbed.processes import children, kill_inside


class Runs(ABC):
    """A machine of any kind, in which commands run."""

    RUN_SECONDS = 30.0
    """Seconds that a command may run, if its caller sets no timeout."""

    def run(
        self,
        *argv: str,
        user: str | None = None,
        groups: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002  # its name in subprocess.run(), which every caller knows
        timeout: float | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; as root, if no user is named, without a terminal.

        groups: the supplementary groups of a login from before the user's groups changed; () is none.
        With check an exit code other than 0 is a MachineError with what the command said. After a signal
        the exit code is 128 + its number, as in a shell.
        """
        seconds = self.RUN_SECONDS if timeout is None else timeout
        done = self._run(argv, as_user(argv, user, groups, env or {}, self._passwd()), input, seconds)
        if check and done.returncode:
            raise MachineError(said(argv, f"exit code {done.returncode}", done.stdout, done.stderr))
        return done

    @abstractmethod
    def _passwd(self) -> str:
        """The machine's /etc/passwd."""

    @abstractmethod
    def _run(
        self, argv: Sequence[str], inside: list[str], text: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs `inside`, which is argv as its user would start it, with `text` as its input."""


class Commands(Runs):
    """What is done in a machine, by entering the namespaces of its PID 1."""

    def __init__(self) -> None:
        self.leader = 0
        """The machine's PID 1, as this computer counts."""
        self._entered: list[subprocess.Popen[str]] = []

    def _passwd(self) -> str:
        return Path(f"/proc/{self.leader}/root/etc/passwd").read_text()

    def _run(
        self, argv: Sequence[str], inside: list[str], text: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        process = self._open(self._entering(inside), text is not None)
        try:
            out, err = process.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            kill_inside(process)
            out, err = process.communicate()
            raise MachineError(said(argv, f"has not ended within {timeout:g} s", out, err)) from None
        except BaseException:
            kill_inside(process)
            process.communicate()
            raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def popen(
        self,
        *argv: str,
        user: str | None = None,
        groups: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        reads_input: bool = False,
    ) -> subprocess.Popen[str]:
        """Starts a command with pipes; signal() reaches it. It ends with the machine at the latest."""
        process = self._open(self._inside(argv, user, groups, env or {}), reads_input)
        self._entered.append(process)
        return process

    def _open(self, command: Sequence[str], reads_input: bool) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if reads_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def signal(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        """Signals the command that popen started, not the shell that waits for it."""
        deadline = time.monotonic() + 5
        while process.poll() is None and time.monotonic() < deadline:
            if commands := children(process.pid):
                os.kill(commands[0], number)
                return
            time.sleep(0.005)  # not started yet; nothing tells when it is
        raise MachineError(f"No command to signal: {process.args!r}, exit code {process.returncode}")

    def interactive(self, *argv: str, user: str | None = None) -> int:
        """Hands the terminal to a command, through a terminal of the machine's own."""
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)
        script = ["script", "--quiet", "--return", "--command", f"exec {quoted}", "/dev/null"]
        env = {"TERM": os.environ.get("TERM", "dumb")}
        settings = termios.tcgetattr(0) if os.isatty(0) else None
        # In this session, which has the terminal; script passes Ctrl-C on as a key.
        process = subprocess.Popen(self._inside(script, user, None, env), text=True)
        try:
            return process.wait()
        except BaseException:
            kill_inside(process)
            raise
        finally:
            if settings:
                termios.tcsetattr(0, termios.TCSADRAIN, settings)

    def copy_in(self, path: Path, inside: str) -> None:
        """Copy a file or a directory to the full path `inside`, owned by root."""
        # Not through /proc/PID/root: an absolute symlink in there would lead back out.
        pack = ["tar", "--create", "--owner=0", "--group=0", "--directory", str(path.parent), "--", path.name]
        unpack = """
            set -e
            mkdir -p "$1"
            aside=$(mktemp -d "$1/.copy-XXXXXX")
            tar --extract --directory="$aside"
            mv -T -- "$aside/$2" "$1/$3"
            rmdir "$aside"
        """
        names = (str(Path(inside).parent), path.name, Path(inside).name)
        command = self._inside(["sh", "-c", unpack, "sh", *names], None, None, {})
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packer:
            copied = subprocess.run(
                command, stdin=packer.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if packer.returncode or copied.returncode:
            raise MachineError(f"{path} could not be copied to {inside}: {copied.stdout.strip()}")

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The entries that match, such as "RBEE_JOB_ID=…" or "--unit=queen-rbee", oldest first."""
        self.run("journalctl", "--sync")
        output = self.run("journalctl", "--output=json", "--all", "--no-pager", *matches).stdout
        return [json.loads(line) for line in output.splitlines()]

    def _inside(
        self, argv: Sequence[str], user: str | None, groups: Sequence[str] | None, env: Mapping[str, str]
    ) -> list[str]:
        return self._entering(as_user(argv, user, groups, env, self._passwd()))

    def _entering(self, command: Sequence[str]) -> list[str]:
        # A shell waits for the command rather than nsenter, which stops with it when systemd-shutdown stops
        # all processes, and is not woken with it: then nobody would reap the command, nor PID 1 ever end.
        enter = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd", "--no-fork", "--"]
        enter += ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
        return [*enter, *command]

    def _end_commands(self) -> None:
        """End the commands that popen started and that have not ended with the machine."""
        for process in self._entered:
            if process.poll() is None:
                kill_inside(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    if pipe:
                        pipe.close()


def as_user(
    argv: Sequence[str],
    user: str | None,
    groups: Sequence[str] | None,
    env: Mapping[str, str],
    passwd: str,
) -> list[str]:
    """The command as its user would start it, root if none is named; passwd: the machine's /etc/passwd."""
    if user is None:
        home = "/root"
        start = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        start += ["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"]
    else:
        uid, gid, home = _account(user, passwd)
        start = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--reset-env"]
        if groups is None:
            start.append("--init-groups")
        else:
            start.append(f"--groups={','.join(groups)}" if groups else "--clear-groups")
        start += ["--", "env"]
    start += ["LANG=C.UTF-8", *(f"{name}={value}" for name, value in env.items())]
    return [*start, "sh", "-c", 'cd "$0" 2>/dev/null; exec "$@"', home, *argv]


def _account(user: str, passwd: str) -> tuple[int, int, str]:
    for line in passwd.splitlines():
        name, _, uid, gid, _, home, _ = line.split(":")
        if name == user:
            return int(uid), int(gid), home
    raise MachineError(f"The machine has no user {user}")

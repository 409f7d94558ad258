"""A shell on another machine that stays open: runs one command after the other, with its exit status.

What a login shell prints by itself (an echo in .bashrc, a message of the day) comes before a random mark
and is ignored. Commands run with LC_ALL=C, so that their output is in English.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from rbee.errors import CommandFailed, TimedOut, Unreachable
from rbee.text import last_lines, shown_span

LOOP = (
    'printf "\\n%s\\n" "$0"; printf "\\n%s\\n" "$0" >&2; '
    'while read -r script content; do eval "$(head -c "$script")"; done'
)
"""It reads a line with two sizes, then a script, then the script's input. In one line, which every login
shell quotes alike; `read` takes a pipe byte by byte, and `head -c` no more than its argument.
"""

CHUNK = 65536


def reason(out: str, err: str) -> str:
    """Why a command failed, from both of its streams: apt explains itself on stdout."""
    ends = [end for end in (last_lines(out), last_lines(err)) if end]
    return " | ".join(ends) or "it gave no reason"


class Pipes:
    """A process with three pipes, which are written and read within a deadline."""

    def __init__(
        self, command: Sequence[str], *, is_detached: bool = False, environ: dict[str, str] | None = None
    ) -> None:
        """`is_detached` takes the terminal from it, so that it cannot ask for anything."""
        self.out = bytearray()
        self.err = bytearray()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=is_detached, env=environ,
        )  # fmt: skip
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin = stdin
        self._open = {stdout.fileno(): self.out, stderr.fileno(): self.err}
        os.set_blocking(stdin.fileno(), False)

    def exchange(self, data: bytes, is_done: Callable[[], bool], timeout: float) -> bool:
        """Write `data` and read until `is_done`; False if the process ended. TimedOut after `timeout` s."""
        deadline = time.monotonic() + timeout
        left = memoryview(data)
        with selectors.DefaultSelector() as selector:
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            if left and self._open:
                selector.register(self._stdin, selectors.EVENT_WRITE)
            while not is_done():
                if not self._open:
                    self._await_end(max(0.1, deadline - time.monotonic()))
                    return False
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimedOut(f"there was no answer within {shown_span(timeout)}")
                for key, events in ready:
                    if events & selectors.EVENT_WRITE:
                        left = left[self._write(left[:CHUNK]) :]
                        if not left:
                            selector.unregister(self._stdin)
                    elif not self._read(key.fd):
                        selector.unregister(key.fd)
        return True

    def _await_end(self, timeout: float) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut("it has closed its output, and does not end") from None

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return len(data)  # it has ended, and its error output is still to be read

    def _read(self, descriptor: int) -> bool:
        """False at the end of the stream."""
        chunk = os.read(descriptor, CHUNK)
        self._open[descriptor] += chunk
        if not chunk:
            del self._open[descriptor]
        return bool(chunk)

    @property
    def status(self) -> int | None:
        """The exit status of a process that has ended."""
        return self._process.poll()

    def close(self) -> None:
        """Kill the process, and close the pipes."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        self._open.clear()


class Shell:
    """`command` returns the argv that runs a line in the login shell there; `machine` is for messages."""

    def __init__(
        self,
        machine: str,
        command: Callable[[str], Sequence[str]],
        *,
        before: Sequence[str] = (),
        is_detached: bool = True,
        environ: dict[str, str] | None = None,
    ) -> None:
        """`before` is what precedes the shell on its command line, such as sudo."""
        self.mark = f"rbeectl-{secrets.token_hex(8)}"
        self._machine = machine
        argv = ["env", "LC_ALL=C", *before, "sh", "-c", LOOP, self.mark]
        self.pipes = Pipes(command(shlex.join(argv)), is_detached=is_detached, environ=environ)

    @property
    def is_ready(self) -> bool:
        """Has the shell started, or its command ended?"""
        return self._is_marked(self.pipes.out) and self._is_marked(self.pipes.err)

    def await_ready(self, timeout: float) -> bool:
        """Wait until the shell has started; False if it ended instead: its output is in `pipes`."""
        return self.pipes.exchange(b"", lambda: self.is_ready, timeout)

    def run(self, argv: Sequence[str], content: bytes, timeout: float) -> str:
        """Run a command; return its stdout. CommandFailed, TimedOut, or Unreachable if the shell is gone."""
        self.pipes.out.clear()
        self.pipes.err.clear()
        script = (
            # What the command leaves of its input must not become the next command.
            f'head -c {len(content)} | {{ {shlex.join(argv)}; status=$?; cat >/dev/null; exit "$status"; }}; '
            f'printf "\\n%s %s\\n" {self.mark} "$?"; printf "\\n%s\\n" {self.mark} >&2'
        ).encode()
        message = f"{len(script)} {len(content)}\n".encode() + script + content
        try:
            has_ended = not self.pipes.exchange(message, lambda: self.is_ready, timeout)
        except TimedOut as error:
            self.close()  # its next answer would be that of this command
            raise TimedOut(
                f"{argv[0]} on {self._machine} was not done within {shown_span(timeout)}"
            ) from error
        out, status = self._before_mark(self.pipes.out)
        err, _ = self._before_mark(self.pipes.err)
        if has_ended:
            raise Unreachable(
                f"the connection to {self._machine} was lost while {argv[0]} ran there: {reason('', err)}"
            )
        if status:
            why = reason(out, err)
            failure = CommandFailed(f"on {self._machine} {argv[0]} failed ({status}): {why}")
            failure.exit_status, failure.reason = status, why
            raise failure
        return out

    def close(self) -> None:
        """End the shell."""
        self.pipes.close()

    def _is_marked(self, stream: bytearray) -> bool:
        place = stream.find(f"\n{self.mark}".encode())
        return place >= 0 and stream.find(b"\n", place + 1) >= 0

    def _before_mark(self, stream: bytearray) -> tuple[str, int]:
        """The output before the mark, and the exit status after it, 0 if there is none."""
        before, _, behind = stream.decode(errors="replace").partition(f"\n{self.mark}")
        return before, int(behind.partition("\n")[0] or 0)

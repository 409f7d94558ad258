"""rbee-estimate: run the command of an engine's Estimate=, and pass its answer on as the unit's status text.

It stays until the hive, which reads the status text, stops the unit: whatever the command has left behind
ends then, with the control group.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, NamedTuple

from rbee.engines.estimate import (
    DEADLINE,
    OUTPUT_MAX,
    BadAnswerError,
    Question,
    answer_of,
    read_question,
    status_text,
)
from rbee.engines.order import PREFIX
from rbee.worker.notify import notify

CHUNK = 64 * 1024
ERRORS_KEPT = 4096
"""The last bytes of standard error that are kept."""


class _Printed(NamedTuple):
    output: bytearray
    errors: bytearray

    def add(self, content: bytes, *, is_error: bool) -> None:
        """Keep what was read. Raises BadAnswerError if the output is too long."""
        if is_error:
            self.errors.extend(content)
            del self.errors[:-ERRORS_KEPT]
            return
        self.output.extend(content)
        if len(self.output) > OUTPUT_MAX:
            raise BadAnswerError(f"it printed more than {OUTPUT_MAX // 1024} KiB")


def ask(question: Question, environ: Mapping[str, str], *, deadline: float = DEADLINE) -> int:
    """Run the command, and return the bytes that it has printed. Raises BadAnswerError.

    It is killed with its process group when it has ended, or after `deadline` seconds.
    """
    try:
        process = subprocess.Popen(  # the administrator's command, without a shell
            question.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(question, environ),
            start_new_session=True,
        )
    except OSError as error:
        raise BadAnswerError(f"it cannot be executed ({error.strerror})") from error
    printed = _Printed(bytearray(), bytearray())
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        _read(process.pid, {process.stdout: False, process.stderr: True}, printed, deadline)
    finally:
        # Before it is waited for: until then its process group keeps its number.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdout.close()
        process.stderr.close()
    return answer_of(status, bytes(printed.output), bytes(printed.errors))


def _environment(question: Question, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the command's environment: `environ` without what is the launcher's, with the engine's own."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    }
    return {**kept, "HOME": "/tmp", **dict(question.environment)}  # noqa: S108  # the unit has its own


def _read(pid: int, pipes: Mapping[IO[bytes], bool], printed: _Printed, deadline: float) -> None:
    """Read the pipes (True: standard error) until the process `pid` has ended. Raises BadAnswerError.

    Not until they are closed: a child that it has left behind may keep them open.
    """
    end = time.monotonic() + deadline
    ended = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for pipe in pipes:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
            has_ended = False
            while not has_ended:
                left = end - time.monotonic()
                ready = selector.select(max(left, 0))
                if left <= 0:
                    raise BadAnswerError(f"it had not ended after {deadline:g} s")
                has_ended = any(key.fileobj == ended for key, _ in ready)
                for pipe, is_error in pipes.items():
                    if pipe in selector.get_map() and not _take(pipe, printed, is_error=is_error):
                        selector.unregister(pipe)
    finally:
        os.close(ended)


def _take(pipe: IO[bytes], printed: _Printed, *, is_error: bool) -> bool:
    """Keep what a pipe has now, at most the size of a full pipe; return whether more may come."""
    try:
        content = os.read(pipe.fileno(), CHUNK)
    except BlockingIOError:
        return True
    printed.add(content, is_error=is_error)
    return bool(content)


def main(environ: Mapping[str, str], wait: Callable[[], object] = signal.pause) -> int:
    """Answer, and wait for the end; return the exit status."""
    try:
        question = read_question(environ)
    except (KeyError, ValueError) as error:
        print(f"the environment, which the hive writes, is not valid: {error!r}", file=sys.stderr)  # noqa: T201
        return os.EX_CONFIG
    answer: int | BadAnswerError
    try:
        answer = ask(question, environ)
    except BadAnswerError as error:
        answer = error
    notify(f"STATUS={status_text(answer)}\nREADY=1")
    wait()
    return 0

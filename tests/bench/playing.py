"""Many hives, played by a program in one machine for a queen in another."""

from __future__ import annotations

import json
import signal
from types import TracebackType
from typing import Self

from testbed.machine import Machine
from testbed.processes import kill_inside


class Playing:
    """many_hives.py or many_connections.py in a machine, as a context; asked by words, each for one number.

    `access` is what the program needs to be admitted: many_hives.py a token, many_connections.py its FOLDER.
    """

    def __init__(self, machine: Machine, program: str, access: str, count: int) -> None:
        self._machine = machine
        self._program = program
        self._arguments = ("queen", access, str(count))

    def __enter__(self) -> Self:
        path = "/root/played_hives.py"
        self._machine.run("tee", path, input=self._program)
        self._process = self._machine.popen("python3", "-I", path, *self._arguments, reads_input=True)
        try:
            self.joined_in = self._answer()
            """Seconds."""
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        kill_inside(self._process)
        self._process.wait()

    def ask(self, word: str) -> float:
        """Return the answer: to 'held' and 'again' seconds, to 'beats' their number since, to 'late' ms."""
        self.send(word)
        return self._answer()

    def send(self, word: str) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _answer(self) -> float:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            stderr = self._process.stderr.read() if self._process.stderr else ""
            raise SystemExit(f"the program that plays the hives has ended: {stderr}")
        [answer] = json.loads(line).values()
        return float(answer)

    def stop(self) -> None:
        """Stop the program, as if its machine hung."""
        self._machine.signal(self._process, signal.SIGSTOP)

    def resume(self) -> float:
        """Continue the program; return the seconds until all hives are connected again."""
        self.send("again")
        self._machine.signal(self._process, signal.SIGCONT)
        return self._answer()

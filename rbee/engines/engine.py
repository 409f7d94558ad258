"""An engine, as its configuration files describe it: the command line that serves a model."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from rbee.engines.estimate import Question
from rbee.engines.syntax import expand, split_words
from rbee.errors import BadInput
from rbee.wire.engines import Engine as EngineView
from rbee.wire.types import Format

SPECIFIERS = {
    "m": "the model's file or folder",
    "s": "the Unix socket to listen on",
    "p": "the TCP port to listen on at 127.0.0.1, with Socket=tcp",
    "a": "the model's name, as clients write it",
    "c": "the tokens of a request's context",
    "C": "the tokens of the contexts of all slots together",
    "n": "the slots: how many requests are answered at once",
    "t": "the threads",
    "d": "the kind of device: cpu or gpu",
    "g": "the layers on the card: 999, which is all, or 0 on the processors",
    "u": "the card's UUID; empty on the processors",
    "f": "the share of the pool's memory that the worker has claimed, such as 0.570",
}
"""What may be used in Exec=, Environment= and Estimate=."""

OF_A_WORKER = "spuf"
"""The specifiers that only a worker has: Estimate= may not use them, and Environment= has them empty then."""

TCP_PORT = 8080
"""The port of each engine with Socket=tcp: a worker has a network namespace of its own."""

_SAMPLE = dict.fromkeys(SPECIFIERS, "")


class Task(NamedTuple):
    """What a worker's engine is to serve, and with which resources; `context` in tokens, sizes in bytes."""

    model: Path
    socket: Path
    alias: str
    context: int
    slots: int
    threads: int
    uuid: str | None = None
    """The card's; '' if it is not known, None on the processors."""
    claim: int = 0
    total: int | None = None
    """The memory of the pool, None if it is not known."""

    def specifiers(self) -> dict[str, str]:
        """Return the value of each specifier."""
        is_gpu = self.uuid is not None
        # Rounded down, as a share of more than the claim would take memory that others have claimed.
        thousandths = min(self.claim * 1000 // self.total, 1000) if self.total else 900
        return {
            "m": str(self.model),
            "s": str(self.socket),
            "p": str(TCP_PORT),
            "a": self.alias,
            "c": str(self.context),
            "C": str(self.context * self.slots),
            "n": str(self.slots),
            "t": str(self.threads),
            "d": "gpu" if is_gpu else "cpu",
            "g": "999" if is_gpu else "0",
            "u": self.uuid or "",
            "f": f"{thousandths / 1000:.3f}",
        }


# The parsers of the keys' values. Each takes the value so far and the text of one more assignment, and raises
# ValueError, whose text continues "KEY= ".


def _command(_before: tuple[str, ...], text: str) -> tuple[str, ...]:
    words = split_words(text)
    for word in words:
        expand(word, _SAMPLE)
    if words and not words[0].startswith("/"):
        raise ValueError(f"must begin with an absolute path, not '{words[0]:.200}'")
    if words and "%" in words[0]:
        raise ValueError("may have no specifier in the program's path")
    return words


def _estimate(before: tuple[str, ...], text: str) -> tuple[str, ...]:
    words = _command(before, text)
    for name in OF_A_WORKER:
        if any(name in _used(word) for word in words):
            raise ValueError(f"may not have %{name}, {SPECIFIERS[name]}: there is no worker yet")
    return words


def _formats(before: tuple[str, ...], text: str) -> tuple[str, ...]:
    known = get_args(Format)
    for word in text.split():
        if word not in known:
            raise ValueError(f"has the unknown format '{word:.64}'; known are {' and '.join(known)}")
    return (*before, *(word for word in text.split() if word not in before)) if text else ()


def _ready(_before: str, text: str) -> str:
    if text and (not text.startswith("/") or any(c.isspace() or not c.isprintable() for c in text)):
        raise ValueError("must be the path of a request, such as /health")
    return text or "/health"


def _socket(_before: str, text: str) -> str:
    if text not in ("", "unix", "tcp"):
        raise ValueError("must be 'unix' or 'tcp'")
    return text or "unix"


def _environment(before: tuple[tuple[str, str], ...], text: str) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    added = {}
    for word in split_words(text):
        name, equals, value = word.partition("=")
        if not equals or not name.replace("_", "a").isalnum() or name[0].isdigit() or not name.isascii():
            raise ValueError(f"must be NAME=value, not '{word:.200}'")
        expand(value, _SAMPLE)
        added[name] = value
    return (*((name, value) for name, value in before if name not in added), *added.items())


def _key(name: str, default: Any, parse: Callable[[Any, str], Any]) -> Any:
    return field(default=default, metadata={"key": name, "parse": parse})


@dataclass(frozen=True)
class Engine:
    """An engine. `file` is its NAME.conf. The specifiers in its commands and variables are not expanded."""

    name: str
    file: Path
    command: tuple[str, ...] = _key("Exec", (), _command)
    formats: tuple[Format, ...] = _key("Formats", (), _formats)
    ready: str = _key("Ready", "/health", _ready)
    """The path that answers 200 once the model is loaded."""
    socket: str = _key("Socket", "unix", _socket)
    """'unix', or 'tcp' for an engine that listens on a port, and on no Unix socket."""
    environment: tuple[tuple[str, str], ...] = _key("Environment", (), _environment)
    estimate: tuple[str, ...] = _key("Estimate", (), _estimate)
    """A command that prints the bytes that a model needs; () if it has none."""
    estimate_file: Path | None = None
    """The file that has Estimate=: NAME.conf or one of its drop-ins."""

    def assign(self, key: str, text: str) -> Engine:
        """Return the engine with one more assignment; an empty one restores a default. Raises ValueError."""
        known = {one.metadata["key"]: one for one in fields(self) if "key" in one.metadata}
        if key not in known:
            raise ValueError(f"is not a key of [Engine]; the keys are {', '.join(known)}")
        name = known[key].name
        return replace(self, **{name: known[key].metadata["parse"](getattr(self, name), text)})

    def problem(self, root: Path = Path("/")) -> str | None:
        """Return why it cannot be used on this machine; None if it can.

        A worker runs as a dynamic user, so that "others" must be allowed to execute the program. The mode is
        read instead of access(2), which would answer for the hive, whose sandbox may execute less.
        """
        program = self.command[0]
        try:
            status = os.stat(root / program.removeprefix("/"))
        except OSError as error:
            return f"{program} was not found ({error.strerror})"
        if not stat.S_ISREG(status.st_mode):
            return f"{program} is not a regular file"
        if not status.st_mode & 0o001:
            return f"{program} may not be executed by others (its mode is {stat.filemode(status.st_mode)})"
        return None

    def uses(self, specifier: str) -> bool:
        """Return whether its command or its variables have this specifier."""
        words = [*self.command, *(value for _, value in self.environment)]
        return any(specifier in _used(word) for word in words)

    def view(self, root: Path = Path("/")) -> EngineView:
        """Return it as a hive reports it."""
        return EngineView(
            self.name, self.command[0], self.formats, str(self.file), self.problem(root), self.uses("u")
        )

    def argv(self, task: Task) -> list[str]:
        """Return the command line for a task. Raises BadInput if it has %u and the card's UUID is unknown."""
        return self._expanded(self.command, task)

    def variables(self, task: Task) -> dict[str, str]:
        """Return the environment variables for a task. Raises as argv()."""
        names = [name for name, _ in self.environment]
        values = self._expanded([value for _, value in self.environment], task)
        return dict(zip(names, values, strict=True))

    def question(
        self, model: Path, alias: str, context: int, *, threads: int, kind: Literal["ram", "gpu"]
    ) -> Question:
        """Return the command of Estimate= for a model in a kind of pool; `context` in tokens."""
        task = Task(model, Path(), alias, context, 1, threads, "" if kind == "gpu" else None)
        specifiers = task.specifiers() | dict.fromkeys(OF_A_WORKER, "")
        variables = tuple((name, expand(value, specifiers)) for name, value in self.environment)
        return Question(tuple(expand(word, specifiers) for word in self.estimate), variables)

    def _expanded(self, words: list[str] | tuple[str, ...], task: Task) -> list[str]:
        specifiers = task.specifiers()
        if task.uuid == "" and any("u" in _used(word) for word in words):
            raise BadInput(
                f"the engine {self.name} selects its card by UUID (%u), and that of this card is not known",
                field="pool",
            )
        return [expand(word, specifiers) for word in words]


def _used(word: str) -> set[str]:
    """Return the letters of the specifiers in a word, with '%' for %%."""
    return set(re.findall("(?s)%(.)", word))

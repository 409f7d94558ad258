"""How an engine is asked what memory a model needs (Estimate= in rbee.engine(5)), and what it may answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from rbee.engines.order import environment_file
from rbee.text import printable, shortened

BYTES_MAX = 2**46
"""The most bytes that an answer may be, 64 TiB: more is taken for a mistake of the command."""

OUTPUT_MAX = 64 * 1024
"""The most bytes that a command may print."""

DEADLINE = 5.0
"""Seconds that a command may take."""

QUOTED = 200
"""The most characters of a command's own text in a message."""

_STATUS = re.compile(r"needs ([0-9]{1,14}) bytes")


class BadAnswerError(Exception):
    """The command gave no valid answer; the text says why, and continues "COMMAND: "."""


class Question(NamedTuple):
    """A command and the engine's variables, for the launcher of rbee-estimate.service."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def content(self) -> bytes:
        """Return the content of the environment file (EnvironmentFile= in systemd.exec(5))."""
        variables = {"RBEE_ARGV": list(self.argv), "RBEE_ENVIRONMENT": dict(self.environment)}
        return environment_file({name: json.dumps(value) for name, value in variables.items()})


def read_question(environ: Mapping[str, str]) -> Question:
    """Return the question in an environment. Raises KeyError or ValueError."""
    argv, variables = json.loads(environ["RBEE_ARGV"]), json.loads(environ["RBEE_ENVIRONMENT"])
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("RBEE_ARGV is not a command line")
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ValueError("RBEE_ENVIRONMENT does not have variables")
    return Question(tuple(argv), tuple(variables.items()))


def parse_answer(output: bytes) -> int:
    """Return the bytes that a command has printed on its last line. Raises BadAnswerError."""
    if len(output) > OUTPUT_MAX:
        raise BadAnswerError(f"it printed more than {OUTPUT_MAX // 1024} KiB")
    try:
        line = output.decode().rstrip("\r\n").rpartition("\n")[2].strip(" \t\r")
    except UnicodeDecodeError:
        raise BadAnswerError("what it printed is not UTF-8") from None
    if not line:
        raise BadAnswerError("it printed nothing" if not output.strip() else "its last line is empty")
    if not re.fullmatch("[0-9]+", line):
        raise BadAnswerError(f"its last line is not a number of bytes: {quoted(line)}")
    digits = line.lstrip("0")
    if not digits:
        raise BadAnswerError("it printed 0, and no model needs that little")
    # Compared by its length first: int() refuses a number of thousands of digits.
    if len(digits) > len(str(BYTES_MAX)) or int(digits) > BYTES_MAX:
        raise BadAnswerError(f"it printed {quoted(line)}, which is more than {BYTES_MAX} bytes, 64 TiB")
    return int(digits)


def answer_of(status: int, output: bytes, errors: bytes) -> int:
    """Return the answer of a command that has ended with this status, as subprocess has it (-N for signal N).

    `errors` is what it wrote to standard error. Raises BadAnswerError.
    """
    if status == 0:
        return parse_answer(output)
    how = f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"
    said = last_line(errors) or last_line(output)
    raise BadAnswerError(f"{how}, and said {quoted(said)}" if said else f"{how}, and said nothing")


def last_line(content: bytes) -> str:
    """Return the last line that is not empty, of bytes that may be no text."""
    return content.decode(errors="replace").rstrip().rpartition("\n")[2].strip()


def quoted(text: str) -> str:
    """Return a command's own text for a message: printable, on one line and not long."""
    return f"'{shortened(printable(text), QUOTED)}'"


# The status text by which the launcher passes the answer on


def status_text(answer: int | BadAnswerError) -> str:
    """Return the status text of an answer. One without answer does not begin as one with it does."""
    return f"no answer: {answer}" if isinstance(answer, BadAnswerError) else f"needs {answer} bytes"


def read_status_text(text: str) -> int:
    """Return the bytes in a status text. Raises BadAnswerError."""
    if match := _STATUS.fullmatch(text):
        return int(match[1])
    raise BadAnswerError(text.removeprefix("no answer: ") or "it was not run to its end")

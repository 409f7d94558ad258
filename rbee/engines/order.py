"""What a hive orders of a worker's launcher, as environment variables in a file that systemd reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "RBEE_"
"""Of the variables that are for the launcher, and not for the engine."""


@dataclass(frozen=True)
class Order:
    """The engine's command line and environment, and how the launcher finds that it is ready.

    `model` is where the engine sees the model, and `path` where it is on the machine, for messages; `size`
    are its bytes, 0 if it is not known.
    """

    name: str
    """The model's."""
    engine: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    model: Path
    path: str
    socket: Path
    ready: str
    size: int = 0
    job_id: str | None = None

    def content(self) -> bytes:
        """Return the environment file, see systemd.exec(5)."""
        variables = {
            "RBEE_MODEL_NAME": self.name,
            "RBEE_ENGINE": self.engine,
            "RBEE_ARGV": _json(list(self.argv)),
            "RBEE_ENVIRONMENT": _json(dict(self.environment)),
            "RBEE_MODEL": _json(str(self.model)),
            "RBEE_MODEL_PATH": _json(self.path),
            "RBEE_SOCKET": str(self.socket),
            "RBEE_READY": self.ready,
            "RBEE_BYTES": str(self.size),
            "RBEE_JOB_ID": self.job_id or "",
        }
        return "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items()).encode()


def read_order(environ: Mapping[str, str]) -> Order:
    """Return the order in a process's environment. Raises KeyError or ValueError."""
    argv = json.loads(environ["RBEE_ARGV"])
    if not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("RBEE_ARGV is no command line")
    return Order(
        name=environ["RBEE_MODEL_NAME"],
        engine=environ["RBEE_ENGINE"],
        argv=tuple(argv),
        environment=tuple(json.loads(environ["RBEE_ENVIRONMENT"]).items()),
        model=Path(json.loads(environ["RBEE_MODEL"])),
        path=json.loads(environ["RBEE_MODEL_PATH"]),
        socket=Path(environ["RBEE_SOCKET"]),
        ready=environ["RBEE_READY"],
        size=int(environ["RBEE_BYTES"]),
        job_id=environ.get("RBEE_JOB_ID") or None,
    )


def _json(value: object) -> str:
    """In ASCII and on one line, whatever a path has in it."""
    return json.dumps(value)


def _quoted(value: str) -> str:
    return '"' + "".join(f"\\{c}" if c in '"\\`$' else c for c in value) + '"'

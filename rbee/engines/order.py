"""What the launcher of a worker is to run: environment variables in a file that the hive writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PREFIX = "RBEE_"
"""The prefix of the variables for the launcher, which the engine does not get."""


WAIT_MAX = 20
"""The most seconds that the launcher waits; TimeoutStartSec= of its unit is more."""


class Order(NamedTuple):
    """The engine's command line and environment, and how the launcher finds out that it is ready.

    `name` is the model's. `model` is the path at which the engine sees it, `path` that on the machine, for
    messages, and `size` its bytes, 0 if they are not known. `ready` is the path of a GET on `socket`, or on
    `port`, the TCP port of an engine that listens there.
    """

    name: str
    engine: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    model: Path
    path: str
    socket: Path
    ready: str
    size: int = 0
    job_id: str | None = None
    port: int | None = None

    def content(self) -> bytes:
        """Return the content of the environment file (EnvironmentFile= in systemd.exec(5))."""
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
            "RBEE_PORT": str(self.port or ""),
        }
        return environment_file(variables)


def read_order(environ: Mapping[str, str]) -> Order:
    """Return the order in an environment. Raises KeyError or ValueError."""
    argv = json.loads(environ["RBEE_ARGV"])
    if not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("RBEE_ARGV is not a command line")
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
        port=int(environ.get("RBEE_PORT") or 0) or None,
    )


def waiting(seconds: int) -> bytes:
    """Return the content of the environment file about the seconds that the launcher is to wait."""
    return f'RBEE_WAIT="{seconds}"\n'.encode()


def read_wait(environ: Mapping[str, str]) -> int:
    """Return the seconds that the launcher is to wait, at most WAIT_MAX. Raises ValueError."""
    return min(max(int(environ.get("RBEE_WAIT") or 0), 0), WAIT_MAX)


def _json(value: object) -> str:
    """Return JSON, which is ASCII on one line whatever bytes a path has."""
    return json.dumps(value)


def environment_file(variables: Mapping[str, str]) -> bytes:
    """Return the content of a file with these variables (EnvironmentFile= in systemd.exec(5))."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items()).encode()


def _quoted(value: str) -> str:
    return '"' + "".join(f"\\{c}" if c in '"\\`$' else c for c in value) + '"'

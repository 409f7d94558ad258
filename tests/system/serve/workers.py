"""What the tests of workers ask of a hive, over its socket as root, and the engine that they install."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from testbed.machine import Machine

from tests.system.commands import put

ENGINE = Path(__file__).with_name("engine.py")
PROGRAM = "/usr/local/libexec/test-engine"
JOB = "7" * 32
PATIENCE = 60
"""Seconds: an engine that hangs is ended 30 s after its last sign of life."""

DROPIN = f"""\
[Engine]
Exec={PROGRAM} --model %m --socket %s --alias %a --context %c
Formats=gguf
"""

CONNECT = """
import asyncio, json, sys
from pathlib import Path
from rbee.client.handover import handover

async def main():
    path = "/v1/workers/%s/connect" % sys.argv[1]
    async with handover(Path("/run/rbee/hive.sock"), path, "rbee-worker/1") as connection:
        granted = await connection.receive()
        with connection.take() as engine:
            engine.setblocking(True)
            engine.sendall(b"GET /v1/models HTTP/1.0\\r\\n\\r\\n")
            answer = b""
            while part := engine.recv(4096):
                answer += part
    print(json.dumps([granted.worker, json.loads(answer.partition(b"\\r\\n\\r\\n")[2])]))

asyncio.run(main())
"""


def install_engine(machine: Machine) -> None:
    put(machine, PROGRAM, ENGINE.read_text())
    machine.run("chmod", "0755", PROGRAM)
    put(machine, "/etc/rbee/engines.d/test.conf", DROPIN)


def model(machine: Machine, name: str, *wishes: str) -> str:
    """A model's file, behind a folder that only root may enter; what the engine is to do is in it."""
    machine.run("install", "-d", "-m", "0700", "/srv/models")
    path = f"/srv/models/{name}.gguf"
    put(machine, path, "".join(f"{wish}\n" for wish in wishes))
    return path


def hive(machine: Machine, method: str, path: str, body: object = None, *options: str) -> tuple[int, Any]:
    """Status and JSON of a request to the hive."""
    sent = () if body is None else ("--json", json.dumps(body))
    done = machine.run(
        "curl", "--silent", "--show-error", "--unix-socket", "/run/rbee/hive.sock", "--max-time", "60",
        "--request", method, "--write-out", "\n%{http_code}", "--header", f"RBEE-Job-ID: {JOB}", *sent,
        *options, f"http://localhost{path}", timeout=70,
    )  # fmt: skip
    content, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(content)


def start(machine: Machine, worker: str, path: str, **fields: Any) -> tuple[int, Any]:
    given = {
        "id": worker, "model": worker, "engine": "test", "path": path, "format": "gguf", "context": 4096,
        "pool": "ram", "claim_bytes": 2**20, "bytes": 100, **fields,
    }  # fmt: skip
    return hive(machine, "POST", "/v1/workers", given)


def awaited(machine: Machine, worker: str, *states: str) -> Any:
    """The worker, once it is in one of these states, by asking as the queen does."""
    after = 0
    deadline = time.monotonic() + PATIENCE
    while True:
        status, view = hive(machine, "GET", f"/v1/workers/{worker}?after={after}&wait=20")
        assert status == 200, view
        if view["state"] in states:
            return view
        assert time.monotonic() < deadline, view
        after = view["serial"]


def connected(machine: Machine, worker: str) -> Any:
    """What the engine answers over a connection that the hive handed over."""
    granted, answer = json.loads(machine.run("python3", "-c", CONNECT, worker).stdout)
    assert granted == worker
    return answer


def processes(machine: Machine, unit: str) -> list[str]:
    """The processes in a unit's control group."""
    group = machine.run("systemctl", "show", "-P", "ControlGroup", unit).stdout.strip()
    found = machine.run("sh", "-c", f"cat /sys/fs/cgroup{group}/cgroup.procs 2>/dev/null", check=False)
    return found.stdout.split() if group else []

"""What the tests of serving ask of a machine."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from testbed.commands import Runs
from testbed.machine import Machine
from testbed.tiny_model import says, write
from testbed.trees import ENGINE_INSIDE, use_engine

from tests.system.commands import Answer, await_row, put, rbeectl

HERE = Path(__file__).resolve().parent

OPENAI = "/run/rbee/openai.sock"

RUDE_ENGINE = """
[Engine]
Exec=/usr/local/bin/rude-engine -m %m --host %s --alias %a
Formats=gguf
"""


@contextmanager
def serving_machine(tree: Path, engine: Path) -> Iterator[Machine]:
    """A machine with llama-server, and with the tests' own engine, which misbehaves."""
    with Machine(tree, bind_ro=[f"{engine}:{ENGINE_INSIDE}"]) as machine:
        use_engine(machine)
        program, conf = (content.decode() for content in rude_files().values())
        machine.run("install", "/dev/stdin", "/usr/local/bin/rude-engine", input=program)
        put(machine, "/etc/rbee/engines.d/rude.conf", conf)
        yield machine


def rude_files() -> dict[str, bytes]:
    """The tests' own engine, and its drop-in, by their paths below the root."""
    return {
        "usr/local/bin/rude-engine": (HERE / "rude_engine").read_bytes(),
        "etc/rbee/engines.d/rude.conf": RUDE_ENGINE.encode(),
    }


class Response(NamedTuple):
    """An answer of the gateway, with its body as text."""

    status: int
    headers: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """What the model has answered, whole or streamed."""
        if not self.body.startswith(("data:", ":")):
            return str(self.json["choices"][0]["message"]["content"])
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            for choice in event.get("choices", ())
        )

    @property
    def events(self) -> list[Any]:
        """The events of a stream, but for its end."""
        lines = (line.removeprefix("data: ") for line in self.body.splitlines() if line.startswith("data: "))
        return [json.loads(line) for line in lines if line != "[DONE]"]


def write_model(machine: Machine, path: str, content: bytes) -> None:
    """A model's file, readable for all."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model")
        write(file, content)
        machine.copy_in(file, path)
    machine.run("chmod", "0644", path)


def rude(behaviour: dict[str, Any]) -> bytes:
    """A model for the tests' own engine, which then behaves like this."""
    return says("never said", name=f"rude:{json.dumps(behaviour, separators=(',', ':'))}")


def succeed(machine: Runs, *argv: str, **options: Any) -> Answer:
    """rbeectl as ada, which has to work."""
    answer = rbeectl(machine, *argv, **options)
    assert answer.code == 0, f"rbeectl {' '.join(argv)}: {answer}"
    return answer


def serve_model(
    machine: Machine, name: str, content: bytes, *options: str, memory: str | None = None
) -> None:
    """Add a model to the catalog and have it served; it sleeps then."""
    write_model(machine, f"/srv/{name}.gguf", content)
    succeed(machine, "model", "add", name, f"/srv/{name}.gguf", *(("--memory", memory) if memory else ()))
    succeed(machine, "serve", name, *options)


def serve_rude(machine: Machine, name: str, behaviour: dict[str, Any], *options: str, **more: Any) -> None:
    serve_model(machine, name, rude(behaviour), "--engine", "rude", *options, **more)


def question(model: str, *, stream: bool = False, text: str = "who are you?") -> str:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, "stream": stream, "max_tokens": 64})


def post(
    machine: Runs, path: str, body: str, *options: str, user: str | None = "ada", seconds: float = 30
) -> Response:
    """A request to the gateway over its Unix socket."""
    done = machine.run(
        "curl", "--silent", "--show-error", "--no-buffer", "--unix-socket", OPENAI, "--include", "--max-time",
        str(seconds), "--header", "Content-Type: application/json", "--data-binary", "@-", *options,
        f"http://rbee{path}", user=user, input=body, timeout=seconds + 10, check=False,
    )  # fmt: skip
    head, _, content = done.stdout.partition("\n\n")
    while head.startswith("HTTP/1.1 100"):
        head, _, content = content.partition("\n\n")
    assert head, (done.returncode, done.stderr)
    return Response(int(head.split()[1]), head, content)


def chat(machine: Runs, model: str, *, stream: bool = False, seconds: float = 30) -> Response:
    return post(machine, "/v1/chat/completions", question(model, stream=stream), seconds=seconds)


def begin_chat(machine: Machine, model: str, *, stream: bool = False) -> subprocess.Popen[str]:
    """A client that has asked and reads its answer, without the head, line by line or whole."""
    return machine.popen(
        "curl", "--silent", "--no-buffer", "--unix-socket", OPENAI, "--max-time", "60", "--data-binary",
        question(model, stream=stream), "http://rbee/v1/chat/completions", user="ada",
    )  # fmt: skip


def workers(machine: Runs, model: str | None = None) -> list[dict[str, Any]]:
    listed = succeed(machine, "list-workers", *((model,) if model else ()), "--json").json["workers"]
    return [dict(one) for one in listed]


def worker(machine: Runs, model: str) -> dict[str, Any]:
    """The worker of a model that has one, or the line of one that sleeps."""
    [found] = workers(machine, model)
    return found


def await_worker(machine: Machine, model: str, *states: str, seconds: float = 15) -> dict[str, Any]:
    """A model's worker once it has one of these states."""
    path = f"/v1/workers?model={quote(model)}"
    return await_row(machine, path, "workers", *states, name=None, seconds=seconds, pause=0.1)


def worker_units(machine: Machine) -> list[str]:
    """The units of workers that are active, or on the way."""
    listed = machine.run(
        "systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating",
        "rbee-worker@*",
    )  # fmt: skip
    return [line.split()[0] for line in listed.stdout.splitlines()]


def worker_processes(machine: Runs) -> list[str]:
    """All processes of workers' users, and of engines whoever runs them."""
    listed = machine.run("ps", "-eo", "pid=,user:32=,args=").stdout.splitlines()
    return [line for line in listed if " rbee-w-" in line or "rude-engine" in line or "llama-server" in line]


def told(machine: Machine, model: str) -> str:
    """What the journal has of a model, a message a line."""
    return "\n".join(str(one["MESSAGE"]) for one in machine.journal(f"RBEE_MODEL={model}"))


def assert_no_worker_runs(machine: Machine) -> None:
    assert worker_units(machine) == []
    assert worker_processes(machine) == []


def memory_book(machine: Machine) -> list[dict[str, Any]]:
    """The pools of the machine, for which the queen has to be awake."""
    [hive] = succeed(machine, "list-devices", "--memory", "--json").json["hives"]
    return [dict(pool) for pool in hive["memory"]["pools"]]


def assert_nothing_is_left(machine: Machine) -> None:
    """No worker has a unit, a process, or memory in the book."""
    assert_no_worker_runs(machine)
    for pool in memory_book(machine):
        assert pool["claimed_bytes"] == 0
        assert [one for one in pool["holders"] if one["kind"] == "worker"] == []

"""The hive's routes for workers over its socket, and a connection to an engine that is handed over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.client.handover import handover
from rbee.errors import BadInput, Disconnected, UnknownWorker, WorkerNotReady
from rbee.hive.workers.api import routes
from rbee.hive.workers.estimates import Estimates
from rbee.hive.workers.workers import SOCKET, Workers
from rbee.scope import SYSTEM
from rbee.server.app import build_app
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import encode
from rbee.wire.leases import CONNECT_PROTOCOL, Connect, Granted, Refused
from rbee.wire.workers import AskEstimate
from tests.integration.unix_http import Answer, playing, post, raw, request, served
from tests.unit.hive.workers.played import JOB, READY, START, UNIT, Hive, PlayedMachine
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Served(Hive):
    path: Path

    async def ask(self, method: str, path: str) -> Answer:
        return await raw(self.path, request(method, path))


@asynccontextmanager
async def a_hive(tmp_path: Path, notifier: Notifier) -> AsyncIterator[Served]:
    here = SYSTEM._replace(runtime=tmp_path / "run/rbee")
    async with Served(tmp_path, scope=here) as hive:
        hive.path = tmp_path / "hive.sock"

        async def workers() -> Workers:
            return hive.workers

        scope = here._replace(config_folders=(tmp_path / "etc/rbee",))
        estimates = Estimates(here, tmp_path / "estimate", hive.units, hive.tape, PlayedMachine(), tmp_path)
        app = build_app("hive", "1", routes(workers, scope, lambda: estimates))
        async with served(app, hive.path, notifier, upgrades=(CONNECT_PROTOCOL,)):
            yield hive


async def test_a_worker_is_started_waited_for_and_stopped(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_hive(tmp_path, silent_notifier) as hive:
        answer = await raw(hive.path, post("/v1/workers", encode(START), RBEE_Job_ID=JOB))
        assert (answer.status, answer.json["state"], answer.json["used_bytes"]) == (202, "loading", 1)
        assert (await raw(hive.path, post("/v1/workers", encode(START)))).status == 409
        assert hive.tape.told[0][2]["job_id"] == JOB

        await until(lambda: hive.workers.find("bee-1").pid == 7)
        serial = hive.workers.find("bee-1").serial
        assert serial >= answer.json["serial"]
        waiting = asyncio.ensure_future(hive.ask("GET", f"/v1/workers/bee-1?after={serial}&wait=20"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        hive.units.becomes(UNIT, READY)
        ready = (await waiting).json
        assert (ready["state"], ready["serial"] > serial) == ("ready", True)
        late = await hive.ask("GET", f"/v1/workers/bee-1?after={ready['serial']}&wait=0")
        assert late.json["serial"] == ready["serial"]
        assert [one["id"] for one in (await hive.ask("GET", "/v1/workers")).json["workers"]] == ["bee-1"]

        stopped = await hive.ask("DELETE", "/v1/workers/bee-1")
        assert (stopped.status, stopped.json["state"]) == (200, "stopped")
        assert stopped.json["peak_bytes"] == 2, "the queen learns from it"
        assert (await hive.ask("DELETE", "/v1/workers/bee-1")).status == 404
        assert (await hive.ask("GET", "/v1/workers/Not+a+name")).status == 400
        (engine,) = (await hive.ask("GET", "/v1/engines")).json["engines"]
        assert engine["name"] == "test"
        asked = AskEstimate("bee", "/srv/bee.gguf", "gguf", 4096, ("ram",))
        answer = await raw(hive.path, post("/v1/estimate", encode(asked)))
        assert (answer.status, answer.json["engine"], answer.json["problem"]) == (200, None, None)


async def test_a_connection_to_the_engine_is_handed_over(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        await writer.drain()

    async with a_hive(tmp_path, silent_notifier) as hive:
        await hive.workers.start(START)
        target = "/v1/workers/bee-1/connect"
        with pytest.raises(WorkerNotReady, match="the worker bee-1 is loading"):
            async with handover(hive.path, target, CONNECT_PROTOCOL):
                pass
        hive.units.becomes(UNIT, READY)
        worker = hive.workers.find("bee-1")
        await worker.newer(worker.serial, 1)
        with pytest.raises(WorkerNotReady, match="does not accept connections: No such file"):
            async with handover(hive.path, target, CONNECT_PROTOCOL):
                pass
        socket = hive.scope.worker_runtime / "bee-1" / SOCKET
        socket.parent.mkdir(parents=True)
        async with playing(socket, answer):
            for _ in range(3):
                async with handover(hive.path, target, CONNECT_PROTOCOL) as connection:
                    assert await connection.receive() == Granted("bee-1", was_cold=False)
                    reader, writer = await asyncio.open_unix_connection(sock=connection.take())
                writer.write(b"hello\n")
                assert await reader.read() == b"you said hello\n"
                writer.close()
        with pytest.raises(UnknownWorker):
            async with handover(hive.path, "/v1/workers/none/connect", CONNECT_PROTOCOL):
                pass
        with pytest.raises(BadInput):
            async with handover(hive.path, target, "rbee-other/1"):
                pass
        plain = await hive.ask("GET", target)
        assert (plain.status, json.loads(plain.content)["field"]) == (400, "Upgrade")


async def test_a_connection_hands_over_one_after_the_other(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        await writer.drain()

    async with (
        a_ready_worker(tmp_path, silent_notifier, answer) as hive,
        handover(hive.path, TARGET, CONNECT_PROTOCOL) as connection,
    ):
        for _ in range(3):
            assert await connection.receive() == Granted("bee-1", was_cold=False)
            reader, writer = await asyncio.open_unix_connection(sock=connection.take())
            writer.write(b"hello\n")
            assert await reader.read() == b"you said hello\n"
            writer.close()
            await connection.send(Connect("none-1"))
            refused = await connection.receive()
            assert isinstance(refused, Refused)
            assert refused.problem["type"] == "urn:rbee:problem:unknown-worker"
            await connection.send(Connect("bee-1"))


@pytest.mark.parametrize("sent", [b'{"end": {}}\n', b"no JSON\n", b'{"connect": {"worker": "bee-1"}}\n' * 2])
async def test_anything_but_one_connect_ends_the_connection(
    tmp_path: Path, silent_notifier: Notifier, sent: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        a_ready_worker(tmp_path, silent_notifier, answer) as hive,
        handover(hive.path, TARGET, CONNECT_PROTOCOL) as connection,
    ):
        await connection.receive()
        connection.take().close()
        await asyncio.get_running_loop().sock_sendall(connection._channel, sent)
        refused = await connection.receive()
        assert isinstance(refused, Refused)
        assert refused.problem["status"] == 400
        with pytest.raises(Disconnected):
            await connection.receive()


TARGET = "/v1/workers/bee-1/connect"


@asynccontextmanager
async def a_ready_worker(tmp_path: Path, notifier: Notifier, answer: Play) -> AsyncIterator[Served]:
    """A hive whose worker bee-1 is ready, and an engine that plays `answer`."""
    async with a_hive(tmp_path, notifier) as hive:
        await hive.workers.start(START)
        await until(lambda: hive.workers.find("bee-1").pid == 7)
        hive.units.becomes(UNIT, READY)
        await until(lambda: hive.workers.find("bee-1").state == "ready")
        socket = hive.scope.worker_runtime / "bee-1" / SOCKET
        socket.parent.mkdir(parents=True)
        async with playing(socket, answer):
            yield hive

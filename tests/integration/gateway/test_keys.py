"""Keys over TCP."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.errors import BadKey
from rbee.gateway.keys import KEY_LIMIT, key_in
from rbee.gateway.listeners import Listeners
from rbee.scope import SYSTEM
from rbee.wire.leases import Ask
from tests.integration.gateway.stage import LeaseEnd, Stage, ask, error_in, refusal, run

KEY = "rbee-alice"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_no_key_no_answer(tmp_path: Path, listener: socket.socket) -> None:
    async def act(stage: Stage) -> None:
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/health"),
            ("GET", "/nothing"),
            ("POST", "/v1/completions"),
        ):
            status, _, content = await ask(listener.getsockname(), method=method, path=path)
            assert (status, error_in(content)["code"]) == (401, "invalid_api_key")
        status, _, content = await ask(listener.getsockname(), Authorization="Bearer wrong")
        assert (status, error_in(content)["message"]) == (401, "the key is not known")
        assert stage.queen.asks == []
        assert (await ask(stage))[0] == 200  # over the Unix socket

    run(tmp_path, act, listeners=Listeners([listener], [], None))


@pytest.mark.parametrize("headers", [BEARER, {"X-API-Key": KEY}, {"authorization": f"bearer  {KEY} "}])
def test_a_key_is_passed_on_as_its_hash(
    tmp_path: Path, listener: socket.socket, headers: dict[str, str]
) -> None:
    async def act(stage: Stage) -> None:
        stage.queen.keys[HASH] = ("bee",)
        _, _, content = await ask(listener.getsockname(), method="GET", path="/v1/models", **headers)
        assert [one["id"] for one in json.loads(content)["data"]] == ["bee"]
        assert (await ask(listener.getsockname(), **headers))[0] == 200
        (asked,) = stage.queen.asks
        assert (asked.key, asked.address, asked.uid) == (HASH, "127.0.0.1", None)
        assert "authorization" not in stage.engine.requests[0].headers
        assert "x-api-key" not in stage.engine.requests[0].headers

    run(tmp_path, act, listeners=Listeners([listener], [], None))


def test_only_the_first_request_of_a_key_costs_a_question_and_a_revoked_key_is_refused_at_once(
    tmp_path: Path, listener: socket.socket
) -> None:
    async def act(stage: Stage) -> None:
        stage.queen.keys[HASH] = ("bee",)
        for _ in range(3):
            assert (await ask(listener.getsockname(), **BEARER))[0] == 200
        assert [one.split()[1] for one in stage.queen.targets].count("/v1/open-models") == 1

        async def refuses(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(refusal(BadKey("the key alice is revoked")))

        stage.queen.play = refuses
        stage.queen.keys.clear()
        for _ in range(2):
            status, _, content = await ask(listener.getsockname(), **BEARER)
            assert (status, error_in(content)["code"]) == (401, "invalid_api_key")
        assert len(stage.queen.asks) == 4  # the last one was refused before its body was read

    run(tmp_path, act, listeners=Listeners([listener], [], None))


def test_metrics_are_not_for_clients_over_tcp(tmp_path: Path, listener: socket.socket) -> None:
    async def act(stage: Stage) -> None:
        stage.queen.keys[HASH] = ("bee",)
        assert (await ask(listener.getsockname(), method="GET", path="/metrics", **BEARER))[0] == 404

    run(tmp_path, act, listeners=Listeners([listener], [], None))


def test_a_key_is_found_wherever_clients_put_it_and_is_bounded() -> None:
    assert key_in([(b"x-api-key", b""), (b"authorization", b"Bearer rbee-alice")], SYSTEM) == HASH
    for headers in ([], [(b"authorization", b"Basic YTpi")], [(b"x-api-key", b"k" * (KEY_LIMIT + 1))]):
        with pytest.raises(BadKey):
            key_in(headers, SYSTEM)

"""Clients' connections: many of them, and over TLS."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from pathlib import Path

import pytest

from rbee.gateway.listeners import CERTIFICATE, KEY, sort_sockets
from rbee.scope import GATEWAY_TCP_SOCKETS, SYSTEM
from tests.integration.gateway.stage import ASKED, CHAT, Stage, ask, client_of, error_in, run
from tests.integration.gateway.test_keys import BEARER, HASH
from tests.self_signed import self_signed


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The folder of a unit's credentials, with a certificate for 127.0.0.1."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, content in zip((CERTIFICATE, KEY), self_signed(), strict=True):
        (folder / name).write_text(content)
    return folder


def test_over_tls_a_key_gets_an_answer_and_no_key_does_not(tmp_path: Path, credentials: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listeners = sort_sockets({GATEWAY_TCP_SOCKETS: [listener]}, credentials, SYSTEM)
        context = ssl.create_default_context(cafile=credentials / CERTIFICATE)

        async def act(stage: Stage) -> None:
            stage.queen.keys[HASH] = ("bee",)
            async with client_of(listener.getsockname(), ssl=context) as client:
                await client.send("POST", CHAT, ASKED)
                status, _, content = await client.answer()
                assert (status, error_in(content)["code"]) == (401, "invalid_api_key")
                for offered in ({}, {"Connection": "Upgrade", "Upgrade": "h2c"}):
                    await client.send("POST", CHAT, ASKED, **BEARER, **offered)
                    assert (await client.answer())[0] == 200
            assert [asked.address for asked in stage.queen.asks] == ["127.0.0.1"] * 2
            async with client_of(listener.getsockname()) as client:  # plain HTTP
                await client.send("GET", "/v1/models", **BEARER)
                assert await client.reader.read() in (b"", b"\x15\x03\x03\x00\x02\x022")

        run(tmp_path, act, listeners=listeners)


def test_a_thousand_idle_clients_keep_nobody_from_being_answered(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))

    async def act(stage: Stage) -> None:
        idle = [await asyncio.open_unix_connection(stage.path) for _ in range(1000)]
        try:
            assert (await ask(stage))[0] == 200
        finally:
            for _, writer in idle:
                writer.close()

    try:
        run(tmp_path, act)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

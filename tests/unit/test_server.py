"""An app on a real Unix socket: who is at the other end, what is refused and how, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

import rbee.server
from rbee.contracts import AddHive, Health, HiveRoutes, JobStarted, QueenRoutes, Route
from rbee.errors import CatalogFailed, NotPermitted
from rbee.server import BODY_LIMIT, Handler, build_app, event_stream, peer_of, read_shape, serve
from rbee.server.peer import Peer, peer_at
from rbee.systemd import Notifier
from tests.unit.serving import TIMEOUT, listen, nothing, post, raw, read_answer, request, served

PROBLEM = "application/problem+json"
JOB = "7" * 32


async def health(request: Request) -> Health:
    peer = peer_of(request)
    return Health("ok", f"{peer.pid} {peer.uid} {peer.gid}")


async def add_hive(request: Request) -> JobStarted:
    asked = await read_shape(request, AddHive)
    return JobStarted(asked.host, JOB, f"/at/{asked.port}")


def app(handlers: dict[Route, Handler] | None = None, **options: Any) -> Starlette:
    routes: dict[Route, Handler] = {
        QueenRoutes.HEALTH: health,
        QueenRoutes.ADD_HIVE: add_hive,
        QueenRoutes.OPENAPI: health,
    }
    return build_app("a test", "1", routes | (handlers or {}), **options)


def ask(tmp_path: Path, notifier: Notifier, *asked: bytes, **options: Any) -> list[Any]:
    """What the app answers to each of these requests."""

    async def scenario() -> list[Any]:
        async with served(app(**options), tmp_path / "s", notifier):
            return [await raw(tmp_path / "s", one) for one in asked]

    return asyncio.run(scenario())


# Who asks, and what is answered


def test_an_answer_is_the_shape_as_json(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = ask(tmp_path, silent_notifier, post("/add-hive", {"host": "größe", "port": 7}))

    assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json == {"hive_id": "größe", "job_id": JOB, "events": "/at/7"}


def test_a_user_of_a_directory_has_a_number_above_2_to_the_31() -> None:
    class Channel:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return (42).to_bytes(4, sys.byteorder) + (3420080244).to_bytes(4, sys.byteorder) * 2

    assert peer_at(cast(socket.socket, Channel())) == Peer(42, 3420080244, 3420080244)


def test_the_peer_is_the_one_that_the_kernel_names(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def scenario() -> tuple[str, int]:
        async with served(app(), tmp_path / "s", silent_notifier):
            code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            code += "s.sendall(b'GET /health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
            code += "print(s.makefile().read())"
            other = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, str(tmp_path / "s"), stdout=subprocess.PIPE
            )
            told, _ = await asyncio.wait_for(other.communicate(), TIMEOUT)
            return json.loads(told.decode().partition("\n\n")[2])["version"], other.pid

    told, pid = asyncio.run(scenario())

    assert told == f"{pid} {os.geteuid()} {os.getegid()}"


def test_who_is_not_admitted_is_refused_before_the_handler_runs(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    asked: list[tuple[int, Route]] = []

    def admit(peer: Peer, route: Route) -> None:
        asked.append((peer.uid, route))
        if route is QueenRoutes.ADD_HIVE:
            raise NotPermitted("not you", hint="ask root")

    refused, taken = ask(
        tmp_path, silent_notifier, post("/add-hive", "not even JSON"), request("GET", "/health"), admit=admit
    )

    assert (refused.status, refused.headers["content-type"]) == (403, PROBLEM)
    assert (refused.json["type"], refused.json["hint"]) == ("urn:rbee:problem:not-permitted", "ask root")
    assert taken.status == 200
    assert asked == [(os.geteuid(), QueenRoutes.ADD_HIVE), (os.geteuid(), QueenRoutes.HEALTH)]


def test_the_document_is_made_from_the_routes_that_are_served(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    (answer,) = ask(tmp_path, silent_notifier, request("GET", "/v1/openapi.json"))

    assert set(answer.json["paths"]) == {"/health", "/add-hive", "/v1/openapi.json"}
    assert answer.json["info"]["title"] == "a test"


def test_a_connection_is_kept_between_requests(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def scenario() -> list[int]:
        async with served(app(), tmp_path / "s", silent_notifier):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            statuses = []
            for one in (
                request("GET", "/health"),
                request("GET", "/nowhere"),
                post("/add-hive", {"host": "a"}),
            ):
                writer.write(one)
                statuses.append((await asyncio.wait_for(read_answer(reader), TIMEOUT)).status)
            writer.close()
            await writer.wait_closed()
            return statuses

    assert asyncio.run(scenario()) == [200, 404, 202]


# What is refused


@pytest.mark.parametrize(
    ("asked", "status", "slug", "detail"),
    [
        (request("GET", "/nowhere"), 404, "no-such-route", "there is nothing at /nowhere"),
        (request("GET", "/"), 404, "no-such-route", "there is nothing at /"),
        (request("GET", "/health/"), 404, "no-such-route", "there is nothing at /health/"),
        (request("GET", "//health"), 404, "no-such-route", "there is nothing at"),
        (request("POST", "/health", b""), 405, "no-such-method", "POST is not a method of /health"),
        (request("DELETE", "/add-hive"), 405, "no-such-method", "DELETE is not a method of /add-hive"),
        (request("GET", "/add-hive"), 405, "no-such-method", "GET is not a method of /add-hive"),
        (request("PROPFIND", "/health"), 405, "no-such-method", "PROPFIND is not a method of /health"),
        (request("POST", "/add-hive", b""), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"{"), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"\xff\xfe{}"), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"[" * 100_000), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b'{"port": ' + b"9" * 9000 + b"}"), 400, "bad-input", "the body"),
        (request("POST", "/add-hive", b"[]"), 400, "bad-input", "the body must be a JSON object"),
        (request("POST", "/add-hive", b'{"host": "\\ud800"}'), 400, "bad-input", "host must be valid"),
        (post("/add-hive", {"host": "a", "port": 0}), 400, "bad-input", "port must be from 1 to 65535"),
        (post("/add-hive", {}), 400, "bad-input", "host is missing"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)  # fmt: skip
def test_what_is_wrong_is_answered_with_a_problem_document(
    tmp_path: Path, silent_notifier: Notifier, asked: bytes, status: int, slug: str, detail: str
) -> None:
    (answer,) = ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json["type"] == f"urn:rbee:problem:{slug}"
    assert answer.json["status"] == status
    assert answer.json["detail"].startswith(detail)


def test_a_wrong_field_is_named(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = ask(tmp_path, silent_notifier, post("/add-hive", {"host": "a", "port": True}))

    assert answer.json["field"] == "port"


def test_a_wrong_method_is_answered_with_those_there_are(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = ask(tmp_path, silent_notifier, request("GET", "/add-hive"))

    assert answer.json["hint"] == "It has POST."
    assert answer.headers.get("allow") == "POST"  # RFC 9110, 15.5.6: MUST


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/add-hive", 405), (f"/v1/jobs/{JOB}/events", 405)]
)
def test_head_is_get_without_a_body_where_the_answer_has_an_end(
    tmp_path: Path, silent_notifier: Notifier, path: str, status: int
) -> None:
    async def scenario() -> list[bytes]:
        told = []
        async with served(app({QueenRoutes.EVENTS: health}), tmp_path / "s", silent_notifier):
            for method in ("HEAD", "GET"):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
                writer.write(request(method, path, Connection="close"))
                told.append(await asyncio.wait_for(reader.read(), TIMEOUT))
                writer.close()
                await writer.wait_closed()
        return told

    by_head, by_get = asyncio.run(scenario())
    head, _, body = by_head.partition(b"\r\n\r\n")
    assert (int(head.split()[1]), body) == (status, b"")
    if status == 200:
        assert head == by_get.partition(b"\r\n\r\n")[0]
        assert by_get.partition(b"\r\n\r\n")[2]


def test_a_body_up_to_the_limit_is_taken(tmp_path: Path, silent_notifier: Notifier) -> None:
    body = json.dumps({"host": "a"}).encode().ljust(BODY_LIMIT)

    (answer,) = ask(tmp_path, silent_notifier, request("POST", "/add-hive", body))

    assert answer.status == 202


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    asked = request("POST", "/add-hive", Content_Length=str(10 * 2**20))

    (answer,) = ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)
    assert answer.json["type"] == "urn:rbee:problem:too-large"
    assert answer.json["hint"] == f"Send at most {BODY_LIMIT} bytes."


def test_a_body_that_grows_too_large_is_refused(tmp_path: Path, silent_notifier: Notifier) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    asked = request("POST", "/add-hive", Transfer_Encoding="chunked") + chunk * 5

    (answer,) = ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)


def test_an_error_of_ours_has_its_own_status_and_hint(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def fail(_request: Request) -> Health:
        raise CatalogFailed("the disk is full", hint="Make room.")

    (answer,) = ask(tmp_path, silent_notifier, request("GET", "/health"), handlers={QueenRoutes.HEALTH: fail})

    assert (answer.status, answer.headers["content-type"]) == (500, PROBLEM)
    assert (answer.json["detail"], answer.json["hint"]) == ("the disk is full", "Make room.")


def test_an_unforeseen_error_is_told_as_such_and_keeps_its_traceback_in_the_journal(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: Request) -> Health:
        raise ZeroDivisionError("a secret")

    (answer,) = ask(tmp_path, silent_notifier, request("GET", "/health"), handlers={QueenRoutes.HEALTH: fail})

    assert (answer.status, answer.headers["content-type"]) == (500, PROBLEM)
    assert answer.json["detail"] == "an error that nobody foresaw"
    assert b"secret" not in answer.content
    ours, traced = caplog.records
    assert ours.getMessage() == "GET /health failed in a way that nobody foresaw"
    assert traced.exc_info
    assert traced.exc_info[0] is ZeroDivisionError


# Stories


async def two_then_wait() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"
    await asyncio.Event().wait()


async def next_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT), 16)
    return (await asyncio.wait_for(reader.readexactly(size + 2), TIMEOUT))[:-2]


def test_a_story_is_told_as_it_happens_and_ends_when_it_ends(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    go_on = asyncio.Event()

    async def story() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await go_on.wait()
        yield b"data: 2\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async def scenario() -> tuple[str, list[bytes]]:
        async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode().lower()
            chunks = [await next_chunk(reader)]
            go_on.set()
            chunks += [await next_chunk(reader), await next_chunk(reader)]
            writer.close()
            await writer.wait_closed()
            return head, chunks

    head, chunks = asyncio.run(scenario())
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert "cache-control: no-store" in head
    assert "content-length" not in head
    assert chunks == [b"data: 1\n\n", b"data: 2\n\n", b""]


def test_a_reader_who_leaves_ends_the_telling(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def story() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def events(_request: Request) -> Response:
            return event_stream(story())

        async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            await asyncio.wait_for(reader.readuntil(b"data: 1"), TIMEOUT)
            writer.close()
            await writer.wait_closed()
            await asyncio.wait_for(ended.wait(), TIMEOUT)

    asyncio.run(scenario())


def test_a_story_that_breaks_keeps_its_traceback_in_the_journal(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise ZeroDivisionError

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async def scenario() -> bytes:
        async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            told = await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
            await writer.wait_closed()
            return told

    told = asyncio.run(scenario())

    assert b"data: 1" in told
    assert not told.endswith(b"0\r\n\r\n"), "a story that broke must not look like one that ended"
    assert ZeroDivisionError in [record.exc_info[0] for record in caplog.records if record.exc_info]


# Beginning and ending


def heard(receiver: socket.socket) -> list[bytes]:
    """What systemd has been told so far."""
    receiver.setblocking(False)
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(receiver.recv(4096))
    return messages


def test_systemd_hears_ready_then_stopping_then_stopped(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    async def scenario() -> list[bytes]:
        async with served(app(), tmp_path / "s", notifier):
            await raw(tmp_path / "s", request("GET", "/health"))
            return heard(systemd_socket)

    before = asyncio.run(scenario())

    assert before == [b"READY=1\nSTATUS=all is well"]
    assert heard(systemd_socket) == [b"STOPPING=1\nSTATUS=stopping", b"STATUS=stopped"]


def test_who_connects_as_soon_as_ready_is_said_is_served(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    async def scenario() -> int:
        systemd_socket.setblocking(False)
        told_to_stop = asyncio.Event()
        with listen(tmp_path / "s") as listener:
            serving = asyncio.ensure_future(
                serve(
                    app(), [listener], notifier, told_to_stop,
                    status=lambda: "", started=lambda: None, stopping=nothing,
                )
            )  # fmt: skip
            ready = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(systemd_socket, 4096), TIMEOUT
            )
            assert ready.startswith(b"READY=1")
            answer = await raw(tmp_path / "s", request("GET", "/health"))
            told_to_stop.set()
            await asyncio.wait_for(serving, TIMEOUT)
        return answer.status

    assert asyncio.run(scenario()) == 200


def test_a_socket_that_cannot_be_served_is_never_called_ready(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    began = False

    def started() -> None:
        nonlocal began
        began = True

    async def scenario() -> None:
        left, right = socket.socketpair()
        with left, right, pytest.raises(OSError, match="Invalid argument"):
            await serve(
                app(), [left], notifier, asyncio.Event(),
                status=lambda: "all is well", started=started, stopping=nothing,
            )  # fmt: skip

    asyncio.run(scenario())

    assert not began
    assert [message for message in heard(systemd_socket) if b"READY" in message] == []


def test_the_sockets_are_still_served_while_it_is_stopping(tmp_path: Path, silent_notifier: Notifier) -> None:
    statuses = []

    async def stopping() -> None:
        statuses.append((await raw(tmp_path / "s", request("GET", "/health"))).status)

    async def scenario() -> None:
        async with served(app(), tmp_path / "s", silent_notifier, stopping=stopping):
            pass

    asyncio.run(scenario())

    assert statuses == [200]


def test_a_stream_ends_at_once_when_the_server_stops(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def scenario() -> tuple[bytes, float]:
        end = asyncio.Event()

        async def story() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await end.wait()
            yield b"data: end\n\n"

        async def events(_request: Request) -> Response:
            return event_stream(story())

        async def stopping() -> None:
            end.set()

        async with served(
            app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier, stopping=stopping
        ) as stop:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            await asyncio.wait_for(reader.readuntil(b"data: 1"), TIMEOUT)
            began = asyncio.get_running_loop().time()
            await stop()
            took = asyncio.get_running_loop().time() - began
            told = await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
            await writer.wait_closed()
            return told, took

    told, took = asyncio.run(scenario())

    assert b"data: end\n\n" in told
    assert told.endswith(b"0\r\n\r\n")
    assert took < rbee.server.GRACE


def test_a_request_that_does_not_end_holds_the_server_for_its_grace_only(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server, "GRACE", 0.1)

    async def events(_request: Request) -> Response:
        return event_stream(two_then_wait())

    async def scenario() -> None:
        async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier) as stop:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            await asyncio.wait_for(reader.readuntil(b"data: 2"), TIMEOUT)
            await stop()
            writer.close()

    asyncio.run(scenario())


def test_an_idle_connection_does_not_hold_the_server(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def scenario() -> tuple[bytes, float]:
        async with served(app(), tmp_path / "s", silent_notifier) as stop:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request("GET", "/health"))
            await asyncio.wait_for(read_answer(reader), TIMEOUT)
            began = asyncio.get_running_loop().time()
            await stop()
            took = asyncio.get_running_loop().time() - began
            rest = await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
            await writer.wait_closed()
            return rest, took

    rest, took = asyncio.run(scenario())

    assert rest == b""
    assert took < rbee.server.GRACE


def test_the_watchdog_is_fed_while_it_serves(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def scenario() -> int:
        async with served(app(), tmp_path / "s", notifier):
            systemd_socket.setblocking(False)
            fed = 0
            while fed < 3:
                message = await asyncio.wait_for(
                    asyncio.get_running_loop().sock_recv(systemd_socket, 4096), TIMEOUT
                )
                fed += message == b"WATCHDOG=1"
            return fed

    assert asyncio.run(scenario()) == 3


def test_without_a_watchdog_none_is_fed(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)

    async def scenario() -> None:
        async with served(app(), tmp_path / "s", notifier):
            await raw(tmp_path / "s", request("GET", "/health"))

    asyncio.run(scenario())

    assert b"WATCHDOG=1" not in heard(systemd_socket)


# A daemon from its first line to its exit status

DAEMON = """
import asyncio, os, sys
from rbee.errors import BadConfig, CatalogUnusable
from rbee.narration import QUEEN_FAILED
from rbee.server import run_daemon, stop_signal

async def run(notifier, journal):
    {body}

sys.exit(run_daemon("queen-rbee", QUEEN_FAILED, run))
"""


def run_as_daemon(systemd_socket: socket.socket, body: str) -> tuple[int, str, list[bytes]]:
    run = subprocess.run(
        [sys.executable, "-c", DAEMON.format(body=body)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
        timeout=30,
    )
    return run.returncode, run.stderr, heard(systemd_socket)


def test_a_daemon_that_ends_well_exits_0(systemd_socket: socket.socket) -> None:
    assert run_as_daemon(systemd_socket, "notifier.status('done')") == (0, "", [b"STATUS=done"])


def test_a_daemon_says_in_its_status_and_its_log_why_it_cannot_run(systemd_socket: socket.socket) -> None:
    code, log, told = run_as_daemon(systemd_socket, "raise CatalogUnusable('it is damaged', hint='mv it')")

    assert code == 78
    assert told == [b"STATUS=it is damaged; try: mv it"]
    # To stderr only where there is no journal.
    assert log in ("", "<3>queen-rbee cannot run: it is damaged; try: mv it\n")


def test_an_error_that_nobody_foresaw_keeps_its_traceback(systemd_socket: socket.socket) -> None:
    code, log, told = run_as_daemon(systemd_socket, "1 / 0")

    assert code == 1
    assert told == [b"STATUS=an error that nobody foresaw: ZeroDivisionError('division by zero')"]
    assert "Traceback" in log


def test_sigterm_is_heard(systemd_socket: socket.socket) -> None:
    body = "stop = stop_signal(); os.kill(os.getpid(), 15); await asyncio.wait_for(stop.wait(), 5)"

    assert run_as_daemon(systemd_socket, body)[0] == 0


def test_each_line_of_the_log_has_its_level(systemd_socket: socket.socket) -> None:
    body = "import logging; logging.getLogger('rbee').error('one\\ntwo'); logging.getLogger('x').warning('w')"

    assert run_as_daemon(systemd_socket, body)[1] == "<3>one\n<3>two\n<4>w\n"


def test_what_the_log_repeats_of_a_request_is_escaped(systemd_socket: socket.socket) -> None:
    body = r"import logging; logging.getLogger('rbee').error('at /\x1b[2J\x9b\u202e\n/\ud800')"

    assert run_as_daemon(systemd_socket, body)[1] == "<3>at /\\x1b[2J\\x9b\\u202e\n<3>/\\ud800\n"


def test_what_an_answer_repeats_of_a_request_is_escaped(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = ask(tmp_path, silent_notifier, request("GET", "/%1B%5B2J%C2%9B%E2%80%AE%7F%C3%BC"))

    assert answer.json["detail"] == "there is nothing at /\x1b[2J\x9b\u202e\x7fü"
    assert answer.content.isascii()
    assert answer.content.decode().isprintable()


def test_the_hive_s_routes_are_served_the_same_way(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def stop(_request: Request) -> Health:
        return Health("ok", "1")

    (answer,) = ask(
        tmp_path, silent_notifier, request("POST", "/shutdown", b""), handlers={HiveRoutes.SHUTDOWN: stop}
    )

    assert answer.status == 202


def test_nothing_is_logged_for_requests_that_go_well(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ask(tmp_path, silent_notifier, request("GET", "/health"), request("GET", "/nowhere"))

    assert caplog.records == []

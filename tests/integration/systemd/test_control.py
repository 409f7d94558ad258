"""The client of queen-rbee-control.socket, on a real socket; the service behind it is tried in machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.errors import RbeeError, Stopping, TimedOut, UnitFailed
from rbee.scope import HIVE_UNIT, SYSTEM, TARGET
from rbee.systemd.control import ANSWER_BYTES, Control, HiveControl
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)

Answers = Callable[[bytes], bytes | None]


@asynccontextmanager
async def a_control(folder: Path, answers: Answers) -> AsyncIterator[Control]:
    """`answers` makes an answer of a request's line; None: no answer and no end."""
    control = Control(SYSTEM._replace(runtime=folder))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = answers(await reader.readline())
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / "control.sock")
    try:
        yield control
    finally:
        server.close()


async def test_a_request_is_a_line_and_its_answer_the_job(tmp_path: Path) -> None:
    requests: list[bytes] = []

    def answers(request: bytes) -> bytes:
        requests.append(request)
        return b"done\n" if request.startswith(b"reset") else b'o "/org/freedesktop/systemd1/job/42"\ndone\n'

    async with a_control(tmp_path, answers) as control:
        assert await control.ask("start", HIVE_UNIT) == "/org/freedesktop/systemd1/job/42"
        assert await control.ask("stop", TARGET) == "/org/freedesktop/systemd1/job/42"
        assert await control.ask("reset-failed", HIVE_UNIT) == ""
    assert requests == [
        b"start rbee-hive.service\n",
        b"stop rbee.target\n",
        b"reset-failed rbee-hive.service\n",
    ]


async def test_a_connection_that_was_made_ahead_is_that_of_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[bytes] = []

    def answers(request: bytes) -> bytes:
        served.append(request)
        return b"done\n"

    async with a_control(tmp_path, answers) as control:
        control.prepare()
        await control.ask("reset-failed", HIVE_UNIT)
        await control.ask("reset-failed", HIVE_UNIT)
        assert served == [b"reset-failed rbee-hive.service\n"] * 2

        monkeypatch.setattr("rbee.systemd.control.AHEAD_TIMEOUT", 0.01)
        control.prepare()
        await until(lambda: served[2:] == [b""])
        await control.ask("reset-failed", HIVE_UNIT)

    control.prepare()  # nobody listens any more
    with pytest.raises(UnitFailed, match="does not answer"):
        await control.ask("reset-failed", HIVE_UNIT)


DESTRUCTIVE = (
    "Transaction for rbee-hive.service/start is destructive (rbee-hive.service has 'stop' job queued, "
    "but 'start' is included in transaction)."
)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (f"Call failed: {DESTRUCTIVE}\n", Stopping, "starting rbee-hive.service: it is being stopped ("),
        ("Call failed: Unit rbee-hive.service not found.\n", UnitFailed, "systemd has no such unit"),
        ("Call failed: Unit rbee-hive.service is masked.\n", UnitFailed, "the unit is masked"),
        ("Call failed: Connection timed out\n", TimedOut, "no answer within 30 s"),
        ("Failed to connect to bus: No such file\n", UnitFailed, "ended with Failed to connect to bus"),
        ("", UnitFailed, "ended with no answer"),
        ('o "/org/freedesktop/systemd1/job/42"\n', UnitFailed, "ended with o"),
        ("x" * (ANSWER_BYTES + 1), UnitFailed, "ended with xxx"),
    ],
)
async def test_a_refusal_has_systemd_s_reason(
    tmp_path: Path, answer: str, kind: type[RbeeError], said: str
) -> None:
    async with a_control(tmp_path, lambda request: answer.encode()) as control:
        with pytest.raises(kind) as caught:
            await control.ask("start", HIVE_UNIT)
    assert said in caught.value.message
    assert caught.value.hint


async def test_a_socket_that_is_gone_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(UnitFailed, match=r"control.socket does not answer \(No such file") as caught:
        await Control(SYSTEM._replace(runtime=tmp_path)).ask("stop", HIVE_UNIT)
    assert "sudo systemctl restart queen-rbee-control.socket" in str(caught.value.hint)


async def test_an_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.systemd.control.ANSWER_TIMEOUT", 0.05)
    async with a_control(tmp_path, lambda request: None) as control:
        with pytest.raises(TimedOut, match="starting rbee-hive.service: no answer within"):
            await control.ask("start", HIVE_UNIT)


async def test_the_hive_s_own_socket_has_its_name_and_the_last_lines_of_a_worker(tmp_path: Path) -> None:
    control = HiveControl(SYSTEM._replace(runtime=tmp_path))
    with pytest.raises(UnitFailed, match=r"hive-control.socket does not answer \(No such file"):
        await control.ask("start", "rbee-worker@bee-1.service")
    assert await control.log("rbee-worker@bee-1.service") == []
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        writer.write(b"Call failed: no\n" if b"other" in requests[-1] else b"one\n\xff Call failed: two\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "hive-control.sock")
    try:
        assert await control.log("rbee-worker@bee-1.service") == ["one", "\ufffd Call failed: two"]
        assert await control.log("other.service", (1700000000, 1700000001)) == []
    finally:
        server.close()
    assert requests == [b"log rbee-worker@bee-1.service\n", b"log other.service 1700000000 1700000001\n"]

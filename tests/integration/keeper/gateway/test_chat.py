"""A client of the gateway."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import rbee.keeper.gateway.chat
from rbee.errors import (
    BadInput,
    Disconnected,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    TooMany,
    UnknownModel,
    Unreachable,
)
from rbee.gateway.openai import error_content
from rbee.keeper.gateway.chat import Gateway, Request, Said, Waits, refusal
from rbee.keeper.work import Deadline
from rbee.scope import SYSTEM
from tests.integration.keeper.played_gateway import DONE, PlayedGateway, chunk, gateway_at, problem

ASKED = Request("bee", "who are you?", "be short", 7)


def client(path: Path, left: Callable[[float], float] = lambda most: most) -> Gateway:
    return Gateway(path, SYSTEM, left)


def test_an_answer_comes_in_parts_after_what_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    events = chunk("I am ") + chunk("bee – one.") + b'data: {"choices": [], "usage": {}}\n\n'
    whole = b": loading bee 62 %\n\n:\n\n" + events + chunk(end="stop") + DONE
    for size in (1, 7, len(whole)):
        parts = [whole[at : at + size] for at in range(0, len(whole), size)]
        with gateway_at(path, PlayedGateway(parts)) as played:
            told = list(client(path).stream(ASKED))

        assert told[0] == Waits("loading bee 62 %")
        assert "".join(part.text for part in told[1:]) == "I am bee – one."
        assert told[-1] == Said("", "stop")
        assert played.asked == [
            {
                "model": "bee",
                "messages": [
                    {"role": "system", "content": "be short"},
                    {"role": "user", "content": "who are you?"},
                ],
                "stream": True,
                "max_tokens": 7,
            }
        ]


def test_a_whole_answer_is_the_engine_s_own(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    with gateway_at(path, PlayedGateway([b'{"id": ', b"1}"])) as played:
        assert client(path).answer(Request("bee", "hello")) == b'{"id": 1}'
    assert played.asked[0]["stream"] is False


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "model_not_found", UnknownModel),
        (401, "invalid_api_key", RbeeError),
        (403, "not_permitted", NotPermitted),
        (503, "timed_out", TimedOut),
        (400, None, BadInput),
        (500, "who_knows", RbeeError),
    ],
)
def test_a_refusal_is_the_gateway_s_error(
    tmp_path: Path, status: int, code: str, kind: type[RbeeError]
) -> None:
    path = tmp_path / "openai.sock"
    with gateway_at(path, PlayedGateway([problem("not this", code)], status)):
        with pytest.raises(kind, match="not this"):
            list(client(path).stream(ASKED))
        with pytest.raises(kind, match="not this"):
            client(path).answer(ASKED)


def test_an_error_within_a_stream_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    parts = [chunk("I am"), b"data: " + problem("the engine died", "disconnected") + b"\n\n"]
    with gateway_at(path, PlayedGateway(parts)):
        stream = client(path).stream(ASKED)
        assert next(stream) == Said("I am")
        with pytest.raises(Disconnected, match="the engine died"):
            next(stream)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_stream_that_is_cut_is_an_error(tmp_path: Path, is_cut: bool) -> None:
    path = tmp_path / "openai.sock"
    with (
        gateway_at(path, PlayedGateway([chunk("I am")], is_cut=is_cut)),
        pytest.raises(Disconnected, match="in the middle of an answer" if is_cut else "answer is incomplete"),
    ):
        list(client(path).stream(ASKED))


@pytest.mark.parametrize("part", [b"data: nonsense\n\n", b"data: 7\n\n", b'data: {"choices": 7}\n\n'])
def test_what_is_no_completion_is_refused(tmp_path: Path, part: bytes) -> None:
    path = tmp_path / "openai.sock"
    with gateway_at(path, PlayedGateway([part])), pytest.raises(Unreachable):
        list(client(path).stream(ASKED))


def test_what_to_do_is_no_part_of_the_message() -> None:
    content = error_content(TooMany("it is full", hint="Try again."))
    assert (refusal(content, 503).message, refusal(content, 503).hint) == ("it is full", "Try again.")


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]", b'{"error": 7}', b'{"error": {"message": 7}}'])
def test_what_is_no_error_of_the_api_is_reported_as_that(content: bytes) -> None:
    assert isinstance(refusal(content, 502), Unreachable)


def test_a_line_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "openai.sock"
    monkeypatch.setattr(rbee.keeper.gateway.chat, "EVENT_LIMIT", 100)
    with (
        gateway_at(path, PlayedGateway([b"data: " + b"x" * 200])),
        pytest.raises(Unreachable, match="larger than 100"),
    ):
        list(client(path).stream(ASKED))


def test_nobody_who_listens_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="nobody listens on"):
        list(client(tmp_path / "openai.sock").stream(ASKED))


def test_silence_ends_at_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(TimedOut, match="--timeout"):
            list(client(path, Deadline(0.2).left).stream(ASKED))


def test_leaving_early_closes_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    has_left = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            channel, _ = listener.accept()
            with channel:
                channel.recv(65536)
                part = chunk("I am")
                channel.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                channel.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                while channel.recv(65536):
                    pass
                has_left.set()

        serving = threading.Thread(target=serve)
        serving.start()
        stream = client(path).stream(ASKED)
        assert next(stream) == Said("I am")
        stream.close()
        assert has_left.wait(5)
        serving.join()

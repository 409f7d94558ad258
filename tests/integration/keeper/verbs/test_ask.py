"""The verb ask."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from rbee.errors import BadInput
from rbee.keeper.verbs.ask import prompt_of, safe
from rbee.scope import GATEWAY_SOCKET_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.wire.models import Models
from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_gateway import DONE, PlayedGateway, chunk, gateway_at, problem
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen
from tests.unit.keeper.model_values import MODEL
from tests.unit.played_systemd import INACTIVE, NOT_FOUND, PlayedBus

Ask = Callable[..., Ran]


@pytest.fixture
def ask(bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path) -> Callable[..., Ran]:
    def run(played: PlayedGateway, *arguments: str) -> Ran:
        with gateway_at(tmp_path / "openai.sock", played):
            return rbeectl("ask", *arguments)

    return run


def test_the_answer_is_all_there_is_on_stdout(ask: Ask, bus: PlayedBus) -> None:
    story = b": bee needs 0.1 GiB\n\n: bee needs 0.1 GiB\n\n: loading bee 62 %\n\n"
    played = PlayedGateway([story, chunk("I am "), chunk("bee one."), chunk(end="stop"), DONE])

    assert ask(played, "bee", "who", "are you?") == Ran(
        0, "I am bee one.\n", "bee needs 0.1 GiB\nloading bee 62 %\n"
    )
    assert ask(played, "bee", "--quiet", "hello") == Ran(0, "I am bee one.\n", "")
    assert played.asked[0]["messages"] == [{"role": "user", "content": "who are you?"}]
    assert bus.asked == []


def test_json_is_the_engine_s_own(ask: Ask) -> None:
    assert ask(PlayedGateway([b'{"id": 1}\n']), "bee", "--json", "hello").json == [{"id": 1}]


def test_an_answer_at_its_limit_says_how_to_get_more(ask: Ask) -> None:
    ran = ask(PlayedGateway([chunk("I"), chunk(end="length"), DONE]), "bee", "--max-tokens", "1", "hello")

    assert (ran.code, ran.out) == (0, "I\n")
    assert "  try: Raise --max-tokens\n" in ran.err


def test_an_answer_that_breaks_keeps_what_came(ask: Ask) -> None:
    ran = ask(PlayedGateway([chunk("I am")]), "bee", "hello")

    assert (ran.code, ran.out) == (1, "I am\n")
    assert "rbeectl: the answer is incomplete" in ran.err


def test_a_model_that_is_mistyped_gets_similar_names(
    ask: Ask, awake: PlayedBus, with_queen: WithQueen
) -> None:
    async def models(_request: Request) -> Models:
        return Models((MODEL,))

    played = PlayedGateway([problem("model 'bea' is not here", "model_not_found")], 404)
    ran = with_queen({QueenRoutes.MODELS: models}, lambda: ask(played, "bea", "hello"))

    assert ran.code == 4
    assert "model 'bea' is not in the model catalog; did you mean bee?" in ran.err
    # One that is there is refused for the gateway's own reason.
    ran = with_queen({QueenRoutes.MODELS: models}, lambda: ask(played, "bee", "hello"))
    assert "rbeectl: model 'bea' is not here" in ran.err


def test_a_socket_that_is_off_is_opened_first(ask: Ask, bus: PlayedBus) -> None:
    bus.states[GATEWAY_SOCKET_UNIT] = INACTIVE

    assert ask(PlayedGateway([chunk("I"), DONE]), "bee", "hello").code == 0
    assert bus.asked == [("start", GATEWAY_SOCKET_UNIT)]


def test_a_queen_that_is_off_is_woken(ask: Ask, bus: PlayedBus) -> None:
    bus.states[QUEEN_SOCKET_UNIT] = INACTIVE

    assert ask(PlayedGateway([chunk("I"), DONE]), "bee", "hello").code == 0
    assert ("start", QUEEN_UNIT) in bus.asked


def test_without_a_gateway_its_package_is_named(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.states[GATEWAY_SOCKET_UNIT] = NOT_FOUND

    ran = rbeectl("ask", "bee", "hello")

    assert ran.code == 3
    assert "rbee-gateway_*.deb" in ran.err


def test_a_prompt_is_typed_or_read_or_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(*words: str, stdin: bytes = b"", is_terminal: bool = True) -> str:
        double = SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: is_terminal)
        monkeypatch.setattr(sys, "stdin", double)
        return prompt_of(words)

    assert typed("who", "are you?") == "who are you?"
    assert typed("-", stdin=b"hello\n") == "hello"
    assert typed("sum", "up:", "-", stdin=b"a\nb\n") == "sum up:\n\na\nb"
    assert typed(stdin=b"hello", is_terminal=False) == "hello"
    for words in ((), (" ",), ("\udcff",)):
        with pytest.raises(BadInput, match="PROMPT"):
            typed(*words)
    for stdin in (b"", b"\n", b"\xff\xfe"):
        with pytest.raises(BadInput, match="PROMPT"):
            typed("-", stdin=stdin)


def test_an_answer_steers_no_terminal() -> None:
    assert safe("a\tb\n👩‍🚀\x1b[2J") == "a\tb\n👩‍🚀\\x1b[2J"

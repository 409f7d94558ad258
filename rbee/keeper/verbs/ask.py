"""rbeectl ask: one question to a model, through the gateway, as any OpenAI client asks."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click

from rbee.errors import BadInput, UnknownModel
from rbee.keeper.gateway.sockets import have_listening, no_gateway
from rbee.keeper.models.catalog import Models
from rbee.keeper.options import changing, in_session
from rbee.keeper.output.lines import Terminal
from rbee.keeper.permission import explained
from rbee.keeper.queen import wake
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.narration import Teller
from rbee.text import NotUtf8, decoded, printable, printable_lines, shown_size
from rbee.wire.types import ModelName

if TYPE_CHECKING:
    from rbee.client.queen import QueenClient
    from rbee.keeper.gateway.chat import Gateway, Request
    from rbee.keeper.gateway.story import Story

PROMPT_LIMIT = 32 * 1024 * 1024
"""Bytes of a prompt from standard input: the most that the gateway takes."""

KEPT = ("\t", "\u200d")
"""Characters that a terminal gets although they are not printable: the tab, and the joiner of emoji."""

_AT_KEPT = re.compile(f"([{''.join(KEPT)}])")


@click.command(short_help="Ask MODEL, and print its answer as it comes.")
@click.argument("model")
@click.argument("prompt", nargs=-1, metavar="PROMPT...|-")
@click.option("--system", metavar="TEXT", help="Instructions before the prompt.")
@click.option(
    "--max-tokens", type=click.IntRange(1, 2**31), metavar="N", help="End the answer after N tokens."
)
@changing
@in_session
def ask(
    session: Session, model: str, prompt: tuple[str, ...], system: str | None, max_tokens: int | None
) -> None:
    """Ask MODEL, and print its answer as it comes; '-' reads the prompt, or its end, from standard input.

    A sleeping model is woken, which is narrated on standard error. Ctrl-C ends the request.
    """
    from rbee.keeper.gateway.chat import Gateway, Request  # only to ask

    request = Request(checked(ModelName, "MODEL", model), prompt_of(prompt), system, max_tokens)
    with session.queen() as queen:
        work = queen.work
        if not have_listening(work):
            raise no_gateway()
        if queen.state() == "off":
            wake.have_awake(work)  # the gateway's own connection wakes one that is asleep
        gateway = Gateway(work.scope.gateway_socket, work.scope, work.left)
        try:
            with explained(work.scope):
                answer(session, gateway, request, queen.client)
        except UnknownModel as error:
            if Models(queen).find(model) is None:
                raise Models(queen).unknown(model) from error
            raise


def prompt_of(words: tuple[str, ...]) -> str:
    """The prompt that was typed, with standard input in place of '-' at its end. BadInput if it is empty."""
    if not words and sys.stdin is not None and not sys.stdin.isatty():
        words = ("-",)
    *typed, last = words or ("",)
    text = " ".join([*typed, last])
    if last == "-":
        text = "\n\n".join(filter(None, [" ".join(typed), _from_stdin()]))
    if not text.strip():
        hint = "Add what to ask, such as 'who are you?', or - to read it from standard input."
        raise BadInput("PROMPT must not be empty", hint=hint, field="PROMPT")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput("PROMPT is not UTF-8", field="PROMPT") from error
    return text


def _from_stdin() -> str:
    content = sys.stdin.buffer.read(PROMPT_LIMIT + 1)
    if len(content) > PROMPT_LIMIT:
        raise BadInput(f"PROMPT may have at most {shown_size(PROMPT_LIMIT)}", field="PROMPT")
    try:
        return decoded(content).rstrip("\n")
    except NotUtf8 as error:
        raise BadInput(f"PROMPT: {error}", field="PROMPT") from error


def answer(session: Session, gateway: Gateway, request: Request, queen: QueenClient) -> None:
    """Print the answer: as JSON whole, otherwise in parts as they come, with the story of a cold start."""
    from rbee.keeper.gateway.story import Story

    if session.as_json:
        click.echo(gateway.answer(request).decode(errors="replace").rstrip("\n"))
        return
    has_colour = session.has_colour and session.screen.has_colour and sys.stderr.isatty()
    teller = Teller() if session.is_quiet else Terminal(sys.stderr, colour=has_colour)
    story = Story(queen, teller, request.model)
    if not session.is_quiet:
        story.begin()
    try:
        end = stream(session, gateway, request, story)
    finally:
        story.end()
    if end == "length":
        session.warn(
            "the answer was cut: it reached --max-tokens, or the end of the context",
            f"Raise --max-tokens\nOr: {session.scope.rbeectl(f'serve {request.model} --context N')}",
        )


def stream(session: Session, gateway: Gateway, request: Request, story: Story) -> str | None:
    """Print the parts of the answer, and on stderr what it waits for; return why it ended, such as 'stop'."""
    from rbee.keeper.gateway.chat import Waits

    end, last, waited, is_terminal = None, "\n", "", sys.stdout.isatty()
    try:
        with closing(gateway.stream(request)) as parts:
            for part in parts:
                if isinstance(part, Waits):
                    # The same is repeated to show that the connection lives.
                    if part.text != waited and not session.is_quiet and not story.has_told(part.text):
                        click.echo(printable(part.text), err=True)
                    waited = part.text
                    continue
                end = part.end or end
                if part.text:
                    story.settle()
                    story.end()
                    last = part.text
                    sys.stdout.write(safe(last) if is_terminal else last)
                    sys.stdout.flush()
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")  # also before an error, or after Ctrl-C
            sys.stdout.flush()
    return end


def safe(text: str) -> str:
    """A part of an answer, with what would control the terminal escaped."""
    return "".join(part if part in KEPT else printable_lines(part) for part in _AT_KEPT.split(text))

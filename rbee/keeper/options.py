"""The options that verbs share. Each may come before the verb or after it, and is kept in the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rbee.keeper.session import Session
from rbee.keeper.typed import did_you_mean
from rbee.text import parse_size, parse_span

Verb = TypeVar("Verb", bound=Callable[..., Any])
Decorator = Callable[[Verb], Verb]


class Suggesting(click.Group):
    """A group that suggests similar verbs for one that was mistyped."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            # Not by click, which takes a verb that begins with a punctuation mark for an option.
            near = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"No such command '{args[0]}'{near or '.'}")
        return super().resolve_command(ctx, args)


def _flag(name: str, field: str, value: bool, text: str, *, short: str = "", hidden: bool = False) -> Any:
    def keep(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
        if is_given:
            setattr(context.obj, field, value)

    return click.option(
        *filter(None, (short, name)),
        is_flag=True, is_eager=True, expose_value=False, callback=keep, help=text, hidden=hidden,
    )  # fmt: skip


def span(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """The callback of an option that is a time span of systemd.time(7); in seconds."""
    if text is None:
        return None
    try:
        seconds = parse_span(text)
    except ValueError as error:
        raise click.BadParameter(f"'{text:.100}' {error}") from error
    if not seconds:
        raise click.BadParameter("must be more than 0")
    return seconds


def bytes_of(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """The callback of an option that is a size, as systemd takes it; in bytes."""
    if text is None:
        return None
    try:
        count = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"'{text:.100}' {error}") from error
    if not 0 < count <= 2**53:
        raise click.BadParameter("must be more than 0, and at most 8192T")
    return count


def _keep_timeout(context: click.Context, option: click.Parameter, text: str | None) -> None:
    seconds = span(context, option, text)
    if seconds is not None:
        context.obj.timeout = seconds


def _keep_waits(context: click.Context, _option: click.Parameter, waits: bool | None) -> None:
    if waits is not None:
        context.obj.waits = waits


def _together(*options: Any) -> Decorator[Any]:
    """One decorator out of several; --help shows them in this order."""

    def decorate(verb: Any) -> Any:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


_timeout = click.option(
    "--timeout", metavar="SPAN", expose_value=False, is_eager=True, callback=_keep_timeout,
    help="Give up after this time, such as 5s.",
)  # fmt: skip
_common = (
    _flag("--json", "as_json", True, "Print JSON, for programs."),
    _flag("--quiet", "is_quiet", True, "Print errors only.", short="-q"),
)
_tables = (
    _flag("--no-legend", "has_legend", False, "Print no header and no hints, for scripts."),
    _flag("--no-pager", "has_pager", False, "Do not pipe long output into a pager."),
    _flag("--full", "is_full", True, "Do not cut lines to the width of the terminal."),
)


def _seldom(*, hidden: bool) -> tuple[Any, ...]:
    return (
        _flag(
            "--no-color", "has_colour", False, "Print without colour on a terminal, too, as NO_COLOR=1 does.",
            hidden=hidden,
        ),
        _flag("--debug", "is_debugging", True, "Show the traceback of an error.", hidden=hidden),
    )  # fmt: skip


everywhere = _together(*_common, *_tables, _timeout, *_seldom(hidden=False))
"""The options of rbeectl itself, before the verb."""

common = _together(*_common, *_seldom(hidden=True))
"""For any verb."""

watching = _together(*_common, *_seldom(hidden=True))
"""For a verb that runs until it is interrupted."""

looking = _together(*_common, *_tables, _timeout, *_seldom(hidden=True))
"""For a verb that prints a table or a page."""

changing = _together(*_common, _timeout, *_seldom(hidden=True))
"""For a verb that changes something without a job: there is nothing to wait for."""

doing = _together(
    *_common,
    click.option(
        "--wait/--no-wait", default=None, expose_value=False, is_eager=True, callback=_keep_waits,
        help="Wait until it is done (the default), or do not.",
    ),
    _timeout,
    *_seldom(hidden=True),
)  # fmt: skip
"""For a verb that starts a job."""

in_session = click.make_pass_decorator(Session)


def _selector(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
    from rbee.wire.selectors import Selector  # only if -l is given

    return Selector() if text is None else Selector.parse(text, "-l")


selecting = click.option(
    "-l", "--selector", metavar="LABELS", callback=_selector,
    help="Select hives by labels: KEY=VALUE, KEY!=VALUE, KEY, !KEY, separated by commas.",
)  # fmt: skip
"""For a verb that lists hives."""

"""The help of rbeectl, and of each verb, for people who type it as a verb."""

from __future__ import annotations

import click

from rbee.keeper.options import common, in_session
from rbee.keeper.session import Session


@click.command(short_help="Show the help of VERB, as VERB --help does.")
@click.argument("verb", nargs=-1)
@common
@in_session
@click.pass_context
def help(context: click.Context, session: Session, verb: tuple[str, ...]) -> None:  # noqa: A001  # the verb's name
    """Show the help of VERB, as VERB --help does, or of rbeectl itself."""
    context = context.find_root()
    command: click.Command = context.command
    for word in verb:
        if not isinstance(command, click.Group):
            context.fail(f"'{context.info_name}' has no verbs, and no help of '{word:.100}'")
        name, found, _ = command.resolve_command(context, [word])
        assert found is not None, name
        command, context = found, click.Context(found, info_name=name, parent=context)
    text = command.get_help(context)
    if session.as_json:
        session.tell_json({"text": text})
    else:
        session.say(text)

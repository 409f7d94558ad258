"""rbeectl help: the help of rbeectl or of a verb, as --help prints it."""

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
            context.fail(f"'{context.info_name}' has no verb '{word:.100}'")
        name, verb_command, _ = command.resolve_command(context, [word])
        assert verb_command is not None, name
        command, context = verb_command, click.Context(verb_command, info_name=name, parent=context)
    text = command.get_help(context)
    if session.as_json:
        session.tell_json({"text": text})
    else:
        session.say(text)

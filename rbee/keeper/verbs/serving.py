"""rbeectl serve, unserve, list-workers, place and list-engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rbee.errors import BadInput, NotRunning, RbeeError, UnknownEngine, UnknownHive
from rbee.keeper.models.catalog import Models
from rbee.keeper.options import changing, doing, in_session, looking, span
from rbee.keeper.output import models as drawn
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.keeper.typed import checked, did_you_mean
from rbee.keeper.verbs.hives import print_begun
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.models import CONTEXT_MAX
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import ModelName, WordOrEmpty

if TYPE_CHECKING:
    from rbee.keeper.queen.queen import Queen
    from rbee.wire.models import ModelView

IDLE_MAX = 365 * 86400


@click.command(short_help="Have MODEL answer requests, from now on.")
@click.argument("model")
@click.option(
    "--context",
    type=click.IntRange(0, CONTEXT_MAX),
    metavar="N",
    help="Context length, in tokens; 0: the default.",
)
@click.option("--idle", callback=span, metavar="SPAN", help="Stop a worker after this time without requests.")
@click.option(
    "--pin/--no-pin",
    default=None,
    help="Keep its worker when it is idle or memory is short; --no-pin ends that.",
)
@click.option(
    "--engine", metavar="NAME", help="Use this engine, of those that list-engines shows; '': any that can."
)
@changing
@in_session
def serve(
    session: Session,
    model: str,
    context: int | None,
    idle: float | None,
    pin: bool | None,
    engine: str | None,
) -> None:
    """Have MODEL answer requests from now on. It sleeps, and costs nothing, until the first one comes.

    What is not given stays as it was set before.
    """
    from rbee.keeper.gateway.sockets import have_listening  # only to change something
    from rbee.keeper.models.changes import ModelChanges
    from rbee.wire.models import Serve

    checked(ModelName, "MODEL", model)
    if engine is not None:
        checked(WordOrEmpty, "--engine", engine)
    if idle is not None and not 1 <= idle <= IDLE_MAX:
        raise BadInput("--idle must be from 1s to 365d", field="--idle")
    how = Serve(context, None if idle is None else round(idle), pin, engine)
    with session.queen() as queen:
        queen.wake()
        problem = check_engine(queen, model, engine) if engine else None
        served = ModelChanges(queen).serve(model, how)
        is_listening = have_listening(queen.work)
    if problem is not None:
        session.warn(problem, session.scope.rbeectl("list-engines"))
    if session.as_json:
        session.tell_json({"event": "done", "model": encode(served)})
        return
    session.say(f"Model {printable(served.name)} is served: {how_served(served)}")
    scope = session.scope
    if is_listening:
        session.say(f"To ask it: {scope.rbeectl(f'ask {served.name} PROMPT')}")
        session.say(f"For any OpenAI client: {scope.gateway_socket}")


def how_served(model: ModelView) -> str:
    """What serve prints: when its worker is started, and when it is stopped."""
    if model.state != "ready":
        return f"once its file is ready; now it is {model.state} ({printable(model.reason)})"
    return f"asleep until it is asked; {drawn.idle(model)}"


def check_engine(queen: Queen, model: str, name: str) -> str | None:
    """Why the model's hive cannot use the engine of that name now, or why that is not known; None if it can.

    Raises UnknownEngine if it has none of that name, or that serves such a file, and UnknownModel.
    """
    view = Models(queen).one(model)
    unknown = f"whether {view.hive_id} has the engine {name} is not known"
    try:
        hive = next(iter(queen.ask(QueenRoutes.ENGINES, hive=view.hive_id).hives))
    except UnknownHive as error:  # the first request adds it
        return f"{unknown}: {error.message}"
    if hive.reason is not None:
        return f"{unknown}: {hive.reason}"
    found = next((engine for engine in hive.engines if engine.name == name), None)
    scope = queen.work.scope
    if found is None:
        near = did_you_mean(name, (engine.name for engine in hive.engines))
        text = f"{view.hive_id} has no engine {name}{near}"
        raise UnknownEngine(text, hint=scope.rbeectl("list-engines"), field="--engine")
    if view.head is not None and view.head.format not in found.formats:
        text = (
            f"the engine {name} serves {' and '.join(found.formats)}, and {view.name} is {view.head.format}"
        )
        raise UnknownEngine(text, hint=scope.rbeectl("list-engines"), field="--engine")
    return f"the engine {name} cannot be used now: {found.problem}" if found.problem else None


@click.command(short_help="Stop the workers of MODEL, and start no more.")
@click.argument("model")
@doing
@in_session
def unserve(session: Session, model: str) -> None:
    """Stop the workers of MODEL, and start none for it any more. Its requests in progress are cut."""
    from rbee.keeper.models.changes import ModelChanges  # only to change something

    with session.queen() as queen:
        changes = ModelChanges(queen)
        if not session.waits:
            print_begun(session, changes.begin_unserving(model))
            return
        done = changes.unserve(model)
        near = "" if done.was_there else Models(queen).near(model)
    if session.as_json:
        session.tell_json({"event": "done", "model": encode(done.model), "was_there": done.was_there})
    elif done.was_there:
        session.say(f"Model {printable(model)} is not served any more")
    else:
        session.say(f"Model {printable(model)} was not served{near}")


@click.command("list-workers", short_help="List the workers of MODEL, or all.")
@click.argument("model", required=False)
@looking
@in_session
def list_workers(session: Session, model: str | None) -> None:
    """List the workers of MODEL, or of all models, and the models that are served without a worker."""
    with session.queen() as queen:
        models = Models(queen)
        if model is not None:
            model = models.one(model).name
        workers = models.workers(model)
    if session.as_json:
        session.tell_json({"workers": [encode(worker) for worker in workers]})
    elif workers:
        session.show(lambda frame: drawn.workers_table(workers, tables.now_ms(), frame))
    elif session.has_legend:
        served = session.scope.rbeectl(f"serve {model or 'MODEL'}")
        session.say(f"No workers, and {model or 'no model'} is {'not ' if model else ''}served: {served}")


@click.command(short_help="Show where a worker of MODEL would run now, and why.")
@click.argument("model")
@click.option("--dry-run", is_flag=True, help="Change nothing: place never starts anything.")
@looking
@in_session
def place(session: Session, model: str, dry_run: bool) -> None:
    """Show where a worker of MODEL would run now, with the arithmetic of each device. It starts nothing: a
    worker starts when a request comes for its model.

    Exits 1 if the model fits nowhere, and 3 if it has to wait for others to end.
    """
    with session.queen() as queen:
        placement = Models(queen).placement(model)
    if session.as_json:
        session.tell_json(encode(placement))
    else:
        session.show(lambda frame: drawn.placement_page(placement, frame))
    if placement.decision in ("refuse", "wait"):
        raise SystemExit((RbeeError if placement.decision == "refuse" else NotRunning).exit_code)


@click.command("list-engines", short_help="List the engines of the hives.")
@looking
@in_session
def list_engines(session: Session) -> None:
    """List the engines of the hives that are online, which of them can be used, and what is missing."""
    with session.queen() as queen:
        engines = Models(queen).engines()
    if session.as_json:
        session.tell_json(encode(engines))
    elif engines.hives:
        session.show(lambda frame: drawn.engines_table(engines, frame))
    elif session.has_legend:
        session.say(tables.no_hives(session.scope))
